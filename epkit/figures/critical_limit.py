"""The figures: each function takes a store (see `analysis` for the data contract) and returns a Figure.

A figure can be understood alone: axes carry units, titles name the data-set variant, and the line below tells
network, training, number of seeds and what the bars are. Every seed is a dot, for runs near a limit are
bimodal. Intervals come from `analysis`; nothing here estimates anything. `canvas.style()` sets the look, once a
notebook.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..study.claims import FARTHEST
from ..study.intervals import geometric_interval
from ..study.limit import final_error, sigma_step, training_steps
from .canvas import (
    BAND,
    BARS,
    LOOKS,
    PERCENT,
    READS,
    blank,
    by_dataset,
    captioned,
    error_axis,
    finish,
    limit_band,
    literally,
    panels_by,
    place_of_zero,
    plain_ticks,
    seeds_and_mean,
    sigma_axis,
    single,
    wrapped,
)


def error_over_sigma(ds: xr.Dataset, limits: xr.Dataset, across: str = "learning_rate") -> Figure:
    """Test error after training over sigma, a column a learning rate, a row a data set.

    `limits` is `critical_limit` of the same store. One averaging, one number of samples: else ValueError.
    """
    ds, limits = single(ds.assign(error=final_error(ds)), *READS), single(limits, *READS)
    figure, panels = panels_by(ds, across)
    for ax, one in panels:
        seeds_and_mean(ax, one.error, place_of_zero(ds.sigma.values), "C0")
        words = limit_band(ax, limits.sel(dataset=one.dataset, learning_rate=one.learning_rate))
        ax.set_title(f"{ax.get_title()}\n{words}", fontsize="small")
        sigma_axis(ax, ds.sigma.values)
        error_axis(ax, one.chance.item())
        ax.label_outer()
    grain = f"{BAND}; σ in steps of ×{sigma_step(ds.sigma):.2g}"
    return finish(figure, "Test error against read-out uncertainty", ds, BARS, grain)


def dataset_comparison(ds: xr.Dataset, limits: xr.Dataset) -> Figure:
    """`error_over_sigma`, a column a data set and a row a learning rate: compare the limits along a row."""
    return error_over_sigma(ds, limits, across="dataset")


def training_curves(ds: xr.Dataset) -> Figure:
    """Test and train error over the epochs, coloured by sigma; a column a learning rate, a row a data set."""
    ds = single(ds, *READS)
    figure, panels = panels_by(ds, "learning_rate")
    positive = ds.sigma.values[ds.sigma.values > 0]
    colours = mpl.cm.ScalarMappable(LogNorm(positive.min(), positive.max()), "viridis_r")
    for ax, one in panels:
        for sigma in one.sigma.values:
            color = colours.to_rgba(sigma) if sigma > 0 else "k"
            runs = one.sel(sigma=sigma).transpose("epoch", "seed", ...)
            ax.plot(one.epoch, runs.test_error, lw=0.5, alpha=0.35, color=color)
            ax.plot(one.epoch, runs.test_error.mean("seed"), lw=1.6, color=color)
            ax.plot(one.epoch, runs.train_error.mean("seed"), lw=0.9, ls="--", color=color)
        error_axis(ax, one.chance.item(), "error (%)")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.label_outer()
    figure.colorbar(colours, ax=figure.axes, label="σ (V); black: σ = 0")
    lines = "thick: mean test error over seeds; thin: each seed; dashed: mean train error"
    return finish(figure, "Training under read-out uncertainty", ds, lines)


def unit_activity(ds: xr.Dataset) -> Figure:
    """Share of hidden diode units that conduct after training, over sigma; one colour a hidden layer."""
    ds = single(ds, *READS)
    figure, panels = panels_by(ds, "learning_rate")
    for ax, one in panels:
        activity = one.activity.isel(epoch=-1).dropna("layer", how="all")  # the outputs have no diodes
        for colour, layer in enumerate(activity.layer.values):
            values = activity.sel(layer=layer)
            seeds_and_mean(ax, values, place_of_zero(ds.sigma.values), f"C{colour}", f"hidden layer {layer}")
        sigma_axis(ax, ds.sigma.values)
        ax.set(ylabel="conducting diode units (%)", ylim=(0, 1))
        ax.yaxis.set_major_formatter(PERCENT)
        ax.label_outer()
    panels[0][0].legend(fontsize="small")
    return finish(figure, "Diode units that conduct after training", ds, BARS)


def signal_to_noise(ds: xr.Dataset, limits: xr.Dataset) -> Figure:
    """Gradient estimate over read-out noise in it, layer by layer, over sigma; a column a learning rate.

    Needs a store with `signal_to_noise`; one data set.
    """
    ds, limits = single(ds, "dataset", *READS), single(limits, "dataset", *READS)
    steps = training_steps(ds)
    ds = ds.sel(sigma=ds.sigma > 0)
    ratio = ds.signal_to_noise.where(np.isfinite(ds.signal_to_noise) & (ds.signal_to_noise > 0))
    figure, axes = wrapped(ds.sizes["learning_rate"])
    for ax, rate in zip(axes, ds.learning_rate.values, strict=True):
        words = limit_band(ax, limits.sel(learning_rate=rate), short=True)
        ax.set_title(f"{literally(ds.title.item())}, η = {rate:g}\n{words}", fontsize="small")
        for colour, layer in enumerate(ds.layer.values):
            for when, look in LOOKS.items():
                found = geometric_interval(ratio.sel(learning_rate=rate, layer=layer).isel(epoch=when))
                label = f"layer {layer}" if when == 0 else ""
                ax.plot(ds.sigma, found["mean"], color=f"C{colour}", label=label, **look)
                ax.vlines(ds.sigma, found.low, found.high, color=f"C{colour}", lw=1)
        ax.axhline(1 / np.sqrt(steps), color="0.3", lw=1, ls=":")
        sigma_axis(ax, ds.sigma.values)
        ax.set(yscale="log", ylabel="signal-to-noise ratio of a step")
        ax.label_outer()
    first = float(ds.epoch.min())
    axes[0].plot([], [], color="0.3", label=f"after {first:g} epoch{'s' * (first > 1)}", **LOOKS[0])
    axes[0].plot([], [], color="0.3", label="after training", **LOOKS[-1])
    axes[0].plot([], [], color="0.3", ls=":", label="1/√steps")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize="small", loc="outside right center")
    note = "rms gradient estimate of a batch over rms of the read-out noise in it; geometric mean, 95 % t interval"
    dotted = "dotted: below it, more noise than signal adds up over all steps, even if all gradients agree"
    return finish(figure, "Signal-to-noise ratio of each layer's gradient", ds, note, dotted, BAND)


def conductances(ds: xr.Dataset) -> Figure:
    """Conductances of each layer after training, over sigma: mean and, where the store has them, spread, share at 0."""
    ds = single(ds, "dataset", *READS)
    shown = {"conductance": "mean (S)", "conductance_sd": "standard deviation (S)", "clamped": "share at zero (%)"}
    shown = {name: label for name, label in shown.items() if name in ds}
    figure, axes = blank(len(shown), ds.sizes["learning_rate"], (2.7, 2.2), sharex=True, sharey="row")
    for (name, label), row in zip(shown.items(), axes, strict=True):
        for ax, rate in zip(row, ds.learning_rate.values, strict=True):
            if name == next(iter(shown)):
                ax.set_title(f"{literally(ds.title.item())}, η = {rate:g}", fontsize="medium")
            for colour, layer in enumerate(ds.layer.values):
                values = ds[name].isel(epoch=-1).sel(learning_rate=rate, layer=layer)
                seeds_and_mean(ax, values, place_of_zero(ds.sigma.values), f"C{colour}", f"layer {layer}")
            sigma_axis(ax, ds.sigma.values)
            ax.set_ylabel(label)
            if name == "clamped":
                ax.yaxis.set_major_formatter(PERCENT)
                ax.set_ylim(0, 1)
            else:
                ax.set_yscale("log")
            ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize="small", loc="outside right center")
    return finish(figure, "Conductances after training", ds, BARS)


def limit_ratios(ds: xr.Dataset, limits: xr.Dataset, ratios: pd.DataFrame | None = None, factor: float = 2.0) -> Figure:
    """Critical limits by data set and, given the table of `claims.claim_datasets`, their pairwise ratios.

    `factor`: how far from 1 a ratio still counts as the same limit.
    """
    ds, limits = single(ds, *READS), single(limits, *READS)
    rows = 0 if ratios is None else len(ratios)
    figure, axes = blank(1, 1 + bool(rows), (6.4, max(3.4, 0.26 * rows)))
    by_dataset(axes[0, 0], ds, limits, limits.limit)
    axes[0, 0].set(yscale="log", ylabel="critical limit σ$_c$ (V)")
    if ratios is not None:
        _ratios(axes[0, 1], ratios[::-1].reset_index(drop=True), factor)
    note = "small dots: bracketed seeds, their number below; bars: geometric mean, 95 % t interval"
    grey = f"filled: primary settings; grey: within a factor of {factor:g}" if rows else ""
    return finish(figure, "Does the critical limit depend on the data set?", ds, note, *filter(None, [grey]))


def _ratios(ax: Axes, rows: pd.DataFrame, factor: float) -> None:
    """Ratios of limits, a row of `claims.claim_datasets` each."""
    several = ", " + rows.averaging + " averaging" if rows.averaging.nunique() > 1 else ""
    names = rows.measure.map({FARTHEST: "all pairs: "}).fillna("") + rows.dataset
    names += rows.learning_rate.map(", η = {:g}".format) + several + rows.n.map(", n = {}".format)
    ax.axvspan(1 / factor, factor, color="0.93", lw=0, zorder=-1)
    ax.axvline(1, color="0.3", lw=0.8)
    ax.hlines(rows.index, rows.low, rows.high, color="C0", lw=1.6)
    for setting, face in (("primary", "C0"), ("secondary", "w")):
        one = rows[rows.setting == setting]
        ax.plot(one.value, one.index, "o", color="C0", mfc=face, ms=5)
    ax.set_yticks(rows.index, [literally(name) for name in names], fontsize="x-small")
    shown = rows[["value", "low", "high"]].values.ravel()
    low, high = 0.9 * np.nanmin([0.8 / factor, *shown]), 1.1 * np.nanmax([1.25 * factor, *shown])
    ax.set(xscale="log", xlabel="ratio of critical limits", xlim=(low, high))
    for row in rows.index[rows.value.isna()]:
        ax.text(1.03, row, "a limit is not bracketed", fontsize="x-small", va="center")
    ax.set_ylim(-0.6, len(rows) - 0.4)
    plain_ticks(ax.xaxis, [tick for tick in (0.01, 0.1, 0.5, 1, 2, 10, 100) if low <= tick <= high])


def verdict_counts(found: pd.DataFrame) -> Figure:
    """Of each claim how many settings support it, leave it open or contradict it: a panel a kind of setting.

    `found`: rows of `verdicts.verdicts`, and of `verdicts.verdicts_at_published_size`, whose settings are networks.
    """
    kinds = {"supported": "C2", "undecided": "0.75", "contradicted": "C1"}
    names, setting = found.claim.drop_duplicates().tolist(), found.setting.fillna("primary")
    titles = {"primary": "primary settings", "secondary": "other settings"}
    titles |= {"another setting": "other networks\nor training"} if "another setting" in set(setting) else {}
    networks = {where: where.replace(", ", "\n", 1) for where in setting if where not in titles}
    titles |= networks
    figure, axes = blank(1, len(titles), (1.9, 0.45 * len(names) + 0.4), sharey=True, sharex=True)
    for ax, (where, title) in zip(axes[0], titles.items(), strict=True):
        there = found[setting == where]
        counts = pd.crosstab(there.claim, there.verdict).reindex(index=names, columns=list(kinds), fill_value=0)
        left = np.zeros(len(names))
        for kind, color in kinds.items():
            bars = ax.barh(names, counts[kind], left=left, color=color, label=kind)
            ax.bar_label(bars, [str(n) if n else "" for n in counts[kind]], label_type="center", fontsize="small")
            left += counts[kind].to_numpy()
        ax.set_title(title, fontsize="medium")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize="small", loc="outside right center")
    note = (
        "number of settings: data sets, learning rates, ways of averaging; one may be judged in two ways",
        "primary and other settings, and their thresholds, were fixed before the data",
        *["the others: networks of notebook 09, by thresholds that were fixed for smaller ones"] * bool(networks),
    )
    return captioned(figure, "What the stores say of each claim", *note)


def sample_images(images: Mapping[str, Sequence | np.ndarray] | xr.DataArray) -> Figure:
    """Samples, a row a data set: (dataset, image, row, column), or title -> (image, row, column)."""
    if isinstance(images, xr.DataArray):
        images = {str(one.dataset.item()): one.values for one in images}
    columns = max(len(each) for each in images.values())
    figure, axes = blank(len(images), columns, (0.8, 0.9))
    for row, (name, each) in zip(axes, images.items(), strict=True):
        height, width = np.shape(each)[1:]
        for ax in row:
            ax.set_axis_off()
        for ax, image in zip(row, each, strict=False):
            ax.imshow(image, cmap="gray_r", interpolation="nearest")
        title = f"{literally(name)}, {height} × {width} pixels"
        # not the panel's title, which would widen the first column
        row[0].text(0, 1.08, title, fontsize="medium", transform=row[0].transAxes).set_in_layout(False)
    return figure
