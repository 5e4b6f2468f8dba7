"""The figures of notebook 14: the limit of every kind of read-out, the window of dither, and the bits needed."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..study.hardware import (
    DIFFERENCE,
    ROUNDED,
    WHITE,
    Errors,
    bit_errors,
    dither_errors,
    kind_errors,
    layer_errors,
    limits,
    tuned,
)
from ..study.intervals import geometric_interval, t_interval
from . import canvas

SCHEMES = {ROUNDED: ("C0", "s"), DIFFERENCE: ("C1", "o")}


def _kinds(stores: canvas.Stores) -> tuple[dict[str, xr.Dataset], Errors, list[str], list[str]]:
    """The stores at the rate at which limits are measured, their errors, and the names of kinds and data sets."""
    shown = tuned(stores)
    errors = kind_errors(shown)
    kinds, titles = (list(dict.fromkeys(names)) for names in zip(*((k, t) for t, k in errors), strict=True))
    return shown, errors, kinds, titles


def error_by_kind(stores: canvas.Stores) -> Figure:
    """Test error over the rms error of a read; a panel a kind, a colour a data set, dashed the mean of many reads."""
    shown, errors, kinds, titles = _kinds(stores)
    figure, axes, _ = canvas.grid(len(kinds), 5, (2.6, 2.3))
    zeros: dict[str, float] = {}
    for (title, kind), error in errors.items():
        ax, colour = axes[kinds.index(kind)], f"C{titles.index(title)}"
        zero = zeros.setdefault(kind, canvas.place_of_zero(error.sigma.values))
        for number, count in enumerate(error.samples.values):
            look = {"ls": "--", "mfc": "white"} if number else {}
            canvas.seeds_and_mean(ax, error.sel(samples=count), colour, zero=zero, **look)
        canvas.sigma_axis(ax, error.sigma.values, "rms error of a read σ (V)")
        ax.set_title(kind, fontsize="medium")
    for ax in axes:
        canvas.error_axis(ax, float(next(iter(errors.values())).chance))
    counts = sorted({int(n) for error in errors.values() for n in error.samples.values})
    looks = {title: {"color": f"C{k}", "lw": 2} for k, title in enumerate(titles)}
    looks |= {f"N = {n}": {"color": "0.4", "ls": "--" if k else "-", "lw": 1.4} for k, n in enumerate(counts)}
    canvas.key(figure, looks)
    return canvas.finish_several(figure, "What a network makes of each kind of read-out error", shown, canvas.BARS)


def limit_by_kind(stores: canvas.Stores) -> Figure:
    """Limits of every kind, a row a kind: of a read, and open of the mean of many, with the place that sqrt(N) says."""
    shown, errors, kinds, titles = _kinds(stores)
    figure, axes = canvas.blank(1, 1, (7.5, 0.42 * len(kinds) + 0.8))
    ax = axes[0, 0]
    for (title, kind), error in errors.items():
        colour, limit = f"C{titles.index(title)}", canvas.steady(geometric_interval(limits(error)))
        row = kinds.index(kind) + 0.3 * (titles.index(title) - (len(titles) - 1) / 2)
        for number, count in enumerate(limit.samples.values):
            point, y = limit.sel(samples=count), row + 0.16 * number
            ax.plot(point["mean"], y, "o", color=colour, ms=6, mfc="white" if number else colour)
            ax.hlines(y, point.low, point.high, color=colour, lw=1.4)
            if number:
                ax.plot(limit["mean"][0] * np.sqrt(count), y, "|", color="k", ms=11, mew=1.4)
    ax.set(xscale="log", xlabel="critical limit, as rms error of a read (V)", ylim=(len(kinds) - 0.4, -0.6))
    ax.set_yticks(range(len(kinds)), kinds, fontsize="small")
    ax.grid(axis="x", alpha=0.3)
    looks: dict[str, dict[str, object]] = {
        title: {"color": f"C{k}", "marker": "o", "ls": ""} for k, title in enumerate(titles)
    }
    many = max(int(n) for error in errors.values() for n in error.samples.values)
    looks[f"mean of {many} reads"] = {"color": "0.4", "marker": "o", "mfc": "white", "ls": ""}
    looks[f"√{many} times the limit of a read"] = {"color": "k", "marker": "|", "ms": 11, "mew": 1.4, "ls": ""}
    canvas.key(figure, looks)
    note = "half way to chance; geometric means over seeds, bars: 95 % t intervals of the log"
    return canvas.finish_several(
        figure, "The limit of every kind of read-out error, and what averaging does", shown, note
    )


def dither_window(stores: canvas.Stores) -> Figure:
    """Test error over noise before a converter, in its steps; a panel a step, a colour a number of reads."""
    of_steps = dither_errors(stores)
    _, errors, _, _ = _kinds(stores)
    figure, axes, _ = canvas.grid(len(of_steps), 3, (3.5, 2.9))
    for ax, ((title, lsb), error) in zip(axes, of_steps.items(), strict=True):
        white = errors[title, WHITE].sel(samples=[1])
        steps = error.assign_coords(sigma=error.sigma / lsb)
        for number, count in enumerate(error.samples.values):
            canvas.seeds_and_mean(ax, steps.sel(samples=count), f"C{number}", label=f"N = {count}")
            end = float(geometric_interval(limits(white)).isel(samples=0)["mean"]) * np.sqrt(count) / lsb
            ax.axvline(end, color=f"C{number}", lw=1, ls="--")
        canvas.sigma_axis(ax, steps.sigma.values, "noise before the converter, in its steps")
        ax.axvline(0.5, color="0.3", lw=1, ls=":")
        ax.axhline(float(white.sel(sigma=0).mean()), color="0.5", lw=0.8)
        canvas.error_axis(ax, float(error.chance))
        ax.set_title(f"step of {1000 * lsb:g} mV", fontsize="medium")
    canvas.key(figure)
    lines = "dotted: half a step; dashed: limit of white noise times √N; grey: exact reads"
    shown = {name: ds for name, ds in stores.items() if '"lsb"' in ds.attrs["parameters"]}
    return canvas.finish_several(
        figure, "Noise before a converter: the window of dither", shown, f"{canvas.BARS}; {lines}"
    )


def bits(stores: canvas.Stores, needed: xr.Dataset) -> Figure:
    """Bits needed by calculation (`study.bits_needed`), errors over bits as trained, and noise in single layers."""
    figure, axes = canvas.blank(1, 3, (3.8, 3.1))
    left, middle, right = axes[0]
    title, layers = needed.dataset.values[0], needed.layer.values
    for number, (scheme, (colour, _)) in enumerate(SCHEMES.items()):
        of = needed.sel(dataset=title, scheme=scheme)
        bars = left.bar(layers + 0.4 * number - 0.2, of.bits, 0.38, color=colour, label=scheme)
        left.bar_label(bars, [f"{v:.0f}" for v in of.bits.values], fontsize="small")
        left.plot(layers + 0.4 * number - 0.2, of.by_layer, "_", color="k", ms=14, mew=1.6)
    left.plot([], [], "_", color="k", ms=12, mew=1.6, label="as that layer alone would need")
    left.set(xlabel="layer of units", ylabel="bits of a converter", ylim=(0, 28))
    left.set_xticks(layers)
    left.legend(fontsize="x-small", loc="upper right")
    left.set_title(f"{canvas.literally(title)}: needed at the limit", fontsize="medium")
    for (name, scheme), error in bit_errors(stores).items():
        colour, marker = SCHEMES[scheme]
        mean, hollow = t_interval(error), {} if name == title else {"mfc": "white", "ls": "--"}
        middle.plot(error.bits, mean["mean"], color=colour, marker=marker, ms=5, lw=1.4, **hollow)
        middle.vlines(error.bits, mean.low, mean.high, color=colour, lw=1.4)
        middle.plot(error.bits, error.transpose("bits", "seed"), ".", color=colour, **canvas.DOTS)
        if scheme == ROUNDED:
            middle.plot([], [], color="0.4", marker=marker, label=canvas.literally(name), **hollow)
        chance = float(error.chance)
    middle.set(xlabel="bits, in every layer")
    middle.xaxis.set_major_locator(MaxNLocator(integer=True))
    canvas.error_axis(middle, chance)
    middle.legend(fontsize="x-small", loc="upper right", bbox_to_anchor=(1, 0.88))
    middle.set_title("trained", fontsize="medium")
    for (name, layer), error in layer_errors(stores).items():
        if name == title:
            noisy = error.sel(sigma=error.sigma > 0)
            canvas.seeds_and_mean(right, noisy, f"C{layer + 1}", label=f"layer {layer}")
    right.set(xscale="log", xlabel="white noise σ (V), of that layer's reads alone")
    canvas.error_axis(right, chance)
    right.legend(fontsize="x-small", loc="center left")
    right.set_title(f"{canvas.literally(title)}: which layer's reads count", fontsize="medium")
    shown = {name: ds for name, ds in stores.items() if '"bits"' in ds.attrs["parameters"]}
    note = f"converters end at twice the largest voltage, or response, before training; {canvas.BARS}"
    return canvas.finish_several(figure, "How many bits does a read-out need?", shown, note)
