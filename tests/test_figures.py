"""Figures that can be read alone, and files that are the same to the byte."""

import hashlib
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure
from synthetic import limits_of, store

from epkit import figures, study
from epkit.figures import canvas

NAMES = ("mnist", "kmnist_t10k_split", "fashion_mnist")


def benefits_of(ds):
    error, choice = study.final_error(ds), study.choice_error(ds)
    return study.optimum(error, choice), study.beyond_tuning(error, choice)


def drawn(name):
    figures.style()
    ds = store(rates=(0.02, 0.1), benefit=0.3, spread=0.3)
    sets = store(datasets=NAMES, rates=(0.02, 0.1), benefit=0.3)
    sigmas = (0.0, *(1e-5 * 2.0 ** np.arange(10)))
    scaling = store(samples=(1, 4, 16), averaging=("explicit", "shortcut"), seeds=3, sigmas=sigmas)
    limits, error = limits_of(scaling), study.final_error(scaling)
    looked = store(rates=(0.01, 0.02, 0.05, 0.1), looks=True)
    choice = study.choice_error(sets)
    return {
        "error_over_sigma": lambda: figures.error_over_sigma(ds, limits_of(ds)),
        "training_curves": lambda: figures.training_curves(ds),
        "unit_activity": lambda: figures.unit_activity(ds),
        "clt_scaling": lambda: figures.clt_scaling(scaling, limits, study.scaling_exponent(limits.limit)),
        "dataset_comparison": lambda: figures.dataset_comparison(sets, limits_of(sets)),
        "conductances": lambda: figures.conductances(looked),
        "signal_to_noise": lambda: figures.signal_to_noise(looked, limits_of(looked)),
        "collapse": lambda: figures.collapse(scaling, study.collapse(error), study.curve_distance(error)),
        "error_map": lambda: figures.error_map(sets, benefits_of(sets)[0], limits_of(sets)),
        "noise_or_tuning": lambda: figures.noise_or_tuning(sets, *benefits_of(sets)),
        "convergence": lambda: figures.convergence(sets, *benefits_of(sets)),
        "rounding": lambda: figures.rounding_control(sets, sets.isel(learning_rate=[-1]).sel(sigma=[0.0])),
        "final_accuracies": lambda: figures.final_accuracies(sets),
        "optimum_over_limit": lambda: figures.optimum_over_limit(
            sets, study.star_over_limit(choice, limits_of(sets).limit), (0.1, 1.0)
        ),
        "limit_ratios": lambda: figures.limit_ratios(sets, limits_of(sets), study.claim_datasets(sets)),
    }[name]()


