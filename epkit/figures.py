"""The figures: each function takes a store (see `analysis` for the data contract) and returns a Figure.

A figure can be understood alone: axes carry units, titles name the data-set variant, and the line below tells
network, training, number of seeds and what the bars are. Every seed is a dot, for runs near a limit are
bimodal. Intervals come from `analysis`; nothing here estimates anything. `style()` sets the look, once a
notebook.
"""

import json
import math
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from .analysis import final_error, held, mean_interval, sigma_step, t_interval, updates
from .store import replacing, writable

SIGMA = "read-out uncertainty σ (V)"
BARS = "small dots: seeds; bars: mean, 95 % bootstrap interval over seeds"
BAND = "dashed line, grey band: limit σ$_c$, geometric mean and 95 % t interval over bracketed seeds"
# of the first and the last record
LOOKS: dict[int, dict[str, Any]] = {
    0: {"ls": "-", "marker": "o", "ms": 3.5, "lw": 1.2},
    -1: {"ls": "--", "marker": "s", "ms": 3.5, "lw": 1.2, "mfc": "none"},
}
DOTS: dict[str, Any] = {"alpha": 0.5, "ms": 4, "mew": 0}
READS = ("averaging", "samples")
PERCENT = PercentFormatter(xmax=1, symbol="", decimals=0)


def style() -> None:
    """Set the look of all figures: seaborn's ticks theme and a palette safe for colour-blind readers."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.8)
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})


def save(figure: Figure, folder: str | os.PathLike, name: str) -> tuple[Path, Path]:
    """Write `folder`/`name`.png (150 dpi) and .svg, atomically, the same to the byte; return both paths.

    In a read-only folder this only warns, for the figure can be looked at all the same. StoreError for a full disk.
    """
    paths = Path(folder) / f"{name}.png", Path(folder) / f"{name}.svg"
    if not writable(Path(folder)):
        warnings.warn(f"{paths[0]}: not saved, the folder is read-only", stacklevel=2)
        return paths
    for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
        with replacing(path) as temporary, mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(temporary, dpi=150, format=path.suffix[1:], metadata=metadata)
        figure.set_layout_engine("none")  # laid out once: that is half of the time of drawing
    return paths


def _canvas(rows: int, columns: int, size: tuple[float, float] = (3.7, 2.7), **share: Any) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels and its (rows, columns) axes, not shown twice by a notebook."""
    share |= {"figsize": (max(size[0] * columns, 6.4), size[1] * rows + 1.0), "layout": "constrained"}
    figure, axes = plt.subplots(rows, columns, squeeze=False, **share)
    plt.close(figure)
    return figure, axes


def _literally(text: object) -> str:
    """A text out of a store, whose dollar signs begin no mathematics."""
    return str(text).replace("$", r"\$")


def _wrapped(panels: int, size: tuple[float, float] = (3.7, 2.7)) -> tuple[Figure, list[Axes]]:
    """A figure of panels with common axes, three a row; what a row lacks is the upper right, for labels are below."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure, axes = _canvas(rows, columns, size, sharex=True, sharey=True)
    first = panels - (rows - 1) * columns
    for spare in axes[0, first:]:
        spare.remove()
    return figure, [*axes[0, :first], *axes[1:].flat]


def _finish(figure: Figure, title: str, ds: xr.Dataset, *notes: str, trained: bool = True) -> Figure:
    """Title above; below, in small type, what network was trained, and how, and how to read the figure."""
    figure.suptitle(_literally(title), fontsize="large")
    given = json.loads(ds.attrs.get("parameters", "{}"))
    sizes = sorted({"-".join(map(str, n)) for n in given.get("sizes", {}).values()})
    facts = [_literally("network " + " and ".join(sizes))]
    if trained:
        facts += [
            f"{round(float(ds.epoch.max()))} epochs of {given['train_images']:,} images"
            if "train_images" in given
            else "",
            f"batch {given['batch_size']}" if "batch_size" in given else "",
            f"tested on {given['test_images']:,} images" if "test_images" in given else "",
            f"n = {ds.sizes.get('seed', 1)} seed{'s' * (ds.sizes.get('seed', 1) > 1)}",
        ]
    lines = [", ".join(filter(None, facts)), *notes]
    figure.supxlabel("\n".join(lines), fontsize="small", color="0.35", linespacing=1.4)
    return figure


def _one(ds: xr.Dataset, *dims: str) -> xr.Dataset:
    """Without dims of length 1. Raises ValueError where there is a choice, which is the caller's to make."""
    for dim in dims:
        if ds.sizes.get(dim, 1) > 1:
            raise ValueError(f"this figure shows one {dim}, select one of {ds[dim].values.tolist()}")
    return ds.squeeze([dim for dim in dims if dim in ds.dims])


