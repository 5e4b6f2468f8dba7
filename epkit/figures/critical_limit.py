"""The figures of notebook 02: error, training, activity, signal-to-noise ratio and conductances over sigma.

A store is what `study.limit` describes. A figure can be understood alone: axes carry units, titles name the data-set
variant, and the caption tells network, training, number of seeds and what the bars are. Every seed is a dot, for runs
near a limit are bimodal. Intervals come from the study; nothing here estimates anything.
"""

from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..study.intervals import geometric_interval
from ..study.limit import final_error, sigma_step, training_steps
from . import canvas
from .canvas import BAND, BARS, READS

RECORDS: dict[int, dict[str, Any]] = {  # looks of the first and the last record of a training
    0: {"ls": "-", "marker": "o", "ms": 3.5, "lw": 1.2},
    -1: {"ls": "--", "marker": "s", "ms": 3.5, "lw": 1.2, "mfc": "none"},
}


def error_over_sigma(ds: xr.Dataset, limits: xr.Dataset, across: str = "learning_rate") -> Figure:
    """Test error after training over sigma, a column a learning rate, a row a data set.

    `limits` is `critical_limit` of the same store. One averaging, one number of samples: else ValueError.
    """
    ds = canvas.single(ds.assign(error=final_error(ds)), *READS)
    limits = canvas.steady(canvas.single(limits, *READS))
    figure, panels = canvas.panels_by(ds, across)
    for ax, panel in panels:
        canvas.seeds_and_mean(ax, panel.error, "C0")
        words = canvas.limit_band(ax, limits.sel(dataset=panel.dataset, learning_rate=panel.learning_rate))
        ax.set_title(f"{ax.get_title()}\n{words}", fontsize="small")
        canvas.sigma_axis(ax, ds.sigma.values)
        canvas.error_axis(ax, panel.chance.item())
    grain = f"{BAND}; σ in steps of ×{round(sigma_step(ds.sigma), 1):g}"
    return canvas.finish(figure, "Test error against read-out uncertainty", ds, BARS, grain)


def training_curves(ds: xr.Dataset) -> Figure:
    """Test and train error over the epochs, coloured by sigma; a column a learning rate, a row a data set."""
    ds = canvas.single(ds, *READS)
    figure, panels = canvas.panels_by(ds, "learning_rate")
    positive = ds.sigma.values[ds.sigma.values > 0]
    colours = mpl.cm.ScalarMappable(LogNorm(positive.min(), positive.max()), "viridis_r")
    for ax, panel in panels:
        for sigma in panel.sigma.values:
            color = colours.to_rgba(sigma) if sigma > 0 else "k"
            runs = panel.sel(sigma=sigma).transpose("epoch", "seed", ...)
            canvas.runs_and_mean(ax, panel.epoch, runs.test_error, color, 0.5, 0.35, 1.6)
            ax.plot(panel.epoch, runs.train_error.mean("seed"), lw=0.9, ls="--", color=color)
        canvas.error_axis(ax, panel.chance.item(), "error (%)")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(colours, ax=figure.axes, label="σ (V); black: σ = 0")
    lines = "thick: mean test error over seeds; thin: each seed; dashed: mean train error"
    return canvas.finish(figure, "Training under read-out uncertainty", ds, lines)


def unit_activity(ds: xr.Dataset) -> Figure:
    """Share of hidden diode units that conduct after training, over sigma; one colour a hidden layer."""
    ds = canvas.single(ds, *READS)
    figure, panels = canvas.panels_by(ds, "learning_rate")
    for ax, panel in panels:
        activity = panel.activity.isel(epoch=-1).dropna("layer", how="all")  # the outputs have no diodes
        for number, layer in enumerate(activity.layer.values):
            canvas.seeds_and_mean(ax, activity.sel(layer=layer), f"C{number}", f"hidden layer {layer}")
        canvas.sigma_axis(ax, ds.sigma.values)
        canvas.percent_axis(ax, "conducting diode units (%)")
    panels[0][0].legend(fontsize="small")
    return canvas.finish(figure, "Diode units that conduct after training", ds, BARS)


