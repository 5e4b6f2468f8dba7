"""The figures of notebook 07: where noise helps, whether tuning does as well, and how near the limit the best noise is.

As in `figures`: each takes a store and what `analysis` has found in it, and can be understood alone.
"""

from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..study.intervals import mean_interval
from ..study.limit import final_error, half_way, learning_share
from ..study.registration import Range
from ..sweep.store import parameters
from .canvas import (
    BARS,
    DOTS,
    PERCENT,
    READS,
    blank,
    by_dataset,
    error_axis,
    finish,
    literally,
    place_of_zero,
    plain_ticks,
    scientific,
    sigma_axis,
    single,
)

NOISELESS, NOISY, DOUBLE = "0.45", "C0", "C4"  # colours


def choice_made_on(ds: xr.Dataset) -> str:
    """On which images σ and η are chosen, in words."""
    return "validation images" if "validation_error" in ds else "test images (this store has no validation images)"


def error_map(ds: xr.Dataset, optima: xr.Dataset, limits: xr.Dataset) -> Figure:
    """Mean test error in the plane of learning rate and sigma, a map a data set, with sigma*, sigma_c and the benefit.

    `optima`: `optimum`, `limits`: `critical_limit` of the store.
    """
    ds, optima, limits = (single(each, *READS) for each in (ds.assign(error=final_error(ds)), optima, limits))
    sigma, rates = np.sort(ds.sigma.values), ds.learning_rate.values
    size = (0.55 * len(sigma) + 3.2, 0.36 * len(rates) + 0.75)
    figure, axes = blank(ds.sizes["dataset"], 1, size, sharex=True)
    mean = ds.error.mean("seed").sortby("sigma").transpose("dataset", "learning_rate", "sigma")
    most = float(ds.chance.max())
    for ax, name in zip(axes[:, 0], ds.dataset.values, strict=True):
        of_set = mean.sel(dataset=name).values
        drawn = ax.pcolormesh(of_set, edgecolors="w", linewidth=0.5, cmap="viridis_r", vmin=0, vmax=most)
        for (row, column), value in np.ndenumerate(of_set):
            if np.isfinite(value):
                text = ax.text(column + 0.5, row + 0.28, f"{100 * value:.0f}", ha="center", va="center")
                text.set(fontsize="x-small", color="w" if value > most / 2 else "k")
        for row, rate in enumerate(rates):
            best = optima.sel(dataset=name, learning_rate=rate)
            limit = float(limits["mean"].sel(dataset=name, learning_rate=rate))
            star = float(best.sigma_star)
            if np.isfinite(star):
                ax.plot(np.searchsorted(sigma, star) + 0.5, row + 0.72, "*", color="C1", mec="k", mew=0.5, ms=9)
            if np.isfinite(limit):  # between the columns of the neighbouring sigmas, in proportion
                place = np.interp(np.log(limit), np.log(sigma[sigma > 0]), np.flatnonzero(sigma > 0)) + 0.5
                ax.plot([place, place], [row + 0.5, row + 1], color="w", lw=4, solid_capstyle="butt")
                ax.plot([place, place], [row + 0.5, row + 1], color="C3", lw=2.2, solid_capstyle="butt")
            ax.text(len(sigma) + 0.15, row + 0.5, _points(best), va="center", fontsize="x-small")
        ax.text(len(sigma) + 0.15, len(rates) + 0.1, "saved by noise", va="bottom", fontsize="x-small")
        ax.set_yticks(np.arange(len(rates)) + 0.5, [f"{rate:g}" for rate in rates])
        ax.set_xticks(np.arange(len(sigma)) + 0.5, [f"{value:g}" for value in sigma], rotation=45, ha="right")
        ax.tick_params(length=0)
        ax.set_title(literally(ds.title.sel(dataset=name).item()), fontsize="medium", loc="left")
        ax.set(ylabel="learning rate η", xlim=(0, len(sigma) + 2.7))
        sns.despine(ax=ax, left=True, bottom=True)
    axes[-1, 0].set_xlabel("read-out uncertainty σ (V)", loc="left")
    bar = figure.colorbar(drawn, ax=figure.axes, format=PERCENT, shrink=0.8)
    bar.set_label("test error (%)")
    marks = f"star: σ*, the best σ > 0 on the {choice_made_on(ds)}; upright line: limit σ$_c$"
    right = "right: points saved by σ*, chosen by the other seeds, with 95 % t interval over seeds"
    return finish(figure, "Test error over learning rate and read-out uncertainty", ds, marks, right)


