"""Execute the notebooks of a profile with papermill, and end with the verdicts: `python -m epkit`.

Everything that could stop the work is looked at before it begins: the parameter files, then the data. A notebook whose
inputs have not changed since its last execution is not executed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import click
import nbformat
import papermill
import xarray as xr
from dask.system import CPU_COUNT
from pydantic import BaseModel

from . import data, publish
from .bench import table
from .bench.command import budget_command, page_command
from .files import CHECKOUT, StoreError, digest, environment, remove_leftovers, renewed, set_aside, writable
from .kernels import Kernel, KernelDied, execute, kernels
from .messages import ParameterError, hint, markdown
from .reference.exactness import stored
from .study.later import later_verdicts
from .study.registration import FIXED
from .study.report import conclusion, evidence, judged_rows, page
from .sweep import pool, store
from .sweep.inputs import BASE, NOTEBOOKS, experiment, profile_folder, profile_settings, study_notebooks
from .sweep.parameters import Bench, Checked, Comparison, Mechanism, Oracles, Summary, Sweep
from .sweep.runs import OtherExperiment, complete_store
from .validation import validated

# What epkit refuses in words; raised in a notebook, it needs no traceback of the kernel's.
REFUSALS = ParameterError, StoreError, data.DataUnavailable, pool.ClusterError
PLAIN = [refusal.__name__ for refusal in (*REFUSALS, OtherExperiment, store.Damaged)]
Experiment = Sweep | Mechanism | Oracles | Bench
DRAWN_AT_ONCE = 4  # notebooks at most, where none has anything to compute
OPEN_FILES = 256  # what a few kernels and their sockets need
README_PROFILE = "study"  # whose verdicts README shows
COMMITTED = ("quick", "study", "paper")  # profiles whose stores are
MARKS = "<!-- results: written by `make notebooks` -->", "<!-- end of results -->"


def main(arguments: list[str] | None = None) -> int:
    """Run a command line, by default this process's; refusals are printed in plain lines. Returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that has no σ shows a question mark
        sys.stdout.reconfigure(errors="replace")
    try:
        with _home():
            return commands.main(arguments, prog_name="python -m epkit", standalone_mode=False) or 0
    except click.Abort:
        print("Interrupted. What was finished is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (*REFUSALS, KernelDied) as error:
        print(error, file=sys.stderr)
    except papermill.PapermillExecutionError as error:
        # Of anything else, where it happened is needed too.
        print(error.evalue if error.ename in PLAIN else f"A notebook failed:\n{error}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def _home() -> Iterator[None]:
    """A home for a user that the system doesn't know, as in a container: Jupyter and matplotlib look for one."""
    with tempfile.TemporaryDirectory(prefix="epkit-") as folder:
        if not os.path.isabs(os.path.expanduser("~")):
            os.environ["HOME"] = folder
        yield


@click.group()
def commands() -> None:
    """What `make figures`, `make notebooks` and `make data` call."""
    environment("")  # a misspelt variable is refused whatever is called


commands.add_command(budget_command)
commands.add_command(page_command)


@commands.command("figures", short_help="Compute and draw a profile.")
@click.option("--profile", default="quick", show_default=True, help="A folder of params/.")
@click.option("--fallback", metavar="PROFILE", help="Profile to take instead where the data sets can't be had.")
@click.option(
    "--scheduler", metavar="TCP", help="Address of a Dask cluster to train on. Default: this machine's cores."
)
@click.option("--fresh", is_flag=True, help="Set finished stores aside and compute them anew.")
def _figures(profile: str, fallback: str | None, scheduler: str | None, fresh: bool) -> int:
    """Compute what a profile lacks, draw its figures, print the verdicts."""
    return figures(profile, fallback, fresh, scheduler)


@commands.command("notebooks", short_help="Renew the committed notebooks.")
def _notebooks() -> None:
    """Re-execute the committed notebooks in place, and renew what `records` renews."""
    for path in study_notebooks():
        execute(path, path, {})
        print(f"executed {path.relative_to(CHECKOUT)}")
    _renew()


@commands.command("records", short_help="Renew what is made from stores, notebooks and models.")
def _records() -> None:
    """Renew README, docs/results.md, checksums, the manifest of figures, the schemas of parameters, .zenodo.json."""
    _renew()


def _renew() -> None:
    for path, text in records().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


@commands.command("release", short_help="Write the study as an RO-Crate.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--date", "published", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Of the publication.")
def _release(folder: Path, published: datetime) -> None:
    """Write stores, figures, lock and metadata as an RO-Crate, and its zip file, into FOLDER."""
    print(f"{publish.release(folder, published.date())} is written; the folder beside it holds the same")


@commands.command(
    "data",
    short_help="Fetch and verify data sets.",
    help=f"Fetch and verify data sets: {', '.join(data.INFO)}. Default: all but kmnist.",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--check", is_flag=True, help="Only look what is there: nothing is fetched.")
def _data(names: tuple[str, ...], check: bool) -> int:
    for name in names:
        if name not in data.INFO:
            raise click.UsageError(f"unknown data set {name!r}; {hint(name, data.INFO)}")
    return data.main(names, check)


def figures(profile: str, fallback: str | None = None, fresh: bool = False, scheduler: str | None = None) -> int:
    """Execute a profile's notebooks, in order, and print the summary."""
    started, note = time.monotonic(), ""
    _allow_open_files()
    work = planned(profile)
    fallback_work = planned(fallback) if fallback else {}
    if scheduler is not None:
        with pool.connected(scheduler):
            pass
    # The default command asks for its data even where nothing is left to compute: a store that came with the checkout
    # is no proof that this machine can make it.
    everything = fresh or fallback is not None
    lacking = [] if fresh else _lacking(work, store.results(profile))
    needed = _experiments(work).values() if everything else lacking
    try:
        for name in sorted({name for experiment in needed for name in _datasets(experiment)}):
            data.fetch(name)
    except data.DataUnavailable as error:
        if fallback is None:
            raise
        note = (
            f"Profile {fallback} instead of {profile}, on scikit-learn's digits, because data can't be had:\n{error}\n"
        )
        print(note, file=sys.stderr)
        profile, work = fallback, fallback_work
    folder = store.results(profile)
    remove_leftovers(folder)
    if fresh:  # all of them first, for a store lends its runs to its neighbours
        for path in sorted(folder.glob("*.nc")):
            print(f"{path.name}: set aside as {set_aside(path, 'old').name}")
    settings = {"profile": profile, "scheduler": scheduler}
    renew = partial(_up_to_date, work, folder, settings, fresh)
    if _lacking(work, folder):  # in order, for each computes on the whole machine, and reuses its neighbours' runs
        with kernels() as (kernel,):
            for name in work:
                renew(name, kernel)
    else:
        _at_once(renew, work)
    print(summary(profile, note, time.monotonic() - started))
    return 0


def _up_to_date(
    work: dict[str, BaseModel], folder: Path, settings: dict[str, str | None], fresh: bool,
    name: str, kernel: Kernel | None = None,
) -> None:  # fmt: skip
    """Execute a notebook unless its last execution is of the same inputs, and did not have to be `fresh`."""
    source, executed = NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb"
    inputs = partial(_inputs, source, work[name], folder)
    # A text and its end of line at once: several notebooks may have something to say.
    if _executed_from(executed) == inputs() and not fresh:
        print(f"{name}: up to date\n", end="")
        return
    if not writable(folder):
        raise StoreError(f"{folder} is read-only, and {name} is to be executed; EPKIT_RESULTS names another")
    print(f"{name}: executing with params/{settings['profile']}/{name}.yaml\n", end="")
    execute(source, executed, settings, inputs, kernel)


def _at_once(renew: Callable[[str, Kernel], None], names: Iterable[str]) -> None:
    """Notebooks that only draw, a few at a time, in kernels that go on to the next: imports take half of the time."""
    idle: SimpleQueue[Kernel] = SimpleQueue()

    def draw(name: str) -> None:
        kernel = idle.get()
        try:
            renew(name, kernel)
        finally:
            idle.put(kernel)

    with kernels(min(DRAWN_AT_ONCE, CPU_COUNT)) as managers, ThreadPoolExecutor(len(managers)) as threads:
        for manager in managers:
            idle.put(manager)
        list(threads.map(draw, names))


def planned(profile: str) -> dict[str, BaseModel]:
    """Notebook names of a profile with their validated parameters, those that sum up the others last.

    ParameterError names file, field and value.
    """
    folder, work = profile_folder(profile), {}
    notebooks = [path.stem for path in NOTEBOOKS.glob("*.ipynb")]
    for path in sorted(folder.glob("[!.]*.y*ml")):
        if path.name == BASE:
            continue
        if path.suffix != ".yaml" or path.stem not in notebooks:
            near = hint(path.name, [BASE, *(f"{name}.yaml" for name in notebooks)])
            raise ParameterError(f"params/{profile}/{path.name}: no notebook takes its parameters from here; {near}")
        model = experiment(NOTEBOOKS / f"{path.stem}.ipynb")
        work[path.stem] = validated(model, *profile_settings(profile, path.stem, model))
    if not work:
        raise ParameterError(f"params/{profile}: holds no parameter file, must hold <notebook>.yaml")
    return dict(sorted(work.items(), key=lambda item: (isinstance(item[1], Summary), item[0])))


def _allow_open_files() -> None:
    """Raise the limit of open files to what kernels need; ClickException where the system doesn't let us."""
    with contextlib.suppress(ImportError):
        import resource  # not on Windows, which has no such limit

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
            except (OSError, ValueError):
                raise click.ClickException(
                    f"too many open files (EMFILE): the limit is {soft}, kernels need {OPEN_FILES}; "
                    f"`ulimit -n {OPEN_FILES}` or a new shell"
                ) from None


def summary(profile: str, note: str, seconds: float) -> str:
    """One screen: a sentence a claim, computed from the stores, and where figures and stores lie."""
    folder = store.results(profile)
    if not any(folder.glob("*.nc")):
        raise StoreError(f"{folder}: holds no store, so nothing can be said of any claim")
    found = evidence(profile)
    what = "registered sweeps" if found and found.fresh else "sweeps, which are exploratory,"
    lines = [
        f"\n{note}Profile {profile}, {seconds / 60:.1f} min. What its {what} say of the claims (95 % intervals):\n"
    ]
    wrap = textwrap.TextWrapper(110, initial_indent="  ", subsequent_indent="    ")
    lines += [wrap.fill(text.replace("**", "")) for text in page(judged_rows(found), profile).sentence]
    lines.append(
        f"\nFigures: {_within_checkout(folder / 'figures')}   stores and executed notebooks: {_within_checkout(folder)}"
    )
    return "\n".join(lines)


def records() -> dict[Path, str]:
    """The committed files that are made from others, with what they must hold."""
    pages = {path: renewed(path, MARKS, text) for path, text in generated(README_PROFILE).items()}
    figures = publish.as_json(publish.figure_manifest(COMMITTED))
    files = {store.results("") / "SHA256SUMS": manifest(), publish.FIGURES: figures, publish.ZENODO: publish.zenodo()}
    return pages | files | publish.schemas()


def manifest() -> str:
    """SHA-256 of every store of the profiles that are committed, as `sha256sum --check` reads it."""
    root = store.results("")
    kept = [path for path in sorted(root.glob("*/*.nc")) if path.parent.name in COMMITTED]
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n" for path in kept
    )


def generated(profile: str) -> dict[Path, str]:
    """Markdown for README, notebook 05's page; and for docs/results.md, what we conclude, and what made the stores."""
    found, rows = evidence(profile), []
    said = page(judged_rows(found), profile)
    sentences = [
        f"{number}. {text} ([figure](results/{profile}/figures/{figure}.png))\n"
        for number, (text, figure) in enumerate(zip(said.sentence, said.figure, strict=True), 1)
    ]
    for name in planned(profile):
        stores = {path: store.read(path) for path in sorted(store.results(profile).glob(f"{name}*.nc"))}
        if not stores:
            continue
        sweeps = [ds for ds in stores.values() if "run" in ds]
        runs = sum(int((ds.run != "").sum()) for ds in sweeps)
        minutes = sum(float(ds.wall_time.sum()) for ds in sweeps) / 60
        makers = sorted({maker for ds in stores.values() for maker in store.makers(ds)})
        first, *more = stores
        files = f"`results/{profile}/{f'{name}*.nc' if more else first.name}`" + f" ({1 + len(more)})" * bool(more)
        rows.append([f"`{name}`", files, f"{runs:,}", f"{minutes:,.0f}", " and ".join(makers)])
    columns = ["notebook, parameters", "stores", "runs", "minutes of computing", "made by"]
    parts = [
        f"## What we conclude\n\n{conclusion(found, said, profile)}",
        f"## The law, the cause, and the use\n\n{_later(profile)}",
        f"## What made the stores\n\n{markdown(columns, rows)}",
    ]
    return {CHECKOUT / "README.md": "".join(sentences), CHECKOUT / "docs" / "results.md": "\n".join(parts)}


def _later(profile: str) -> str:
    """Markdown of the hypotheses registered for notebooks 11 to 19: verdict, and the setting that speaks most."""
    table = later_verdicts(profile)
    columns = ["notebook", "hypothesis", "verdict", "most telling setting", "value [95 %]", "tested", "holds", "fails"]
    rows = table.rename_axis("hypothesis").reset_index().rename(columns={"supported": "holds", "contradicted": "fails"})
    return markdown(columns, rows[columns].astype(str).to_numpy().tolist())


def _experiments(work: dict[str, BaseModel]) -> dict[str, Experiment]:
    """The experiments of notebooks by the file names of their stores."""
    experiments: dict[str, Experiment] = {}
    for name, parameters in work.items():
        match parameters:
            case Comparison():
                experiments |= {f"{name}.{network}.nc": sweep for network, sweep in parameters.wanted().items()}
            case Checked():
                experiments[f"{name}.nc"] = parameters.sweep
                if parameters.check is not None:
                    experiments[f"{name}.check.nc"] = parameters.check
            case Sweep() | Mechanism() | Oracles() | Bench():
                experiments[f"{name}.nc"] = parameters
    return experiments


def _lacking(work: dict[str, BaseModel], folder: Path) -> list[Experiment]:
    """The experiments of these notebooks whose stores `folder` does not hold; StoreError, a line for each store that
    holds another experiment.
    """
    lacking, foreign = [], []
    for file, wanted in _experiments(work).items():
        try:
            if _stored(folder / file, wanted) is None:
                lacking.append(wanted)
        except OtherExperiment as error:
            foreign.append(f"{error.content}; params/{folder.name}/{file.split('.')[0]}.yaml on {BASE} asks for it")
    if foreign:
        ways = (
            f"Nothing was computed or changed. `make recompute PROFILE={folder.name}` sets the profile's stores aside "
            "(*.old) and computes them anew; another profile, that is a folder of its own in params/, keeps both."
        )
        raise StoreError("\n".join([*foreign, ways]))
    return lacking


def _datasets(experiment: Experiment) -> list[str]:
    return [experiment.dataset] if isinstance(experiment.dataset, str) else experiment.dataset


def _stored(path: Path, wanted: Experiment) -> xr.Dataset | None:
    match wanted:
        case Oracles():
            return stored(path, wanted)
        case Bench():
            return table.complete(path, wanted)
    return complete_store(path, wanted)


def _inputs(source: Path, parameters: BaseModel, folder: Path) -> str:
    """Hash of all that an executed notebook depends on: cells, parameters, epkit, packages, fixed claims, stores."""
    cells = [cell.source for cell in nbformat.read(source, as_version=4).cells]
    pattern = "*.nc" if isinstance(parameters, Summary) else f"{source.stem}*.nc"
    stores = [path.name + path.read_bytes().hex() for path in sorted(folder.glob(pattern))]
    files = [path.read_text(encoding="utf-8") for path in (CHECKOUT / "requirements.lock", FIXED)]
    texts = [json.dumps([cells, parameters.model_dump(mode="json")], sort_keys=True), store.source_hash()]
    return digest("\n".join([*texts, *files, *stores]))


def _executed_from(path: Path) -> str | None:
    try:
        return nbformat.read(path, as_version=4).metadata.get("epkit_inputs")
    except Exception:  # missing or not a notebook: executed again
        return None


def _within_checkout(path: Path) -> str:
    return str(path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to end as by Ctrl-C: kernels stopped, one line
    sys.exit(main())
