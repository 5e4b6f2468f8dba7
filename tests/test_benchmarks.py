"""The benchmark compares like with like, counts what it says, and its page shows what its store holds."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import plain
import pytest
import readouts
import report
import schedule
import speed
import spine
import torch
import xor_board
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt

import epkit
from epkit.ep import engine, training
from epkit.files import CHECKOUT, renewed
from epkit.sweep import store

BENCH = CHECKOUT / "results" / "bench"
EASY = settings(deadline=None)  # on a busy machine
JOBS = st.lists(st.floats(0.01, 100), min_size=1, max_size=40)


@pytest.mark.parametrize("sizes", [(9, 6, 4), (9, 8, 6, 10, 4)])
@pytest.mark.parametrize("sigma", [0.0, 0.125])
def test_plain_step_is_the_step_that_epkit_takes(sizes, sigma, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 9, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 2, 0])
    ours, plainly = [
        epkit.DeepResistiveNetwork(sizes, input_gain=5.0, members=2, seed=[0, 1], dtype=torch.float64) for _ in "ab"
    ]
    before = [w.clone() for w in ours.weights]
    settings = {"batch_size": 5, "beta": 0.05, "iterations": 3, "learning_rates": [n / 128 for n in sizes[1:]]}
    readout = epkit.GaussianReadout(sigma)
    epkit.train(ours, x, y, epochs=1, seed=7, readout=readout, engine="eager", **settings)

    # the same images and the same read-out noise for the plain step, which draws its own layer by layer
    order = torch.randperm(5, generator=training._generator(7, 0))
    shape = (2**17, 2, 5, sum(sizes[1:]))
    numbers = epkit.GaussianReadout(1.0).noise(shape, training._generator(7, 0, 0))[0].double()
    drawn = iter([part for _ in range(2) for phase in numbers for part in phase.split(sizes[1:], -1)])
    monkeypatch.setattr(torch, "randn_like", lambda like: next(drawn))
    plain.train(plainly, x[order], y[order], sigma=sigma, **settings)

    for a, b, start in zip(ours.weights, plainly.weights, before, strict=True):
        torch.testing.assert_close(b - start, a - start, rtol=1e-9, atol=1e-13)
        assert not torch.equal(a, start)
    for a, b in zip(ours.biases, plainly.biases, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-13)


def test_images_have_the_share_of_zeros_that_mnist_has():
    x, y = speed.images(3_000)
    assert float((x == 0).double().mean()) == pytest.approx(0.81, abs=0.01)
    assert x.shape == (3_000, 784)
    assert set(y.tolist()) == set(range(10))
    assert torch.equal(x, speed.images(3_000)[0])


def test_operations_are_those_of_the_formula():
    work = speed.DEEP
    inner = sum(n * m for n, m in pairwise(work.sizes[1:]))
    assert speed.flop(work) == 4 * 784 * 1024 + inner * (12 * work.iterations + 4)
    assert speed.conductances(work) == 2 * 784 * 1024 + inner


@pytest.mark.skipif(engine.library() is None, reason="no C++ compiler on this machine")
def test_contestants_take_turns_over_the_same_number_of_samples():
    tiny = speed.Work("tiny", (784, 8, 10), 50.0, 0.1, 2, (0.001, 0.001), 4, members=2)
    x, y = speed.images(64)
    rates = speed.paired([(tiny, name) for name in ("native", "plain", "eager")], x, y, 0.01)
    assert rates.shape == (3, speed.TURNS)
    assert np.isfinite(rates).all()


@pytest.mark.parametrize(
    ("name", "page", "marks", "table"),
    [
        ("engine", speed.PAGE, report.MARKS, report.table),
        ("spine", spine.PAGE, spine.MARKS, spine.table),
        ("schedule", schedule.PAGE, schedule.MARKS, schedule.table),
        ("readouts", readouts.PAGE, readouts.MARKS, readouts.table),
        ("xor_board", xor_board.PAGE, xor_board.MARKS, xor_board.table),
    ],
)
def test_pages_show_the_stores(name, page, marks, table):
    assert renewed(page, marks, table(store.read(BENCH / f"{name}.nc"))) == page.read_text(encoding="utf-8")


def test_memory_is_as_promised():
    ds = store.read(BENCH / "engine.nc")
    assert float(ds.memory.sel(work=speed.label(speed.LARGEST))) < 2e9
    assert float(ds.heavy_memory) < 1.5e9


def test_figure_draws_every_network():
    ds = store.read(BENCH / "engine.nc")
    figure = report.figure(ds)
    assert len(figure.axes) == 6
    assert len(figure.axes[0].get_yticks()) == ds.sizes["work"]
    plt.close(figure)


@EASY
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 100))
def test_equal_jobs_take_as_many_rounds_as_it_needs(jobs, workers, time):
    assert schedule.makespan([time] * jobs, workers) == pytest.approx(math.ceil(jobs / workers) * time)


@EASY
@given(JOBS, st.integers(1, 60))
def test_a_schedule_is_within_its_bounds_and_no_worker_makes_it_longer(jobs, workers):
    found = schedule.makespan(jobs, workers)
    bound = max(max(jobs), sum(jobs) / workers)
    assert bound * (1 - 1e-9) <= found <= bound * 4 / 3 + max(jobs)
    assert schedule.makespan(jobs, workers + 1) <= found * (1 + 1e-9)
    assert schedule.makespan(jobs, workers, start=3.0) == pytest.approx(found + 3.0)


@EASY
@given(st.floats(0.1, 50), st.floats(0.5, 100))
def test_losses_cost_what_renewal_theory_says(hours, every):
    assert schedule.with_losses(hours, every, 0.0) == pytest.approx(every * math.expm1(hours / every))
    assert hours < schedule.with_losses(hours, every, 0.0, kept=0.01) < schedule.with_losses(hours, every, 0.0)
    assert schedule.with_losses(hours, 1e9, 0.0, kept=0.1) == pytest.approx(hours, rel=1e-4)


def test_every_run_is_in_one_job():
    assert all(sum(schedule.sizes(members)) == schedule.STUDY["sigmas"] for members in schedule.MEMBERS)
    assert all(max(schedule.sizes(members)) <= members for members in schedule.MEMBERS)


def test_what_one_watched_function_asks_of_another_is_counted_once(monkeypatch):
    place = SimpleNamespace(inner=lambda: time.sleep(0.01), outer=lambda: place.inner())
    monkeypatch.setattr(spine, "PARTS", {name: [(place, name)] for name in ("outer", "inner")})
    with spine.stopwatches() as spent:
        place.outer()
    assert list(spent) == ["outer"]
    assert spent["outer"] >= 0.01
