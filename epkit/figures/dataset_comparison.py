"""The figures of notebook 04: samples of the data sets, and whether the critical limit is the same on all."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..study.claims import FARTHEST
from . import canvas
from .critical_limit import error_over_sigma


def dataset_comparison(ds: xr.Dataset, limits: xr.Dataset) -> Figure:
    """`error_over_sigma`, a column a data set and a row a learning rate: compare the limits along a row."""
    return error_over_sigma(ds, limits, across="dataset")


def limit_ratios(ds: xr.Dataset, limits: xr.Dataset, ratios: pd.DataFrame | None = None, factor: float = 2.0) -> Figure:
    """Critical limits by data set and, given the table of `study.claim_datasets`, their pairwise ratios.

    `factor`: how far from 1 a ratio still counts as the same limit.
    """
    ds = canvas.single(ds, *canvas.READS)
    limits = canvas.steady(canvas.single(limits, *canvas.READS))
    rows = 0 if ratios is None else len(ratios)
    figure, axes = canvas.blank(1, 1 + bool(rows), (6.4, max(3.4, 0.26 * rows)))
    canvas.by_dataset(axes[0, 0], ds, limits, limits.limit)
    axes[0, 0].set(yscale="log", ylabel=canvas.LIMIT)
    notes = ["small dots: bracketed seeds, their number below; bars: geometric mean, 95 % t interval"]
    if ratios is not None and len(ratios):
        _ratios(axes[0, 1], canvas.steady(ratios.to_xarray()).to_dataframe()[::-1].reset_index(drop=True), factor)
        notes += [f"filled: primary settings; grey: within a factor of {factor:g}"]
    return canvas.finish(figure, "Does the critical limit depend on the data set?", ds, *notes)


def _ratios(ax: Axes, rows: pd.DataFrame, factor: float) -> None:
    """Ratios of limits, a row of `study.claim_datasets` each."""
    several = ", " + rows.averaging + " averaging" if rows.averaging.nunique() > 1 else ""
    names = rows.measure.map({FARTHEST: "all pairs: "}).fillna("") + rows.dataset
    names += rows.learning_rate.map(", η = {:g}".format) + several + rows.n.map(", n = {}".format)
    ax.axvspan(1 / factor, factor, color="0.93", lw=0, zorder=-1)
    ax.axvline(1, color="0.3", lw=0.8)
    ax.hlines(rows.index, rows.low, rows.high, color="C0", lw=1.6)
    for primary, face in ((True, "C0"), (False, "w")):
        settings = rows[(rows.setting == "primary") == primary]
        ax.plot(settings.value, settings.index, "o", color="C0", mfc=face, ms=5)
    ax.set_yticks(rows.index, [canvas.literally(name) for name in names], fontsize="x-small")
    values = rows[["value", "low", "high"]].values.ravel()
    low, high = 0.9 * np.nanmin([0.8 / factor, *values]), 1.1 * np.nanmax([1.25 * factor, *values])
    ax.set(xscale="log", xlabel="ratio of critical limits", xlim=(low, high))
    for row in rows.index[rows.value.isna()]:
        ax.text(1.03, row, "a limit is not bracketed", fontsize="x-small", va="center")
    ax.set_ylim(-0.6, len(rows) - 0.4)
    canvas.plain_ticks(ax.xaxis, [tick for tick in (0.01, 0.1, 0.5, 1, 2, 10, 100) if low <= tick <= high])


def sample_images(images: Mapping[str, Sequence | np.ndarray] | xr.DataArray) -> Figure:
    """Samples, a row a data set: (dataset, image, row, column), or title -> (image, row, column)."""
    if isinstance(images, xr.DataArray):
        images = {str(samples.dataset.item()): samples.values for samples in images}
    figure, axes = canvas.blank(len(images), max(map(len, images.values())), (0.8, 0.9))
    for row, (name, samples) in zip(axes, images.items(), strict=True):
        for ax in row:
            ax.set_axis_off()
        for ax, image in zip(row, samples, strict=False):
            ax.imshow(image, cmap="gray_r", interpolation="nearest")
        height, width = np.shape(samples)[1:]
        title = f"{canvas.literally(name)}, {height} × {width} pixels"
        # not the panel's title, which would widen the first column
        row[0].text(0, 1.08, title, fontsize="medium", transform=row[0].transAxes).set_in_layout(False)
    return figure