def _points(found: xr.Dataset) -> str:
    """A difference of errors in percentage points, with its interval."""
    mean, low, high = (f"{100 * float(found[part]):+.1f}".replace("-", "−") for part in ("mean", "low", "high"))
    return "no estimate" if "nan" in mean else f"{mean} points" if "nan" in low else f"{mean} [{low}, {high}] points"


def noise_or_tuning(ds: xr.Dataset, optima: xr.Dataset, tuned: xr.Dataset) -> Figure:
    """Test error of every seed with and without noise at each learning rate, and at the best one of each.

    `optima`: `optimum`, `tuned`: `beyond_tuning` of the store.
    """
    ds, optima, tuned = (single(each, *READS) for each in (ds, optima, tuned))
    rates = ds.learning_rate.values
    figure, axes = blank(1, ds.sizes["dataset"], (3.9, 3.3), sharey=True)
    for ax, name in zip(axes[0], ds.dataset.values, strict=True):
        of_set, best = ds.sel(dataset=name), tuned.sel(dataset=name)
        at = optima.sel(dataset=name)
        at_rates = {f"{rate:g}": (at.at_zero.sel(learning_rate=rate), at.at_star.sel(learning_rate=rate))
                    for rate in rates}  # fmt: skip
        _pairs(ax, of_set, at_rates | {"tuned": (best.noiseless, best.noisy)}, NOISY)
        ax.axvline(len(rates) - 0.5, color="0.8", lw=0.8)
        ax.set_title(f"{literally(of_set.title.item())}\ntuned: noise saves {_points(best)}", fontsize="small")
    _key(figure, {"σ = 0": NOISELESS, "σ*": NOISY}, "o")
    made = f"σ*, and the tuned η (and σ), chosen by the other seeds on the {choice_made_on(ds)}"
    return finish(figure, "Noise, or a better learning rate?", ds, made, f"{BARS}; lines join the runs of a seed")


def rounding_control(ds: xr.Dataset, checked: xr.Dataset) -> Figure:
    """Test error of every seed without noise, in float32 and in float64 (`checked`), at each learning rate of both."""
    found = [single(final_error(each).sel(sigma=0, drop=True).to_dataset(name="error"), *READS).error
             for each in (ds, checked)]  # fmt: skip
    single_precision, double = xr.align(*found, join="inner")
    figure, axes = blank(1, double.sizes["dataset"], (3.9, 3.3), sharey=True)
    for ax, name in zip(axes[0], double.dataset.values, strict=True):
        points = [{"dataset": name, "learning_rate": rate} for rate in double.learning_rate.values]
        both = {f"{at['learning_rate']:g}": (single_precision.sel(at), double.sel(at)) for at in points}
        _pairs(ax, ds.sel(dataset=name), both, DOUBLE)
        ax.set_title(literally(ds.title.sel(dataset=name).item()), fontsize="medium")
    _key(figure, {"float32": NOISELESS, "float64": DOUBLE}, "o")
    same = "a seed has the same initial conductances and batches in both; lines join them"
    return finish(figure, "Does rounding keep noiseless networks from learning?", checked, "σ = 0", f"{BARS}; {same}")


def _key(figure: Figure, colours: dict[str, str], form: str, **look: Any) -> None:
    """What the two colours of the panels mean, beside them."""
    for label, colour in colours.items():
        figure.axes[0].plot([], [], form, color=colour, label=label, **look)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize="small", loc="outside right center")


