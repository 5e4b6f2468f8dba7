"""Does a board of digital potentiometers, BAT42 diodes and a 16-bit converter learn XOR, and with how many reads?

    python benchmarks/xor_board.py [--seeds 8] [--epochs 60]

Each arm trains some seeds on a board simulated by ngspice and prints its line of the table in docs/circuit.md.
"""

from __future__ import annotations

import argparse
import warnings

import torch

import epkit
from epkit.circuit.ngspice import SpiceCircuit
from epkit.circuit.simulated import Board

# Inputs of ±1.5 V, targets of 0 and 0.2 V, near a diode's forward voltage.
# XOR with a third input that is constant; each is there as v and as -v, so a hidden unit has six conductances to them.
X = torch.tensor([[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
Y = torch.tensor([0, 1, 1, 0])
SMALL, LARGE = (3, 2, 2), (3, 4, 2)  # 16 conductances, as the published board has, and 32
EXACT, THERMAL, COARSE = {"lsb": 0.0, "noise": 0.0}, {"lsb": 0.0}, {"lsb": 3e-3}
# layers, what reads have, the converter's parts, reads that are averaged, conductance of a weight of 1 (S)
ARMS: list[tuple[tuple[int, ...], str, dict[str, float], int, float]] = [
    (SMALL, "no error", EXACT, 1, 1e-4),
    (SMALL, "8 µV and steps of 187.5 µV", {}, 1, 1e-4),
    (LARGE, "no error", EXACT, 1, 1e-4),
    (LARGE, "8 µV", THERMAL, 1, 1e-4),
    (LARGE, "8 µV and steps of 187.5 µV", {}, 1, 1e-4),
    (LARGE, "8 µV and steps of 187.5 µV", {}, 16, 1e-4),
    (LARGE, "8 µV and steps of 3 mV", COARSE, 1, 1e-4),
    (LARGE, "8 µV and steps of 3 mV", COARSE, 16, 1e-4),
    (LARGE, "8 µV and steps of 187.5 µV", {}, 1, 2e-5),
]


def learned(
    circuit: SpiceCircuit, parts: dict[str, float], reads: int, siemens: float, seed: int, epochs: int
) -> float | None:
    """Epochs after which one seed classifies all four inputs, to the end of training; None if it never does."""
    net = epkit.CircuitNetwork(
        Board(circuit, seed=seed, **parts), input_gain=7.5, siemens=siemens, volts=0.2, reads=reads, seed=seed
    )
    history = epkit.train(
        net, X, Y, epochs=epochs, batch_size=4, beta=0.05, iterations=1, learning_rates=(0.1, 0.1), bias_rate=0.0,
        decay=1.0,
    )  # fmt: skip
    wrong = history.train_error.values[:, 0] > 0
    return None if wrong[-1] else float(wrong.nonzero()[0].max(initial=-1) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "the C.. engine knows no CircuitNetwork")
    torch.set_num_threads(1)
    print("| conductances | reads have | reads averaged | a weight of 1 is | seeds that learn | epochs, median |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for sizes, name, parts, reads, siemens in ARMS:
        with SpiceCircuit(sizes, "BAT42") as circuit:
            counts = [learned(circuit, parts, reads, siemens, seed, options.epochs) for seed in range(options.seeds)]
        done = [count for count in counts if count is not None]
        median = f"{torch.tensor(done).median():.0f}" if done else "—"
        n = 2 * sizes[0] * sizes[1] + sizes[1] * sizes[2]
        print(
            f"| {n} | {name} | {reads} | {siemens * 1e3:g} mS | {len(done)} of {len(counts)} | {median} |", flush=True
        )


if __name__ == "__main__":
    main()