def _panels(ds: xr.Dataset, across: str) -> tuple[Figure, list[tuple[Axes, xr.Dataset]]]:
    """Figure and its panels, titled by data set and learning rate, each with its store; `across`: columns."""
    held(ds, "title", "chance", "test_error", "train_error", "activity", dims=("sigma", "seed", "epoch"))
    down = "dataset" if across == "learning_rate" else "learning_rate"
    if ds.sizes[down] == 1:
        figure, axes = _wrapped(ds.sizes[across])
    else:
        figure, grid = _canvas(ds.sizes[down], ds.sizes[across], sharex=True, sharey=True)
        axes = list(grid.flat)
    panels = []
    for ax, (row, column) in zip(axes, np.ndindex(ds.sizes[down], ds.sizes[across]), strict=True):
        one = ds.isel({down: row, across: column})
        ax.set_title(f"{_literally(one.title.item())}, η = {one.learning_rate.item():g}", fontsize="medium")
        panels.append((ax, one))
    return figure, panels


def _number(value: float) -> str:
    """1.2e-4 as mathematics."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"{mantissa}$\times$10$^{{{int(exponent)}}}$"


def _zero(sigma: np.ndarray) -> float:
    """A place for sigma = 0: two thirds of a decade left of the smallest positive sigma."""
    return float(sigma[sigma > 0].min() / 10**0.67)


def _ticks(axis: Axis, places: Sequence[float], names: Sequence[str] = ()) -> None:
    """Ticks at these places of a log axis, and nowhere else; plain numbers unless named."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(names or [f"{place:g}" for place in places]))
    axis.set_minor_locator(NullLocator())


def _sigma_axis(ax: Axes, sigma: np.ndarray, label: str = SIGMA) -> None:
    """Log axis with decades marked and, left of a break, the place of 0."""
    positive = sigma[sigma > 0]
    first, last = np.log10(positive.min()) - 1e-9, np.log10(positive.max()) + 1e-9
    decades = range(math.ceil(first), math.floor(last) + 1)
    ticks, names = [10.0**decade for decade in decades], [f"$10^{{{decade}}}$" for decade in decades]
    # the sweep and no more, however wide an interval is drawn
    left = _zero(sigma) if (sigma == 0).any() else positive.min()
    ax.set(xscale="log", xlabel=label, xlim=(left / 1.5, positive.max() * 1.8))
    if (sigma == 0).any():
        ticks, names = [_zero(sigma), *ticks], ["0", *names]
        middle = np.sqrt(_zero(sigma) * positive.min())
        ax.text(middle, 0, "//", transform=ax.get_xaxis_transform(), ha="center", va="center", fontsize=8)
    _ticks(ax.xaxis, ticks, names)