def _pairs(ax: Axes, of_set: xr.Dataset, pairs: dict[str, tuple[xr.DataArray, xr.DataArray]], colour: str) -> None:
    """At each learning rate two groups of seeds side by side, joined seed by seed, with their means.

    The first of a pair is in the colour of no noise, the second in `colour`.
    """
    for place, pair in enumerate(pairs.values()):
        x = place + np.array([-0.13, 0.13])
        ax.plot(x, np.stack([values.values for values in pair]), color="0.8", lw=0.7, zorder=0)
        for at, values, color, side in zip(x, pair, (NOISELESS, colour), (-0.1, 0.1), strict=True):
            found = mean_interval(values)
            ax.plot(np.full(values.size, at), values, ".", color=color, **DOTS)
            ax.plot(at + side, found["mean"], "o", color=color, ms=5)
            ax.vlines(at + side, found.low, found.high, color=color, lw=1.6)
    ax.set_xticks(range(len(pairs)), list(pairs))
    error_axis(ax, float(of_set.chance))
    ax.set_xlabel("learning rate η")
    ax.label_outer()


def convergence(ds: xr.Dataset, optima: xr.Dataset, tuned: xr.Dataset) -> Figure:
    """Test and training error over the images seen, with and without noise, at the boldest and at the tuned rate.

    Rows: data sets. `optima`: `optimum`, `tuned`: `beyond_tuning` of the store.
    """
    images = ds.epoch.values * parameters(ds, "train_images")["train_images"] / 1000
    ds, optima, tuned = (single(each, *READS) for each in (ds, optima, tuned))
    bold = float(ds.learning_rate.max())
    figure, axes = blank(ds.sizes["dataset"], 4, (2.9, 2.1), sharex=True, sharey=True)
    for row, name in zip(axes, ds.dataset.values, strict=True):
        of_set = ds.sel(dataset=name)
        best = float(tuned.rate_noiseless.sel(dataset=name))
        for pair, rate, which in ((row[:2], bold, "bold"), (row[2:], best, "tuned")):
            if np.isnan(rate):
                continue
            star = float(optima.sigma_star.sel(dataset=name, learning_rate=rate))
            for ax, error, label in zip(pair, ("test_error", "train_error"), ("test", "training"), strict=True):
                for sigma, colour in ((0, NOISELESS), (star, NOISY)):
                    if np.isfinite(sigma):
                        runs = of_set[error].sel(learning_rate=rate, sigma=sigma).transpose("epoch", "seed")
                        ax.plot(images, runs, color=colour, lw=0.6, alpha=0.5)
                        ax.plot(images, runs.mean("seed"), color=colour, lw=2)
                setting = f"η = {rate:g} ({which}), σ* = {scientific(star)} V"
                ax.set_title(f"{literally(of_set.title.item())}: {label}\n{setting}", fontsize="x-small")
                error_axis(ax, float(of_set.chance), "error (%)")
                ax.xaxis.set_major_locator(MaxNLocator(4))
                ax.set_xlabel("training images seen (thousands)")
                ax.label_outer()
    _key(figure, {"σ = 0": NOISELESS, "σ*": NOISY}, "-", lw=2)
    chosen = f"σ*: the best σ > 0 at that η; tuned: the best η at σ = 0, on the {choice_made_on(ds)}"
    thin = "thin: each seed; thick: mean; training error: of the predictions before each update"
    return finish(figure, "Convergence with and without read-out noise", ds, chosen, thin)


