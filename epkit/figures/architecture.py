"""The figures of notebooks 08 and 09, which set several sweeps beside one another: name -> store.

As in `figures`, every seed is shown, and nothing is estimated here. Sweeps of notebook 08 are named after what they
vary, as in `width-256`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from ..study.limit import critical_limit, final_error, first_setting
from ..study.plateau import escape, images_seen, median_escape, share_escaped
from ..sweep import store
from .canvas import DOTS, PERCENT, blank, captioned, error_axis, place_of_zero, plain_ticks, seeds_and_mean, sigma_axis

Stores = Mapping[str, xr.Dataset]
AXES: dict[str, tuple[str, Callable[[dict], float]]] = {
    "depth": ("number of hidden layers", lambda given: len(given["hidden"])),
    "width": ("units in each hidden layer", lambda given: given["hidden"][0]),
    "gain": ("input gain A (V)", lambda given: given["input_gain"]),
    "beta": ("nudging conductance β (S)", lambda given: given["beta"]),
    "steps": ("training steps", lambda given: _steps(given)),
}
BEYOND = {"above half way from the optimum on": "v", "below half way even at the largest σ": "^"}
# Where the labels of the points of a family are, from the point: elsewhere for each, for points of two may coincide.
LABELS: list[tuple[tuple[int, int], str]] = [
    ((7, -3), "left"), ((-7, -3), "right"), ((7, 2), "left"), ((0, -13), "center"), ((6, -11), "left"),
    ((7, -3), "left"),
]  # fmt: skip


def _steps(given: dict) -> int:
    return given["train_images"] // given["batch_size"] * given["epochs"]


def _some(values: Iterable[float], form: str = "{:,g}") -> str:
    """One number, or the least and the largest of several."""
    shown = [form.format(value) for value in sorted(set(values))]
    return shown[0] if len(shown) == 1 else f"{shown[0]} … {shown[-1]}"


def _shared(stores: Stores) -> str:
    """What the networks of a panel have in common, and the range of what they haven't."""
    every = [store.parameters(ds) for ds in stores.values()]
    sizes = {"-".join(map(str, size)) for given in every for size in given["sizes"].values()}
    facts = [
        f"A = {_some(given['input_gain'] for given in every)} V",
        f"β = {_some(given['beta'] for given in every)} S",
        f"{_some(map(_steps, every), '{:,}')} steps",
    ]
    network = sizes.pop() if len(sizes) == 1 else ""
    return "\n".join(filter(None, [network, ", ".join(facts)]))


def _close(figure: Figure, title: str, stores: Stores, *notes: str) -> Figure:
    """Title above; below, in small type, what all sweeps have in common, and how to read the figure."""
    every = [store.parameters(ds) for ds in stores.values()]
    titles = list(dict.fromkeys(str(name) for ds in stores.values() for name in ds.title.values))
    rates = {rate for ds in stores.values() for rate in ds.learning_rate.values.tolist()}
    facts = [
        ", ".join(titles),
        f"trained on {_some((given['train_images'] for given in every), '{:,}')} images an epoch",
        f"batch {_some(given['batch_size'] for given in every)}",
        "absolute rates" if all("rates" in given for given in every) else f"η = {_some(rates)}",
        f"tested on {_some((given['test_images'] for given in every), '{:,}')} images",
        f"n = {_some(_seeds_run(ds) for ds in stores.values())} seeds",
    ]
    wide = int(15 * figure.get_figwidth())  # letters
    return captioned(figure, title, *(textwrap.fill(line, wide) for line in (", ".join(facts), *notes)))


def _seeds_run(ds: xr.Dataset) -> int:
    """Seeds of which anything was run, for a store may be partial."""
    return int(ds.test_error.notnull().any([dim for dim in ds.test_error.dims if dim != "seed"]).sum())


