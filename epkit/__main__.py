"""Execute the notebooks of a profile with papermill, and end with the verdicts: what `make figures` calls.

Everything that could stop the work is looked at before it begins: the parameter files, then the data. A notebook whose
inputs have not changed since its last execution is not executed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import nbformat
import pandas as pd
import papermill
import xarray as xr
from dask.system import CPU_COUNT
from jupyter_client.manager import KernelManager

from . import data
from .files import CHECKOUT, StoreError, digest, replacing, writable
from .messages import ParameterError, hint, short
from .reference.exactness import stored
from .study.registration import FIXED
from .study.report import primary_rows, verdict_table, verdicts, verdicts_at_published_size
from .study.tables import in_a_line, in_words
from .sweep import pool, store
from .sweep.inputs import Parser, parameter_file, parameters_cell
from .sweep.parameters import Checked, Comparison, Mechanism, Oracles, Published, Sweep, validated
from .sweep.runs import complete_store

# What epkit refuses in words; raised in a notebook, it needs no traceback of the kernel's.
REFUSALS = ParameterError, StoreError, data.DataUnavailable, pool.ClusterError
PLAIN = [refusal.__name__ for refusal in (*REFUSALS, store.Damaged)]
Experiment = Sweep | Mechanism | Oracles
DRAWN_AT_ONCE = 4  # notebooks at most, where none has anything to compute
KERNEL_ANSWERS = 120  # seconds at most
SUMMARY = "05"  # the notebook that computes nothing, and sums up all others' stores
BESIDE = (
    "The same measures and thresholds on networks of the paper's own size (notebook 09), after the steps that each\n"
    "row names. They were fixed for smaller networks, so these rows are a hint."
)
SHOWN = "study"  # the profile whose verdicts README shows
COMMITTED = ("quick", "study", "paper")  # profiles whose stores are
NOTEBOOKS, PARAMS = CHECKOUT / "notebooks", CHECKOUT / "params"
README, MARKS = (
    CHECKOUT / "README.md",
    ("<!-- results: written by `make notebooks` -->", "<!-- end of results -->"),
)


class KernelDied(RuntimeError):
    """The process that executed a notebook ended, twice; the message names the notebook."""


def main(arguments: list[str] | None = None) -> int:
    """Command line of `make figures` and `make notebooks`; 0 if everything was done."""
    parser = Parser(prog="python -m epkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    drawn = commands.add_parser("figures", help="compute what a profile lacks, draw its figures, print the verdicts")
    drawn.add_argument("--profile", default="quick", help="a folder of params/ (default: quick)")
    drawn.add_argument("--fallback", help="profile to take instead where the data sets can't be had")
    drawn.add_argument("--scheduler", help="address of a Dask cluster's to train on (default: this machine's cores)")
    drawn.add_argument("--fresh", action="store_true", help="set finished stores aside and compute them anew")
    fetched = commands.add_parser("data", help="fetch and verify data sets")
    fetched.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(data.INFO)}; default: all but kmnist")
    fetched.add_argument("--check", action="store_true", help="only look what is there: nothing is fetched")
    commands.add_parser("notebooks", help="re-execute the committed notebooks in place, and renew README's results")
    options = parser.parse_args(arguments)
    if options.command == "data":
        if unknown := [name for name in options.names if name not in data.INFO]:
            fetched.error(f"unknown data set {unknown[0]!r}; {hint(unknown[0], data.INFO)}")
        return data.main(options.names, options.check)
    try:
        if options.command == "notebooks":
            for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
                execute(notebook, notebook, {})
                print(f"executed {notebook.relative_to(CHECKOUT)}")
            before, rest = README.read_text(encoding="utf-8").split(MARKS[0])
            after = rest.split(MARKS[1])[1]
            README.write_text(f"{before}{MARKS[0]}\n{results_table(SHOWN)}{MARKS[1]}{after}", encoding="utf-8")
            (store.results("") / "SHA256SUMS").write_text(manifest(), encoding="utf-8")
            return 0
        return figures(options.profile, options.fallback, options.fresh, options.scheduler)
    except (*REFUSALS, KernelDied) as error:
        print(error, file=sys.stderr)
        return 1
    except papermill.PapermillExecutionError as error:
        # Of anything else, where it happened is needed too.
        print(error.evalue if error.ename in PLAIN else f"A notebook failed:\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. What was finished is kept; the same command goes on from there.", file=sys.stderr)
        return 130


def figures(profile: str, fallback: str | None = None, fresh: bool = False, scheduler: str | None = None) -> int:
    """Execute a profile's notebooks, in order, and print the summary."""
    started, note = time.monotonic(), ""
    work, folder = planned(profile), store.results(profile)
    instead = planned(fallback) if fallback else {}
    if scheduler is not None:
        with pool.connected(scheduler):
            pass
    # The default command asks for its data even where nothing is left to compute: a store that came with the checkout
    # is no proof that this machine can make it.
    lacking = _lacking(work, None if fresh else folder)
    needed = [e.dataset for e in (_lacking(work, None) if fallback else lacking)]
    try:
        for data_set in sorted({d for names in needed for d in ([names] if isinstance(names, str) else names)}):
            data.fetch(data_set)
    except data.DataUnavailable as error:
        if fallback is None:
            raise
        note = (
            f"Profile {fallback} instead of {profile}, on scikit-learn's digits, because data can't be had:\n{error}\n"
        )
        print(note, file=sys.stderr)
        profile, work, folder = fallback, instead, store.results(fallback)
        lacking = _lacking(work, None if fresh else folder)
    if fresh:  # all of them first, for a store lends its runs to its neighbours
        for finished in folder.glob("*.nc"):
            os.replace(finished, finished.with_suffix(".nc.old"))

    def bring_up_to_date(name: str, kernel: KernelManager | None = None) -> None:
        source, executed = NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb"
        inputs = partial(_inputs, source, work[name], folder)
        if _executed_from(executed) == inputs() and not fresh:
            print(f"{name}: up to date")
            return
        if not writable(folder):
            raise StoreError(f"{folder} is read-only, and {name} is to be executed; EPKIT_RESULTS names another")
        print(f"{name}: executing with params/{profile}/{name}.yaml")
        given = {"profile": profile, "scheduler": scheduler, **work[name]}
        execute(source, executed, given, inputs, kernel)

    if lacking:  # in order, for each computes on the whole machine, and reuses its neighbours' runs
        for name in work:
            bring_up_to_date(name)
        found = verdicts(profile)
    else:
        with _kernels() as idle, ThreadPoolExecutor(idle.qsize()) as threads:

            def draw(name: str) -> None:
                kernel = idle.get()
                try:
                    bring_up_to_date(name, kernel)
                finally:
                    idle.put(kernel)

            drawn = threads.map(draw, work)
            found = verdicts(profile)
            list(drawn)
    print(summary(profile, found, note, time.monotonic() - started))
    return 0


