"""The figures of notebook 07: where noise helps, whether tuning does as well, how near the limit the best noise is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..study.intervals import t_interval
from ..study.limit import final_error, half_way, learning_share
from ..study.registration import Range
from ..sweep.store import parameters
from . import canvas
from .canvas import BARS, READS, single

NOISELESS, NOISY, DOUBLE = "0.45", "C0", "C4"  # colours


def choice_made_on(ds: xr.Dataset) -> str:
    """On which images σ and η are chosen, in words."""
    return "validation images" if "validation_error" in ds else "test images (this store has no validation images)"


def error_map(ds: xr.Dataset, optima: xr.Dataset, limits: xr.Dataset) -> Figure:
    """Mean test error in the plane of learning rate and sigma, a map a data set, with sigma*, sigma_c and the benefit.

    `optima`: `optimum`, `limits`: `critical_limit` of the store.
    """
    ds, optima, limits = (single(store, *READS) for store in (ds.assign(error=final_error(ds)), optima, limits))
    limits = canvas.steady(limits)
    sigma, rates = np.sort(ds.sigma.values), ds.learning_rate.values
    size = (0.55 * len(sigma) + 3.2, 0.36 * len(rates) + 0.75)
    figure, axes = canvas.blank(ds.sizes["dataset"], 1, size, sharex=True)
    mean = ds.error.mean("seed").sortby("sigma").transpose("dataset", "learning_rate", "sigma")
    most = float(ds.chance.max())
    for ax, name in zip(axes[:, 0], ds.dataset.values, strict=True):
        errors = mean.sel(dataset=name).values
        tiles = ax.pcolormesh(errors, edgecolors="w", linewidth=0.5, cmap="viridis_r", vmin=0, vmax=most)
        for (row, column), value in np.ndenumerate(errors):
            if np.isfinite(value):
                text = ax.text(column + 0.5, row + 0.28, f"{100 * value:.0f}", ha="center", va="center")
                text.set(fontsize="x-small", color="w" if value > most / 2 else "k")
        for row, rate in enumerate(rates):
            setting = {"dataset": name, "learning_rate": rate}
            _marks(ax, row, sigma, optima.sel(setting), float(limits["mean"].sel(setting)))
        ax.text(len(sigma) + 0.15, len(rates) + 0.1, "saved by noise", va="bottom", fontsize="x-small")
        ax.set_yticks(np.arange(len(rates)) + 0.5, [f"{rate:g}" for rate in rates])
        ax.set_xticks(np.arange(len(sigma)) + 0.5, [f"{value:g}" for value in sigma], rotation=45, ha="right")
        ax.tick_params(length=0)
        ax.set_title(canvas.literally(ds.title.sel(dataset=name).item()), fontsize="medium", loc="left")
        ax.set(ylabel="learning rate η", xlim=(0, len(sigma) + 2.7))
        sns.despine(ax=ax, left=True, bottom=True)
    axes[-1, 0].set_xlabel(canvas.SIGMA, loc="left")
    bar = figure.colorbar(tiles, ax=figure.axes, format=canvas.PERCENT, shrink=0.8)
    bar.set_label("test error (%)")
    marks = f"star: σ*, the best σ > 0 on the {choice_made_on(ds)}; upright line: limit σ$_c$"
    right = "right: points saved by σ*, chosen by the other seeds, with 95 % t interval over seeds"
    return canvas.finish(figure, "Test error over learning rate and read-out uncertainty", ds, marks, right)


def _marks(ax: Axes, row: int, sigma: np.ndarray, best: xr.Dataset, limit: float) -> None:
    """In a row of the map: a star at sigma*, an upright line at the limit, and what noise saves, at the right."""
    star = float(best.sigma_star)
    if np.isfinite(star):
        ax.plot(np.searchsorted(sigma, star) + 0.5, row + 0.72, "*", color="C1", mec="k", mew=0.5, ms=9)
    if np.isfinite(limit):  # between the columns of the neighbouring sigmas, in proportion
        place = np.interp(np.log(limit), np.log(sigma[sigma > 0]), np.flatnonzero(sigma > 0)) + 0.5
        for color, width in (("w", 4), ("C3", 2.2)):
            ax.plot([place, place], [row + 0.5, row + 1], color=color, lw=width, solid_capstyle="butt")
    ax.text(len(sigma) + 0.15, row + 0.5, _points(best), va="center", fontsize="x-small")


def _points(difference: xr.Dataset) -> str:
    """A difference of errors in percentage points, with its interval."""
    parts = ("mean", "low", "high")
    mean, low, high = (f"{100 * float(difference[part]):+.1f}".replace("-", "−") for part in parts)
    return "no estimate" if "nan" in mean else f"{mean} points" if "nan" in low else f"{mean} [{low}, {high}] points"


def noise_or_tuning(ds: xr.Dataset, optima: xr.Dataset, tuned: xr.Dataset) -> Figure:
    """Test error of every seed with and without noise at each learning rate, and at the best one of each.

    `optima`: `optimum`, `tuned`: `beyond_tuning` of the store.
    """
    ds, optima, tuned = (single(store, *READS) for store in (ds, optima, tuned))
    pairs = {f"{rate:g}": optima.sel(learning_rate=rate)[["at_zero", "at_star"]] for rate in ds.learning_rate.values}
    pairs["tuned"] = tuned[["noiseless", "noisy"]]
    figure, axes = _pair_panels(ds, pairs, {"σ = 0": NOISELESS, "σ*": NOISY})
    for name, ax in axes.items():
        ax.axvline(ds.sizes["learning_rate"] - 0.5, color="0.8", lw=0.8)
        title, saved = canvas.literally(ds.title.sel(dataset=name).item()), _points(tuned.sel(dataset=name))
        ax.set_title(f"{title}\ntuned: noise saves {saved}", fontsize="small")
    made = f"σ*, and the tuned η (and σ), chosen by the other seeds on the {choice_made_on(ds)}"
    title = "Noise, or a better learning rate?"
    return canvas.finish(figure, title, ds, made, f"{BARS}; lines join the runs of a seed")


def rounding_control(ds: xr.Dataset, checked: xr.Dataset) -> Figure:
    """Test error of every seed without noise, in float32 and in float64 (`checked`), at each learning rate of both."""
    names = {"float32": ds, "float64": checked}
    errors = [final_error(store).sel(sigma=0, drop=True).to_dataset(name=name) for name, store in names.items()]
    both = single(xr.merge(errors, join="inner", compat="override"), *READS)
    pairs = {f"{rate:g}": both.sel(learning_rate=rate) for rate in both.learning_rate.values}
    figure, axes = _pair_panels(ds, pairs, {"float32": NOISELESS, "float64": DOUBLE})
    for name, ax in axes.items():
        ax.set_title(canvas.literally(ds.title.sel(dataset=name).item()), fontsize="medium")
    same = "a seed has the same initial conductances and batches in both; lines join them"
    title = "Does rounding keep noiseless networks from learning?"
    return canvas.finish(figure, title, checked, "σ = 0", f"{BARS}; {same}")


def _pair_panels(
    ds: xr.Dataset, pairs: Mapping[str, xr.Dataset], colours: Mapping[str, str]
) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each data set of `pairs`, its two errors at each learning rate, joined seed by seed, with means.

    `pairs`: learning rate -> Dataset of two errors (dataset, seed); `colours`: what these are, and their colours.
    """
    names = next(iter(pairs.values())).dataset.values
    figure, axes = canvas.blank(1, len(names), (3.9, 3.3), sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        for place, errors in enumerate(pairs.values()):
            x, pair = place + np.array([-0.13, 0.13]), list(errors.sel(dataset=name).values())
            ax.plot(x, np.stack([values.values for values in pair]), color="0.8", lw=0.7, zorder=0)
            for at, values, color, side in zip(x, pair, colours.values(), (-0.1, 0.1), strict=True):
                ax.plot(np.full(values.size, at), values, ".", color=color, **canvas.DOTS)
                canvas.interval(ax, at + side, t_interval(values), color)
        ax.set_xticks(range(len(pairs)), list(pairs))
        canvas.error_axis(ax, float(ds.chance.sel(dataset=name)))
        ax.set_xlabel("learning rate η")
    for label, color in colours.items():
        axes[0, 0].plot([], [], "o", color=color, label=label)
    canvas.key(figure)
    return figure, dict(zip(names, axes[0], strict=True))


def convergence(ds: xr.Dataset, optima: xr.Dataset, tuned: xr.Dataset) -> Figure:
    """Test and training error over the images seen, with and without noise, at the boldest and at the tuned rate.

    Rows: data sets. `optima`: `optimum`, `tuned`: `beyond_tuning` of the store.
    """
    images = ds.epoch.values * parameters(ds, "train_images")["train_images"] / 1000
    ds, optima, tuned = (single(store, *READS) for store in (ds, optima, tuned))
    bold = float(ds.learning_rate.max())
    figure, axes = canvas.blank(ds.sizes["dataset"], 4, (2.9, 2.1), sharex=True, sharey=True)
    for row, name in zip(axes, ds.dataset.values, strict=True):
        best = float(tuned.rate_noiseless.sel(dataset=name))
        for pair, rate, which in ((row[:2], bold, "bold"), (row[2:], best, "tuned")):
            if np.isnan(rate):
                continue
            runs = ds.sel(dataset=name, learning_rate=rate)
            star = float(optima.sigma_star.sel(dataset=name, learning_rate=rate))
            setting = f"η = {rate:g} ({which}), σ* = {canvas.scientific(star)} V"
            for ax, error, label in zip(pair, ("test_error", "train_error"), ("test", "training"), strict=True):
                for sigma, color in ((0, NOISELESS), (star, NOISY)):
                    if np.isfinite(sigma):
                        curves = runs[error].sel(sigma=sigma).transpose("epoch", "seed")
                        canvas.runs_and_mean(ax, images, curves, color, 0.6, 0.5, 2)
                ax.set_title(f"{canvas.literally(runs.title.item())}: {label}\n{setting}", fontsize="x-small")
                canvas.error_axis(ax, float(runs.chance), "error (%)")
                ax.xaxis.set_major_locator(MaxNLocator(4))
                ax.set_xlabel("training images seen (thousands)")
    canvas.key(figure, {"σ = 0": {"color": NOISELESS, "lw": 2}, "σ*": {"color": NOISY, "lw": 2}},
               loc="outside right center")  # fmt: skip
    chosen = f"σ*: the best σ > 0 at that η; tuned: the best η at σ = 0, on the {choice_made_on(ds)}"
    thin = "thin: each seed; thick: mean; training error: of the predictions before each update"
    return canvas.finish(figure, "Convergence with and without read-out noise", ds, chosen, thin)


def final_accuracies(ds: xr.Dataset, learning_rate: float | None = None) -> Figure:
    """Test and training accuracy of every seed over sigma, and the share of the seeds that learn; a column a data set.

    At one learning rate, the boldest unless given: there runs fall into two groups, and a mean tells of neither. To
    learn is to pass half way from chance to the best mean that the data set allows at any learning rate.
    """
    ds = single(ds, *READS)
    rate = ds.learning_rate.max() if learning_rate is None else learning_rate
    halves = half_way(final_error(ds), ds.chance).min("learning_rate")
    ds = ds.sel(learning_rate=rate).sortby("sigma")
    figure, axes = canvas.blank(2, ds.sizes["dataset"], (3.9, 2.4), sharex=True, sharey="row")
    for (above, below), name in zip(axes.T, ds.dataset.values, strict=True):
        runs, half = ds.sel(dataset=name), halves.sel(dataset=name)
        chance = float(runs.chance)
        _accuracies(above, runs)
        above.axhline(1 - float(half), color="0.3", lw=0.8, ls="--")
        above.axhline(1 - chance, color="C3", lw=1, ls=":")
        above.text(1, 1 - chance - 0.02, "chance", color="C3", fontsize="x-small", ha="right", va="top",
                   transform=above.get_yaxis_transform())  # fmt: skip
        canvas.percent_axis(above, "accuracy after training (%)")
        above.set_title(canvas.setting(runs, rate), fontsize="medium")
        share = learning_share(final_error(runs), chance, half)
        canvas.interval(below, _places(ds.sigma.values), share, "C2", ms=4, lw=1.4)
        canvas.percent_axis(below, "seeds that learn (%)", -0.03, 1.03)
        canvas.sigma_axis(below, ds.sigma.values)
    canvas.key(figure)
    dots = "dots: seeds, filled on test, hollow on training images"
    learns = "a seed learns if its test accuracy passes the dashed line, half way from chance to the best mean at any η"
    title = "Final accuracy of every seed"
    return canvas.finish(figure, title, ds, f"{dots}; bars: 95 % Wilson interval", learns)


def _accuracies(ax: Axes, runs: xr.Dataset) -> None:
    """Accuracy of every seed after training over sigma, on test and on training images, with their means."""
    sigma = runs.sigma.values
    x = _places(sigma)
    step = np.exp(np.median(np.diff(np.log(np.sort(x)))))
    for side, label, of, color in ((-1, "test", "test_error", "C0"), (1, "training", "train_error", "C1")):
        error = final_error(runs, of=of).transpose("sigma", "seed")
        beside = step ** (side * np.linspace(0.1, 0.35, error.sizes["seed"]))
        look: dict[str, Any] = {"mfc": color if side < 0 else "none", "mec": color, "mew": 0.8, "ms": 3.2, "ls": "none"}
        ax.plot(np.outer(x, beside), 1 - error, "o", **look)
        ax.plot(x[sigma > 0], 1 - error.mean("seed")[sigma > 0], color=color, lw=1, label=f"{label}, mean")


def _places(sigma: np.ndarray) -> np.ndarray:
    return np.where(sigma > 0, sigma, canvas.place_of_zero(sigma))


def optimum_over_limit(ds: xr.Dataset, ratios: xr.Dataset, claimed: Range) -> Figure:
    """sigma*/sigma_c by data set and learning rate; `ratios`: `star_over_limit`; `claimed`: the range called close."""
    ds, ratios = single(ds, *READS), canvas.steady(single(ratios, *READS))
    figure, axes = canvas.blank(1, 1, (6.4, 3.4))
    ax = axes[0, 0]
    least = ds.sigma.values[ds.sigma.values > 0].min()
    zero = 0.5 * min(claimed[0], float(ratios["mean"].where(ratios["mean"] > 0).min().fillna(claimed[0])), least * 1e3)
    placed = ratios.assign({"mean": ratios["mean"].clip(min=zero)})
    canvas.by_dataset(ax, ds, placed)
    ax.axhspan(*claimed, color="0.92", lw=0, zorder=-1)
    ax.axhline(1, color="0.3", lw=0.8, ls="--")
    ax.set(yscale="log", ylabel="σ*/σ$_c$", ylim=(zero / 1.8, max(2, 1.3 * float(ratios["mean"].max().fillna(1)))))
    tens = [10.0**power for power in range(-4, 2) if zero * 1.5 < 10.0**power <= ax.get_ylim()[1]]
    canvas.plain_ticks(ax.yaxis, [zero, *tens], ["0", *(f"{ten:g}" for ten in tens)])
    close = f"grey: what the claim calls close, {claimed[0]:g} … {claimed[1]:g}"
    made = f"σ*: the σ of least mean error, 0 allowed, on the {choice_made_on(ds)}"
    number = "below: the number of bracketed seeds; no interval, for none holds its level with so few"
    return canvas.finish(figure, "How close to the limit is the best uncertainty?", ds, made, close, number)
