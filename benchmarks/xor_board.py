"""Does a board of digital potentiometers, BAT42 diodes and a 16-bit converter learn XOR, and with how many reads?

Each arm trains some seeds on a board that ngspice simulates. It writes the table of docs/circuit.md.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import click
import numpy as np
import torch

import epkit
from epkit.circuit.ngspice import SpiceCircuit
from epkit.circuit.simulated import Board
from epkit.files import CHECKOUT, renewed
from epkit.messages import markdown

# XOR with a third input that is constant; each is there as v and as -v, so a hidden unit has six conductances to them.
X = torch.tensor([[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
Y = torch.tensor([0, 1, 1, 0])
# Inputs of ±1.5 V; a class's output should have 0.2 V, which is near a diode's forward voltage, the other 0 V.
VOLTS, GAIN = 0.2, 7.5
MARKS = "<!-- board: written by `python benchmarks/xor_board.py --docs` -->", "<!-- end of board -->"
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


def row(arm: Arm, seeds: int, epochs: int) -> list[object]:
    """The line of an arm."""
    with SpiceCircuit((3, arm.hidden, 2), "BAT42") as circuit:
        counts = [learned(circuit, arm, seed, epochs) for seed in range(seeds)]
        least = Board(circuit).limits[0] / arm.siemens
    done = [count for count in counts if count is not None]
    parts = [f"{arm.noise * 1e6:g} µV"] * (arm.noise > 0) + [f"steps of {arm.lsb * 1e6:g} µV"] * (arm.lsb > 0)
    median = f"{np.median(done):.0f}" if done else "—"
    share = f"{len(done)} of {len(counts)}"
    return [8 * arm.hidden, " and ".join(parts) or "no error", arm.reads, f"{least:.2g}", share, median]


@click.command(help=__doc__)
@click.option("--seeds", default=16, show_default=True)
@click.option("--epochs", default=60, show_default=True)
@click.option("--docs", is_flag=True, help=f"Renew the table in {PAGE.relative_to(CHECKOUT)}.")
def main(seeds: int, epochs: int, docs: bool) -> None:
    warnings.filterwarnings("ignore", "the C.. engine knows no CircuitNetwork")
    torch.set_num_threads(1)
    rows = []
    for arm in ARMS:
        rows.append(row(arm, seeds, epochs))
        click.echo(rows[-1], err=True)
    columns = ("conductances", "a read has", "reads averaged", "least weight", "seeds that learn", "epochs, median")
    table = markdown(columns, rows, "rlrrrr")
    click.echo(table)
    if docs:
        PAGE.write_text(renewed(PAGE, MARKS, table), encoding="utf-8")


if __name__ == "__main__":
    main()