FIGURES = {
    "error_over_sigma": ["σ (V)", "test error (%)", "MNIST, η = 0.02", "95 % t interval"],
    "training_curves": ["epoch", "error (%)", "σ (V)", "mean train error"],
    "unit_activity": ["σ (V)", "conducting diode units (%)", "hidden layer 3"],
    "clt_scaling": ["critical limit σ$_c$ (V)", "explicit: slope 0.50", "slope 1/2", "N = 16"],
    "dataset_comparison": ["KMNIST (t10k split), η = 0.1", "5/5 seeds"],
    "conductances": ["mean (S)", "standard deviation (S)", "share at zero (%)", "layer 1"],
    "signal_to_noise": ["signal-to-noise ratio of a step", "1/√steps", "η = 0.01", "5/5 seeds"],
    "collapse": ["σ/√N (V)", "explicit averaging: mean distance from N = 1", "seeds alone would make", "N = 16"],
    "error_map": ["MNIST", "saved by noise", "KMNIST (t10k split)", "learning rate η", "this store has no validation"],
    "noise_or_tuning": ["tuned: noise saves", "σ = 0", "σ*", "learning rate η", "KMNIST (t10k split)"],
    "convergence": ["KMNIST (t10k split): training", "η = 0.1 (bold)", "training images seen (thousands)"],
    "rounding": ["float32", "float64", "σ = 0", "learning rate η", "KMNIST (t10k split)"],
    "final_accuracies": ["accuracy after training (%)", "seeds that learn (%)", "KMNIST (t10k split), η = 0.1"],
    "optimum_over_limit": ["σ*/σ$_c$", "0.1 … 1", "KMNIST (t10k split)"],
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
    seeds = 3 if name in ("clt_scaling", "collapse") else 5
    for expected in [*FIGURES[name], "784-128-128-128-10", "7,000 images", f"n = {seeds} seeds"]:
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


def test_what_a_store_lacks_is_left_out_or_said():
    without = store(rates=(0.02, 0.1))
    assert len(figures.conductances(without).axes) == 2  # the means alone
    assert figures.choice_made_on(store(looks=True)) == "validation images"
    never = store(rates=(0.02, 0.1), limit=1.0)
    ratios = study.star_over_limit(study.choice_error(never), limits_of(never).limit)
    figures.optimum_over_limit(never, ratios, (0.1, 1.0)).canvas.draw()


def test_five_panels_fill_two_rows_from_below():
    figure = figures.error_over_sigma(ds := store(rates=(0.01, 0.02, 0.05, 0.1, 0.2)), limits_of(ds))
    assert len(figure.axes) == 5
    assert [ax.get_xlabel() != "" for ax in figure.axes] == [False, False, True, True, True]


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first = figures.save(drawn("error_over_sigma"), tmp_path / "a", "figure")
    second = figures.save(drawn("error_over_sigma"), tmp_path / "b", "figure")
    assert [path.suffix for path in first] == [".png", ".svg"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["figure.png", "figure.svg"]


def test_a_png_is_laid_out_at_the_resolution_that_it_has():
    figure = drawn("error_over_sigma")
    size = mpl.image.imread(BytesIO(canvas.draw(figure, "figure")["png"])).shape[1::-1]
    np.testing.assert_allclose(size, figure.get_size_inches() * figure.dpi, atol=1)
    assert figure.dpi == canvas.DPI


def digests(*names):
    """SHA-256 of the PNG and the SVG of each figure, drawn in this order."""
    drawings = {name: canvas.draw(figures.circuit() if name == "circuit" else drawn(name), name) for name in names}
    return {name: [hashlib.sha256(file).hexdigest() for file in files.values()] for name, files in drawings.items()}


HOSTILE = """
backend: TkAgg
figure.dpi: 33
savefig.dpi: 44
savefig.bbox: tight
savefig.facecolor: red
font.family: serif
font.size: 23
text.usetex: True
mathtext.fontset: cm
svg.fonttype: none
svg.hashsalt: mine
lines.linewidth: 7
axes.prop_cycle: cycler("color", ["r", "g"])
axes.grid: True
axes.formatter.use_locale: True
xtick.direction: in
image.cmap: jet
path.simplify: False
path.sketch: 1, 100, 2
"""


def test_a_readers_matplotlibrc_changes_no_byte(tmp_path):
    (tmp_path / "matplotlibrc").write_text(HOSTILE)
    names = ("error_over_sigma", "error_map", "circuit")
    program = f"import test_figures; print(test_figures.digests(*{names}))"
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(figures.__file__).parents[2])])
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env=environment | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "PYTHONPATH": here},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(digests(*names))


def test_neither_repetition_nor_order_changes_a_byte():
    names = ["signal_to_noise", "error_map", "circuit", "clt_scaling", "limit_ratios", "noise_or_tuning"]
    assert digests(*names) == digests(*reversed(names))


def test_the_last_digits_of_a_fit_change_no_byte():
    ds = store(rates=(0.02, 0.1), benefit=0.3, spread=0.3)
    limits = limits_of(ds)
    moved = limits.map(lambda values: values * (1 + 1e-9) if values.dtype.kind == "f" else values)
    assert not moved.equals(limits)
    first, second = (canvas.draw(figures.error_over_sigma(ds, each), "figure") for each in (limits, moved))
    assert first == second


