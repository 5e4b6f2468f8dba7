"""What all figures share: their look, panels, axes, keys and captions, and how they are saved."""

import json
import math
import os
import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter

from ..files import replacing, writable
from ..study.intervals import t_interval
from ..study.limit import require
from ..sweep.store import parameters

Stores = Mapping[str, xr.Dataset]
SIGMA = "read-out uncertainty σ (V)"
LIMIT = "critical limit σ$_c$ (V)"
BARS = "small dots: seeds; bars: mean, 95 % t interval over seeds"
BAND = "dashed line, grey band: limit σ$_c$, geometric mean and 95 % t interval over bracketed seeds"
RIGHT: dict[str, Any] = {"fontsize": "x-small", "loc": "upper left", "bbox_to_anchor": (1, 1)}  # of a panel: its key
DOTS: dict[str, Any] = {"alpha": 0.5, "ms": 4, "mew": 0}
READS = ("averaging", "samples")  # dims of which a figure shows one value
PERCENT = PercentFormatter(xmax=1, symbol="", decimals=0)
DPI = 150  # of a PNG; notebooks show it at 100, so that it is sharp on fine screens
DIGITS = 4  # of what was fitted, see `steady`


def style() -> None:
    """Set the look of all figures: seaborn's ticks theme and a palette safe for colour-blind readers.

    Set from scratch, so that a reader's own matplotlibrc changes nothing, and in the font that matplotlib brings.
    """
    mpl.rcdefaults()
    rc = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    sns.set_theme("notebook", "ticks", "colorblind", font="DejaVu Sans", font_scale=0.8, rc=rc)
    if shell := get_ipython():  # shows a figure that ends a cell, which pyplot does for its own figures only
        select_figure_formats(shell, {"png"}, bbox_inches=None)


def draw(figure: Figure, name: str) -> dict[str, bytes]:
    """The figure as {"png": …, "svg": …}, the same to the byte each time; `name` salts the SVG's ids."""
    figure.set_dpi(DPI)
    if layout := figure.get_layout_engine():  # once, not for each file and its rehearsal: it is half of the drawing
        layout.execute(figure)
        figure.set_layout_engine(None)  # "none" would leave one behind, and with it the rehearsals
    files = {}
    for kind, metadata in {"png": {"Software": None}, "svg": {"Date": None}}.items():
        with BytesIO() as file, mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(file, format=kind, metadata=metadata, dpi=DPI)  # or it is that of a new figure
            files[kind] = file.getvalue()
    return files


def save(figure: Figure, folder: str | os.PathLike, name: str) -> tuple[Path, Path]:
    """Write `folder`/`name`.png and .svg, atomically, where they differ; return both paths.

    In a read-only folder this only warns, for the figure can be looked at all the same. StoreError for a full disk.
    """
    return _write(draw(figure, name), Path(folder), name)


def show(figure: Figure, folder: str | os.PathLike, name: str) -> None:
    """Save a figure and display it in a notebook, with a text that says what it shows to who can't see it."""
    files = draw(figure, name)
    _write(files, Path(folder), name)
    display(Image(files["png"], width=round(100 * figure.get_figwidth()), alt=alternative(figure)))


def _write(files: Mapping[str, bytes], folder: Path, name: str) -> tuple[Path, Path]:
    paths = folder / f"{name}.png", folder / f"{name}.svg"
    if not writable(folder):
        warnings.warn(f"{paths[0]}: not saved, the folder is read-only", stacklevel=3)
        return paths
    for path, content in zip(paths, files.values(), strict=True):
        if not path.is_file() or path.read_bytes() != content:
            with replacing(path) as temporary:
                temporary.write_bytes(content)
    return paths


def alternative(figure: Figure) -> str:
    """Title and caption in plain letters; of a figure without them, what is written over and in its panels."""
    words = [figure.get_suptitle(), figure.get_supxlabel()]
    if not any(words):
        words = [text for ax in figure.axes for text in (ax.get_title(), *(text.get_text() for text in ax.texts))]
    lines = [" ".join(line.split()) for word in words for line in word.split("\n")]
    return ". ".join(re.sub(r"(?<!\\)\$", "", line).replace(r"\$", "$") for line in lines if line)


def steady(fit: xr.Dataset) -> xr.Dataset:
    """Fitted numbers, rounded to DIGITS digits, far below what can be seen.

    The further digits of a fit depend on the processor's linear algebra, and a figure's bytes must not.
    """
    rounded = np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])
    return fit.map(lambda values: xr.apply_ufunc(rounded, values) if values.dtype.kind == "f" else values)