def planned(profile: str) -> dict[str, dict]:
    """Notebook names of a profile with all their parameters, validated; ParameterError names file, field and value."""
    known = sorted(p.name for p in PARAMS.iterdir() if p.is_dir())
    if profile not in known:
        raise ParameterError(f"PROFILE = {short(profile, 60)}: no such profile; {hint(profile, known)}")
    work: dict[str, dict] = {}
    notebooks = [path.stem for path in NOTEBOOKS.glob("*.ipynb")]
    given_files = (PARAMS / profile).glob("[!.]*.y*ml")
    for path in sorted(given_files, key=lambda path: (path.name.startswith(SUMMARY), path.name)):
        place = f"params/{profile}/{path.name}"
        if path.suffix != ".yaml" or path.stem not in notebooks:
            near = hint(path.name, [f"{name}.yaml" for name in notebooks])
            raise ParameterError(f"{place}: no notebook takes its parameters from a file of this name; {near}")
        given = parameter_file(path, place)
        declared = parameters_cell(NOTEBOOKS / f"{path.stem}.ipynb")
        for name in ("profile", "scheduler"):  # of how to compute, not of what
            declared.pop(name, None)
        if unknown := [key for key in given if key not in declared]:
            lines = [f"{place}: {short(key, 60)}: no such parameter; {hint(key, declared)}" for key in unknown]
            raise ParameterError("\n".join(lines))
        work[path.stem] = declared | given
        _experiments(path.stem, work[path.stem], place)
    if not work:
        raise ParameterError(f"params/{profile}: holds no parameter file, must hold <notebook>.yaml")
    return work