def test_what_would_not_change_is_not_written(tmp_path):
    paths = figures.save(drawn("error_over_sigma"), tmp_path, "figure")
    before = [path.stat() for path in paths]
    figures.save(drawn("error_over_sigma"), tmp_path, "figure")
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths] == [
        (stat.st_ino, stat.st_mtime_ns) for stat in before
    ]
    paths[0].write_bytes(b"damaged")
    figures.save(drawn("error_over_sigma"), tmp_path, "figure")
    assert paths[0].stat().st_size == before[0].st_size


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_an_alternative_text(name, tmp_path, monkeypatch):
    displayed = []
    monkeypatch.setattr(canvas, "display", displayed.append)
    figures.show(figure := drawn(name), tmp_path, name)
    (image,) = displayed
    assert image.data == (tmp_path / f"{name}.png").read_bytes()
    _, metadata = image._repr_mimebundle_()
    alternative = metadata["image/png"]["alt"]
    assert alternative.startswith(figure.get_suptitle().split("$")[0])
    assert "5 seeds" in alternative or "3 seeds" in alternative
    assert not {"$", "\n", "\\"} & set(alternative)


def test_figures_without_a_caption_have_an_alternative_text():
    assert canvas.alternative(figures.circuit()).startswith("A deep resistive network: one pixel, two hidden units")
    samples = figures.sample_images({"Cash $": np.zeros((3, 8, 8)), "large": np.zeros((2, 28, 28))})
    assert canvas.alternative(samples) == "Cash $, 8 × 8 pixels. large, 28 × 28 pixels"


def test_a_figure_in_a_read_only_folder_is_shown_all_the_same(tmp_path, monkeypatch):
    displayed = []
    monkeypatch.setattr(canvas, "display", displayed.append)
    monkeypatch.setattr(canvas, "writable", lambda folder: False)
    with pytest.warns(UserWarning, match="the folder is read-only"):
        figures.show(drawn("error_over_sigma"), tmp_path, "figure")
    assert displayed[0].data.startswith(b"\x89PNG")
    assert not list(tmp_path.iterdir())


def test_the_forest_shows_every_setting_that_can_be_tested():
    rows = pd.DataFrame({
        "claim": ["accuracy"] * 3 + ["datasets"], "dataset": ["MNIST"] * 3 + ["MNIST / KMNIST"],
        "value": [0.1, 0.02, np.nan, 3.0], "low": [0.05, -0.01, np.nan, 2.5], "high": [0.15, 0.05, np.nan, 4.0],
        "verdict": ["supported", "undecided", "not testable", "contradicted"],
        "n": [20, 18, 0, 20],
    })  # fmt: skip
    verdicts = pd.DataFrame({"verdict": ["supported", "contradicted"]}, ["accuracy", "datasets"])
    figure = figures.forest(rows, verdicts, store())
    accuracy, datasets = figure.axes[:2]
    assert "supported, 2 settings" in accuracy.get_title()
    assert "n = 18 … 20" in accuracy.get_title()
    assert "10 epochs of 7,000 images" in words(figure)
    np.testing.assert_allclose(sorted(x for line in accuracy.lines for x in line.get_xdata()), [2, 10])  # points
    assert datasets.get_xscale() == "log"
    assert "contradicted, 1 setting" in datasets.get_title()


def test_sample_images_of_two_sizes():
    images = {"small": np.zeros((3, 8, 8)), "large": np.zeros((2, 28, 28))}
    said = words(figures.sample_images(images))
    assert "small, 8 × 8 pixels" in said
    assert "large, 28 × 28 pixels" in said
    array = xr.DataArray(
        np.zeros((2, 3, 8, 8)), dims=("dataset", "image", "row", "column"), coords={"dataset": ["a", "b"]}
    )
    assert "b, 8 × 8 pixels" in words(figures.sample_images(array))
