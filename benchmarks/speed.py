"""Speed and memory of `epkit.train`, read-out noise included, paired with a plain implementation and the machine.

`make bench` measures everything in some three minutes; contestants take turns, so that what slows the machine slows
them all, and every number is the median of the turns. It writes a store and a figure and prints the table.

Two roofs belong to each network. One is the time that the machine's own library needs for the matrix products of a
step, at their shapes, every number counted; the engine leaves out what is exactly 0 and may beat it. The other is
reading and writing each conductance once a step, at the speed at which the machine does nothing but that.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple, get_args

import click
import numpy as np
import plain
import report
import torch
import xarray as xr
from torch import Tensor

import epkit
from epkit import figures
from epkit.files import CHECKOUT, renewed
from epkit.sweep import store

Contestant = Literal["native", "plain", "eager", "compiled"]
PAGE = CHECKOUT / "docs" / "speed.md"
SIGMA = 1e-5  # V
TURNS = 3


class Work(NamedTuple):
    """A network and its training; the settings are those of arXiv:2402.11674 where it has the network."""

    name: str
    sizes: tuple[int, ...]
    gain: float
    beta: float
    iterations: int
    rates: tuple[float, ...]
    batch: int
    members: int = 1


DEEP = Work("784-1024³-10", (784, 1024, 1024, 1024, 10), 4000.0, 2.0, 6, (0.005, 0.02, 0.08, 0.005), 4)
SMALL = Work("784-128³-10", (784, 128, 128, 128, 10), 1100.0, 0.7, 6, (0.002, 0.004, 0.008, 0.004), 8)
SPEED = (
    Work("784-100-10", (784, 100, 10), 100.0, 1.0, 4, (0.006, 0.006), 4),
    Work("784-1024-10", (784, 1024, 10), 480.0, 1.0, 4, (0.006, 0.006), 4),
    DEEP,
    SMALL,
    SMALL._replace(members=15),
)
LARGEST = Work("784-32768-10", (784, 32768, 10), 800.0, 1.0, 4, (0.006, 0.006), 4)
HEAVY = DEEP._replace(members=11)  # measured for its memory


def images(count: int) -> tuple[Tensor, Tensor]:
    """Smooth blobs around a pattern of their class, 28 x 28 pixels of which 81 % are exactly 0 as in MNIST.

    2,000 are drawn and repeated: what an engine reads from memory is as much as with `count` different ones.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2_000) % 10
    coarse = torch.rand(10, 7, 7, generator=generator)[y] + 0.5 * torch.rand(2_000, 7, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse[:, None], (28, 28), mode="bicubic").flatten(1)
    edge = torch.linspace(-1, 1, 28).square()
    smooth = smooth - 0.8 * (edge[:, None] + edge).flatten()
    x = (2 * (smooth - smooth.quantile(0.81, dim=1, keepdim=True))).clamp(0, 1)
    copies = math.ceil(count / len(x))
    return x.repeat(copies, 1)[:count], y.repeat(copies)[:count]


def products(work: Work) -> list[tuple[tuple[int, int, int], int]]:
    """The matrix products of a training step, dense: ((a, b, c), count) for (a, b) by (b, c), of each member."""
    batch, times = work.batch, work.iterations
    n_0, n_1 = work.sizes[:2]
    found = [((batch, n_0, n_1), 1), ((n_0, batch, n_1), 1)]  # current of the input, its gradient
    for n, m in pairwise(work.sizes[1:]):
        for rows in (batch, 2 * batch):  # free phase, both nudged phases
            found += [((rows, n, m), times), ((rows, m, n), times)]
        found.append(((n, 2 * batch, m), 1))
    return found


def flop(work: Work) -> float:
    """Floating-point operations of a training sample of one member in these products."""
    return sum(2 * a * b * c * count for (a, b, c), count in products(work)) / work.batch


def conductances(work: Work) -> int:
    """Number of conductances of one member, those of the doubled input included."""
    return sum(n * m for n, m in pairwise((2 * work.sizes[0], *work.sizes[1:])))


def repeated(action: Callable[[], object], seconds: float) -> float:
    """Seconds that `action` takes, from as many calls as fill `seconds`, after one that isn't counted."""
    action()
    count, begin = 0, perf_counter()
    while (passed := perf_counter() - begin) < seconds or not count:
        action()
        count += 1
    return passed / count


def product_rate(work: Work, seconds: float) -> float:
    """Operations per second of the machine's own matrix products at a step's shapes, in a step's proportions."""
    total, listed = 0.0, products(work)
    for (a, b, c), count in listed:
        factors = torch.rand(work.members, a, b), torch.rand(work.members, b, c)
        total += count * repeated(partial(torch.matmul, *factors), seconds / len(listed))
    return work.members * work.batch * flop(work) / total


