"""What all figures share: look, panels, axes, the line below that says how to read them, and how they are saved."""

import json
import math
import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter

from ..files import replacing, writable
from ..study.intervals import mean_interval
from ..study.limit import require

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
    figure.set_dpi(150)
    if layout := figure.get_layout_engine():  # once, not for each file and its rehearsal: it is half of the drawing
        layout.execute(figure)
        figure.set_layout_engine(None)  # "none" would leave one behind, and with it the rehearsals
    for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
        with replacing(path) as temporary, mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
    return paths


def show(figure: Figure, folder: str | os.PathLike, name: str) -> None:
    """Save a figure, and display its file in a notebook, so that it is drawn once; the figure itself if not saved."""
    png, _ = save(figure, folder, name)
    if not writable(png.parent):
        display(figure)
        return
    title = figure.get_suptitle().replace(r"\$", "$")
    display(Image(png.read_bytes(), width=round(100 * figure.get_figwidth()), alt=title))


def blank(rows: int, columns: int, size: tuple[float, float] = (3.7, 2.7), **share: Any) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels and its (rows, columns) axes, not shown twice by a notebook."""
    share |= {"figsize": (max(size[0] * columns, 6.4), size[1] * rows + 1.0), "layout": "constrained"}
    figure, axes = plt.subplots(rows, columns, squeeze=False, **share)
    plt.close(figure)
    return figure, axes


def literally(text: object) -> str:
    """A text out of a store, whose dollar signs begin no mathematics."""
    return str(text).replace("$", r"\$")


def wrapped(panels: int, size: tuple[float, float] = (3.7, 2.7)) -> tuple[Figure, list[Axes]]:
    """A figure of panels with common axes, three a row; what a row lacks is the upper right, for labels are below."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure, axes = blank(rows, columns, size, sharex=True, sharey=True)
    first = panels - (rows - 1) * columns
    for spare in axes[0, first:]:
        spare.remove()
    return figure, [*axes[0, :first], *axes[1:].flat]


def captioned(figure: Figure, title: str, *lines: str) -> Figure:
    """Title above; below, in small type, how to read the figure."""
    figure.suptitle(title, fontsize="large")
    figure.supxlabel("\n".join(lines), fontsize="small", color="0.35", linespacing=1.4)
    return figure


def finish(figure: Figure, title: str, ds: xr.Dataset, *notes: str, trained: bool = True) -> Figure:
    """Title above; below, in small type, what network was trained, and how, and how to read the figure."""
    given = json.loads(ds.attrs.get("parameters", "{}"))
    sizes = sorted({"-".join(map(str, n)) for n in given.get("sizes", {}).values()})
    facts = [literally("network " + " and ".join(sizes))]
    if trained:
        facts += [
            f"{round(float(ds.epoch.max()))} epochs of {given['train_images']:,} images"
            if "train_images" in given
            else "",
            f"batch {given['batch_size']}" if "batch_size" in given else "",
            f"tested on {given['test_images']:,} images" if "test_images" in given else "",
            f"n = {ds.sizes.get('seed', 1)} seed{'s' * (ds.sizes.get('seed', 1) > 1)}",
        ]
    return captioned(figure, literally(title), ", ".join(filter(None, facts)), *notes)


def single(ds: xr.Dataset, *dims: str) -> xr.Dataset:
    """Without dims of length 1. Raises ValueError where there is a choice, which is the caller's to make."""
    for dim in dims:
        if ds.sizes.get(dim, 1) > 1:
            raise ValueError(f"this figure shows one {dim}, select one of {ds[dim].values.tolist()}")
    return ds.squeeze([dim for dim in dims if dim in ds.dims])


def panels_by(ds: xr.Dataset, across: str) -> tuple[Figure, list[tuple[Axes, xr.Dataset]]]:
    """Figure and its panels, titled by data set and learning rate, each with its store; `across`: columns."""
    require(ds, "title", "chance", "test_error", "train_error", "activity", dims=("sigma", "seed", "epoch"))
    down = "dataset" if across == "learning_rate" else "learning_rate"
    if ds.sizes[down] == 1:
        figure, axes = wrapped(ds.sizes[across])
    else:
        figure, grid = blank(ds.sizes[down], ds.sizes[across], sharex=True, sharey=True)
        axes = list(grid.flat)
    panels = []
    for ax, (row, column) in zip(axes, np.ndindex(ds.sizes[down], ds.sizes[across]), strict=True):
        one = ds.isel({down: row, across: column})
        ax.set_title(f"{literally(one.title.item())}, η = {one.learning_rate.item():g}", fontsize="medium")
        panels.append((ax, one))
    return figure, panels


def scientific(value: float) -> str:
    """1.2e-4 as mathematics."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"{mantissa}$\times$10$^{{{int(exponent)}}}$"


def place_of_zero(sigma: np.ndarray) -> float:
    """A place for sigma = 0: two thirds of a decade left of the smallest positive sigma."""
    return float(sigma[sigma > 0].min() / 10**0.67)


def plain_ticks(axis: Axis, places: Sequence[float], names: Sequence[str] = ()) -> None:
    """Ticks at these places of a log axis, and nowhere else; plain numbers unless named."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(names or [f"{place:g}" for place in places]))
    axis.set_minor_locator(NullLocator())


def sigma_axis(ax: Axes, sigma: np.ndarray, label: str = SIGMA) -> None:
    """Log axis with decades marked and, left of a break, the place of 0."""
    positive = sigma[sigma > 0]
    first, last = np.log10(positive.min()) - 1e-9, np.log10(positive.max()) + 1e-9
    decades = range(math.ceil(first), math.floor(last) + 1)
    ticks, names = [10.0**decade for decade in decades], [f"$10^{{{decade}}}$" for decade in decades]
    # the sweep and no more, however wide an interval is drawn
    left = place_of_zero(sigma) if (sigma == 0).any() else positive.min()
    ax.set(xscale="log", xlabel=label, xlim=(left / 1.5, positive.max() * 1.8))
    if (sigma == 0).any():
        ticks, names = [place_of_zero(sigma), *ticks], ["0", *names]
        middle = np.sqrt(place_of_zero(sigma) * positive.min())
        ax.text(middle, 0, "//", transform=ax.get_xaxis_transform(), ha="center", va="center", fontsize=8)
    plain_ticks(ax.xaxis, ticks, names)


def seeds_and_mean(ax: Axes, values: xr.DataArray, zero: float, color: Any, label: str = "", **look: Any) -> None:
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


def limit_band(ax: Axes, limits: xr.Dataset, short: bool = False) -> str:
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
        return f"σ$_c$ = {scientific(mean)} V, {n}/{runs} seeds"
    interval = "V, no interval" if np.isnan(low) else f"[{scientific(low)}, {scientific(high)}] V"
    return f"σ$_c$ = {scientific(mean)} {interval}, {n}/{runs} seeds"


def error_axis(ax: Axes, chance: float, label: str = "test error (%)") -> None:
    ax.axhline(chance, color="C3", lw=1, ls=":")
    place = ax.get_yaxis_transform()
    ax.text(1, chance + 0.03, "chance", color="C3", fontsize="x-small", ha="right", transform=place)
    ax.set(ylim=(0, 1), ylabel=label)
    ax.yaxis.set_major_formatter(PERCENT)


def by_dataset(ax: Axes, ds: xr.Dataset, found: xr.Dataset, seeds: xr.DataArray | None = None) -> None:
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
    ax.set_xticks(range(len(names)), [textwrap.fill(literally(title), 14) for title in ds.title.values])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.margins(y=0.15)
    ax.set_xlabel("data set")
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
