"""The figures of notebook 13: what noise gains over time, and what an error costs in read-outs."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..study.budget import costs, label, targets
from ..study.limit import critical_limit, final_error
from ..sweep.store import parameters
from . import canvas

GAIN = 0.3  # of error: where the colours of the map end


def gain_map(ds: xr.Dataset) -> Figure:
    """What sigma saves of the error, over training images seen; a column a data set, a row a learning rate.

    Crosses: the best sigma > 0 at that time; line: the limit at that time.
    """
    ds = canvas.single(ds, *canvas.READS)
    rates, sigma = ds.learning_rate.values, np.sort(ds.sigma.values[ds.sigma.values > 0])
    figure, axes = canvas.blank(len(rates), ds.sizes["dataset"], (3.0, 1.7), sharex=True, sharey=True)
    images = ds.epoch.values * parameters(ds)["train_images"] / 1000
    at_each = [ds.sel(epoch=[epoch]) for epoch in ds.epoch.values]
    error = xr.concat([final_error(at) for at in at_each], xr.Variable("epoch", ds.epoch.values))
    limits = canvas.steady(critical_limit(error, ds.chance))["mean"]
    for (row, column), ax in np.ndenumerate(axes):
        setting = {"learning_rate": rates[row], "dataset": ds.dataset.values[column]}
        mean = error.sel(setting).mean("seed").sortby("sigma")
        gain = (mean.sel(sigma=0) - mean.sel(sigma=sigma)).transpose("sigma", "epoch")
        tiles = ax.pcolormesh(images, sigma, gain, cmap="RdBu", vmin=-GAIN, vmax=GAIN, shading="nearest")
        ax.plot(images, limits.sel(setting), color="k", lw=1.4)
        ax.plot(images, sigma[gain.values.argmax(0)], "x", color="k", ms=4, mew=1)
        ax.set(yscale="log", ylim=(sigma[0] / 1.3, sigma[-1] * 1.3))
        ax.set_xlabel("training images seen (thousands)", fontsize="small")
        ax.set_ylabel("σ (V)", fontsize="small")
        ax.set_title(canvas.setting(ds.sel(setting), rates[row]), fontsize="small")
    bar = figure.colorbar(tiles, ax=figure.axes, shrink=0.5, extend="both", format=canvas.PERCENT)
    bar.set_label("points of error that noise saves")
    note = "crosses: the best σ > 0 on the test images; line: limit σ$_c$ at that time, where it is bracketed"
    return canvas.finish(figure, "What noise gains, over time and σ", ds, note)


def error_over_reads(stores: canvas.Stores) -> Figure:
    """Mean test error over the reads of a unit and phase so far; a column a data set, a row a learning rate."""
    noisy = {name: ds for name, ds in stores.items() if (ds.sigma > 0).any()}
    titles = list(dict.fromkeys(ds.title.item() for ds in noisy.values()))
    rates = sorted({float(rate) for ds in noisy.values() for rate in ds.learning_rate.values})
    names = list(dict.fromkeys(map(label, noisy.values())))
    counts = sorted({int(n) for ds in noisy.values() for n in ds.samples.values})
    greys = {n: str(0.75 - 0.7 * k / max(1, len(counts) - 1)) for k, n in enumerate(counts)}
    figure, axes = canvas.blank(len(rates), max(1, len(titles)), (3.6, 2.6), sharex=True, sharey=True)
    aims = targets(stores)
    for ds in noisy.values():
        column, name, total = titles.index(ds.title.item()), label(ds), costs(ds).isel(sigma=0)
        error = ds.test_error.isel(dataset=0, averaging=0, sigma=0)
        for rate in ds.learning_rate.values:
            ax = axes[rates.index(float(rate)), column]
            for n in ds.samples.values:
                at = {"learning_rate": rate, "samples": n}
                constant = name == names[0]
                colour = greys[int(n)] if constant else f"C{names.index(name) - 1}"
                look = {"ls": "-" if constant or n == ds.samples[0] else "--", "lw": 1.6 if constant else 1.2}
                means = (values.sel(at).mean("seed") for values in (total, error))
                ax.plot(*means, color=colour, marker=".", ms=4, **look)
    for (row, column), ax in np.ndenumerate(axes):
        chance = next((float(ds.chance.item()) for ds in noisy.values() if ds.title.item() == titles[column]), 1.0)
        canvas.error_axis(ax, chance)
        ax.axhline(aims.get(titles[column], np.nan), color="0.3", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="reads of a unit and phase, in all")
        ax.set_title(f"{canvas.literally(titles[column])}, η = {rates[row]:g}", fontsize="medium")
    looks = {f"constant N = {n}": {"color": grey, "lw": 2} for n, grey in greys.items()}
    looks |= {name: {"color": f"C{k}", "lw": 2} for k, name in enumerate(names[1:])}
    canvas.key(figure, looks)
    note = "means over seeds, a point an epoch; dashed line: the target; dashed curves: the larger N at first"
    return canvas.finish_several(figure, "What an error costs in read-outs", noisy, note)
