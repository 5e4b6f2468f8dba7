"""What the study's machinery costs beside the computing: a sweep's overhead, and drawing from complete stores.

`make bench` trains the sweep of `params/quick/02_critical_limit.yaml` in an empty folder and times every part of the
machinery on the way, then executes the notebooks of a profile whose stores are complete, twice: the second time there
is nothing to do. It writes a store and prints the table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import click
import speed
import xarray as xr

import epkit
from epkit.files import CHECKOUT, renewed
from epkit.messages import markdown
from epkit.sweep import ensemble, grid, runs, store
from epkit.sweep.inputs import profile_settings
from epkit.sweep.parameters import Sweep

MARKS = "<!-- spine: written by `make bench` -->", "<!-- end of spine -->"
PAGE = CHECKOUT / "docs" / "speed.md"
PROFILE, NOTEBOOK = "quick", "02_critical_limit"
PARTS = {
    "hashing the runs": [(runs, "run_ids")],
    "finding finished runs in other stores": [(runs, "_of_neighbours")],
    "loading data, choosing learning rates": [(ensemble, "data"), (ensemble, "layer_rates")],
    "checkpoints": [(ensemble, "_keep")],
    "writing and reading stores": [(store, "write"), (store, "read")],
    "merging": [(grid, "merge"), (grid, "split")],
}


@contextmanager
def stopwatches() -> Iterator[dict[str, float]]:
    """Seconds spent in each of PARTS while the block runs; what one calls of another counts for the first."""
    spent: dict[str, float] = defaultdict(float)
    running = False

    def watched(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal running
            if running:
                return function(*arguments, **named)
            running, begin = True, perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                running, spent[part] = False, spent[part] + perf_counter() - begin

        return call

    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for module, name in functions:
                stack.enter_context(patch.object(module, name, watched(part, getattr(module, name))))
        yield spent


def overhead(quick: bool) -> xr.Dataset:
    """Seconds of a sweep in an empty folder: all, the computing alone, and each part of the machinery."""
    settings, _ = profile_settings(PROFILE, NOTEBOOK, Sweep)
    if quick:
        settings |= {"seeds": 1, "learning_rate": settings["learning_rate"][:1], "epochs": 2}
    with tempfile.TemporaryDirectory() as folder, stopwatches() as spent:
        begin = perf_counter()
        ds = epkit.run(settings, Path(folder) / f"{NOTEBOOK}.nc")
        total = perf_counter() - begin
    computing = ds.wall_time.sum().item() - spent["checkpoints"]  # which are written while an ensemble trains
    parts = [spent[part] for part in PARTS]
    parts.append(total - computing - sum(parts))
    data = {
        "sweep": ((), total, {"units": "s", "long_name": "a sweep in an empty folder"}),
        "computing": ((), computing, {"units": "s", "long_name": "training and testing its ensemble"}),
        "spent": ("part", parts, {"units": "s", "long_name": "the rest of the sweep"}),
        "runs": ((), ds.run.size, {"units": "1"}),
    }
    return xr.Dataset(data, {"part": [*PARTS, "everything else"]})


def drawing() -> xr.Dataset:
    """Seconds of `make figures` with complete stores, and once more with nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(store.results(PROFILE), Path(folder, PROFILE), ignore=lambda _, names: [
            name for name in names if not name.endswith(".nc")
        ])  # fmt: skip
        command = [sys.executable, "-m", "epkit", "figures", "--profile", PROFILE]
        taken = []
        for _ in ("redraw", "nothing to do"):
            begin = perf_counter()
            subprocess.run(command, env=os.environ | {"EPKIT_RESULTS": folder}, check=True, capture_output=True)
            taken.append(perf_counter() - begin)
        notebooks = len(list(Path(folder, PROFILE).glob("*.ipynb")))
    data = {
        "redraw": ((), taken[0], {"units": "s", "long_name": "executing every notebook from complete stores"}),
        "nothing": ((), taken[1], {"units": "s", "long_name": "finding out that nothing is left to do"}),
        "notebooks": ((), notebooks, {"units": "1"}),
    }
    return xr.Dataset(data)


def measure(quick: bool = False) -> xr.Dataset:
    """All measurements."""
    load = os.getloadavg()[0]
    ds = xr.merge([drawing(), overhead(quick)])
    settings = {"profile": PROFILE, "sweep": NOTEBOOK, "quick": quick}
    attributes = store.provenance("What the study's machinery costs", settings, {})
    return ds.assign_attrs(attributes | {"machine": speed.machine(), "load_before": f"{load:.2f}"})


def table(ds: xr.Dataset) -> str:
    """Markdown: what takes how long, as a share of the computing."""
    computing, settings = float(ds.computing), store.parameters(ds)
    sweep = f"the sweep of `params/{settings['profile']}/{settings['sweep']}.yaml`, {int(ds.runs)} runs"
    rows = [[f"computing: {sweep}", f"{computing:.1f}", "100 %"]]
    for part, seconds in zip(ds.part.values, ds.spent.values, strict=True):
        rows.append([part, f"{seconds:.3f}", f"{seconds / computing:.2%}"])
    rows.append(["all but the computing", f"{ds.spent.sum():.2f}", f"{ds.spent.sum() / computing:.2%}"])
    command = f"`make figures PROFILE={settings['profile']}` from complete stores, {int(ds.notebooks)} notebooks"
    rows.append([command, f"{ds.redraw:.1f}", ""])
    rows.append(["the same with nothing to do", f"{ds.nothing:.1f}", ""])
    note = f"Measured on: {ds.attrs['machine']}; load average before: {ds.attrs['load_before']}."
    return f"{markdown(('what', 'seconds', 'of the computing'), rows, 'lrr')}\n{note}\n"


@click.command(help=__doc__.splitlines()[0])
@click.option("--quick", is_flag=True, help="A twelfth of the sweep to see that it works.")
@click.option("--docs", is_flag=True, help="Renew the table in docs/speed.md.")
def main(quick: bool, docs: bool) -> None:
    ds = measure(quick)
    path = store.results("smoke" if quick else "bench") / "spine.nc"
    store.write(ds, path)
    print(table(ds))
    print(path)
    if docs:
        PAGE.write_text(renewed(PAGE, MARKS, table(ds)), encoding="utf-8")


if __name__ == "__main__":
    main()
