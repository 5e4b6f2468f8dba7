"""The figures of notebook 09: how long networks stay at chance, what noise does to that, and what rounding does."""

from collections.abc import Callable, Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from ..study.limit import first_setting
from ..study.plateau import differences, escape, images_seen, median_escape, share_escaped
from ..sweep.store import parameters
from . import canvas


def learning_curves(stores: canvas.Stores) -> Figure:
    """Test error over the training images seen, a panel a sweep, a line a run, coloured by sigma."""
    figure, axes, _ = canvas.grid(len(stores), 3, (3.9, 2.9))
    if not stores:
        return figure
    colour = _colours(stores.values())
    for ax, (name, ds) in zip(axes, stores.items(), strict=True):
        sweep = first_setting(ds)
        for sigma in sweep.sigma.values:
            error = sweep.test_error.sel(sigma=sigma).transpose("epoch", "seed")
            ax.plot(images_seen(ds) / 1000, error, color=colour(sigma), lw=1, alpha=0.8, marker=".", ms=3)
        canvas.error_axis(ax, float(sweep.chance))
        _images_axis(ax)
        _titled(ax, name, ds)
    canvas.key(figure, _sigma_looks(stores.values(), colour), loc="outside right upper")
    return canvas.finish_several(figure, "Learning curves at the published settings", stores, "each line a seed")


def escape_times(stores: canvas.Stores) -> Figure:
    """Images seen until the error leaves chance for good, over sigma; below, share of the seeds that have left it."""
    colour = _colours(stores.values())
    figure, axes = canvas.blank(2, len(stores), (3.9, 2.8), sharey="row")
    for (above, below), (name, ds) in zip(axes.T, stores.items(), strict=True):
        _escapes(above, below, first_setting(ds), images_seen(ds), colour)
        canvas.sigma_axis(above, ds.sigma.values)
        above.set_ylabel("images until the error\nstays below 0.9 of chance (thousands)")
        canvas.percent_axis(below, "seeds that have escaped (%)", -0.03, 1.12)
        _images_axis(below)
        _titled(above, name, ds)
    axes[0, 0].set_ylim(0, None)  # at the end, for it holds what is drawn later to the limits of then
    canvas.key(figure, _sigma_looks(stores.values(), colour))
    note = (
        "dots: seeds; open triangles: seeds that did not escape in the whole record (censored); bars: median",
        "median and share by Kaplan–Meier, each σ a little above the last; times: to the distance of two records",
    )
    return canvas.finish_several(figure, "Escape from the plateau at chance", stores, *note)


def _escapes(above: Axes, below: Axes, sweep: xr.Dataset, seen: xr.DataArray, colour: Callable[[float], Any]) -> None:
    """A network's escape times over sigma, above, and the share that has escaped over the images `seen`, below."""
    times, zero = escape(sweep), canvas.place_of_zero(sweep.sigma.values)
    median, share = median_escape(times, seen) / 1000, share_escaped(times, seen)
    for number, sigma in enumerate(sweep.sigma.values):
        runs, x, color = times.sel(sigma=sigma), sigma if sigma > 0 else zero, colour(sigma)
        if not runs.ran.any():  # of a partial store
            continue
        beside = x * 1.12 ** (np.arange(runs.sizes["seed"]) - (runs.sizes["seed"] - 1) / 2)
        above.plot(beside, runs.images / 1000, "o", color=color, ms=5)
        censored, end = (runs.ran & ~runs.escaped).values, float(runs.followed) / 1000
        above.plot(beside[censored], np.full(censored.sum(), end), "^", color=color, mfc="none", ms=6)
        if np.isfinite(middle := float(median.sel(sigma=sigma))):
            above.hlines(middle, x / 1.3, x * 1.3, color=color, lw=2)
        # a little higher for each, or equal shares would hide one another
        curve = share.sel(sigma=sigma).values + 0.012 * number
        steps = [0, *seen / 1000, 1.03 * end], [0.012 * number, *curve, curve[-1]]
        below.step(*steps, where="post", color=color, lw=1.6)


