"""The figures of notebook 11: errors over the noise scale, the predicted limit, and reads that are correlated."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..study.intervals import t_interval
from ..study.law import SCALED, alike
from ..study.limit import final_error, first_setting
from ..sweep.store import parameters
from . import canvas

SHARED = (0.0, 0.003, 0.03, 0.3)  # correlations of the reads that are averaged


def noise_scale(stores: canvas.Stores, networks: xr.Dataset) -> Figure:
    """Mean test error over sigma, above, and over sigma sqrt(eta/(B N)), below; a column a data set, a colour a batch.

    `networks`: `study.law_networks` of the stores. Intervals are t intervals over seeds.
    """
    groups = list(alike(stores, SCALED, 3).values())
    figure, axes = canvas.blank(2, max(1, len(groups)), (3.4, 2.6), sharey=True)
    batches = sorted({int(b) for names in groups for b in networks.batch_size.sel(network=names).values})
    rates = sorted({float(r) for names in groups for r in networks.learning_rate.sel(network=names).values})
    looks = {f"B = {b}": {"color": f"C{k}", "lw": 2} for k, b in enumerate(batches)}
    looks |= {f"η = {r:g}": {"color": "0.4", "ls": ("-", "--", ":", "-.")[k % 4]} for k, r in enumerate(rates)}
    for (above, below), names in zip(axes.T, groups, strict=True):
        for name in names:
            setting, facts = first_setting(stores[name]), networks.sel(network=name)
            error = final_error(setting)
            error = error.sel(sigma=error.sigma > 0)
            style = rates.index(float(facts.learning_rate)) % 4
            look = {"color": f"C{batches.index(int(facts.batch_size))}", "ls": ("-", "--", ":", "-.")[style], "lw": 1.3}
            many = int(facts.samples) > 1
            look |= {"marker": "s", "ms": 4} if many else {}
            for ax, x in ((above, error.sigma), (below, error.sigma / facts.scale)):
                mean = t_interval(error)
                ax.plot(x, mean["mean"], **look)
                ax.fill_between(x, mean.low, mean.high, color=look["color"], alpha=0.12, lw=0)
        above.set_title(canvas.literally(networks.title.sel(network=names[0]).item()), fontsize="medium")
        for ax, label in ((above, canvas.SIGMA), (below, "σ √(η / BN) (V)")):
            canvas.error_axis(ax, setting.chance.item())
            ax.set(xscale="log", xlabel=label)
    if any(int(n) > 1 for n in networks.samples):
        looks["N > 1 read-outs"] = {"color": "0.4", "marker": "s", "ms": 4}
    canvas.key(figure, looks)
    shown = {name: stores[name] for names in groups for name in names}
    note = (
        "bands: 95 % t intervals over seeds; what counts is the noise scale σ²η/(BN) if the lower curves fall together"
    )
    return canvas.finish_several(figure, "Error over σ, and over the noise scale", shown, note) if groups else figure


def predicted_limits(stores: canvas.Stores, networks: xr.Dataset) -> Figure:
    """Measured over predicted limits; the band is a factor of 2. Networks that can't be judged are hollow."""
    figure, axes = canvas.blank(1, 1, (6.2, 4.8))
    ax, networks = axes[0, 0], canvas.steady(networks)
    titles = list(dict.fromkeys(networks.title.values.tolist()))
    depths = {name: len(parameters(ds)["hidden"]) for name, ds in stores.items()}
    for name in networks.network.values:
        point = networks.sel(network=name)
        colour, marker = f"C{titles.index(point.title.item())}", "os^D"[min(depths[name], 4) - 1]
        face = colour if point.reason == "" else "none"
        ax.plot(point.prediction, point.limit, ls="", marker=marker, ms=6, color=colour, mfc=face)
        ax.vlines(point.prediction, point.low, point.high, color=colour, lw=1)
    ax.set(xscale="log", yscale="log", xlabel="limit predicted before training (V)", ylabel=canvas.LIMIT)
    volts = networks[["limit", "prediction"]].to_dataarray()
    if volts.notnull().any():
        x, y = (np.array([values.min() / 2, values.max() * 2]) for values in (networks.prediction, volts))
        ax.plot(x, x, color="0.4", lw=1)
        ax.fill_between(x, x / 2, x * 2, color="0.9", lw=0, zorder=0)
        ax.set_ylim(*y)
    looks = {title: {"color": f"C{k}", "lw": 3} for k, title in enumerate(titles)}
    layers = {1: "1 hidden layer", 2: "2 hidden layers", 3: "3 hidden layers", 4: "4 hidden layers"}
    for depth in sorted({min(depth, 4) for depth in depths.values()}):
        looks[layers[depth]] = {"color": "0.4", "ls": "", "marker": "os^D"[depth - 1]}
    looks["not judged"] = {"color": "0.4", "ls": "", "marker": "o", "mfc": "none"}
    canvas.key(figure, looks)
    note = "bars: 95 % intervals of the measured limit over seeds; band: a factor of 2 about the prediction"
    return canvas.finish_several(figure, "Is the limit known before training?", stores, note)


def correlated_reads(stores: canvas.Stores, networks: xr.Dataset) -> Figure:
    """By what factor N reads move the limit if they are correlated by rho: 1/sqrt(rho + (1 - rho)/N).

    Diamonds: measured ratios of the limits of networks (`study.law_networks`) that differ in N alone.
    """
    figure, axes = canvas.blank(1, 1, (5.2, 3.4))
    ax, count = axes[0, 0], np.geomspace(1, 1024, 101)
    for number, rho in enumerate(SHARED):
        ax.plot(count, (rho + (1 - rho) / count) ** -0.5, color=f"C{number}", label=f"ρ = {rho:g}")
        if rho:
            ax.plot(1 / rho, (rho + (1 - rho) * rho) ** -0.5, "o", color=f"C{number}", ms=5)
    for names in alike(stores, ["samples"], 2).values():
        single, many = (
            networks.sel(network=name) for name in sorted(names[:2], key=lambda n: int(networks.samples.sel(network=n)))
        )
        ax.plot(int(many.samples), float(many.limit / single.limit), "kD", ms=5, label="measured, independent")
    ax.set(xscale="log", yscale="log", xlabel="number of read-outs N", ylabel="limit over that of a single read")
    canvas.plain_ticks(ax.xaxis, [1, 4, 16, 64, 256, 1024])
    canvas.plain_ticks(ax.yaxis, [1, 2, 4, 8, 16, 32])
    ax.legend(fontsize="small")
    return canvas.captioned(
        figure, "What averaging can do", "lines: the noise that correlated reads leave; dots: N = 1/ρ"
    )