def _seeds_and_mean(ax: Axes, values: xr.DataArray, zero: float, color: Any, label: str = "", **look: Any) -> None:
    """values (sigma, seed): the mean with its interval, seeds beside it; no line leads to sigma = 0."""
    values = values.dropna("sigma", how="all")
    if not values.size:
        return
    sigma, found = values.sigma.values, mean_interval(values)
    x, mean = np.where(sigma > 0, sigma, zero), found["mean"].values
    step = np.exp(np.median(np.diff(np.log(np.sort(x))))) if len(x) > 1 else 1.5
    beside = step ** np.linspace(0.16, 0.42, values.sizes["seed"])
    ax.plot(np.outer(x, beside), values.transpose("sigma", "seed"), ".", color=color, **DOTS)
    solid: dict[str, Any] = {"color": color, "marker": "o", "ms": 4, "lw": 1.2} | look
    ax.plot(x[sigma > 0], mean[sigma > 0], label=label, **solid)
    ax.plot(x[sigma == 0], mean[sigma == 0], **solid)
    low, high = found.low.fillna(found["mean"]).values, found.high.fillna(found["mean"]).values
    ax.vlines(x, low, high, color=color, lw=1.4)


def _limit_band(ax: Axes, limits: xr.Dataset, short: bool = False) -> str:
    """Draw the critical limit of one panel; return it in words, or the commonest reason why there is none."""
    n, runs = int(limits.n), int(limits.runs)
    if not n:
        reasons = pd.Series(limits.reason.values.ravel()).loc[lambda found: found != "not run"]
        return "no limit" if short else f"no limit: {reasons.mode().iloc[0]}" if len(reasons) else "not run"
    mean, low, high = (float(limits[name]) for name in ("mean", "low", "high"))
    ax.axvline(mean, color="0.2", lw=1, ls="--", zorder=0)
    if not np.isnan(low):
        ax.axvspan(low, high, color="0.85", lw=0, zorder=-1)
    if short:
        return f"σ$_c$ = {_number(mean)} V, {n}/{runs} seeds"
    interval = "no interval" if np.isnan(low) else f"[{_number(low)}, {_number(high)}]"
    return f"σ$_c$ = {_number(mean)} {interval} V, {n}/{runs} seeds"


def _error_axis(ax: Axes, chance: float, label: str = "test error (%)") -> None:
    ax.axhline(chance, color="C3", lw=1, ls=":")
    place = ax.get_yaxis_transform()
    ax.text(1, chance + 0.03, "chance", color="C3", fontsize="x-small", ha="right", transform=place)
    ax.set(ylim=(0, 1), ylabel=label)
    ax.yaxis.set_major_formatter(PERCENT)


def error_over_sigma(ds: xr.Dataset, limits: xr.Dataset, across: str = "learning_rate") -> Figure:
    """Test error after training over sigma, a column a learning rate, a row a data set.

    `limits` is `critical_limit` of the same store. One averaging, one number of samples: else ValueError.
    """
    ds, limits = _one(ds.assign(error=final_error(ds)), *READS), _one(limits, *READS)
    figure, panels = _panels(ds, across)
    for ax, one in panels:
        _seeds_and_mean(ax, one.error, _zero(ds.sigma.values), "C0")
        words = _limit_band(ax, limits.sel(dataset=one.dataset, learning_rate=one.learning_rate))
        ax.set_title(f"{ax.get_title()}\n{words}", fontsize="small")
        _sigma_axis(ax, ds.sigma.values)
        _error_axis(ax, one.chance.item())
        ax.label_outer()
    grain = f"{BAND}; σ in steps of ×{sigma_step(ds.sigma):.2g}"
    return _finish(figure, "Test error against read-out uncertainty", ds, BARS, grain)


def dataset_comparison(ds: xr.Dataset, limits: xr.Dataset) -> Figure:
    """`error_over_sigma`, a column a data set and a row a learning rate: compare the limits along a row."""
    return error_over_sigma(ds, limits, across="dataset")