def bandwidth(work: Work, seconds: float) -> float:
    """Bytes per second read and written by an addition in place to as many numbers as are in work at a time.

    A member's whole block of steps is done before another member's begins: one member a thread is in work.
    """
    w = torch.rand(conductances(work) * min(work.members, torch.get_num_threads()))
    return 8 * w.numel() / repeated(lambda: w.add_(1e-9), seconds)


def trainer(work: Work, engine: Contestant, x: Tensor, y: Tensor, tested: int = 0) -> Callable[[int], float]:
    """Trains one network further with each call, by `count` images; returns the seconds it took, tests included."""
    net = epkit.DeepResistiveNetwork(work.sizes, input_gain=work.gain, members=work.members, seed=range(work.members))
    settings: dict[str, Any] = {
        "batch_size": work.batch,
        "beta": work.beta,
        "iterations": work.iterations,
        "learning_rates": work.rates,
    }
    test = (x[:tested], y[:tested]) if tested else None

    def train(count: int) -> float:
        begin = perf_counter()
        if engine == "plain":
            plain.train(net, x[:count], y[:count], **settings, sigma=SIGMA)
        else:
            settings["readout"] = epkit.GaussianReadout(SIGMA)
            history = epkit.train(net, x[:count], y[:count], epochs=1, engine=engine, test=test, **settings)
            if bool(history.diverged.any()):
                raise RuntimeError(f"{work.name} has diverged: its speed would mean nothing")
        return perf_counter() - begin

    return train


