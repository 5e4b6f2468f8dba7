"""The figures of notebook 03: what averaging N read-outs does to the limit, and whether all curves are one on σ/√N."""

from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..study.limit import final_error
from . import canvas

WAYS: dict[str, dict[str, Any]] = {
    "explicit": {"ls": "-", "marker": "o"},
    "shortcut": {"ls": "--", "marker": "s", "mfc": "none", "ms": 6},
}
WAY_COLOURS = {"explicit": "C0", "shortcut": "C1"}


def clt_scaling(ds: xr.Dataset, limits: xr.Dataset, exponent: xr.Dataset) -> Figure:
    """Does the limit move by the square root of N? Error over sigma, and sigma_c over N.

    `limits`: `critical_limit` of the store; `exponent`: `scaling_exponent` of its limits. One data set, one
    learning rate (else ValueError); averaging and samples are dims. The sigma/sqrt(N) shortcut is hollow.
    """
    ds, limits, exponent = (canvas.single(store, "dataset", "learning_rate") for store in (ds, limits, exponent))
    limits, exponent = canvas.steady(limits), canvas.steady(exponent)
    figure, axes = canvas.blank(1, 2, (5.2, 3.6))
    over_sigma, over_n = axes[0]
    over_sigma.set_title("error over σ", fontsize="medium")
    over_n.set_title("limit over N", fontsize="medium")
    error = final_error(ds)
    for way in error.averaging.values:
        for count, color in _count_colours(ds).items():
            canvas.seeds_and_mean(over_sigma, error.sel(samples=count, averaging=way), color, **WAYS[way])
        over_sigma.plot([], [], color="0.3", label=way, **WAYS[way])
        _slope(over_n, limits.sel(averaging=way), exponent.sel(averaging=way), way)
    for count, color in _count_colours(ds).items():
        over_sigma.plot([], [], color=color, lw=4, label=f"N = {count}")
    canvas.key(figure, loc="outside left center")
    canvas.sigma_axis(over_sigma, ds.sigma.values)
    canvas.error_axis(over_sigma, ds.chance.item())
    over_n.set(xscale="log", yscale="log", xlabel="number of read-outs N", ylabel=canvas.LIMIT)
    canvas.plain_ticks(over_n.xaxis, ds.samples.values.tolist())
    over_n.legend(fontsize="small", loc="upper left")
    over_n.margins(y=0.25)
    note = "right: geometric mean and 95 % t interval over bracketed seeds; slope with its 95 % t interval"
    title = f"Averaging N read-outs: {ds.title.item()}, η = {ds.learning_rate.item():g}"
    return canvas.finish(figure, title, ds, canvas.BARS, note)


def collapse(ds: xr.Dataset, fit: xr.Dataset, quality: xr.Dataset) -> Figure:
    """Do the curves of all N meet on sigma/sqrt(N)? Above, the errors; below, each N's minus that of N = 1.

    `fit`: `collapse` of the store's final error; `quality`: `curve_distance` of it. One data set, one learning rate.
    A column a way of averaging.
    """
    ds, fit, quality = (canvas.single(store, "dataset", "learning_rate") for store in (ds, fit, quality))
    error = final_error(ds)
    scaled = ds.sigma.values / np.sqrt(ds.samples.values[:, None])
    zero = canvas.place_of_zero(scaled)
    figure, axes = canvas.blank(2, ds.sizes["averaging"], (5.2, 2.4), sharex=True, sharey="row")
    for (above, below), way in zip(axes.T, ds.averaging.values, strict=True):
        curves = error.sel(averaging=way)
        for count, color in _count_colours(ds).items():
            curve = curves.sel(samples=count)
            curve = curve.assign_coords(sigma=curve.sigma / np.sqrt(count))
            canvas.seeds_and_mean(above, curve, color, f"N = {count}", zero)
            if count > 1:
                canvas.seeds_and_mean(below, _difference(curve, curves.sel(samples=1)), color, zero=zero)
        distance = quality.sel(averaging=way)
        mean, floor = (f"{100 * float(distance[name]):.1f}" for name in ("mean", "floor"))
        words = f"mean distance from N = 1 is {mean} points,\nseeds alone would make {floor}"
        above.set_title(f"{way} averaging: {words}", fontsize="small")
        canvas.sigma_axis(below, scaled, "uncertainty of the mean, σ/√N (V)")
        canvas.error_axis(above, ds.chance.item())
        below.axhline(0, color="0.3", lw=0.8)
        below.set_ylabel("error minus that\nof N = 1 (points)")
        below.yaxis.set_major_formatter(canvas.PERCENT)
    canvas.key(figure)
    title = f"Do the curves meet on σ/√N? {ds.title.item()}, η = {ds.learning_rate.item():g}"
    note = "distances: between means over seeds"
    return canvas.finish(figure, title, ds, canvas.BARS, note)


def _difference(curve: xr.DataArray, reference: xr.DataArray) -> xr.DataArray:
    """`curve` minus `reference`, both (sigma, seed), at the positive sigmas that both have."""
    pairs = np.argwhere(np.isclose(reference.sigma.values, curve.sigma.values[:, None], rtol=1e-6))
    here, there = pairs[curve.sigma.values[pairs[:, 0]] > 0].T
    same = xr.DataArray(reference.isel(sigma=there).values, dims=reference.dims)
    return curve.isel(sigma=here) - same


def _count_colours(ds: xr.Dataset) -> dict[int, Any]:
    """A colour for each number of read-outs."""
    colours = sns.color_palette("viridis_r", ds.sizes["samples"] + 1)[1:]  # the lightest is hard to see
    return dict(zip(ds.samples.values.tolist(), colours, strict=True))


def _slope(ax: Axes, limits: xr.Dataset, exponent: xr.Dataset, way: str) -> None:
    """sigma_c over N for one way of averaging, with the fitted slope and, as a reference, slope 1/2."""
    counts, limits = limits.samples.values, limits.sel(samples=limits.n > 0)
    if not limits.samples.size:
        return
    n, mean = limits.samples.values, limits["mean"].values
    color, look = WAY_COLOURS[way], WAYS[way] | {"ls": "none"}
    beside = 1.04 ** (1 + np.arange(limits.sizes["seed"]))
    ax.plot(np.outer(n, beside), limits.limit.transpose("samples", "seed"), ".", color=color, **canvas.DOTS)
    ax.vlines(n, limits.low, limits.high, color=color, lw=1.4)
    slope, low, high = (float(exponent[name]) for name in ("mean", "low", "high"))
    words = f"{way}: slope {slope:.2f} [{low:.2f}, {high:.2f}], n = {int(exponent.n)}"
    ax.plot(n, mean, color=color, label=words if np.isfinite(slope) else f"{way}: no slope", **look)
    centre = np.exp(np.log(n).mean()), np.exp(np.log(mean).mean())  # least-squares lines go through the means

    def line(power: float, n: np.ndarray = n) -> np.ndarray:
        return centre[1] * (n / centre[0]) ** power

    if np.isfinite(slope):
        ax.plot(n, line(slope), color=color, lw=1.2, ls=WAYS[way]["ls"])
        ax.fill_between(n, line(low), line(high), color=color, alpha=0.15, lw=0)
    if "slope 1/2" not in ax.get_legend_handles_labels()[1]:
        ax.plot(counts, line(0.5, counts), color="0.3", lw=1, ls=":", label="slope 1/2")
