"""Figures that can be read alone, and files that are the same to the byte."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from synthetic import store

from epkit import analysis, claims, figures

NAMES = ("mnist", "kmnist_t10k_split", "fashion_mnist")


def limits_of(ds):
    return analysis.critical_limit(analysis.final_error(ds), ds.chance)


def drawn(name):
    figures.style()
    ds = store(rates=(0.02, 0.1), benefit=0.3, spread=0.3)
    sets = store(datasets=NAMES, rates=(0.02, 0.1), benefit=0.3)
    scaling = store(samples=(1, 4, 16), averaging=("explicit", "shortcut"), seeds=3)
    limits = limits_of(scaling)
    return {
        "error_over_sigma": lambda: figures.error_over_sigma(ds, limits_of(ds)),
        "training_curves": lambda: figures.training_curves(ds),
        "unit_activity": lambda: figures.unit_activity(ds),
        "clt_scaling": lambda: figures.clt_scaling(scaling, limits, analysis.scaling_exponent(limits.limit)),
        "dataset_comparison": lambda: figures.dataset_comparison(sets, limits_of(sets)),
        "benefit_of_noise": lambda: figures.benefit_of_noise(sets, analysis.optimum(analysis.final_error(sets))),
        "limit_ratios": lambda: figures.limit_ratios(sets, limits_of(sets), claims.claim_datasets(sets)),
    }[name]()


FIGURES = {
    "error_over_sigma": ["σ (V)", "test error (%)", "MNIST, η = 0.02", "bootstrap"],
    "training_curves": ["epoch", "error (%)", "σ (V)", "mean train error"],
    "unit_activity": ["σ (V)", "conducting diode units (%)", "hidden layer 3"],
    "clt_scaling": ["σ/√N (V)", "critical limit σ$_c$ (V)", "explicit: slope 0.50", "slope 1/2", "N = 16"],
    "dataset_comparison": ["KMNIST (t10k split), η = 0.1", "5/5 seeds"],
    "benefit_of_noise": ["error at σ = 0 minus error at σ* (%)", "KMNIST (t10k split)", "n = 5"],
    "limit_ratios": ["critical limit σ$_c$ (V)", "ratio of critical limits", "all pairs"],
}


def words(figure):
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("name", FIGURES)
def test_figure_can_be_read_alone(name):
    figure = drawn(name)
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    said = words(figure)
    said += said.replace("\n", " ")  # long labels are broken into lines
    seeds = 3 if name == "clt_scaling" else 5
    for expected in [*FIGURES[name], "784-128-128-128-10", "8,000 images", f"n = {seeds} seeds"]:
        assert expected in said, expected


def test_sigma_zero_has_a_place_of_its_own():
    ax = drawn("error_over_sigma").axes[0]
    names = dict(zip(ax.get_xticks(), [label.get_text() for label in ax.get_xticklabels()], strict=True))
    assert names[min(names)] == "0"
    assert 0 < min(names) < 1e-6
    assert ax.get_xscale() == "log"


def test_a_missing_limit_is_said():
    low = store(limit=1.0)
    assert "no limit: below half way" in words(figures.error_over_sigma(low, limits_of(low)))
    one = store(seeds=1)
    assert "no interval" in words(figures.error_over_sigma(one, limits_of(one)))
    none = store()
    none["test_error"] = none.test_error * np.nan
    assert "not run" in words(figures.error_over_sigma(none, limits_of(none)))


def test_a_choice_is_left_to_the_caller():
    ds = store(samples=(1, 4))
    with pytest.raises(ValueError, match=r"one samples, select one of \[1, 4\]"):
        figures.training_curves(ds)
    figures.training_curves(ds.sel(samples=4))


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first = figures.save(drawn("error_over_sigma"), tmp_path / "a", "figure")
    second = figures.save(drawn("error_over_sigma"), tmp_path / "b", "figure")
    assert [path.suffix for path in first] == [".png", ".svg"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["figure.png", "figure.svg"]


def test_sample_images_of_two_sizes():
    images = {"small": np.zeros((3, 8, 8)), "large": np.zeros((2, 28, 28))}
    said = words(figures.sample_images(images))
    assert "small, 8 × 8 pixels" in said
    assert "large, 28 × 28 pixels" in said
    array = xr.DataArray(
        np.zeros((2, 3, 8, 8)), dims=("dataset", "image", "row", "column"), coords={"dataset": ["a", "b"]}
    )
    assert "b, 8 × 8 pixels" in words(figures.sample_images(array))
