"""Training speed with each kind of read-out, as a ratio to the Gaussian one, all in one run.

    PYTHONPATH=. python benchmarks/readouts.py [--docs]

The contestants take turns, and each turn is compared with the Gaussian one of the same turn, in processor time of one
thread, which what else runs changes least. They are kept in a store; `--docs` puts its table into docs/readouts.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import click
import numpy as np
import speed
import torch
import xarray as xr

import epkit
from epkit.files import CHECKOUT, renewed
from epkit.messages import markdown
from epkit.readouts import (
    Chain,
    Comparator,
    Converter,
    Differential,
    Drift,
    Flicker,
    HeavyTails,
    Measured,
    Mismatch,
    Noise,
    RelativeNoise,
)
from epkit.sweep import store

MARKS = "<!-- speed: written by benchmarks/readouts.py -->", "<!-- end of speed -->"
PAGE = CHECKOUT / "docs" / "readouts.md"
TURNS = 5


def contestants(csv: Path) -> dict[str, Any]:
    """One of each kind, at a level that lets the networks train on."""
    reads = 1e-5 * np.random.default_rng(0).standard_normal((100, 8))
    np.savetxt(csv, reads, delimiter=",")
    converter = Converter(lsb=1e-4)
    return {
        "Gaussian": epkit.GaussianReadout(1e-5),
        "noise": Noise(1e-5),
        "noise, reads correlated": Chain((Noise(1e-5, correlation=0.5),), samples=16),
        "relative noise": RelativeNoise(1e-6),
        "mismatch": Mismatch(offset=1e-3, gain=1e-3),
        "converter": converter,
        "comparator of the difference": Differential(Comparator(1e-5)),
        "difference and mean converted": Differential(Converter(bits=12, span=(-0.1, 0.1)), converter),
        "drift": Drift(1e-5, 1.0),
        "1/f noise": Flicker(1e-5, 1e-3, 1e-5),
        "heavy tails": HeavyTails(1e-5),
        "measured": Measured(csv),
        "mismatch, noise, converter": Mismatch(offset=1e-3) | Noise(1e-5) | converter,
        "the same, mean of 4 reads": (Mismatch(offset=1e-3) | Noise(1e-5) | converter).averaged(4),
    }


def rates(work: speed.Work, readouts: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Training samples of all members a second, (turn, read-out)."""
    steps = 2**20 // (2 * work.batch * sum(work.sizes[1:]))  # as many as noise is drawn for at a time
    x, y = speed.images(steps * work.batch)
    seconds = np.empty((TURNS, len(readouts)))
    for turn in range(-1, TURNS):  # the first one is not counted
        for k, readout in enumerate(readouts.values()):
            net = epkit.DeepResistiveNetwork(work.sizes, input_gain=work.gain, members=work.members)
            begin = process_time()
            history = epkit.train(
                net, x, y, epochs=1, batch_size=work.batch, beta=work.beta, iterations=work.iterations,
                learning_rates=work.rates, readout=readout, engine="native",
            )  # fmt: skip
            seconds[turn, k] = process_time() - begin
            if history.engine != "native" or bool(history.diverged.any()):
                raise RuntimeError(f"{readout} trained on the engine {history.engine}, or has diverged")
    return work.members * len(x) / seconds


def measured() -> xr.Dataset:
    """Training samples of all members a second, over (work, turn, readout)."""
    torch.set_num_threads(1)
    works = [w for w in speed.SPEED if w.sizes in ((784, 100, 10), (784, 128, 128, 128, 10))]
    with tempfile.TemporaryDirectory() as folder:
        readouts = contestants(Path(folder) / "reads.csv")
        found = [rates(work, readouts) for work in works]
    names = [f"{work.name}, {work.members} together" for work in works]
    rate = ("work", "turn", "readout"), found, {"units": "1/s", "long_name": "training samples times members"}
    attributes = store.provenance("Speed of each kind of read-out", {"turns": TURNS}, {})
    return xr.Dataset({"rate": rate}, {"work": names, "readout": list(readouts)}, attributes)


def table(ds: xr.Dataset) -> str:
    """Markdown: each kind's ratio to the Gaussian one in the same turn, and the Gaussian's rate; medians of turns."""
    gaussian = ds.rate.sel(readout="Gaussian")
    ratios = (ds.rate / gaussian).median("turn").transpose("readout", "work")
    rows = [[name, *(f"{x:.2f}" for x in row)] for name, row in zip(ds.readout.values, ratios.values, strict=True)]
    of_gaussian = ", ".join(f"{x:,.0f}" for x in gaussian.median("turn").values)
    shown = markdown(["read-out", *ds.work.values], rows, "lrrr")
    notes = f"Medians of {TURNS} turns, processor time of one thread. The Gaussian's own: {of_gaussian} samples/s."
    return f"{shown}\n{notes}\n"


@click.command(help=__doc__)
@click.option("--docs", is_flag=True, help=f"Renew the table in {PAGE.relative_to(CHECKOUT)}.")
def main(docs: bool) -> None:
    ds = measured()
    store.write(ds, store.results("bench") / "readouts.nc")
    click.echo(table(ds))
    if docs:
        PAGE.write_text(renewed(PAGE, MARKS, table(ds)), encoding="utf-8")


if __name__ == "__main__":
    main()