def final_accuracies(ds: xr.Dataset, learning_rate: float | None = None) -> Figure:
    """Test and training accuracy of every seed over sigma, and the share of the seeds that learn; a column a data set.

    At one learning rate, the boldest unless given: there runs fall into two groups, and a mean tells of neither. To
    learn is to pass half way from chance to the best mean that the data set allows at any learning rate.
    """
    ds = single(ds, *READS)
    rate = ds.learning_rate.max() if learning_rate is None else learning_rate
    halves = half_way(final_error(ds), ds.chance).min("learning_rate")
    ds = ds.sel(learning_rate=rate)
    sigma = np.sort(ds.sigma.values)
    x = np.where(sigma > 0, sigma, place_of_zero(sigma))
    errors = {"test": final_error(ds), "training": final_error(ds, of="train_error")}
    step = np.exp(np.median(np.diff(np.log(np.sort(x)))))
    figure, axes = blank(2, ds.sizes["dataset"], (3.9, 2.4), sharex=True, sharey="row")
    for (above, below), name in zip(axes.T, ds.dataset.values, strict=True):
        chance = float(ds.chance.sel(dataset=name))
        for side, (label, error), colour in zip((-1, 1), errors.items(), ("C0", "C1"), strict=True):
            of_set = error.sel(dataset=name).sortby("sigma").transpose("sigma", "seed")
            beside = step ** (side * np.linspace(0.1, 0.35, of_set.sizes["seed"]))
            filled = {"mfc": colour if side < 0 else "none", "mec": colour, "mew": 0.8, "ms": 3.2, "ls": "none"}
            above.plot(np.outer(x, beside), 1 - of_set, "o", **filled)
            above.plot(x[sigma > 0], 1 - of_set.mean("seed")[sigma > 0], color=colour, lw=1, label=f"{label}, mean")
        learn = errors["test"].sel(dataset=name)
        half = halves.sel(dataset=name)
        above.axhline(1 - float(half), color="0.3", lw=0.8, ls="--")
        above.axhline(1 - chance, color="C3", lw=1, ls=":")
        above.text(1, 1 - chance - 0.02, "chance", color="C3", fontsize="x-small", ha="right", va="top",
                   transform=above.get_yaxis_transform())  # fmt: skip
        above.set(ylim=(0, 1), ylabel="accuracy after training (%)")
        above.set_title(f"{literally(ds.title.sel(dataset=name).item())}, η = {float(rate):g}", fontsize="medium")
        share = learning_share(learn, chance, half).sortby("sigma")
        below.plot(x, share["mean"], "o", color="C2", ms=4)
        below.vlines(x, share.low, share.high, color="C2", lw=1.4)
        below.set(ylim=(-0.03, 1.03), ylabel="seeds that learn (%)")
        sigma_axis(below, sigma)
        for ax in (above, below):
            ax.yaxis.set_major_formatter(PERCENT)
            ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize="small", loc="outside right center")
    dots = "dots: seeds, filled on test, hollow on training images"
    learns = "a seed learns if its test accuracy passes the dashed line, half way from chance to the best mean at any η"
    return finish(figure, "Final accuracy of every seed", ds, f"{dots}; bars: 95 % Wilson interval", learns)


def optimum_over_limit(ds: xr.Dataset, ratios: xr.Dataset, claimed: Range) -> Figure:
    """sigma*/sigma_c by data set and learning rate; `ratios`: `star_over_limit`; `claimed`: the range called close."""
    ds, ratios = single(ds, *READS), single(ratios, *READS)
    figure, axes = blank(1, 1, (6.4, 3.4))
    ax = axes[0, 0]
    least = ds.sigma.values[ds.sigma.values > 0].min()
    zero = 0.5 * min(claimed[0], float(ratios["mean"].where(ratios["mean"] > 0).min().fillna(claimed[0])), least * 1e3)
    placed = ratios.assign({part: ratios[part].clip(min=zero) for part in ("mean", "low", "high")})
    by_dataset(ax, ds, placed)
    ax.axhspan(*claimed, color="0.92", lw=0, zorder=-1)
    ax.axhline(1, color="0.3", lw=0.8, ls="--")
    ax.set(yscale="log", ylabel="σ*/σ$_c$", ylim=(zero / 1.8, max(2, 1.3 * float(ratios.high.max().fillna(1)))))
    tens = [10.0**power for power in range(-4, 2) if zero * 1.5 < 10.0**power <= ax.get_ylim()[1]]
    plain_ticks(ax.yaxis, [zero, *tens], ["0", *(f"{ten:g}" for ten in tens)])
    close = f"grey: what the claim calls close, {claimed[0]:g} … {claimed[1]:g}"
    made = f"σ*: the σ of least mean error, 0 allowed, on the {choice_made_on(ds)}"
    bars = "bars: 95 % bootstrap interval over the bracketed seeds, whose number is below"
    return finish(figure, "How close to the limit is the best uncertainty?", ds, made, close, bars)
