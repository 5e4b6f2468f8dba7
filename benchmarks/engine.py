"""Training samples a second of `epkit.train`, read-out noise included, for each engine and network.

    python benchmarks/engine.py [--engines native eager] [--networks NAME …] [--seconds S] [--repeats N]

Images are synthetic but as sparse as MNIST's: smooth blobs, four pixels in five are 0. Engines take turns,
so that a busy machine slows all of them; the rate printed is the median of the turns.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import torch

import epkit

# name: sizes, input gain, beta, iterations, learning rates, batch size, members; see arXiv:2402.11674.
NETWORKS = {
    "784-100-10": ((784, 100, 10), 100.0, 1.0, 4, (0.006, 0.006), 4, 1),
    "784-1024-10": ((784, 1024, 10), 480.0, 1.0, 4, (0.006, 0.006), 4, 1),
    "784-1024x3-10": ((784, 1024, 1024, 1024, 10), 4000.0, 2.0, 6, (0.005, 0.02, 0.08, 0.005), 4, 1),
    "784-128x3-10": ((784, 128, 128, 128, 10), 1100.0, 0.7, 6, (0.002, 0.004, 0.008, 0.004), 8, 1),
    "784-128x3-10, 15 members": (
        (784, 128, 128, 128, 10),
        1100.0,
        0.7,
        6,
        (0.002, 0.004, 0.008, 0.004),
        8,
        15,
    ),
}


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random blobs on 28 x 28 pixels, a fifth of which are not 0, and random classes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 7, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic")[:, 0]
    edge = torch.linspace(-1, 1, 28).square()
    smooth = (smooth - 0.8 * (edge[:, None] + edge)).flatten(1)
    threshold = smooth.quantile(0.8, dim=1, keepdim=True)
    return (2 * (smooth - threshold)).clamp(0, 1), torch.randint(10, (count,), generator=generator)


def rate(name: str, engine: str, seconds: float, x: torch.Tensor, y: torch.Tensor) -> float:
    """Members times training samples a second, over some `seconds`, after a first short call."""
    sizes, gain, beta, iterations, rates, batch, members = NETWORKS[name]
    net = epkit.DeepResistiveNetwork(sizes, input_gain=gain, members=members)

    def train(count: int) -> float:
        begin = perf_counter()
        epkit.train(
            net, x[:count], y[:count], epochs=1, batch_size=batch, beta=beta, iterations=iterations,
            learning_rates=rates, readout=epkit.GaussianReadout(1e-5), engine=engine,
        )  # fmt: skip
        return perf_counter() - begin

    count = 8 * batch
    train(count)
    while (duration := train(count)) < seconds / 3 and count < len(x):
        count = min(len(x), 3 * count)
    return members * count / duration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=["native", "eager"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    x, y = images(60_000)
    print(f"{torch.get_num_threads()} threads; training samples/s, median of {options.repeats}")
    print(f"{'network':26}" + "".join(f"{engine:>12}" for engine in options.engines))
    for name in options.networks:
        turns = [[rate(name, e, options.seconds, x, y) for e in options.engines] for _ in range(options.repeats)]
        print(f"{name:26}" + "".join(f"{median(t):12,.0f}" for t in zip(*turns, strict=True)), flush=True)


if __name__ == "__main__":
    main()
