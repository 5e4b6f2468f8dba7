"""What no change may move: the committed runs' hashes, and the numbers that training gives.

A run's hash depends on: every field of `Network` and the run's place on the grid (`Point`), as JSON, without the fields
that are None; RESULTS_VERSION; and the data set's checksum (files, order, split). A new field of `Network` therefore
enters as `X | None = None`: any other default would make each committed store "lacking", and start to train inside
`make validate`. Change a number on purpose, and raise RESULTS_VERSION.

    python tests/test_contract.py    writes contract.json anew, of this code on this machine
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import epkit
from epkit import data
from epkit.__main__ import COMMITTED, _lacking, planned
from epkit.ep import engine
from epkit.ep.probe import relative_rates
from epkit.sweep import store
from epkit.sweep.grid import run_ids
from epkit.sweep.parameters import Sweep
from epkit.validation import validated

RECORD = Path(__file__).with_name("contract.json")
ENGINES = ("native", "eager", "compiled")


@pytest.mark.parametrize("profile", COMMITTED)
def test_committed_stores_are_complete_as_they_stand(profile):
    assert planned(profile)
    assert _lacking(planned(profile), store.results(profile)) == []


@pytest.mark.parametrize("profile", COMMITTED)
def test_runs_have_the_hashes_that_they_were_stored_with(profile):
    sweeps = [ds for path in sorted(store.results(profile).glob("*.nc")) if "run" in (ds := store.read(path))]
    assert sweeps
    for ds in sweeps:
        recorded = store.parameters(ds)
        recorded.pop("sizes")
        hashes = list(run_ids(validated(Sweep, recorded)).values())
        stored = ds["run"].values.ravel().tolist()
        assert {name for name in stored if name} <= set(hashes), store.place(ds)
        assert all(name in ("", own) for name, own in zip(stored, hashes, strict=True)), store.place(ds)


def processor() -> str:
    """What the last bits of a sum hang on."""
    return hashlib.sha256(f"{engine._processor()} {torch.__version__}".encode()).hexdigest()[:12]


def numbers(engine: str) -> dict[str, object]:
    """A short training by one engine: a digest of every bit of it, and some rounded numbers."""
    images = data.load("digits", train=120, test=60)
    net = epkit.DeepResistiveNetwork((64, 16, 12, 10), input_gain=60.0, members=3, seed=[0, 0, 1])
    history = epkit.train(
        net, images.x_train, images.y_train, epochs=2, batch_size=8, beta=0.1, iterations=4, bias_rate=0.5, looks=2,
        learning_rates=(0.01, torch.tensor([0.02, 0.01, 0.02]), 0.01), seed=[0, 0, 1], engine=engine,
        readout=epkit.GaussianReadout(torch.tensor([0.0, 1e-3, 2e-3]), samples=3, averaging="explicit"),
        test=(images.x_test, images.y_test), validation=(images.x_test[:30], images.y_test[:30]),
    )  # fmt: skip
    values = [*net.weights, *net.biases]
    content = b"".join(v.numpy().tobytes() for v in values) + b"".join(
        np.ascontiguousarray(history[name].values).tobytes() for name in sorted(history.data_vars)
    )
    return {
        "digest": hashlib.sha256(content).hexdigest(),
        "mean": [round(float(v.double().mean()), 6) for v in values],
        "test_error": history.test_error.values.astype(float).round(3).tolist(),
    }


def untrained() -> dict[str, object]:
    """The same of what is computed before training: gradients of each estimator, and calibrated rates."""
    images = data.load("digits", train=64, test=1)
    net = epkit.DeepResistiveNetwork((64, 16, 12, 10), input_gain=60.0, members=2, seed=[0, 1])
    target = torch.eye(10)[images.y_train]
    readout, values = epkit.GaussianReadout(1e-3, samples=2), []
    for estimator in ("centered", "positive", "negative"):
        estimate = epkit.gradient(
            net, images.x_train[:8], target[:8], beta=0.1, iterations=5, estimator=estimator, readout=readout,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        values += [*estimate.weights, *estimate.biases]
    settings = {"input_gain": 60.0, "beta": 0.1, "iterations": 4, "batch_size": 8}
    values.append(relative_rates((64, 16, 12, 10), images.x_train, images.y_train, **settings))
    content = b"".join(v.contiguous().numpy().tobytes() for v in values)
    return {
        "digest": hashlib.sha256(content).hexdigest(),
        "mean": [round(float(v.double().mean()), 6) for v in values],
    }


def record() -> dict[str, object]:
    torch.set_num_threads(1)
    return {"processor": processor(), "untrained": untrained()} | {engine: numbers(engine) for engine in ENGINES}


@pytest.fixture(scope="module")
def now() -> dict[str, dict]:
    """`record` in a process of its own: torch.compile can't compile what checks the shapes of the tests' tensors."""
    done = subprocess.run([sys.executable, __file__, "--print"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["untrained", *ENGINES])
def test_numbers_are_those_on_record(what, now):
    """To the bit on the kind of machine that made the record, to rounding on any other."""
    kept = json.loads(RECORD.read_text(encoding="utf-8"))
    if kept["processor"] == now["processor"]:
        assert now[what]["digest"] == kept[what]["digest"]
    np.testing.assert_allclose(now[what]["mean"], kept[what]["mean"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(now[what].get("test_error", 0), kept[what].get("test_error", 0), atol=0.05)


if __name__ == "__main__":
    text = json.dumps(record(), indent=1)
    if "--print" in sys.argv:
        print(text)
    else:
        RECORD.write_text(text + "\n", encoding="utf-8")