def training_curves(ds: xr.Dataset) -> Figure:
    """Test and train error over the epochs, coloured by sigma; a column a learning rate, a row a data set."""
    ds = _one(ds, *READS)
    figure, panels = _panels(ds, "learning_rate")
    positive = ds.sigma.values[ds.sigma.values > 0]
    colours = mpl.cm.ScalarMappable(LogNorm(positive.min(), positive.max()), "viridis_r")
    for ax, one in panels:
        for sigma in one.sigma.values:
            color = colours.to_rgba(sigma) if sigma > 0 else "k"
            runs = one.sel(sigma=sigma).transpose("epoch", "seed", ...)
            ax.plot(one.epoch, runs.test_error, lw=0.5, alpha=0.35, color=color)
            ax.plot(one.epoch, runs.test_error.mean("seed"), lw=1.6, color=color)
            ax.plot(one.epoch, runs.train_error.mean("seed"), lw=0.9, ls="--", color=color)
        _error_axis(ax, one.chance.item(), "error (%)")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.label_outer()
    figure.colorbar(colours, ax=figure.axes, label="σ (V); black: σ = 0")
    lines = "thick: mean test error over seeds; thin: each seed; dashed: mean train error"
    return _finish(figure, "Training under read-out uncertainty", ds, lines)


def unit_activity(ds: xr.Dataset) -> Figure:
    """Share of hidden diode units that conduct after training, over sigma; one colour a hidden layer."""
    ds = _one(ds, *READS)
    figure, panels = _panels(ds, "learning_rate")
    for ax, one in panels:
        activity = one.activity.isel(epoch=-1).dropna("layer", how="all")  # the outputs have no diodes
        for colour, layer in enumerate(activity.layer.values):
            values = activity.sel(layer=layer)
            _seeds_and_mean(ax, values, _zero(ds.sigma.values), f"C{colour}", f"hidden layer {layer}")
        _sigma_axis(ax, ds.sigma.values)
        ax.set(ylabel="conducting diode units (%)", ylim=(0, 1))
        ax.yaxis.set_major_formatter(PERCENT)
        ax.label_outer()
    panels[0][0].legend(fontsize="small")
    return _finish(figure, "Diode units that conduct after training", ds, BARS)


def signal_to_noise(ds: xr.Dataset, limits: xr.Dataset) -> Figure:
    """Gradient estimate over read-out noise in it, layer by layer, over sigma; a column a learning rate.

    Needs a store with `signal_to_noise`; one data set.
    """
    ds, limits = _one(ds, "dataset", *READS), _one(limits, "dataset", *READS)
    steps = updates(ds)
    ds = ds.sel(sigma=ds.sigma > 0)
    ratio = np.log(ds.signal_to_noise.where(np.isfinite(ds.signal_to_noise) & (ds.signal_to_noise > 0)))
    figure, axes = _wrapped(ds.sizes["learning_rate"])
    for ax, rate in zip(axes, ds.learning_rate.values, strict=True):
        words = _limit_band(ax, limits.sel(learning_rate=rate), short=True)
        ax.set_title(f"{_literally(ds.title.item())}, η = {rate:g}\n{words}", fontsize="small")
        for colour, layer in enumerate(ds.layer.values):
            for when, look in LOOKS.items():
                found = t_interval(ratio.sel(learning_rate=rate, layer=layer).isel(epoch=when))
                mean, low, high = (np.exp(found[part].values) for part in ("mean", "low", "high"))
                label = f"layer {layer}" if when == 0 else ""
                ax.plot(ds.sigma, mean, color=f"C{colour}", label=label, **look)
                ax.vlines(ds.sigma, low, high, color=f"C{colour}", lw=1)
        ax.axhline(1 / np.sqrt(steps), color="0.3", lw=1, ls=":")
        _sigma_axis(ax, ds.sigma.values)
        ax.set(yscale="log", ylabel="signal-to-noise ratio of a step")
        ax.label_outer()
    first = float(ds.epoch.min())
    axes[0].plot([], [], color="0.3", label=f"after {first:g} epoch{'s' * (first > 1)}", **LOOKS[0])
    axes[0].plot([], [], color="0.3", label="after training", **LOOKS[-1])
    axes[0].plot([], [], color="0.3", ls=":", label="1/√steps")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize="small", loc="outside right center")
    note = "rms gradient estimate of a batch over rms of the read-out noise in it; geometric mean, 95 % t interval"
    dotted = "dotted: below it, more noise than signal adds up over all steps, even if all gradients agree"
    return _finish(figure, "Signal-to-noise ratio of each layer's gradient", ds, note, dotted, BAND)


