"""The figures of notebook 12: the errors of all arms, and what they have to do with the units that conduct."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..study.arms import QUIET, arm, arm_errors
from ..study.limit import final_error
from . import canvas

NONE = "0.15"  # the colour of σ = 0


def arms(stores: canvas.Stores) -> Figure:
    """Test error after training: a row an arm, a column a data set and learning rate, a colour a sigma."""
    errors = arm_errors(stores)
    rates = sorted({float(rate) for error in errors.values() for rate in error.learning_rate.values})
    sigmas = sorted({float(sigma) for error in errors.values() for sigma in error.sigma.values})
    colours = {sigma: f"C{k}" if sigma else NONE for k, sigma in enumerate(sigmas)}
    chances = {ds.title.item(): float(ds.chance.item()) for ds in stores.values()}
    rows = {title: [name for t, name in errors if t == title] for title in chances}
    counts = [len(names) for names in rows.values()]
    size = 3.8, 0.21 * float(np.mean(counts)) + 0.7
    figure, axes = canvas.blank(len(rows), len(rates), size, sharex=True, sharey="row", height_ratios=counts)
    for line, (title, names) in zip(axes, rows.items(), strict=True):
        for ax, rate in zip(line, rates, strict=True):
            for row, name in enumerate(names):
                if rate in errors[title, name].learning_rate:
                    _dots(ax, row, errors[title, name].sel(learning_rate=rate), colours)
            if QUIET in names and rate in errors[title, QUIET].learning_rate:
                mean = float(errors[title, QUIET].sel(learning_rate=rate).mean())
                ax.axvline(mean, color=NONE, lw=0.8, ls=":", zorder=0)
            ax.axvline(chances[title], color="C3", lw=1, ls=":")
            ax.set_yticks(range(len(names)), names, fontsize="x-small")
            ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1), xlabel="test error after training (%)")
            ax.xaxis.set_major_formatter(canvas.PERCENT)
            ax.set_title(f"{canvas.literally(title)}, η = {rate:g}", fontsize="small")
    canvas.key(figure, {f"σ = {sigma:g} V": {"color": colours[sigma], "lw": 2} for sigma in sigmas})
    note = "small dots: seeds; bars: mean, 95 % t interval; dotted: mean without noise (grey), chance (red)"
    return canvas.finish_several(figure, "Where noise enters, when, and what does the same", stores, note)


def _dots(ax: Axes, row: int, error: xr.DataArray, colours: Mapping[float, str]) -> None:
    """The runs of an arm, error (sigma, seed), with mean and interval of each sigma, beside one another."""
    for number, sigma in enumerate(error.sigma.values):
        y = row + 0.34 * (number - (error.sizes["sigma"] - 1) / 2)
        canvas.interval_in_row(ax, y, error.sel(sigma=sigma), colours[float(sigma)])


def conducting(stores: canvas.Stores) -> Figure:
    """Over the share of units of layer 1 that conduct after training, each run's error; a column a data set."""
    titles = list(dict.fromkeys(ds.title.item() for ds in stores.values()))
    shared = [{arm(ds) for ds in stores.values() if ds.title.item() == title} for title in titles]
    names = [name for name in dict.fromkeys(map(arm, stores.values())) if all(name in own for own in shared)]
    figure, axes = canvas.blank(1, len(titles), (3.4, 3.2), sharex=True, sharey=True)
    for ax, title in zip(axes[0], titles, strict=True):
        for ds in stores.values():
            if ds.title.item() == title and (name := arm(ds)) in names:
                setting = ds.isel(dataset=0, averaging=0, samples=0, learning_rate=-1, sigma=[-1])
                living = setting.activity.isel(epoch=-1, layer=0)
                number = names.index(name)
                look = {"color": f"C{number % 10}", "marker": "os^Dv"[number % 5], "ms": 4, "alpha": 0.7, "mew": 0}
                ax.plot(living.squeeze(), final_error(setting).squeeze(), ls="", **look)
        canvas.error_axis(ax, float(setting.chance))
        ax.set(xlim=(0, 1), xlabel="units of layer 1 that conduct (%)")
        ax.xaxis.set_major_formatter(canvas.PERCENT)
        ax.set_title(f"{canvas.literally(title)}, η = {setting.learning_rate.item():g}", fontsize="medium")
    looks = {name: {"color": f"C{k % 10}", "marker": "os^Dv"[k % 5], "ls": ""} for k, name in enumerate(names)}
    canvas.key(figure, looks)
    note = "a dot a run, at the largest σ and learning rate of its arm"
    return canvas.finish_several(figure, "Do the networks that learn have more units that conduct?", stores, note)
