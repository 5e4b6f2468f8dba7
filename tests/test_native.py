"""The C++ engine against its reference in torch, and its promises about threads, ensembles and compilers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import epkit
from epkit.ep import engine
from epkit.ep.engine import Block, Rule, torch_steps

compiled = pytest.mark.skipif(engine.library() is None, reason="no C++ compiler on this machine")


class Problem(NamedTuple):
    """What an engine is given."""

    net: epkit.DeepResistiveNetwork
    block: Block
    rule: Rule


def problem(
    sizes=(12, 20, 34, 6), members=3, batch=4, streams=1, steps=20, nudge=(0.3, -0.3), noise=True, updates=None, seed=0,
    make=epkit.DeepResistiveNetwork,
) -> Problem:  # fmt: skip
    """In float64: random networks, images with exact zeros, several streams."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    pre, images, layers = (2 * sizes[0], *sizes[1:-1]), 40, len(sizes) - 1
    net = make(sizes, input_gain=3.0, members=members, dtype=torch.float64)
    net.weights = [normal(members, a, b).clamp_min(0) / a**0.5 + 0.01 for a, b in zip(pre, sizes[1:], strict=True)]
    net.biases = [0.1 * normal(members, n) for n in sizes[1:]]
    x = normal(images, sizes[0]) * (torch.rand(images, sizes[0], generator=generator) < 0.3)
    target = torch.eye(sizes[-1], dtype=torch.float64)[torch.randint(sizes[-1], (images,), generator=generator)]
    rows = torch.randint(images, (streams, steps, batch), generator=generator)
    xi = normal(streams, steps, 2, batch, sum(sizes[1:])) if noise else None
    readout = epkit.Schedule(1e-3 * torch.arange(members, dtype=torch.float64), updates=updates) if noise else None
    rates = 0.01 * torch.rand(layers, members, generator=generator, dtype=torch.float64)
    block = Block(x, target, rows, torch.arange(members) % streams, xi, torch.linspace(0.2, 1, steps).double())
    return Problem(net, block, Rule(torch.tensor(nudge).double(), 3, rates, 0.5, readout))


def copied(given: Problem, dtype: torch.dtype = torch.float64, members: list[int] | None = None) -> Problem:
    """A deep copy in another type, of some members only."""

    def part(t, axis=0):
        return t if members is None else t.index_select(axis, torch.tensor(members))

    net, block, rule = copy(given.net), given.block, given.rule
    net.weights, net.biases = ([part(p).to(dtype, copy=True) for p in ps] for ps in (net.weights, net.biases))
    x, target, xi = (None if t is None else t.to(dtype, copy=True) for t in (block.x, block.target, block.noise))
    readout = None if rule.readout is None else replace(rule.readout, sigma=part(rule.readout.sigma))
    return Problem(
        net,
        Block(x, target, block.rows, part(block.stream), xi, block.rise.to(dtype)),
        rule._replace(nudges=rule.nudges.to(dtype), rates=part(rule.rates, 1).to(dtype), readout=readout),
    )