def execute(
    source: Path,
    target: Path,
    parameters: dict,
    inputs: Callable[[], str] | None = None,
    kernel: KernelManager | None = None,
) -> None:
    """Run a notebook by papermill, in a new kernel or in `kernel`; `target` is replaced when it has run to its end.

    What `inputs` returns at that end is noted in it. A failed run leaves `<target>.failed.ipynb` to look into, and
    raises PapermillExecutionError. A kernel that dies is replaced once, for what it finished is in the store; then
    KernelDied. StoreError if `target` can't be written.
    """
    with replacing(target) as temporary:
        notebook_path = temporary.with_suffix(".ipynb")
        try:
            notebook = _executed(source, notebook_path, parameters, kernel)
        except papermill.PapermillExecutionError:
            os.replace(notebook_path, target.with_suffix(".failed.ipynb"))
            raise
        finally:
            notebook_path.unlink(missing_ok=True)
        notebook.metadata.pop("papermill", None)
        if inputs:
            notebook.metadata["epkit_inputs"] = inputs()
        for cell in notebook.cells:
            cell.metadata.pop("papermill", None)
            cell.metadata.pop("execution", None)
            if "outputs" in cell:  # progress bars
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, temporary)


@contextlib.contextmanager
def _kernels() -> Iterator[SimpleQueue[KernelManager]]:
    """A kernel for each core, each for many notebooks that only draw: imports are half of what one of them takes."""
    managers = [KernelManager(kernel_name="python3") for _ in range(min(DRAWN_AT_ONCE, CPU_COUNT))]
    idle: SimpleQueue[KernelManager] = SimpleQueue()
    for manager in managers:
        idle.put(manager)
    try:
        yield idle
    finally:
        for manager in managers:
            if manager.has_kernel:
                manager.shutdown_kernel(now=True)


def _executed(
    source: Path, target: Path, parameters: dict, kernel: KernelManager | None, again: bool = True
) -> nbformat.NotebookNode:
    """What papermill makes, and writes to `target`; one kernel that dies is replaced if `again`."""
    os.environ["EPKIT_TERMINAL"] = "1"
    try:
        if kernel and kernel.has_kernel and not kernel.is_alive():
            kernel = None
        if kernel and kernel.has_kernel:  # what the last notebook left
            client = kernel.blocking_client()
            client.start_channels()
            client.execute("%reset -f", reply=True, timeout=KERNEL_ANSWERS)
            client.stop_channels()
        return papermill.execute_notebook(
            str(source), str(target), parameters, kernel_name="python3", cwd=str(CHECKOUT),
            progress_bar=False, stderr_file=sys.stderr, start_timeout=KERNEL_ANSWERS,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # not that it uses TCP, nor that it is shut down
            **({"km": kernel} if kernel else {}),
        )  # fmt: skip
    except RuntimeError as error:  # nbclient's DeadKernelError, jupyter_client's RuntimeError
        reason = str(error).strip().rstrip(".")
        died = f"{source.stem}: {reason} (killed, or too little memory?); what it finished is kept"
        if not again:
            raise KernelDied(f"{died}. The same command goes on from there.") from error
        print(f"{died}. Once more.", file=sys.stderr)
        return _executed(source, target, parameters, None, again=False)


def summary(profile: str, found: pd.DataFrame, note: str, seconds: float) -> str:
    """One screen: each claim's verdict with its numbers, and where figures and stores lie."""
    folder = store.results(profile)
    lines = [
        f"\n{note}Profile {profile}, {seconds / 60:.1f} min. Verdicts, computed from the stores (95 % intervals):\n"
    ]
    for claim, rows in found.groupby("claim", sort=False):
        shown, rest = primary_rows(rows)
        lines.append(f"  {claim}  (notebook {rows.notebook.iloc[0][:2]})")
        lines += [
            f"    {row.verdict:<13}{row.value:9.3g}  [{row.low:.3g}, {row.high:.3g}]  n={row.n}  {in_a_line(words)}"
            for row, words in zip(shown.itertuples(), in_words(shown).to_dict("records"), strict=True)
        ]
        lines += [f"    {rest}"] * bool(rest)
    lines.append(f"\nFigures: {_shown(folder / 'figures')}   stores and executed notebooks: {_shown(folder)}")
    return "\n".join(lines)


