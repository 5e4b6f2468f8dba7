"""The figures of the published network's arms, in notebooks 13 and 19 to 21."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..study.arms import QUIET
from ..study.plateau import images_seen
from ..study.published import Arms, over_images
from . import canvas

SIZE = (4.0, 3.2)


def arms_over_images(arms: Arms, stores: canvas.Stores, title: str) -> Figure:
    """Test error over images seen, a panel a data set, a colour an arm of `study.published_arms`, a thin line a seed.

    `stores`: those of the arms, which say what was trained.
    """
    looks = _looks(arms)
    figure, axes, _ = canvas.grid(len(arms), 3, SIZE)
    for ax, (data_set, of_set) in zip(axes, arms.items(), strict=True):
        error = over_images(of_set)
        for name in of_set:
            runs = error.sel(arm=name).transpose("images", "seed").rename(images="epoch")
            canvas.runs_and_mean(ax, error.images / 1000, runs, looks[name]["color"], 0.8, 0.5, 2, looks[name]["ls"])
        canvas.error_axis(ax, float(error.chance))
        ax.set(xlabel="training images seen (thousands)", xlim=(0, None))
        ax.set_title(canvas.literally(data_set), fontsize="medium")
    canvas.key(figure, looks)
    return _finish(figure, title, stores, "thin: seeds; thick: their mean")


def reads_over_images(arms: Arms, stores: canvas.Stores) -> Figure:
    """Reads N over images seen of the arms whose reads follow training, in the panels and colours of their errors."""
    looks = _looks(arms)
    figure, axes, _ = canvas.grid(len(arms), 3, SIZE)
    drawn = {}
    for ax, (data_set, of_set) in zip(axes, arms.items(), strict=True):
        for name, ds in of_set.items():
            if "reads" in ds and np.isfinite(ds.reads).all():
                runs = ds.reads.transpose("epoch", "seed")
                look = drawn[name] = looks[name]
                canvas.runs_and_mean(ax, images_seen(ds) / 1000, runs, look["color"], 0.8, 0.5, 2, look["ls"])
        ax.set(xlabel="training images seen (thousands)", xlim=(0, None), yscale="log", ylabel="reads averaged, N")
        ax.set_title(canvas.literally(data_set), fontsize="medium")
    canvas.key(figure, drawn)
    return _finish(figure, "Reads that follow training", stores, "thin: seeds; thick: their mean")


def points_saved(arms: Arms, stores: canvas.Stores, title: str) -> Figure:
    """By how much every arm's last test error is below that without noise: a row an arm, a panel a data set."""
    names = [name for name in _looks(arms) if name != QUIET]
    figure, axes = canvas.blank(1, max(1, len(arms)), (3.4, 0.6 + 0.24 * len(names)), sharex=True, sharey=True)
    for ax, (data_set, of_set) in zip(axes.flat, arms.items(), strict=False):
        error = over_images(of_set).isel(images=-1)
        for row, name in enumerate(names):
            if name in of_set:
                canvas.interval_in_row(ax, row, error.sel(arm=QUIET) - error.sel(arm=name), "C0", beside=0.3)
        ax.axvline(0, color="0.15", lw=0.8, ls=":")
        ax.set_yticks(range(len(names)), names, fontsize="x-small")
        ax.set(ylim=(len(names) - 0.4, -0.6), xlabel="points of test error saved")
        ax.xaxis.set_major_formatter(canvas.PERCENT)
        ax.set_title(canvas.literally(data_set), fontsize="medium")
    note = "against training without noise, paired over seeds; small dots: seeds; bars: mean, 95 % t interval"
    return _finish(figure, title, stores, note)


def _finish(figure: Figure, title: str, stores: canvas.Stores, note: str) -> Figure:
    noise = {sigma for ds in stores.values() for sigma in ds.sigma.values.tolist()} - {0.0}
    size = f"noise: {canvas.span(noise)} V; " if noise else ""
    return canvas.finish_several(figure, title, stores, size + note)


def _looks(arms: Arms) -> dict[str, dict[str, Any]]:
    """A colour an arm, and another kind of line when all ten colours are taken."""
    names = dict.fromkeys(name for of_set in arms.values() for name in of_set)
    lines = "-", (0, (4, 1.5)), ":"
    return {name: {"color": f"C{k % 10}", "ls": lines[k // 10 % 3], "lw": 2} for k, name in enumerate(names)}
