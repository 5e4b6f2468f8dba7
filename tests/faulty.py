"""What the processes run that test_faults.py disturbs: a sweep, and `make figures` on a notebook that holds one."""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import nbformat
import torch
import xarray as xr
import yaml

import epkit
from epkit import __main__ as execute
from epkit.sweep import ensemble

# Two groups of two runs, each of four blocks.
PARAMETERS = {
    "dataset": ["digits"], "sigma": [0.0, 1e-3], "learning_rate": [0.05], "seeds": 2, "hidden": [16, 16],
    "input_gain": 50.0, "beta": 0.1, "iterations": 3, "epochs": 2, "train_images": 160, "test_images": 60,
    "looks": 2,
}  # fmt: skip
NAME = "11_faults"
NOTEBOOK = """
import epkit, faulty
from epkit import figures
from matplotlib.figure import Figure
folder = epkit.results(profile)
{before}
faulty.sweep(dict(faulty.PARAMETERS, sigma=sigma, dataset=dataset), folder / "11_faults.nc")
{after}
figures.save(Figure(), folder / "figures", "11_faults")
"""


def sweep(parameters: dict, path: Path) -> xr.Dataset:
    """`epkit.run` with a checkpoint after every block, and a line in `<store>.log` for each block before that."""
    torch.set_num_threads(1)
    train = partial(_logged, epkit.train, path.with_suffix(".log"))
    with mock.patch.multiple(ensemble, KEEP_EVERY=0.0, train=train):
        return epkit.run(parameters, path)


def _logged(train: Callable, log: Path, *args, seed, state, progress, **options) -> xr.Dataset:
    def after_block(images: int) -> None:
        with open(log, "a") as lines:
            lines.write(f"seed {seed}, epoch {state.epoch}, step {state.step}\n")
        progress(images)

    return train(*args, seed=seed, state=state, progress=after_block, **options)


def quiet_sweep(parameters: dict, path: Path) -> None:
    """A process's `sweep`, which says what it has to say in `<store>.said`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _saying_it_in(path.with_suffix(".said"))
    sweep(parameters, path)


def sweep_that_dies_writing(parameters: dict, path: Path, number: int, share: float) -> None:
    """`quiet_sweep`, killed with -9 when that `share` of its file of this number is on the disk."""
    whole, count = Path.write_bytes, itertools.count(1)

    def write_bytes(file: Path, content: bytes) -> int:
        if next(count) < number:
            return whole(file, content)
        whole(file, content[: int(share * len(content))])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    Path.write_bytes = write_bytes  # type: ignore[method-assign]
    quiet_sweep(parameters, path)


def study(folder: Path, before: str = "", after: str = "") -> None:
    """A folder with a notebook that holds the sweep, and what a test does before and after; and its parameters."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "params" / "mine").mkdir(parents=True)
    declared = {"profile": "mine", "scheduler": None} | PARAMETERS
    cells = [nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in declared.items()))]
    cells[0].metadata["tags"] = ["parameters", "Sweep"]
    cells.append(nbformat.v4.new_code_cell(NOTEBOOK.format(before=before, after=after)))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / f"{NAME}.ipynb")
    (folder / "params" / "mine" / f"{NAME}.yaml").write_text(yaml.safe_dump(PARAMETERS))


def make_figures(folder: Path, results: Path, said: Path) -> None:
    """A process's `make figures PROFILE=mine` of the study in `folder`, in a process group of its own."""
    os.setsid()
    _saying_it_in(said)
    execute.NOTEBOOKS = folder / "notebooks"
    os.environ |= {
        "EPKIT_PARAMS": str(folder / "params"),
        "EPKIT_RESULTS": str(results),
        "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path)),
    }
    started = time.monotonic()
    code = execute.main(["figures", "--profile", "mine"])
    print(f"{time.monotonic() - started:.1f} s", flush=True)
    os._exit(code)


def _saying_it_in(file: Path) -> None:
    with open(file, "a") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