def signal_to_noise(ds: xr.Dataset, limits: xr.Dataset) -> Figure:
    """Gradient estimate over read-out noise in it, layer by layer, over sigma; a column a learning rate.

    Needs a store with `signal_to_noise`; one data set.
    """
    ds = canvas.single(ds, "dataset", *READS)
    limits = canvas.steady(canvas.single(limits, "dataset", *READS))
    steps = training_steps(ds)
    ds = ds.sel(sigma=ds.sigma > 0)
    ratio = ds.signal_to_noise.where(np.isfinite(ds.signal_to_noise) & (ds.signal_to_noise > 0))
    figure, axes = canvas.wrapped(ds.sizes["learning_rate"])
    for ax, rate in zip(axes, ds.learning_rate.values, strict=True):
        words = canvas.limit_band(ax, limits.sel(learning_rate=rate), short=True)
        ax.set_title(f"{canvas.setting(ds, rate)}\n{words}", fontsize="small")
        for number, layer in enumerate(ds.layer.values):
            for when, look in RECORDS.items():
                values = geometric_interval(ratio.sel(learning_rate=rate, layer=layer).isel(epoch=when))
                label = f"layer {layer}" if when == 0 else ""
                ax.plot(ds.sigma, values["mean"], color=f"C{number}", label=label, **look)
                ax.vlines(ds.sigma, values.low, values.high, color=f"C{number}", lw=1)
        ax.axhline(1 / np.sqrt(steps), color="0.3", lw=1, ls=":")
        canvas.sigma_axis(ax, ds.sigma.values)
        ax.set(yscale="log", ylabel="signal-to-noise ratio of a step")
    first = float(ds.epoch.min())
    axes[0].plot([], [], color="0.3", label=f"after {first:g} epoch{'s' * (first > 1)}", **RECORDS[0])
    axes[0].plot([], [], color="0.3", label="after training", **RECORDS[-1])
    axes[0].plot([], [], color="0.3", ls=":", label="1/√steps")
    canvas.key(figure)
    note = "rms gradient estimate of a batch over rms of the read-out noise in it; geometric mean, 95 % t interval"
    dotted = "dotted: below it, more noise than signal adds up over all steps, even if all gradients agree"
    return canvas.finish(figure, "Signal-to-noise ratio of each layer's gradient", ds, note, dotted, BAND)


def conductances(ds: xr.Dataset) -> Figure:
    """Conductances of each layer after training, over sigma: mean and, where the store has them, spread, share at 0."""
    ds = canvas.single(ds, "dataset", *READS)
    rows = {"conductance": "mean (S)", "conductance_sd": "standard deviation (S)", "clamped": "share at zero (%)"}
    rows = {name: label for name, label in rows.items() if name in ds}
    figure, axes = canvas.blank(len(rows), ds.sizes["learning_rate"], (2.7, 2.2), sharex=True, sharey="row")
    for (name, label), row in zip(rows.items(), axes, strict=True):
        for ax, rate in zip(row, ds.learning_rate.values, strict=True):
            if name == next(iter(rows)):
                ax.set_title(canvas.setting(ds, rate), fontsize="medium")
            for number, layer in enumerate(ds.layer.values):
                values = ds[name].isel(epoch=-1).sel(learning_rate=rate, layer=layer)
                canvas.seeds_and_mean(ax, values, f"C{number}", f"layer {layer}")
            canvas.sigma_axis(ax, ds.sigma.values)
            if name == "clamped":
                canvas.percent_axis(ax, label)
            else:
                ax.set(yscale="log", ylabel=label)
    canvas.key(figure)
    return canvas.finish(figure, "Conductances after training", ds, BARS)