def blank(rows: int, columns: int, size: tuple[float, float] = (3.7, 2.7), **share: Any) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels, each `size` inches, and its (rows, columns) axes, unknown to pyplot."""
    figure = Figure(figsize=(max(size[0] * columns, 6.4), size[1] * rows + 1.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def grid(panels: int, most: int, size: tuple[float, float]) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure of panels with a common y axis, at most so many a row; its axes, and those left empty in the last row.

    Without panels it says that there is nothing to show yet.
    """
    columns = min(most, max(panels, 1))
    figure, axes = blank(-(-max(panels, 1) // columns), columns, size, sharey=True)
    for ax in axes.flat[panels:]:
        ax.set_axis_off()
    if not panels:
        axes[0, 0].text(0.5, 0.5, "nothing of this has been computed yet", ha="center", va="center")
    return figure, list(axes.flat[:panels]), list(axes.flat[panels:])


def wrapped(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of panels with common axes, three a row; what a row lacks is the upper right, for labels are below."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure, axes = blank(rows, columns, sharex=True, sharey=True)
    first = panels - (rows - 1) * columns
    for spare in axes[0, first:]:
        spare.remove()
    return figure, [*axes[0, :first], *axes[1:].flat]


def panels_by(ds: xr.Dataset, across: str) -> tuple[Figure, list[tuple[Axes, xr.Dataset]]]:
    """Figure and its panels, titled by data set and learning rate, each with its store; `across`: columns."""
    require(ds, "title", "chance", "test_error", "train_error", "activity", dims=("sigma", "seed", "epoch"))
    down = "dataset" if across == "learning_rate" else "learning_rate"
    if ds.sizes[down] == 1:
        figure, axes = wrapped(ds.sizes[across])
    else:
        figure, rows = blank(ds.sizes[down], ds.sizes[across], sharex=True, sharey=True)
        axes = list(rows.flat)
    panels = []
    for ax, (row, column) in zip(axes, np.ndindex(ds.sizes[down], ds.sizes[across]), strict=True):
        panel = ds.isel({down: row, across: column})
        ax.set_title(setting(panel, panel.learning_rate), fontsize="medium")
        panels.append((ax, panel))
    return figure, panels


def literally(text: object) -> str:
    """A text out of a store, whose dollar signs begin no mathematics."""
    return str(text).replace("$", r"\$")


def setting(ds: xr.Dataset, rate: Any) -> str:
    """Data set and learning rate, as titles name them."""
    return f"{literally(ds.title.item())}, η = {float(rate):g}"


def scientific(value: float) -> str:
    """1.2e-4 as mathematics."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"{mantissa}$\times$10$^{{{int(exponent)}}}$"


def captioned(figure: Figure, title: str, *lines: str) -> Figure:
    """Title above; below, in small type, how to read the figure; of shared axes, the outer panels alone keep labels."""
    for ax in figure.axes:
        if place := ax.get_subplotspec():
            if not place.is_last_row() and len(ax.get_shared_x_axes().get_siblings(ax)) > 1:
                ax.set_xlabel("")
            if not place.is_first_col() and len(ax.get_shared_y_axes().get_siblings(ax)) > 1:
                ax.set_ylabel("")
    figure.suptitle(title, fontsize="large")
    figure.supxlabel("\n".join(lines), fontsize="small", color="0.35", linespacing=1.4)
    return figure


def layouts(settings: Mapping[str, Any]) -> list[str]:
    """Networks of a store's parameters, such as "784-100-10"."""
    return ["-".join(map(str, layers)) for layers in settings.get("sizes", {}).values()]


def finish(
    figure: Figure, title: str, ds: xr.Dataset, *notes: str, trained: bool = True, networks: Iterable[str] = ()
) -> Figure:
    """Title above; below, what network was trained, and how, and how to read the figure.

    `networks` such as "784-100-10", where these aren't the store's own.
    """
    settings = json.loads(ds.attrs.get("parameters", "{}"))
    facts = [literally("network " + " and ".join(sorted({*(networks or layouts(settings))})))]
    if trained:
        seeds = ds.sizes.get("seed", 1)
        texts = {"train_images": f"{round(float(ds.epoch.max()))} epochs of {{:,}} images", "batch_size": "batch {}",
                 "test_images": "tested on {:,} images"}  # fmt: skip
        facts += [text.format(settings[name]) for name, text in texts.items() if name in settings]
        facts += [f"n = {seeds} seed{'s' * (seeds > 1)}"]
    return captioned(figure, literally(title), ", ".join(facts), *notes)


def finish_several(figure: Figure, title: str, stores: Stores, *notes: str) -> Figure:
    """Title above; below, what all sweeps have in common, and how to read the figure; of no sweep, the title alone."""
    if not stores:
        return captioned(figure, title)
    settings = [parameters(ds) for ds in stores.values()]
    titles = list(dict.fromkeys(str(name) for ds in stores.values() for name in ds.title.values))
    rates = {rate for ds in stores.values() for rate in ds.learning_rate.values.tolist()}
    # seeds of which anything was run, for a store may be partial
    seeds = [int(ds.test_error.notnull().any([dim for dim in ds.test_error.dims if dim != "seed"]).sum())
             for ds in stores.values()]  # fmt: skip
    sizes = sorted({layout for row in settings for layout in layouts(row)})
    few = [f"network {' and '.join(sizes)}"] if sizes else []
    epochs = {round(float(ds.epoch.max())) for ds in stores.values()}
    trained = span((row["train_images"] for row in settings), "{:,}")
    facts = [
        *titles,
        *([f"networks of {len(sizes)} sizes"] if len(sizes) > 2 else few),
        f"{span(epochs)} epoch{'s' * (epochs != {1})} of {trained} images",
        f"batch {span(row['batch_size'] for row in settings)}",
        "absolute rates" if all("rates" in row for row in settings) else f"η = {span(rates)}",
        f"tested on {span((row['test_images'] for row in settings), '{:,}')} images",
        f"n = {span(seeds)} seeds",
    ]
    letters, whole = int(15 * figure.get_figwidth()), "\u00a0"  # a fact is not broken over two lines
    common = ", ".join(fact.replace(" ", whole) for fact in facts)
    return captioned(figure, title, *(textwrap.fill(line, letters).replace(whole, " ") for line in (common, *notes)))


def span(values: Iterable[float], form: str = "{:,g}") -> str:
    """One number, or the least and the largest of several."""
    texts = [form.format(value) for value in sorted(set(values))]
    return texts[0] if len(texts) == 1 else f"{texts[0]} … {texts[-1]}"


def single(ds: xr.Dataset, *dims: str) -> xr.Dataset:
    """Without dims of length 1. Raises ValueError where there is a choice, which is the caller's to make."""
    for dim in dims:
        if ds.sizes.get(dim, 1) > 1:
            raise ValueError(f"this figure shows one {dim}, select one of {ds[dim].values.tolist()}")
    return ds.squeeze([dim for dim in dims if dim in ds.dims])


def key(place: Axes | Figure, looks: Mapping[str, Mapping[str, Any]] | None = None, **where: Any) -> None:
    """A legend at the right of a panel, or of all panels of a figure, unless `where` puts it elsewhere.

    It explains these texts, each with the look of its lines or markers, or else what is labelled in the first panel.
    """
    if looks is None:
        handles, _ = (place.axes[0] if isinstance(place, Figure) else place).get_legend_handles_labels()
    else:
        handles = [Line2D([], [], label=textwrap.fill(text, 44), **look) for text, look in looks.items()]
    if isinstance(place, Figure):
        place.legend(handles=handles, **{"fontsize": "small", "loc": "outside right center"} | where)
    else:
        place.legend(handles=handles, **where or RIGHT)


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


def percent_axis(ax: Axes, label: str, low: float | None = 0, high: float | None = 1) -> None:
    """A y axis of shares, from `low` to `high`, in per cent."""
    ax.set(ylim=(low, high), ylabel=label)
    ax.yaxis.set_major_formatter(PERCENT)


def error_axis(ax: Axes, chance: float, label: str = "test error (%)") -> None:
    """A y axis of errors, with a line at that of guessing."""
    ax.axhline(chance, color="C3", lw=1, ls=":")
    place = ax.get_yaxis_transform()
    ax.text(1, chance + 0.03, "chance", color="C3", fontsize="x-small", ha="right", transform=place)
    percent_axis(ax, label)


def interval(ax: Axes, x: Any, values: xr.Dataset, color: Any, form: str = "o", ms: float = 5, lw: float = 1.6,
             **look: Any) -> None:  # fmt: skip
    """`mean` as points and `low`, `high` as bars, of (x,) or scalars."""
    ax.plot(x, values["mean"], form, color=color, ms=ms, **look)
    ax.vlines(x, values.low, values.high, color=color, lw=lw)


def interval_in_row(ax: Axes, y: float, runs: xr.DataArray, color: Any, beside: float = 0.0) -> None:
    """The mean of runs (seed,) with its interval, along x at the height y; the runs as dots, `beside` it."""
    mean = t_interval(runs)
    ax.plot(runs, np.full(runs.size, y + beside), ".", color=color, **DOTS | {"ms": 3, "alpha": 0.35})
    ax.hlines(y, mean.low, mean.high, color=color, lw=1.6)
    ax.plot(mean["mean"], y, "o", color=color, ms=3.5)


def runs_and_mean(
    ax: Axes, x: Any, runs: xr.DataArray, color: Any, thin: float, alpha: float, thick: float, ls: Any = "-"
) -> None:
    """Thin lines of runs (epoch, seed), and a thick one of their mean, over x (epoch,); widths in points."""
    ax.plot(x, runs, color=color, lw=thin, ls=ls, alpha=alpha)
    ax.plot(x, runs.mean("seed"), color=color, lw=thick, ls=ls)


def seeds_and_mean(
    ax: Axes, values: xr.DataArray, color: Any, label: str = "", zero: float | None = None, **look: Any
) -> None:
    """values (sigma, seed): the mean with its interval, seeds beside it; no line leads to sigma = 0.

    `zero`: the place of sigma = 0, where it isn't that of these sigmas alone.
    """
    zero = place_of_zero(values.sigma.values) if zero is None else zero
    values = values.dropna("sigma", how="all")
    if not values.size:
        return
    sigma, summary = values.sigma.values, t_interval(values)
    x, mean = np.where(sigma > 0, sigma, zero), summary["mean"].values
    step = np.exp(np.median(np.diff(np.log(np.sort(x))))) if len(x) > 1 else 1.5
    beside = step ** np.linspace(0.16, 0.42, values.sizes["seed"])
    ax.plot(np.outer(x, beside), values.transpose("sigma", "seed"), ".", color=color, **DOTS)
    solid: dict[str, Any] = {"color": color, "marker": "o", "ms": 4, "lw": 1.2} | look
    ax.plot(x[sigma > 0], mean[sigma > 0], label=label, **solid)
    ax.plot(x[sigma == 0], mean[sigma == 0], **solid)
    low, high = summary.low.fillna(summary["mean"]).values, summary.high.fillna(summary["mean"]).values
    ax.vlines(x, low, high, color=color, lw=1.4)


def limit_band(ax: Axes, limits: xr.Dataset, short: bool = False, unit: str = " V") -> str:
    """Draw the critical limit of one panel; return it in words, or the commonest reason why there is none."""
    n, runs = int(limits.n), int(limits.runs)
    if not n:
        reasons = pd.Series(limits.reason.values.ravel()).loc[lambda reasons: reasons != "not run"]
        return "no limit" if short else f"no limit: {reasons.mode().iloc[0]}" if len(reasons) else "not run"
    mean, low, high = (float(limits[name]) for name in ("mean", "low", "high"))
    ax.axvline(mean, color="0.2", lw=1, ls="--", zorder=0)
    if not np.isnan(low):
        ax.axvspan(low, high, color="0.85", lw=0, zorder=-1)
    if short:
        return f"σ$_c$ = {scientific(mean)}{unit}, {n}/{runs} seeds"
    bounds = f"{unit}, no interval" if np.isnan(low) else f" [{scientific(low)}, {scientific(high)}]{unit}"
    return f"σ$_c$ = {scientific(mean)}{bounds}, {n}/{runs} seeds"


def by_dataset(ax: Axes, ds: xr.Dataset, values: xr.Dataset, seeds: xr.DataArray | None = None) -> None:
    """Means with intervals, (dataset, learning_rate), and seeds where there are any; a colour a learning rate."""
    rates, names = ds.learning_rate.values, ds.dataset.values
    for number, rate in enumerate(rates):
        color, row = f"C{number}", values.sel(learning_rate=rate).reindex(dataset=names)
        x = np.arange(len(names)) + 0.5 * (number - (len(rates) - 1) / 2) / len(rates)
        if seeds is not None:
            dots = seeds.sel(learning_rate=rate).reindex(dataset=names).transpose("dataset", "seed")
            ax.plot(x[:, None] + np.linspace(0.03, 0.12, dots.sizes["seed"]), dots, ".", color=color, **DOTS)
        interval(ax, x, row, color, label=f"η = {rate:g}")
        for place, count in zip(x, row.n.fillna(0).astype(int).values, strict=True):
            under = ax.text(place, 0.01, f"{count}", transform=ax.get_xaxis_transform(), ha="center")
            under.set(color=color, fontsize="xx-small")
    ax.set_xticks(range(len(names)), [textwrap.fill(literally(title), 14) for title in ds.title.values])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.margins(y=0.15)
    ax.set_xlabel("data set")
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