def along_the_way(stores: canvas.Stores, before: xr.Dataset, sigma: float) -> Figure:
    """Response to the nudge and mean conductance of each layer while training, without noise and with `sigma`.

    `before`: `untrained` of these networks, whose values are drawn at no images seen, and whose voltages give the
    rounding step of float32.
    """
    figure, axes = canvas.blank(2, len(stores), (3.9, 2.9), sharey="row")
    dashes = {0.0: "--", sigma: "-"}
    deepest = max(ds.sizes["layer"] for ds in stores.values())
    for (response, conductance), (name, ds) in zip(axes.T, stores.items(), strict=True):
        sweep, seen = first_setting(ds), images_seen(ds) / 1000
        start = before.sel(network=name).dropna("layer", how="all")
        for value, dash in dashes.items():
            swept = sweep.sigma.values[np.isclose(sweep.sigma, value, rtol=1e-3, atol=0)]
            for layer in sweep.layer.values if swept.size else ():
                look = {"color": f"C{layer - 1}", "ls": dash}
                for ax, quantity in ((response, "response"), (conductance, "conductance")):
                    runs = sweep[quantity].sel(sigma=swept[0], layer=layer).transpose("epoch", "seed")
                    ax.plot(seen, runs, lw=0.6, alpha=0.4, **look)
                    ax.plot(seen, np.exp(xr.ufuncs.log(runs).mean("seed")), lw=1.6, **look)
        for layer in start.layer.values:
            value = start.response.sel(layer=layer).mean("seed")
            response.plot(0, value, "o", color=f"C{layer - 1}", ms=5, clip_on=False)
        if parameters(ds)["dtype"] == "float32":
            step = np.spacing(start.voltage.isel(layer=0).mean("seed").values.astype(np.float32))
            response.axhline(step, color="C0", ls=":", lw=1.2)
        response.axhline(sigma, color="0.5", lw=1)
        for ax, label in ((response, "nudged response (rms, V)"), (conductance, "mean conductance (S)")):
            ax.set(yscale="log", ylabel=label)
            _images_axis(ax)
        _titled(response, name, ds)
    looks: dict[str, dict[str, Any]] = {
        **{f"layer {layer + 1}": {"color": f"C{layer}", "lw": 2} for layer in range(deepest)},
        **{f"σ = {_volts(value)}": {"color": "0.3", "ls": dash} for value, dash in dashes.items()},
        f"read-out noise of {_volts(sigma)}": {"color": "0.5", "lw": 1},
        "float32 rounding step\nof layer 1's voltage": {"color": "C0", "ls": ":"},
        "before training": {"color": "0.3", "marker": "o", "ms": 5, "ls": ""},
    }
    # after all scales are set, for the panels of a row share theirs
    axes[1, 0].yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.7)))
    canvas.key(figure, looks)
    title = "What the nudge moves, and the conductances, along the way"
    return canvas.finish_several(figure, title, stores, "thick: geometric mean over seeds; thin: seeds")


def precision(stores: canvas.Stores) -> Figure | None:
    """Learning curves without noise in float64 beside those in float32, seed by seed; None where there are no twins.

    Twins are two stores whose recorded parameters are the same but for dtype and sigma.
    """
    twins = {name: (ds, other) for name, ds in stores.items() for other in stores.values() if _twins(ds, other)}
    if not twins:
        return None
    figure, axes, _ = canvas.grid(len(twins), 3, (3.9, 2.9))
    for ax, (name, pair) in zip(axes, twins.items(), strict=True):
        looks: list[dict[str, Any]] = [{"ls": "-"}, {"ls": "--", "marker": ".", "ms": 4}]
        for ds, look in zip(pair, looks, strict=True):
            sweep, seen = first_setting(ds), images_seen(ds) / 1000
            for seed in sweep.seed.values:
                ax.plot(seen, sweep.test_error.sel(sigma=0.0, seed=seed), color=f"C{seed}", lw=1.2, **look)
        canvas.error_axis(ax, float(sweep.chance))
        _images_axis(ax)
        _titled(ax, name, ds)
    seeds = {f"seed {seed}": {"color": f"C{seed}"} for seed in sweep.seed.values}
    dtypes = {"float32": {"color": "0.3", "ls": "-"}, "float64": {"color": "0.3", "ls": "--"}}
    canvas.key(axes[-1], seeds | dtypes)
    shown = {name: single for name, (single, _) in twins.items()}
    title = "Does rounding hold the network on its plateau? σ = 0"
    return canvas.finish_several(figure, title, shown, "each line a seed")


def _twins(single: xr.Dataset, double: xr.Dataset) -> bool:
    """Whether the first is in float32 what the second is in float64."""
    dtypes = tuple(parameters(ds)["dtype"] for ds in (single, double))
    return dtypes == ("float32", "float64") and differences(single, double) <= {"dtype", "sigma"}


def _colours(stores: Iterable[xr.Dataset]) -> Callable[[float], Any]:
    """Colour of each sigma, black for 0."""
    positive = np.concatenate([ds.sigma.values[ds.sigma.values > 0] for ds in stores])
    if not positive.size:
        return lambda sigma: "k"
    scale = mpl.cm.ScalarMappable(LogNorm(positive.min() / 1.5, positive.max()), "viridis_r")
    return lambda sigma: scale.to_rgba(np.asarray(sigma)) if sigma > 0 else "k"


def _sigma_looks(stores: Iterable[xr.Dataset], colour: Callable[[float], Any]) -> dict[str, dict[str, Any]]:
    sigmas = np.unique(np.concatenate([ds.sigma.values for ds in stores]))
    return {f"σ = {_volts(sigma)}": {"color": colour(sigma), "lw": 2} for sigma in sigmas}


def _images_axis(ax: Axes) -> None:
    ax.set(xlabel="training images seen (thousands)", xlim=(0, None))


def _titled(ax: Axes, name: str, ds: xr.Dataset) -> None:
    """Network, data set, and how many of its runs there are."""
    settings, ran = parameters(ds), ds["run"] != ""
    sizes = "-".join(map(str, next(iter(settings["sizes"].values()))))
    whole = "" if ran.all() else f"\npartial: {int(ran.sum())} of {ran.size} runs"
    text = f"{name}: {sizes}\n{ds.title.values[0]}, {settings['train_images']:,} images an epoch{whole}"
    ax.set_title(text, fontsize="small")


def _volts(sigma: float) -> str:
    return f"{np.format_float_scientific(sigma, trim='-', exp_digits=1)} V" if sigma else "0 V"