def _families(stores: Stores) -> dict[str, dict[str, xr.Dataset]]:
    """The sweeps by what they vary, the part of their name before the hyphen."""
    families: dict[str, dict[str, xr.Dataset]] = {}
    for name, ds in stores.items():
        families.setdefault(name.partition("-")[0], {})[name] = ds
    return families


def limits_over_architecture(stores: Stores, before: xr.Dataset) -> Figure:
    """Critical limits over depth, width, gain, nudge and steps, with what the untrained weakest layer responds.

    `before` is `untrained.untrained` of the same networks. A seed without a limit is a triangle at the end of the sweep
    beyond which it may lie, or a cross on the axis where the network does not learn at all.
    """
    families = {name: family for name, family in _families(stores).items() if name in AXES}
    columns = min(3, len(families))
    figure, axes = blank(-(-len(families) // columns), columns, (3.9, 3.1), sharey=True)
    for ax in axes.flat[len(families) :]:
        ax.set_axis_off()
    for ax, (name, family) in zip(axes.flat, families.items(), strict=False):
        label, place = AXES[name]
        family = dict(sorted(family.items(), key=lambda item: place(store.parameters(item[1]))))
        places = [place(store.parameters(ds)) for ds in family.values()]
        responses = [np.exp(np.log(before.response.sel(network=each)).mean("seed")).min("layer") for each in family]
        step = (places[-1] / places[0]) ** 0.016 if len(places) > 1 else 1.02
        for x, ds in zip(places, family.values(), strict=True):
            _limits_at(ax, x, first_setting(ds), step)
        ax.plot(places, responses, "_", color="C1", ms=16, mew=2)
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel="critical limit σ$_c$ (V)")
        ax.margins(x=0.15)
        plain_ticks(ax.xaxis, places, [f"{x:,g}" for x in places])
        ax.set_title(_shared(family), fontsize="x-small")
        ax.yaxis.set_minor_locator(NullLocator())
        _left_only(ax)
    looks: dict[str, dict[str, Any]] = {
        "limit of a seed": {"color": "C0", "marker": ".", "ls": ""} | DOTS,
        "geometric mean, 95 % t interval": {"color": "C0", "marker": "o", "ms": 5},
        "not bracketed: above the sweep": {"color": "C0", "marker": "^", "mfc": "none", "ls": ""},
        "not bracketed: below it": {"color": "C0", "marker": "v", "mfc": "none", "ls": ""},
        "does not learn at any σ": {"color": "C3", "marker": "x", "ls": ""},
        "range of σ swept": {"color": "0.85", "lw": 5},
        "response of the weakest layer, untrained": {"color": "C1", "marker": "_", "ms": 12, "mew": 2, "ls": ""},
    }
    lines = [Line2D([], [], label=text, **look) for text, look in looks.items()]
    if len(families) < axes.size:
        axes.flat[-1].legend(handles=lines, fontsize="small", loc="center")
    else:
        figure.legend(handles=lines, fontsize="small", loc="outside right center")
    return _close(figure, "The critical limit over architecture, gain, nudge and training", stores)


def _limits_at(ax: Axes, x: float, ds: xr.Dataset, step: float) -> None:
    """One network's limits, at x: the sweep's range, its seeds, each a `step` further, and their mean."""
    limits = critical_limit(final_error(ds), ds.chance)
    swept = ds.sigma.values[ds.sigma.values > 0]
    ax.vlines(x, swept.min(), swept.max(), color="0.9", lw=7, zorder=0)
    beside = x * step ** np.arange(1, ds.sizes["seed"] + 1)
    ax.plot(beside, limits.limit, ".", color="C0", **DOTS)
    for where, reason in zip(beside, limits.reason.values, strict=True):
        if marker := BEYOND.get(reason):
            end = swept.max() if marker == "^" else swept.min()
            ax.plot(where, end, marker, color="C0", mfc="none", ms=5)
        elif reason == "never learns":
            ax.plot(where, swept.min(), "x", color="C3", ms=5)
    if limits.n:
        ax.plot(x, limits["mean"], "o", color="C0", ms=5)
        ax.vlines(x, limits.low.fillna(limits["mean"]), limits.high.fillna(limits["mean"]), color="C0", lw=1.6)


def errors_over_sigma(stores: Stores) -> Figure:
    """Test error after training over sigma, a panel for each family of networks, the limits marked below."""
    families = _families(stores)
    columns = min(2, len(families))
    figure, axes = blank(-(-len(families) // columns), columns, (5.0, 3.0), sharey=True)
    sigmas = np.unique(np.concatenate([ds.sigma.values for ds in stores.values()]))
    for ax in axes.flat[len(families) :]:
        ax.set_axis_off()
    for ax, (name, family) in zip(axes.flat, families.items(), strict=False):
        label, place = AXES.get(name, ("", lambda given: 0))
        family = dict(sorted(family.items(), key=lambda item: place(store.parameters(item[1]))))
        for color, (each, ds) in zip(sns.color_palette("viridis_r", len(family) + 1)[1:], family.items(), strict=True):
            one, given = first_setting(ds), store.parameters(ds)
            limits = critical_limit(final_error(one), one.chance)
            words = f"{place(given):,g}" if label else each.partition("-")[2]
            found = f"{int(limits.n)}/{int(limits.runs)}"
            seeds_and_mean(ax, final_error(one), place_of_zero(sigmas), color, f"{words}  ({found})")
            if limits.n:
                ax.plot(limits["mean"], 0.02, "^", color=color, ms=6, clip_on=False, zorder=4)
        sigma_axis(ax, sigmas)
        error_axis(ax, float(one.chance))
        ax.set_title(_shared(family), fontsize="small")
        ax.legend(title=label or name, fontsize="x-small", title_fontsize="x-small", loc="center left",
                  bbox_to_anchor=(1, 0.5))  # fmt: skip
        _left_only(ax)
    notes = (
        "small dots: seeds; bars: mean, 95 % bootstrap interval over seeds; triangle: limit; in brackets: seeds with a "
        "limit / seeds run",
    )
    return _close(figure, "Test error over read-out uncertainty, network by network", stores, *notes)


def conjecture(stores: Stores, found: xr.Dataset, law: xr.Dataset) -> Figure:
    """Critical limit over the response of the untrained weakest layer; `found`, `law` of `untrained`."""
    figure, axes = blank(1, 1, (8.4, 5.6))
    ax = axes[0, 0]
    shown = found.where(found.limit.notnull(), drop=True)
    for number, family in enumerate(dict.fromkeys(str(name).partition("-")[0] for name in found.network.values)):
        one = shown.sel(network=[name for name in shown.network.values if name.partition("-")[0] == family])
        offset, side = LABELS[number % len(LABELS)]
        look = {"color": f"C{number}", "marker": "osD^vPX"[number % 7], "ms": 6}
        ax.vlines(one.response, one.low, one.high, color=look["color"], lw=1.4)
        ax.plot(one.response, one.limit, ls="", **look, label=AXES[family][0] if family in AXES else family)
        for name in one.network.values:
            point = one.sel(network=name)
            given = store.parameters(stores[name])
            words = f"{AXES[family][1](given):,g}" if family in AXES else name.partition("-")[2]
            ax.annotate(words, (point.response, point.limit), offset, ha=side, color=look["color"],
                        textcoords="offset points", fontsize="x-small")  # fmt: skip
    c, exponent = (law[name].values for name in ("c", "exponent"))
    if shown.network.size:
        x = np.geomspace(shown.response.min() / 2, shown.response.max() * 2, 50)
        ax.plot(x, c[0] * x, color="0.3", lw=1, label=f"σ$_c$ = c · response, c = {c[0]:.2g} [{c[1]:.2g}, {c[2]:.2g}]")
        ax.fill_between(x, c[1] * x, c[2] * x, color="0.5", alpha=0.15, lw=0)
        if np.isfinite(exponent[0]):
            centre = [np.exp(np.log(shown[name]).mean()).item() for name in ("response", "limit")]
            words = f"power law, exponent {exponent[0]:.2f} [{exponent[1]:.2f}, {exponent[2]:.2f}]"
            ax.plot(x, centre[1] * (x / centre[0]) ** exponent[0], color="0.3", lw=1, ls="--", label=words)
    missing = [str(name) for name in found.network.values[found.limit.isnull().values]]
    ax.set(xscale="log", yscale="log", ylabel="critical limit σ$_c$ (V)")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("rms of what the nudge moves in the weakest layer before training, times √N (V)")
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), title="networks over")
    notes = (
        "bars: geometric mean and 95 % t interval over bracketed seeds; line, band and exponent: over the "
        f"{int(law.n)} networks",
        "without a limit: " + (", ".join(missing) or "none"),
    )
    return _close(figure, "Does one untrained pass predict the critical limit?", stores, *notes)


def _colours(stores: Iterable[xr.Dataset]) -> Callable[[float], Any]:
    """Colour of each sigma, black for 0."""
    positive = np.concatenate([ds.sigma.values[ds.sigma.values > 0] for ds in stores] or [np.empty(0)])
    if not positive.size:
        return lambda sigma: "k"
    scale = mpl.cm.ScalarMappable(LogNorm(positive.min() / 1.5, positive.max()), "viridis_r")
    return lambda sigma: scale.to_rgba(np.asarray(sigma)) if sigma > 0 else "k"


def _sigma_lines(stores: Iterable[xr.Dataset], colour: Callable[[float], Any]) -> list[Line2D]:
    sigmas = np.unique(np.concatenate([ds.sigma.values for ds in stores]))
    return [Line2D([], [], color=colour(sigma), lw=2, label=f"σ = {_volts(sigma)}") for sigma in sigmas]


def _thousands(ax: Axes, label: str = "training images seen (thousands)") -> None:
    ax.set(xlabel=label, xlim=(0, None))


def _titled(ax: Axes, name: str, ds: xr.Dataset) -> None:
    """Network, data set, and how many of its runs there are."""
    ran, sizes = ds["run"] != "", next(iter(store.parameters(ds)["sizes"].values()))
    whole = "" if ran.all() else f"\npartial: {int(ran.sum())} of {ran.size} runs"
    images = store.parameters(ds)["train_images"]
    text = f"{name}: {'-'.join(map(str, sizes))}\n{ds.title.values[0]}, {images:,} images an epoch{whole}"
    ax.set_title(text, fontsize="small")


def _left_only(ax: Axes) -> None:
    """No labels on a y axis that is shared with the panel at the left."""
    if (place := ax.get_subplotspec()) is not None and not place.is_first_col():
        ax.set_ylabel("")
        ax.tick_params(labelleft=False)


def _volts(sigma: float) -> str:
    return f"{np.format_float_scientific(sigma, trim='-', exp_digits=1)} V" if sigma else "0 V"


def _grid(count: int, most: int = 3, **share: Any) -> tuple[Figure, list[Axes]]:
    columns = min(most, count)
    figure, axes = blank(-(-count // columns), columns, (3.9, 2.9), **share)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:count])


def learning_curves(stores: Stores) -> Figure:
    """Test error over the training images seen, a panel a sweep, a line a run, coloured by sigma."""
    if not stores:
        figure, axes = _grid(1)
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "nothing of this has been computed yet", ha="center", va="center")
        return figure
    colour = _colours(stores.values())
    figure, axes = _grid(len(stores), sharey=True)
    for ax, (name, ds) in zip(axes, stores.items(), strict=True):
        one = first_setting(ds)
        for sigma in one.sigma.values:
            error = one.test_error.sel(sigma=sigma).transpose("epoch", "seed")
            ax.plot(images_seen(ds) / 1000, error, color=colour(sigma), lw=1, alpha=0.8, marker=".", ms=3)
        error_axis(ax, float(one.chance))
        _thousands(ax)
        _titled(ax, name, ds)
        _left_only(ax)
    figure.legend(handles=_sigma_lines(stores.values(), colour), fontsize="small", loc="outside right upper")
    return _close(figure, "Learning curves at the published settings", stores, "each line a seed")


def escape_times(stores: Stores) -> Figure:
    """Images seen until the error leaves chance for good, over sigma; below, share of the seeds that have left it."""
    colour = _colours(stores.values())
    figure, axes = blank(2, len(stores), (3.9, 2.8), sharey="row")
    for (above, below), (name, ds) in zip(axes.T, stores.items(), strict=True):
        one, seen = first_setting(ds), images_seen(ds)
        found = escape(one)
        middle, share = median_escape(found, seen) / 1000, share_escaped(found, seen)
        zero = place_of_zero(one.sigma.values)
        for number, sigma in enumerate(one.sigma.values):
            at, x = found.sel(sigma=sigma), sigma if sigma > 0 else zero
            if not at.ran.any():  # of a partial store
                continue
            beside = x * 1.12 ** (np.arange(at.sizes["seed"]) - (at.sizes["seed"] - 1) / 2)
            above.plot(beside, at.images / 1000, "o", color=colour(sigma), ms=5)
            stuck = (at.ran & ~at.escaped).values
            end = float(at.followed) / 1000
            above.plot(beside[stuck], np.full(stuck.sum(), end), "^", color=colour(sigma), mfc="none", ms=6)
            if np.isfinite(median := float(middle.sel(sigma=sigma))):
                above.hlines(median, x / 1.3, x * 1.3, color=colour(sigma), lw=2)
            # a little higher for each, or equal shares would hide one another
            curve = share.sel(sigma=sigma).values + 0.012 * number
            below.step([0, *seen / 1000, 1.03 * end], [0.012 * number, *curve, curve[-1]], where="post",
                       color=colour(sigma), lw=1.6)  # fmt: skip
        sigma_axis(above, one.sigma.values)
        above.set_ylabel("images until the error\nstays below 0.9 of chance (thousands)")
        below.set(ylabel="seeds that have escaped (%)", ylim=(-0.03, 1.12))
        below.yaxis.set_major_formatter(PERCENT)
        _thousands(below)
        _titled(above, name, ds)
        for ax in (above, below):
            _left_only(ax)
    axes[0, 0].set_ylim(0, None)  # at the end, for it holds what is drawn later to the limits of then
    figure.legend(handles=_sigma_lines(stores.values(), colour), fontsize="small", loc="outside right center")
    note = (
        "dots: seeds; open triangles: seeds that did not escape in the whole record (censored); bars: median",
        "median and share by Kaplan–Meier, each σ a little above the last; times: to the distance of two records",
    )
    return _close(figure, "Escape from the plateau at chance", stores, *note)


def along_the_way(stores: Stores, before: xr.Dataset, sigma: float) -> Figure:
    """Response to the nudge and mean conductance of each layer while training, without noise and with `sigma`.

    `before`: `untrained.untrained` of these networks, whose values are drawn at no images seen, and whose voltages give
    the rounding step of float32.
    """
    figure, axes = blank(2, len(stores), (3.9, 2.9), sharey="row")
    looks: dict[float, dict[str, Any]] = {0.0: {"ls": "--"}, sigma: {"ls": "-"}}
    deepest = max(ds.sizes["layer"] for ds in stores.values())
    for column, (name, ds) in zip(axes.T, stores.items(), strict=True):
        one, seen, given = first_setting(ds), images_seen(ds) / 1000, store.parameters(ds)
        start = before.sel(network=name).dropna("layer", how="all")
        for value, look in looks.items():
            held = one.sigma.values[np.isclose(one.sigma, value, rtol=1e-3, atol=0)]
            for layer in one.layer.values if held.size else ():
                color = f"C{layer - 1}"
                at = one.sel(sigma=held[0], layer=layer)
                for ax, key in zip(column, ("response", "conductance"), strict=True):
                    runs = at[key].transpose("epoch", "seed")
                    ax.plot(seen, runs, color=color, lw=0.6, alpha=0.4, **look)
                    ax.plot(seen, np.exp(xr.ufuncs.log(runs).mean("seed")), color=color, lw=1.6, **look)
        for layer in start.layer.values:
            column[0].plot(0, start.response.sel(layer=layer).mean("seed"), "o", color=f"C{layer - 1}", ms=5,
                           clip_on=False)  # fmt: skip
        if given["dtype"] == "float32":
            step = np.spacing(start.voltage.isel(layer=0).mean("seed").values.astype(np.float32))
            column[0].axhline(step, color="C0", ls=":", lw=1.2)
        column[0].axhline(sigma, color="0.5", lw=1)
        for ax, label in zip(column, ("nudged response (rms, V)", "mean conductance (S)"), strict=True):
            ax.set(yscale="log", ylabel=label)
            _thousands(ax)
            _left_only(ax)
        _titled(column[0], name, ds)
    lines = [Line2D([], [], color=f"C{layer}", lw=2, label=f"layer {layer + 1}") for layer in range(deepest)]
    lines += [Line2D([], [], color="0.3", **look, label=f"σ = {_volts(value)}") for value, look in looks.items()]
    lines += [
        Line2D([], [], color="0.5", lw=1, label=f"read-out noise of {_volts(sigma)}"),
        Line2D([], [], color="C0", ls=":", label="float32 rounding step\nof layer 1's voltage"),
        Line2D([], [], color="0.3", marker="o", ms=5, ls="", label="before training"),
    ]
    figure.legend(handles=lines, fontsize="small", loc="outside right center")
    return _close(figure, "What the nudge moves, and the conductances, along the way", stores,
                  "thick: geometric mean over seeds; thin: seeds")  # fmt: skip


def _without_dtype(ds: xr.Dataset) -> str:
    """The parameters of which a store and its twin in float64 are equal."""
    recorded = store.parameters(ds)
    return str({name: recorded[name] for name in sorted(recorded) if name not in ("dtype", "sigma", "seeds")})


def precision(stores: Stores) -> Figure | None:
    """Learning curves without noise in float64 beside those in float32, seed by seed; None where no twins are held."""
    dtypes = {name: store.parameters(ds).get("dtype", "float32") for name, ds in stores.items()}
    singles = {_without_dtype(ds): name for name, ds in stores.items() if dtypes[name] == "float32"}
    doubles = [ds for name, ds in stores.items() if dtypes[name] == "float64"]
    twins = {singles[key]: ds for ds in doubles if (key := _without_dtype(ds)) in singles}
    if not twins:
        return None
    figure, axes = _grid(len(twins), sharey=True)
    for ax, (name, double) in zip(axes, twins.items(), strict=True):
        for ds, look in ((stores[name], {"ls": "-"}), (double, {"ls": "--", "marker": ".", "ms": 4})):
            one, seen = first_setting(ds), images_seen(ds) / 1000
            for seed in one.seed.values:
                ax.plot(seen, one.test_error.sel(sigma=0.0, seed=seed), color=f"C{seed}", lw=1.2, **look)
        error_axis(ax, float(first_setting(double).chance))
        _thousands(ax)
        _titled(ax, name, double)
    lines = [Line2D([], [], color=f"C{seed}", label=f"seed {seed}") for seed in one.seed.values]
    lines += [Line2D([], [], color="0.3", ls=ls, label=dtype) for ls, dtype in (("-", "float32"), ("--", "float64"))]
    axes[-1].legend(handles=lines, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    shown = {name: stores[name] for name in twins}
    return _close(figure, "Does rounding hold the network on its plateau? σ = 0", shown, "each line a seed")
