"""The figure of notebook 05: each claim's effect in every setting of its family, with intervals, on its own axis."""

import textwrap

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..study.registration import registered_claims
from ..study.report import SAID
from . import canvas

TICKS = (1e-5, 5e-5, 2e-4, 1e-3, 0.1, 0.5, 1, 2, 5, 10, 20, 100)
LOGARITHMIC = ("limit", "value", "datasets")  # claims on ratios or volts
AXES = {
    "limit": "10 to 90 % width, ratio of σ", "value": canvas.LIMIT, "datasets": "ratio of the limits",
    "scaling": "exponent of N", "rescue": "stuck runs fewer (%)", "accuracy": "points of error saved",
    "beyond_tuning": "points of error saved", "optimum": "points of error saved",
}  # fmt: skip


def forest(rows: pd.DataFrame, verdicts: pd.DataFrame, ds: xr.Dataset) -> Figure:
    """A panel a claim: its effect in each setting that can be tested, by size, with 95 % interval.

    `rows` of `study.judged_rows`, `verdicts` of `study.family_verdicts`, `ds`: `grid` of the evidence.
    """
    colours = {name: f"C{k}" for k, name in enumerate(rows.dataset.drop_duplicates())}
    figure, axes = canvas.blank(-(-len(verdicts) // 4), 4, (2.6, 2.6))
    for ax in axes.flat[len(verdicts) :]:
        ax.set_axis_off()
    for ax, (name, overall) in zip(axes.flat, verdicts.iterrows(), strict=False):
        tested = rows[(rows.claim == name) & (rows.verdict != "not testable")]
        _family(ax, str(name), tested.sort_values("value", ignore_index=True), colours)
        seeds = f",\nn = {canvas.span(tested.n)}" if len(tested) else ""
        title = textwrap.fill(SAID[str(name)].claim, 26)
        ax.set_title(
            f"{title}:\n{overall.verdict}, {len(tested)} setting{'s' * (len(tested) != 1)}{seeds}", fontsize="small"
        )
        ax.set_xlabel(AXES[str(name)], fontsize="small")
    looks = {canvas.literally(name): {"color": colour, "lw": 2} for name, colour in colours.items()}
    canvas.key(figure, looks)
    return canvas.finish(
        figure, "What the claims say, and what is measured", ds,
        "bars: 95 % intervals over seeds of the settings that can be tested, by size, some beyond their panel",
        "grey: what the claim says",
        "a verdict is over the whole family: params/claims.yaml, second registration",
    )  # fmt: skip


def _family(ax: Axes, name: str, tested: pd.DataFrame, colours: dict[str, str]) -> None:
    """The settings of one claim, in per cent where it is a share."""
    claim = getattr(registered_claims().second.claims, name)
    unit = SAID[name].unit
    ax.axvspan(*(unit * np.array(claim.inside)), color="0.92", lw=0, zorder=-1)
    for dataset, settings in tested.groupby("dataset", sort=False):
        color, (width, size) = colours[str(dataset)], (2.0, 4.0) if len(tested) < 40 else (0.7, 1.5)
        ax.hlines(settings.index, unit * settings.low, unit * settings.high, color=color, lw=width)
        ax.plot(unit * settings.value, settings.index, "o", color=color, ms=size)
    ends = [unit * claim.inside[0], *(unit * tested[["low", "high"]].to_numpy().ravel())]
    ends += [unit * claim.inside[1]] * (name in (*LOGARITHMIC, "scaling") or not len(tested))
    low, high = min(ends), max(ends)
    if name in LOGARITHMIC:
        # of two or three seeds an interval may span decades in which there is nothing to see
        effects = [unit * end for end in claim.inside] + (unit * tested.value).tolist()
        low, high = max(low, min(effects) / 10), min(high, max(effects) * 10)
        ax.set(xscale="log", xlim=(low / 1.25, high * 1.25))
        ticks = [tick for tick in TICKS if low / 1.25 < tick < high * 1.25]
        canvas.plain_ticks(ax.xaxis, ticks[:: 1 + len(ticks) // 6])
    else:
        ax.set_xlim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    if not len(tested):
        ax.text(0.5, 0.5, "nothing can be tested", ha="center", transform=ax.transAxes, fontsize="small")
    ax.set_yticks([])
    ax.set_ylim(-1, max(1, len(tested)))