def conductances(ds: xr.Dataset) -> Figure:
    """Conductances of each layer after training, over sigma: mean and, where the store has them, spread, share at 0."""
    ds = _one(ds, "dataset", *READS)
    shown = {"conductance": "mean (S)", "conductance_sd": "standard deviation (S)", "clamped": "share at zero (%)"}
    shown = {name: label for name, label in shown.items() if name in ds}
    figure, axes = _canvas(len(shown), ds.sizes["learning_rate"], (2.7, 2.2), sharex=True, sharey="row")
    for (name, label), row in zip(shown.items(), axes, strict=True):
        for ax, rate in zip(row, ds.learning_rate.values, strict=True):
            if name == next(iter(shown)):
                ax.set_title(f"{_literally(ds.title.item())}, η = {rate:g}", fontsize="medium")
            for colour, layer in enumerate(ds.layer.values):
                values = ds[name].isel(epoch=-1).sel(learning_rate=rate, layer=layer)
                _seeds_and_mean(ax, values, _zero(ds.sigma.values), f"C{colour}", f"layer {layer}")
            _sigma_axis(ax, ds.sigma.values)
            ax.set_ylabel(label)
            if name == "clamped":
                ax.yaxis.set_major_formatter(PERCENT)
                ax.set_ylim(0, 1)
            else:
                ax.set_yscale("log")
            ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize="small", loc="outside right center")
    return _finish(figure, "Conductances after training", ds, BARS)


def _by_dataset(ax: Axes, ds: xr.Dataset, found: xr.Dataset, seeds: xr.DataArray | None = None) -> None:
    """Means with intervals and, where given, seeds; a group a data set, a colour a learning rate."""
    rates, names = ds.learning_rate.values, ds.dataset.values
    for colour, rate in enumerate(rates):
        one = found.sel(learning_rate=rate).reindex(dataset=names)
        x = np.arange(len(names)) + 0.5 * (colour - (len(rates) - 1) / 2) / len(rates)
        if seeds is not None:
            dots = seeds.sel(learning_rate=rate).reindex(dataset=names).transpose("dataset", "seed")
            beside = np.linspace(0.03, 0.12, dots.sizes["seed"])
            ax.plot(x[:, None] + beside, dots, ".", color=f"C{colour}", **DOTS)
        ax.plot(x, one["mean"], "o", color=f"C{colour}", ms=5, label=f"η = {rate:g}")
        ax.vlines(x, one.low, one.high, color=f"C{colour}", lw=1.6)
        for place, count in zip(x, one.n.fillna(0).astype(int).values, strict=True):
            under = ax.text(place, 0.01, f"{count}", transform=ax.get_xaxis_transform(), ha="center")
            under.set(color=f"C{colour}", fontsize="xx-small")
    ax.set_xticks(range(len(names)), [textwrap.fill(_literally(title), 14) for title in ds.title.values])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.margins(y=0.15)
    ax.set_xlabel("data set")
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def limit_ratios(ds: xr.Dataset, limits: xr.Dataset, ratios: pd.DataFrame | None = None, factor: float = 2.0) -> Figure:
    """Critical limits by data set and, given the table of `claims.claim_datasets`, their pairwise ratios.

    `factor`: how far from 1 a ratio still counts as the same limit.
    """
    ds, limits = _one(ds, *READS), _one(limits, *READS)
    rows = 0 if ratios is None else len(ratios)
    figure, axes = _canvas(1, 1 + bool(rows), (6.4, max(3.4, 0.26 * rows)))
    _by_dataset(axes[0, 0], ds, limits, limits.limit)
    axes[0, 0].set(yscale="log", ylabel="critical limit σ$_c$ (V)")
    if ratios is not None:
        _ratios(axes[0, 1], ratios[::-1].reset_index(drop=True), factor)
    note = "small dots: bracketed seeds, their number below; bars: geometric mean, 95 % t interval"
    grey = f"filled: primary settings; grey: within a factor of {factor:g}" if rows else ""
    return _finish(figure, "Does the critical limit depend on the data set?", ds, note, *filter(None, [grey]))