def paired(works: list[tuple[Work, Contestant]], x: Tensor, y: Tensor, seconds: float) -> np.ndarray:
    """Samples/s times members, (work, turn): how many images fill `seconds` is tried first, then all take turns."""
    trainers = [trainer(*work, x, y) for work in works]
    counts = []
    for (work, _), train in zip(works, trainers, strict=True):
        batches = 2
        train(batches * work.batch)
        while (took := train(batches * work.batch)) < seconds / 2 and batches < len(x) // work.batch:
            batches = min(len(x) // work.batch, math.ceil(batches * min(8.0, 0.9 * seconds / took)))
        counts.append(batches * work.batch)
    taken = np.array([[train(n) for train, n in zip(trainers, counts, strict=True)] for _ in range(TURNS)])
    return (np.array([n * work.members for n, (work, _) in zip(counts, works, strict=True)]) / taken).T


def alone(work: Work, steps: int, tested: int = 0) -> tuple[float, float]:
    """Peak memory of this process (bytes) and samples/s, with a training set of MNIST's size."""
    x, y = images(60_000)
    count = steps * work.batch
    speed = count * work.members / trainer(work, "native", x, y, tested)(count)
    return peak(), speed


def peak() -> float:
    """Peak memory of this process (bytes)."""
    # kilobytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_child(*arguments: Any) -> tuple[float, float]:
    """`alone` in a process of its own, which counts no memory but its own if this one is still small."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(alone, *arguments).result()


def memories(quick: bool) -> xr.Dataset:
    """Peak memory of each network, and the speed of the largest over a thousand steps."""
    works = () if quick else SPEED
    found = {label(work): in_child(work, 64) for work in works}
    found[label(LARGEST)] = in_child(LARGEST, 48 if quick else 1000)
    heavy, _ = in_child(HEAVY, 16 if quick else 48, 100 if quick else 600)
    peak, speed = zip(*(found.get(label(work), (np.nan, np.nan)) for work in (*SPEED, LARGEST)), strict=True)
    data = {
        "memory": ("work", list(peak), {"units": "B", "long_name": "peak of the process"}),
        "largest_rate": ((), speed[-1], {"units": "1/s", "long_name": label(LARGEST)}),
        "heavy_memory": ((), heavy, {"units": "B", "long_name": f"peak with {label(HEAVY)}, tests included"}),
    }
    return xr.Dataset(data)


def speeds(x: Tensor, y: Tensor, seconds: float, compiled: bool) -> xr.Dataset:
    """Samples/s of all contestants, and the machine's roofs beside them."""
    engines: list[Contestant] = list(get_args(Contestant))
    works = (*SPEED, LARGEST)
    rate, roofs = np.full((len(works), len(engines), TURNS), np.nan), np.empty((2, len(works), TURNS))
    for row, work in enumerate(works):
        print(f"  {label(work)}", flush=True)
        # The largest isn't for the plain step, whose squares take 0.8 GB each, and is timed where its memory is.
        chosen = engines if compiled and row == 0 else engines[:3] if work is not LARGEST else []
        if chosen:
            rate[row, : len(chosen)] = paired([(work, engine) for engine in chosen], x, y, seconds)
        for turn in range(TURNS):
            roofs[:, row, turn] = product_rate(work, seconds), bandwidth(work, seconds / 3)
    square = torch.rand(2048, 2048)
    best = 2 * 2048**3 / repeated(partial(torch.matmul, square, square), seconds)
    traffic = [8.0 * conductances(work) * work.members for work in works]
    data = {
        "rate": (("work", "engine", "turn"), rate, {"units": "1/s", "long_name": "training samples times members"}),
        "operations": ("work", [flop(work) for work in works], {"units": "1", "long_name": "dense, per sample"}),
        "traffic": ("work", traffic, {"units": "B", "long_name": "each conductance read and written, per step"}),
        "product_rate": (("work", "turn"), roofs[0], {"units": "1/s", "long_name": "operations of the products alone"}),
        "best_product_rate": ((), best, {"units": "1/s", "long_name": "2048 x 2048 matrices"}),
        "bandwidth": (("work", "turn"), roofs[1], {"units": "B/s", "long_name": "addition in place"}),
        "samples": ("work", [work.batch * work.members for work in works], {"long_name": "per step, of all members"}),
    }
    return xr.Dataset(data, {"work": [label(work) for work in works], "engine": engines})


def scaling(x: Tensor, y: Tensor, seconds: float, points: int) -> xr.Dataset:
    """Seconds of a step along four axes, on each of which networks differ in nothing else."""
    wide = Work("wide", (784, 256, 10), 200.0, 1.0, 4, (0.002, 0.002), 4)
    deep = [(784, *[256] * n, 10) for n in range(1, points)]
    families = {
        "width": [(n, wide._replace(sizes=(784, n, 10))) for n in (64, 128, 256, 512, 1024, 2048, 4096)],
        "depth": [
            (n, wide._replace(sizes=sizes, gain=100.0 * 2**n, rates=(0.002,) * (n + 1)))
            for n, sizes in enumerate(deep, 1)
        ],
        "batch": [(n, wide._replace(batch=n)) for n in (1, 2, 4, 8, 16, 32, 64)],
        "members": [(n, SMALL._replace(members=n)) for n in (1, 2, 4, 6, 8, 12, 16)],
    }
    shape = len(families), points
    value, weights, taken = np.full(shape, np.nan), np.full(shape, np.nan), np.full((*shape, TURNS), np.nan)
    for row, (axis, family) in enumerate(families.items()):
        print(f"  scaling with {axis}", flush=True)
        numbers, works = zip(*family[:points], strict=True)
        reached = slice(len(works))
        value[row, reached], weights[row, reached] = numbers, [conductances(work) * work.members for work in works]
        images = np.array([work.batch * work.members for work in works])
        taken[row, reached] = images[:, None] / paired([(work, "native") for work in works], x, y, seconds)
    data = {
        "scaling_value": (("axis", "point"), value, {"long_name": "units, hidden layers, images, members"}),
        "scaling_weights": (("axis", "point"), weights, {"long_name": "conductances of all members"}),
        "scaling_seconds": (("axis", "point", "turn"), taken, {"units": "s", "long_name": "a step of all members"}),
    }
    return xr.Dataset(data, {"axis": list(families)})


def measure(quick: bool = False, compiled: bool = False) -> xr.Dataset:
    """All measurements. Memory comes first: a child's peak is never less than what its parent has in use."""
    seconds, load = 0.1 if quick else 0.6, os.getloadavg()[0]
    print("  memory", flush=True)
    memory = memories(quick)
    x, y = images(60_000)
    ds = xr.merge([speeds(x, y, seconds, compiled), memory, scaling(x, y, max(0.12, seconds / 3), 4 if quick else 7)])
    ds["rate"].loc[label(LARGEST), "native", :] = ds.largest_rate
    settings = {"speed": (*SPEED, LARGEST), "memory": HEAVY, "sigma": SIGMA, "seconds": seconds, "quick": quick}
    attributes = store.provenance("Speed and memory of epkit.train", settings, {})
    return ds.assign_attrs(attributes | {"machine": machine(), "load_before": f"{load:.2f}"})


def label(work: Work) -> str:
    """784-100-10, batch 4 …"""
    return f"{work.name}, batch {work.batch}" + f", {work.members} members" * (work.members > 1)


def machine() -> str:
    """Processor, cores and the threads used."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


@click.command(help=__doc__.splitlines()[0])
@click.option("--quick", is_flag=True, help="Half a minute to see that it works; rough numbers.")
@click.option("--compiled", is_flag=True, help="Time torch.compile too, for the smallest network.")
@click.option("--docs", is_flag=True, help="Renew the table in docs/speed.md.")
def main(quick: bool, compiled: bool, docs: bool) -> None:
    ds = measure(quick, compiled)
    folder = store.results("smoke" if quick else "bench")
    store.write(ds, folder / "engine.nc")
    figures.style()
    figure, _ = figures.save(report.figure(ds), folder / "figures", "engine")
    print(report.table(ds))
    print(f"{folder / 'engine.nc'}, {figure}")
    if docs:
        PAGE.write_text(renewed(PAGE, report.MARKS, report.table(ds)), encoding="utf-8")


if __name__ == "__main__":
    main()
