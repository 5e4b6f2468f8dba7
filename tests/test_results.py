"""The committed results: whole, and what the committed code computes."""

import hashlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

import epkit
from epkit.__main__ import COMMITTED
from epkit.sweep import store

RESULTS = Path(__file__).parents[1] / "results"


def test_the_stores_are_those_of_the_manifest():
    listed = dict(line.split(maxsplit=1)[::-1] for line in (RESULTS / "SHA256SUMS").read_text().splitlines())
    found = {
        path.relative_to(RESULTS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in RESULTS.glob("*/*.nc")
        if path.parent.name in COMMITTED
    }
    assert found == listed


@pytest.mark.full_data("mnist")
def test_a_committed_run_computed_again_gives_its_numbers(tmp_path):
    committed = store.read(RESULTS / "quick" / "02_critical_limit.nc")
    given = store.parameters(committed)
    given.pop("sizes")
    again = epkit.run(
        given | {"sigma": [0.0, 1e-4], "learning_rate": [0.02], "seeds": 1, "epochs": 1}, tmp_path / "again.nc"
    )
    before = committed.sel(sigma=again.sigma, learning_rate=again.learning_rate, seed=again.seed).isel(epoch=[0])
    # equal on the machine that made them; elsewhere sums are rounded otherwise
    np.testing.assert_allclose(again.train_error, before.train_error, atol=0.01)
    np.testing.assert_allclose(again.test_error, before.test_error, atol=0.03)


def test_an_environment_of_the_locked_packages_alone_will_do(monkeypatch):
    """As `make` builds it: epkit is imported from the checkout, and not installed."""

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(store, "version", version)
    assert store.maker("eager").startswith("epkit 0.1.0, ")
