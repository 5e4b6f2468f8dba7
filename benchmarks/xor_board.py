"""Does a board of digital potentiometers, BAT42 diodes and a 16-bit converter learn XOR, and with how many reads?

Each arm trains some seeds on a board that ngspice simulates. It writes a store, and the table of docs/circuit.md.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import click
import numpy as np
import torch
import xarray as xr

import epkit
from epkit.circuit.ngspice import SpiceCircuit
from epkit.circuit.simulated import Board
from epkit.files import CHECKOUT, renewed
from epkit.messages import markdown
from epkit.sweep import store

# XOR with a third input that is constant; each is there as v and as -v, so a hidden unit has six conductances to them.
X = torch.tensor([[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
Y = torch.tensor([0, 1, 1, 0])
# Inputs of ±1.5 V; a class's output should have 0.2 V, which is near a diode's forward voltage, the other 0 V.
VOLTS, GAIN = 0.2, 7.5
MARKS = "<!-- board: written by `make board` -->", "<!-- end of board -->"
PAGE = CHECKOUT / "docs" / "circuit.md"


class Arm(NamedTuple):
    hidden: int
    noise: float = 8e-6  # V
    lsb: float = 187.5e-6  # V
    reads: int = 1
    siemens: float = 1e-4  # S, of a weight of 1


# 2 hidden units make 16 conductances, as the published board has, 4 make 32; 3 mV are 12 bits of the same range.
ARMS = [
    Arm(2, noise=0.0, lsb=0.0), Arm(2),
    Arm(4, noise=0.0, lsb=0.0), Arm(4, lsb=0.0), Arm(4), Arm(4, reads=16),
    Arm(4, lsb=3e-3), Arm(4, lsb=3e-3, reads=16),
    Arm(4, siemens=3e-5), Arm(4, siemens=4e-4),
]  # fmt: skip


def learned(circuit: SpiceCircuit, arm: Arm, seed: int, epochs: int) -> int | None:
    """Epochs after which one seed classifies all inputs rightly, to the end of training; None if it doesn't."""
    board = Board(circuit, noise=arm.noise, lsb=arm.lsb, seed=seed)
    net = epkit.CircuitNetwork(
        board, input_gain=GAIN, siemens=arm.siemens, volts=VOLTS, reads=arm.reads, seed=seed
    )  # fmt: skip
    history = epkit.train(
        net, X, Y, epochs=epochs, batch_size=4, beta=0.05, iterations=1, learning_rates=(0.1, 0.1), bias_rate=0.0,
        decay=1.0,
    )  # fmt: skip
    wrong = history.train_error.values[:, 0] > 0
    return None if wrong[-1] else int(wrong.nonzero()[0].max(initial=-1)) + 1


def measured(seeds: int, epochs: int) -> xr.Dataset:
    """All arms over (arm, seed): `epochs` after which a seed has learned, NaN if it doesn't, and what the arms are."""
    found, least = np.full((len(ARMS), seeds), np.nan), []
    for k, arm in enumerate(ARMS):
        with SpiceCircuit((3, arm.hidden, 2), "BAT42") as circuit:
            found[k] = [
                np.nan if (count := learned(circuit, arm, seed, epochs)) is None else count for seed in range(seeds)
            ]
            least.append(Board(circuit).limits[0] / arm.siemens)
        click.echo(f"{arm}: {np.isfinite(found[k]).sum()} of {seeds}", err=True)
    columns = {name: ("arm", list(values)) for name, values in zip(Arm._fields, zip(*ARMS, strict=True), strict=True)}
    data = {"epochs": (("arm", "seed"), found, {"long_name": "after which all inputs are classified rightly"})}
    settings = {"seeds": seeds, "epochs": epochs, "arms": ARMS, "volts": VOLTS, "gain": GAIN}
    attributes = store.provenance("XOR on a board of digital potentiometers", settings, {})
    return xr.Dataset(data | columns | {"least": ("arm", least)}, attrs=attributes)


def table(ds: xr.Dataset) -> str:
    """Markdown: a line an arm."""
    rows = []
    for arm in (ds.isel(arm=k) for k in range(ds.sizes["arm"])):
        noise, lsb = 1e6 * arm.noise.item(), 1e6 * arm.lsb.item()
        parts = [f"{noise:g} µV"] * (noise > 0) + [f"steps of {lsb:g} µV"] * (lsb > 0)
        done = arm.epochs.values[np.isfinite(arm.epochs.values)]
        median = f"{np.median(done):.0f}" if len(done) else "—"
        share = f"{len(done)} of {arm.sizes['seed']}"
        rows.append(
            [
                8 * arm.hidden.item(),
                " and ".join(parts) or "no error",
                arm.reads.item(),
                f"{arm.least.item():.2g}",
                share,
                median,
            ]
        )
    columns = ("conductances", "a read has", "reads averaged", "least weight", "seeds that learn", "epochs, median")
    return markdown(columns, rows, "rlrrrr")


@click.command(help=__doc__)
@click.option("--seeds", default=16, show_default=True)
@click.option("--epochs", default=60, show_default=True)
@click.option("--docs", is_flag=True, help=f"Renew the table in {PAGE.relative_to(CHECKOUT)}.")
def main(seeds: int, epochs: int, docs: bool) -> None:
    warnings.filterwarnings("ignore", "the C.. engine knows no CircuitNetwork")
    torch.set_num_threads(1)
    ds = measured(seeds, epochs)
    store.write(ds, store.results("bench") / "xor_board.nc")
    click.echo(table(ds))
    if docs:
        PAGE.write_text(renewed(PAGE, MARKS, table(ds)), encoding="utf-8")


if __name__ == "__main__":
    main()
