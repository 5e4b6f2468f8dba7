"""The page's numbers against `recomputation.py`, which shares no code with epkit."""

import ast
from pathlib import Path

import numpy as np
import pytest
import recomputation

from epkit import study
from epkit.study.report import networks_of

FOLDER = Path(__file__).parents[1] / "results" / "study"


@pytest.fixture(scope="module")
def again():
    return recomputation.recompute(FOLDER)


@pytest.fixture(scope="module")
def page():
    found = study.evidence("study")
    assert found is not None
    # judged whatever number of seeds is there
    return found, study.family_verdicts(study.judged_rows(found._replace(fresh=False)))


def test_it_shares_no_code_with_epkit():
    tree = ast.parse(Path(recomputation.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith("epkit")]


@pytest.mark.parametrize("claim", study.registration.FamilyClaims.model_fields)
def test_the_headline_of_each_claim(again, page, claim):
    row, other = page[1].loc[claim], again[claim]
    assert row.verdict == other["verdict"]
    assert row.m == other["m"]
    np.testing.assert_allclose([row["value"], row.low, row.high], other["headline"], rtol=5e-4, atol=5e-6)


def test_the_escape_and_the_best_accuracies(again, page):
    first, _ = study.first_and_longer(networks_of("study", study.registered_claims().escape.notebook))
    row = study.claim_escape(first).query("setting == 'primary'").iloc[0]
    np.testing.assert_allclose([row["value"], row.low, row.high], again["escape"]["headline"], rtol=5e-4)
    best = study.best_accuracies(page[0].grid)
    for title, name in (("FashionMNIST", "fashion_mnist"), ("KMNIST (t10k split)", "kmnist")):
        numbers = [float(best[title][part]) for part in ("mean", "low", "high")]
        np.testing.assert_allclose(numbers, again[f"best accuracy, {name}"]["headline"], rtol=5e-4)