def outcome(given: Problem, steps=engine.native_steps) -> list[torch.Tensor]:
    """All that a block of steps changes and returns."""
    return [*steps(*given), *given.net.weights, *given.net.biases]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread unless a test asks for more, and the number as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_library(monkeypatch, tmp_path) -> Iterator[None]:
    """Compiles anew, into an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine.library.cache_clear()
    yield
    engine.library.cache_clear()


@compiled
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 20),
    st.lists(st.integers(1, 75).map(lambda n: 2 * n), max_size=3),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 2),
    st.sampled_from([(0.3, -0.3), (0.3, 0.0), (0.0, -0.3)]),
    st.booleans(),
    st.none() | st.lists(st.sampled_from([1, "biases"])),
    st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-4)]),
    st.sampled_from(engine.NATIVE),
)
def test_equals_torch(inputs, hidden, outputs, members, batch, streams, nudge, noise, updates, precision, make):
    dtype, tolerance = precision
    streams = min(streams, members)
    arguments = problem((inputs, *hidden, outputs), members, batch, streams, 20, nudge, noise, updates, make=make)
    # A nudge as large as an output's conductance has no steady state: rounding would grow without bound.
    arguments.net.weights[-1] += 1.0
    expected = outcome(copied(arguments, dtype), torch_steps)
    for value, reference in zip(outcome(copied(arguments, dtype)), expected, strict=True):
        size = float(reference.abs().max()) + 1.0
        torch.testing.assert_close(value.double(), reference.double(), rtol=0, atol=tolerance * size)


@compiled
@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("sharing", range(3))
@pytest.mark.parametrize("make", engine.NATIVE)
def test_threads_change_no_bit(members, make, sharing, monkeypatch):
    monkeypatch.setattr(engine._Pace, "choose", lambda self: sharing)  # even where it is slower
    arguments = problem((9, 66, 130, 5), members, streams=min(2, members), make=make)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(outcome(copied(arguments, torch.float32)))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@compiled
def test_other_members_change_no_bit():
    torch.set_num_threads(2)
    arguments = problem(members=5, streams=2)
    together = outcome(copied(arguments))
    for members in ([3], [4, 0]):
        for alone, value in zip(outcome(copied(arguments, members=members)), together, strict=True):
            assert torch.equal(alone, value[members])


@compiled
@pytest.mark.parametrize("make", engine.NATIVE)
def test_cutting_into_blocks_changes_no_bit(make):
    whole, cut = problem(make=make), problem(make=make)
    outcome(whole)
    rows, noise, rise = cut.block.rows, cut.block.noise, cut.block.rise
    for part in (slice(0, 7), slice(7, 20)):
        outcome(cut._replace(block=cut.block._replace(rows=rows[:, part], noise=noise[:, part], rise=rise[part])))
    assert all(map(torch.equal, [*whole.net.weights, *whole.net.biases], [*cut.net.weights, *cut.net.biases]))


@compiled
@pytest.mark.parametrize("sharing", range(3))
@pytest.mark.parametrize("threads_count", [1, 2])
def test_a_diverged_member_shows_and_stays_alone(threads_count, sharing, monkeypatch):
    monkeypatch.setattr(engine._Pace, "choose", lambda self: sharing)
    torch.set_num_threads(threads_count)
    arguments = problem(members=3)
    healthy = outcome(copied(arguments))
    arguments.net.weights[1][1, 0, 0] = torch.nan
    sick = outcome(copied(arguments))
    for value, reference in zip(sick, healthy, strict=True):
        assert torch.equal(value[[0, 2]], reference[[0, 2]])
    assert not all(bool(p[1].isfinite().all()) for p in sick[2:])
    assert not bool(sick[1][1].isfinite())


@compiled
@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("weights", lambda w: w.mT.contiguous().mT, "not contiguous"),
        ("weights", lambda w: w.float(), "float32 or float64"),
        ("weights", lambda w: w[:, :-1], r"a parameter has the shape \(3, 19, 34\), the network's sizes ask for"),
        ("x", lambda x: x[:, :-1], r"x has the shape \(40, 11\): must be \(40, 12\)"),
        ("target", lambda t: t[:-1], r"target has the shape \(39, 6\)"),
        ("noise", lambda xi: xi[..., :-1], r"noise has the shape"),
        ("noise", lambda xi: xi[:, :-1], r"noise has the shape"),
        ("rise", lambda rise: rise[:-1], r"rise has the shape \(19,\): must be \(20,\)"),
        ("rows", lambda rows: rows + 1, r"rows holds numbers from 1 to 40: allowed are 0 to 39"),
        ("stream", lambda stream: stream - 1, r"stream holds numbers from -1 to -1: allowed are 0 to 0"),
    ],
)
def test_nothing_unchecked_reaches_the_compiled_code(part, change, message):
    arguments = problem()
    if part == "weights":
        arguments.net.weights[1] = change(arguments.net.weights[1])
    else:
        arguments.block.rows[0, 0, 0], arguments.block.rows[0, 0, 1] = 0, 39
        block = arguments.block._replace(**{part: change(getattr(arguments.block, part))})
        arguments = arguments._replace(block=block)
    with pytest.raises(ValueError, match=message):
        engine.native_steps(*arguments)


@compiled
def test_a_library_that_was_cut_short_is_built_again(fresh_library, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "FLAGS", tuple(flag for flag in engine.FLAGS if flag != "-O3"))  # compiles faster
    compiler = engine.shutil.which("g++") or engine.shutil.which("c++")
    whole = engine._compiled(compiler, engine.FLAGS)
    content = whole.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-1] + b"x"):
        whole.write_bytes(damaged)
        again = engine._compiled(compiler, engine.FLAGS)
        assert again.stem.rpartition("-")[2] == hashlib.sha256(again.read_bytes()).hexdigest()[:16]
        assert len(list((tmp_path / "epkit").iterdir())) == 1
        whole = again


@compiled
def test_a_compiler_without_march_native_is_tried_without(fresh_library, tmp_path, monkeypatch):
    real = engine.shutil.which("g++") or engine.shutil.which("c++")
    fussy = tmp_path / "fussy"
    fussy.write_text(
        f'#!/bin/sh\ncase "$*" in *-march=native*) echo "unknown -march" >&2; exit 1;; esac\nexec {real} "$@"\n'
    )
    fussy.chmod(0o755)
    monkeypatch.setenv("CXX", str(fussy))
    monkeypatch.setattr(engine, "FLAGS", tuple(flag for flag in engine.FLAGS if flag != "-O3"))
    assert engine.library() is not None


def test_falls_back_with_one_warning(monkeypatch, fresh_library):
    monkeypatch.setattr(engine.shutil, "which", lambda name: None)
    net = epkit.DeepResistiveNetwork((4, 6, 3), input_gain=2.0)
    settings = {
        "epochs": 2,
        "batch_size": 2,
        "beta": 0.1,
        "iterations": 2,
        "learning_rates": (0.01, 0.01),
        "engine": "native",
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            epkit.train(net, torch.rand(8, 4), torch.arange(8) % 3, **settings)
    (message,) = [str(w.message) for w in caught if "slower torch engine" in str(w.message)]
    assert "apt install g++" in message


@compiled
def test_two_processes_compile_at_once(fresh_library, tmp_path):
    # Unoptimised, which compiles in a fraction of the time.
    code = (
        "from epkit.ep import engine\n"
        "engine.FLAGS = tuple(flag for flag in engine.FLAGS if flag != '-O3')\n"
        "assert engine.library() is not None"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert [p.suffix for p in (tmp_path / "epkit").iterdir()] == [".so"]