def manifest() -> str:
    """SHA-256 of every store of the profiles that are committed, as `sha256sum --check` reads it."""
    root = store.results("")
    kept = [path for path in sorted(root.glob("*/*.nc")) if path.parent.name in COMMITTED]
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n" for path in kept
    )


def results_table(profile: str) -> str:
    """Markdown for README: notebook 05's page of verdicts, and what made the stores that they come from."""
    also = verdict_table(verdicts_at_published_size(profile)).drop(columns=["the paper", "beside it"])
    lines = [*_markdown(verdict_table(verdicts(profile))), "", BESIDE, "", *_markdown(also)]
    made = []
    for name in planned(profile):
        stores = {path: store.read(path) for path in sorted(store.results(profile).glob(f"{name}*.nc"))}
        if not stores:
            continue
        sweeps = [ds for ds in stores.values() if "run" in ds]
        computed = sum(int((ds.run != "").sum()) for ds in sweeps)
        minutes = sum(float(ds.wall_time.sum()) for ds in sweeps) / 60
        makers = sorted({f"{ds.attrs['source']}; {ds.attrs['machine']}" for ds in stores.values()})
        first, *more = stores
        files = f"`results/{profile}/{f'{name}*.nc' if more else first.name}`" + f" ({1 + len(more)})" * bool(more)
        made.append([f"`{name}`", files, f"{computed:,}", f"{minutes:,.0f}", " and ".join(makers)])
    columns = ["notebook, parameters", "stores", "runs", "minutes of computing", "made by"]
    return "\n".join([*lines, "", *_markdown(pd.DataFrame(made, columns=columns))]) + "\n"


def _markdown(table: pd.DataFrame) -> list[str]:
    """The lines of a table in Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]


def _experiments(name: str, given: dict, place: str = "parameters") -> dict[str, Experiment]:
    """A notebook's validated experiments, by the file name of each one's store; ParameterError for impossible ones."""
    if name.startswith(SUMMARY):
        return {}
    models: dict[str, type[Experiment | Comparison]] = {
        "00": Published, "01": Mechanism, "04": Checked, "06": Oracles, "07": Checked, "08": Comparison,
        "09": Comparison,
    }  # fmt: skip
    asked = validated(models.get(name[:2], Sweep), given, place)
    if isinstance(asked, Comparison):
        return {f"{name}.{network}.nc": sweep for network, sweep in asked.wanted().items()}
    if isinstance(asked, Checked):
        stores = {f"{name}.nc": asked.sweep, f"{name}.check.nc": asked.check}
        return {file: sweep for file, sweep in stores.items() if sweep is not None}
    return {f"{name}.nc": asked}


def _lacking(work: dict[str, dict], folder: Path | None) -> list[Experiment]:
    """The experiments of these notebooks whose stores `folder` does not hold; without a folder all of them."""
    experiments = [pair for name, given in work.items() for pair in _experiments(name, given).items()]
    return [wanted for file, wanted in experiments if folder is None or _stored(folder / file, wanted) is None]


def _stored(path: Path, wanted: Experiment) -> xr.Dataset | None:
    return stored(path, wanted) if isinstance(wanted, Oracles) else complete_store(path, wanted)


def _inputs(source: Path, given: dict, folder: Path) -> str:
    """Hash of all that an executed notebook depends on: cells, parameters, epkit, packages, fixed claims, stores."""
    cells = [cell.source for cell in nbformat.read(source, as_version=4).cells]
    stores = "*.nc" if source.stem.startswith(SUMMARY) else f"{source.stem}*.nc"
    held = [path.name + path.read_bytes().hex() for path in sorted(folder.glob(stores))]
    read = [path.read_text(encoding="utf-8") for path in (CHECKOUT / "requirements.lock", FIXED)]
    texts = [json.dumps([cells, given], sort_keys=True), store.source_hash(), *read, *held]
    return digest("\n".join(texts))


def _executed_from(path: Path) -> str | None:
    try:
        return nbformat.read(path, as_version=4).metadata.get("epkit_inputs")
    except Exception:  # missing or not a notebook: executed again
        return None


def _shown(path: Path) -> str:
    return str(path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path)


if __name__ == "__main__":
    sys.exit(main())
