"""The figures of notebook 08, which set several sweeps beside one another: name -> store. Every seed is shown.

A family are the networks of a panel. What their axis is follows from the recorded parameters, see `_axis`; that they
belong together is for who names them to say: `families` maps names to families, see `by_first_part`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from ..study.limit import critical_limit, final_error, first_setting
from ..sweep.store import parameters
from . import canvas

Axis = tuple[str, Callable[[dict], float]]  # its label, and a network's place on it
# What a family may vary, in this order: deeper or wider networks have their own gain too.
AXES: list[Axis] = [
    ("number of hidden layers", lambda settings: len(settings["hidden"])),
    ("units in each hidden layer", lambda settings: settings["hidden"][0]),
    ("input gain A (V)", lambda settings: settings["input_gain"]),
    ("nudging conductance β (S)", lambda settings: settings["beta"]),
    ("training steps", lambda settings: _steps(settings)),
]
BEYOND = {"above half way from the optimum on": "v", "below half way even at the largest σ": "^"}
LOOKS: dict[str, dict[str, Any]] = {
    "limit of a seed": {"color": "C0", "marker": ".", "ls": ""} | canvas.DOTS,
    "geometric mean, 95 % t interval": {"color": "C0", "marker": "o", "ms": 5},
    "not bracketed: above the sweep": {"color": "C0", "marker": "^", "mfc": "none", "ls": ""},
    "not bracketed: below it": {"color": "C0", "marker": "v", "mfc": "none", "ls": ""},
    "does not learn at any σ": {"color": "C3", "marker": "x", "ls": ""},
    "range of σ swept": {"color": "0.85", "lw": 5},
    "response of the weakest layer, untrained": {"color": "C1", "marker": "_", "ms": 12, "mew": 2, "ls": ""},
}
# Where the labels of the points of a family are, from the point: elsewhere for each, for points of two may coincide.
LABELS: list[tuple[tuple[int, int], str]] = [
    ((7, -3), "left"), ((-7, -3), "right"), ((7, 2), "left"), ((0, -13), "center"), ((-7, -3), "right"),
    ((7, -3), "left"),
]  # fmt: skip


def by_first_part(names: Iterable[str]) -> dict[str, str]:
    """name -> family: the part of the name before its first hyphen, as in "width-256"."""
    return {name: name.partition("-")[0] for name in names}


def limits_over_architecture(
    stores: canvas.Stores, before: xr.Dataset, families: dict[str, str] | None = None
) -> Figure:
    """Critical limits over depth, width, gain, nudge and steps, with what the untrained weakest layer responds.

    `before` is `untrained` of the same networks. A panel a family that varies something. A seed without a limit is a
    triangle at the end of the sweep beyond which it may lie, or a cross on the axis where the network does not learn
    at all.
    """
    groups = [(axis, family) for axis, family in _grouped(stores, families).values() if axis]
    figure, axes, spare = canvas.grid(len(groups), 3, (3.9, 3.1))
    if not groups:
        return figure
    for ax, ((label, place), family) in zip(axes, groups, strict=True):
        places = [place(parameters(ds)) for ds in family.values()]
        responses = [np.exp(np.log(before.response.sel(network=name)).mean("seed")).min("layer") for name in family]
        step = (places[-1] / places[0]) ** 0.016
        for x, ds in zip(places, family.values(), strict=True):
            _limits_at(ax, x, first_setting(ds), step)
        ax.plot(places, responses, "_", color="C1", ms=16, mew=2)
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel=canvas.LIMIT)
        ax.margins(x=0.15)
        canvas.plain_ticks(ax.xaxis, places, [f"{x:,g}" for x in places])
        ax.set_title(_common(family), fontsize="x-small")
        ax.yaxis.set_minor_locator(NullLocator())
    if spare:
        canvas.key(spare[-1], LOOKS, loc="center", fontsize="small")
    else:
        canvas.key(figure, LOOKS)
    return canvas.finish_several(figure, "The critical limit over architecture, gain, nudge and training", stores)


def errors_over_sigma(stores: canvas.Stores, families: dict[str, str] | None = None) -> Figure:
    """Test error after training over sigma, a panel for each family of networks, the limits marked below."""
    groups = _grouped(stores, families)
    figure, axes, _ = canvas.grid(len(groups), 2, (5.0, 3.0))
    if not groups:
        return figure
    sigmas = np.unique(np.concatenate([ds.sigma.values for ds in stores.values()]))
    for ax, (title, (axis, family)) in zip(axes, groups.items(), strict=True):
        for color, (name, ds) in zip(sns.color_palette("viridis_r", len(family) + 1)[1:], family.items(), strict=True):
            sweep, limits = first_setting(ds), _limits(ds)
            words = f"{_label(name, ds, axis)}  ({int(limits.n)}/{int(limits.runs)})"
            canvas.seeds_and_mean(ax, final_error(sweep), color, words, canvas.place_of_zero(sigmas))
            if limits.n:
                ax.plot(limits["mean"], 0.02, "^", color=color, ms=6, clip_on=False, zorder=4)
        canvas.sigma_axis(ax, sigmas)
        canvas.error_axis(ax, float(sweep.chance))
        ax.set_title(_common(family), fontsize="small")
        ax.legend(title=axis[0] if axis else title, fontsize="x-small", title_fontsize="x-small", loc="center left",
                  bbox_to_anchor=(1, 0.5))  # fmt: skip
    note = (
        "small dots: seeds; bars: mean, 95 % t interval over seeds; triangle: limit; in brackets: seeds with a "
        "limit / seeds run"
    )
    return canvas.finish_several(figure, "Test error over read-out uncertainty, network by network", stores, note)


def conjecture(
    stores: canvas.Stores, found: xr.Dataset, law: xr.Dataset, families: dict[str, str] | None = None
) -> Figure:
    """Critical limit over the response of the untrained weakest layer; `found`: `predictions`, `law`: `power_law`."""
    figure, axes = canvas.blank(1, 1, (8.4, 5.6))
    ax, found = axes[0, 0], canvas.steady(found)
    limited = found.where(found.limit.notnull(), drop=True)
    groups = _grouped(stores, families)
    members = {title: [name for name in found.network.values if name in groups[title][1]] for title in groups}
    for number, (title, names) in enumerate((title, names) for title, names in members.items() if names):
        axis, family = groups[title]
        points = limited.sel(network=[name for name in names if name in limited.network])
        offset, side = LABELS[number % len(LABELS)]
        color, marker = f"C{number}", "osD^vPX"[number % 7]
        ax.vlines(points.response, points.low, points.high, color=color, lw=1.4)
        ax.plot(
            points.response, points.limit, ls="", color=color, marker=marker, ms=6, label=axis[0] if axis else title
        )
        labelled: list[np.ndarray] = []
        for name in points.sortby("limit").network.values:
            place = np.array([float(points[key].sel(network=name)) for key in ("response", "limit")])
            crowd = sum(bool((abs(np.log(place / other)) < 0.25).all()) for other in labelled)
            labelled.append(place)
            ax.annotate(_label(name, family[name], axis), place, (offset[0], offset[1] + 9 * crowd), ha=side,
                        color=color, textcoords="offset points", fontsize="x-small")  # fmt: skip
    if limited.network.size:
        _law(ax, limited, canvas.steady(law))
    ax.set(xscale="log", yscale="log", ylabel=canvas.LIMIT)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("rms of what the nudge moves in the weakest layer before training, times √N (V)")
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), title="networks over")
    notes = (
        "bars: geometric mean and 95 % t interval over bracketed seeds",
        f"line, band and exponent: over the {int(law.n)} networks, a mixture of families",
        "without a limit: " + (", ".join(found.network.values[found.limit.isnull().values]) or "none"),
    )
    return canvas.finish_several(figure, "Does one untrained pass predict the critical limit?", stores, *notes)


def _law(ax: Axes, points: xr.Dataset, law: xr.Dataset) -> None:
    """The line limit = c · response with its band, and the power law, beside the points of the networks."""
    c, exponent = law.c.values, law.exponent.values
    x = np.geomspace(points.response.min() / 2, points.response.max() * 2, 50)
    ax.plot(x, c[0] * x, color="0.3", lw=1, label=f"σ$_c$ = c · response, c = {c[0]:.2g} [{c[1]:.2g}, {c[2]:.2g}]")
    ax.fill_between(x, c[1] * x, c[2] * x, color="0.5", alpha=0.15, lw=0)
    if np.isfinite(exponent[0]):
        centre = [np.exp(np.log(points[name]).mean()).item() for name in ("response", "limit")]
        words = f"power law, exponent {exponent[0]:.2f} [{exponent[1]:.2f}, {exponent[2]:.2f}]"
        ax.plot(x, centre[1] * (x / centre[0]) ** exponent[0], color="0.3", lw=1, ls="--", label=words)


def _limits_at(ax: Axes, x: float, ds: xr.Dataset, step: float) -> None:
    """One network's limits, at x: the sweep's range, its seeds, each a `step` further, and their mean."""
    limits, swept = _limits(ds), ds.sigma.values[ds.sigma.values > 0]
    ax.vlines(x, swept.min(), swept.max(), color="0.9", lw=7, zorder=0)
    beside = x * step ** np.arange(1, ds.sizes["seed"] + 1)
    ax.plot(beside, limits.limit, ".", color="C0", **canvas.DOTS)
    for place, reason in zip(beside, limits.reason.values, strict=True):
        if marker := BEYOND.get(reason):
            end = swept.max() if marker == "^" else swept.min()
            ax.plot(place, end, marker, color="C0", mfc="none", ms=5)
        elif reason == "never learns":
            ax.plot(place, swept.min(), "x", color="C3", ms=5)
    if limits.n:
        filled = limits.assign({part: limits[part].fillna(limits["mean"]) for part in ("low", "high")})
        canvas.interval(ax, x, filled, "C0")


def _limits(ds: xr.Dataset) -> xr.Dataset:
    sweep = first_setting(ds)
    return canvas.steady(critical_limit(final_error(sweep), sweep.chance))


def _grouped(stores: canvas.Stores, families: dict[str, str] | None) -> dict[str, tuple[Axis | None, canvas.Stores]]:
    """family -> its axis, and its stores in the order of their places on it."""
    families = by_first_part(stores) if families is None else families
    groups: dict[str, dict[str, xr.Dataset]] = {}
    for name, ds in stores.items():
        groups.setdefault(families[name], {})[name] = ds
    return {family: _ordered(group) for family, group in groups.items()}


def _ordered(family: canvas.Stores) -> tuple[Axis | None, canvas.Stores]:
    """The first axis on which networks differ, None if they don't on any, and the networks along it."""
    for label, place in AXES:
        if len({place(parameters(ds)) for ds in family.values()}) > 1:
            return (label, place), dict(sorted(family.items(), key=lambda item: place(parameters(item[1]))))
    return None, family


def _label(name: str, ds: xr.Dataset, axis: Axis | None) -> str:
    """What tells a network from its family's others: its place on the axis, or else the rest of its name."""
    return f"{axis[1](parameters(ds)):,g}" if axis else name.partition("-")[2]


def _steps(settings: dict) -> int:
    return settings["train_images"] // settings["batch_size"] * settings["epochs"]


def _common(stores: canvas.Stores) -> str:
    """What the networks of a panel have in common, and the range of what they haven't."""
    settings = [parameters(ds) for ds in stores.values()]
    sizes = {"-".join(map(str, layers)) for row in settings for layers in row["sizes"].values()}
    gain, beta = (canvas.span(row[name] for row in settings) for name in ("input_gain", "beta"))
    facts = f"A = {gain} V, β = {beta} S, {canvas.span(map(_steps, settings), '{:,}')} steps"
    return "\n".join([*sizes, facts]) if len(sizes) == 1 else facts