def _ratios(ax: Axes, rows: pd.DataFrame, factor: float) -> None:
    """Ratios of limits, a row of `claims.claim_datasets` each."""
    names = rows.measure.str.replace("σ_c ratio, ", "").str.partition(", N =")[0] + rows.n.map(", n = {}".format)
    ax.axvspan(1 / factor, factor, color="0.93", lw=0, zorder=-1)
    ax.axvline(1, color="0.3", lw=0.8)
    ax.hlines(rows.index, rows.low, rows.high, color="C0", lw=1.6)
    for setting, face in (("primary", "C0"), ("secondary", "w")):
        one = rows[rows.setting == setting]
        ax.plot(one.value, one.index, "o", color="C0", mfc=face, ms=5)
    ax.set_yticks(rows.index, [_literally(name) for name in names], fontsize="x-small")
    shown = rows[["value", "low", "high"]].values.ravel()
    low, high = 0.9 * np.nanmin([0.8 / factor, *shown]), 1.1 * np.nanmax([1.25 * factor, *shown])
    ax.set(xscale="log", xlabel="ratio of critical limits", xlim=(low, high))
    for row in rows.index[rows.value.isna()]:
        ax.text(1.03, row, "a limit is not bracketed", fontsize="x-small", va="center")
    ax.set_ylim(-0.6, len(rows) - 0.4)
    _ticks(ax.xaxis, [tick for tick in (0.01, 0.1, 0.5, 1, 2, 10, 100) if low <= tick <= high])


def verdict_counts(found: pd.DataFrame) -> Figure:
    """Of each claim (rows of `verdicts.verdicts`) how many settings support it, leave it open or contradict it.

    A ring marks the verdict at the primary setting, the last of several.
    """
    kinds = {"supported": "C2", "undecided": "0.75", "contradicted": "C1"}
    names = found.claim.drop_duplicates().tolist()
    counts = pd.crosstab(found.claim, found.verdict).reindex(index=names, columns=list(kinds), fill_value=0)
    figure, axes = _canvas(1, 1, (7.0, 0.5 * len(names) + 0.6))
    ax, left = axes[0, 0], np.zeros(len(names))
    for kind, color in kinds.items():
        number = counts[kind].to_numpy()
        bars = ax.barh(names, number, left=left, color=color, label=kind)
        ax.bar_label(bars, [str(n) if n else "" for n in number], label_type="center")
        for row, name in enumerate(names):
            primary = found[(found.claim == name) & (found.setting != "secondary")]
            if len(primary) and primary.verdict.iloc[-1] == kind:
                ax.plot(left[row] + number[row] - 0.25, row, "o", mfc="none", mec="black", ms=9)
        left += number
    ax.invert_yaxis()
    ax.set_xlabel("settings (data set, learning rate, averaging)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=3)
    figure.supxlabel("ring: verdict at the primary setting, fixed before the data", fontsize="small", color="0.35")
    return figure


def sample_images(images: Mapping[str, Sequence | np.ndarray] | xr.DataArray) -> Figure:
    """Samples, a row a data set: (dataset, image, row, column), or title -> (image, row, column)."""
    if isinstance(images, xr.DataArray):
        images = {str(one.dataset.item()): one.values for one in images}
    columns = max(len(each) for each in images.values())
    figure, axes = _canvas(len(images), columns, (0.8, 0.9))
    for row, (name, each) in zip(axes, images.items(), strict=True):
        height, width = np.shape(each)[1:]
        for ax in row:
            ax.set_axis_off()
        for ax, image in zip(row, each, strict=False):
            ax.imshow(image, cmap="gray_r", interpolation="nearest")
        # outside the layout, or a long title widens the first column
        title = row[0].set_title(f"{_literally(name)}, {height} × {width} pixels", fontsize="medium", loc="left")
        title.set_in_layout(False)
    return figure
