"""What the benchmark's store says: the table, which docs/speed.md shows too, and the figure."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epkit.figures.canvas import blank, captioned, plain_ticks
from epkit.messages import markdown

MARKS = "<!-- speed: written by `make bench` -->", "<!-- end of speed -->"
ENGINES = {"native": "epkit", "compiled": "torch.compile", "eager": "eager torch", "plain": "plain PyTorch"}


def shares(ds: xr.Dataset) -> xr.Dataset:
    """Medians over the turns, and what follows: ratio, GFLOP/s, GB/s and the shares of the machine's."""
    median = ds[["rate", "product_rate", "bandwidth", "scaling_seconds"]].median("turn")
    native = median.rate.sel(engine="native")
    # A turn is a pair: what slowed one slowed the other.
    ratio = (ds.rate.sel(engine="native") / ds.rate.sel(engine="plain")).median("turn")
    operations, traffic = native * ds.operations, native / ds.samples * ds.traffic
    return median.assign(
        native=native,
        ratio=ratio,
        operations=operations,
        traffic=traffic,
        product_share=operations / median.product_rate,
        bandwidth_share=traffic / median.bandwidth,
    )


def table(ds: xr.Dataset) -> str:
    """Markdown: the table, the machine, and what the columns mean."""
    summary = shares(ds)
    engines = [e for e in ENGINES if bool(summary.rate.sel(engine=e).notnull().any())]
    head = ["network, batch, members", *(f"{ENGINES[e]} (1/s)" for e in engines)]
    head += ["ratio to plain", "GFLOP/s", "of the products'", "weights (GB/s)", "of the memory's", "peak (GB)"]
    rows = []
    for name in summary.work.values:
        work = summary.sel(work=name)
        rows.append(
            [str(name)]
            + [_count(float(work.rate.sel(engine=engine))) for engine in engines]
            + [_count(float(work.ratio)), f"{work.operations.item() / 1e9:.0f}", f"{work.product_share.item():.0%}"]
            + [f"{work.traffic.item() / 1e9:.1f}", f"{work.bandwidth_share.item():.0%}"]
            + [f"{ds.memory.sel(work=name).item() / 1e9:.2f}"]
        )
    best, heavy = ds.best_product_rate.item() / 1e9, ds.heavy_memory.item() / 1e9
    return f"""{markdown(head, rows, "l" + "r" * (len(head) - 1))}
Training samples a second, times members, read-out noise included, medians of {ds.sizes["turn"]} turns. Measured on:
{ds.attrs["machine"]}; load average before: {ds.attrs["load_before"]}.

- The largest network's rate is that of one run (1,000 steps, 48 with `--quick`). The plain step isn't tried on it, for
  each of its squares takes 0.8 GB.
- GFLOP/s count every matrix product of a step densely; beside them, the share of what the machine's own library reaches
  with those products at the same shapes ({best:.0f} GFLOP/s with large square ones). The engine leaves out exact zeros.
- GB/s count each conductance read and written once a step; beside them, the share of what the machine reaches doing
  that alone.
- Peak memory is that of the whole process with a training set of MNIST's size. With 11 members 784-1024³-10 takes
  {heavy:.2f} GB, tests after the epoch included.
"""


def figure(ds: xr.Dataset) -> Figure:
    """Speed of each network beside the plain step, how near the machine's roofs it is, and how its cost grows."""
    found = shares(ds)
    figure, axes = blank(2, 3, (4.0, 3.3))
    _speed(axes[0, 0], found)
    _roofs(axes[0, 1], found)
    titles = {
        "width": ("784-n-10, batch 4", "hidden units n"),
        "depth": ("n hidden layers of 256, batch 4", "hidden layers n"),
        "batch": ("784-256-10, batch n", "images in a batch n"),
        "members": ("n members of 784-128³-10, batch 8", "members n"),
    }
    for ax, axis in zip([axes[0, 2], *axes[1]], titles, strict=True):
        _scaling(ax, ds.sel(axis=axis), *titles[axis])
    notes = (
        f"{ds.attrs['machine']}; medians of {ds.sizes['turn']} turns; dots: single turns. Products: the machine's own "
        "matrix products of a step at their shapes, all numbers counted\n(more than 100 %: the engine leaves out exact "
        "zeros). Memory: each conductance read and written once a step. Dashed: cost in proportion, from the largest."
    )
    return captioned(figure, "Speed of epkit.train with read-out noise", notes)


def _count(number: float) -> str:
    """Two or three digits that mean something; a dash for what wasn't measured."""
    if np.isnan(number):
        return "–"
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 10 else f"{number:.2g}"


def _names(found: xr.Dataset) -> list[str]:
    return [str(work).replace(", ", "\n", 1) for work in found.work.values]


def _speed(ax: Axes, found: xr.Dataset) -> None:
    places = np.arange(found.sizes["work"])
    for engine, marker in zip(("native", "eager", "plain"), "os^", strict=True):
        ax.plot(found.rate.sel(engine=engine), places, marker, label=ENGINES[engine])
    for place in places:
        ends = found.rate.isel(work=place).sel(engine=["plain", "native"]).values
        ax.plot(ends, [place, place], color="0.7", lw=1, zorder=0)
        if np.isfinite(found.ratio[place]):
            ax.text(
                np.sqrt(ends.prod()), place - 0.12, f"×{_count(float(found.ratio[place]))}", ha="center", fontsize=8
            )
    ax.set(xscale="log", xlabel="training samples × members per second", ylim=(places[-1] + 1.3, -0.7))
    ax.set_yticks(places, _names(found), fontsize=7)
    ax.set_title("speed", fontsize="medium")
    ax.legend(fontsize=7, loc="lower center", ncols=3, columnspacing=1.0, handletextpad=0.2)


def _roofs(ax: Axes, found: xr.Dataset) -> None:
    places = np.arange(found.sizes["work"])
    for shift, share, name in ((-0.2, found.product_share, "matrix products"), (0.2, found.bandwidth_share, "memory")):
        bars = ax.barh(places + shift, 100 * share, 0.38, label=name)
        ax.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
    ax.plot([100, 100], [-0.6, places[-1] + 0.6], "--", color="0.3", lw=1)
    ax.set(xlabel="reached of the machine's rate (%)", ylim=(places[-1] + 1.3, -0.6))
    ax.set_xlim(0, 115 * max(1.0, float(found.product_share.max())))
    ax.set_yticks(places, _names(found), fontsize=7)
    ax.set_title("against the machine, same shapes, same run", fontsize="medium")
    ax.legend(fontsize=7, loc="lower center", ncols=2)


def _scaling(ax: Axes, ds: xr.Dataset, title: str, counted: str) -> None:
    """Time of a step of all members and images; dashed: in proportion to what the axis counts."""
    ds = ds.dropna("point", subset=["scaling_value"])
    value, taken = ds.scaling_value.values, 1e6 * ds.scaling_seconds.transpose("point", "turn").values
    step = np.median(taken, 1)
    ax.plot(value, taken, ".", color="C0", alpha=0.5, mew=0)
    ax.plot(value, step, "o-", color="C0", ms=4)
    ax.plot(value, step[-1] * value / value[-1], "--", color="0.5", lw=1)
    slope = np.polyfit(np.log(value[-4:]), np.log(step[-4:]), 1)[0]
    ax.text(0.05, 0.93, f"exponent {slope:.2f} (last 4 points)", transform=ax.transAxes, fontsize=8, va="top")
    ax.set(xscale="log", yscale="log", xlabel=counted, ylabel="time of a step (µs)")
    ax.margins(y=0.12)
    plain_ticks(ax.xaxis, value.tolist())
    low, high = np.log10([min(taken.min(), step[-1] * value[0] / value[-1]), taken.max()])
    decades = [m * 10.0**k for k in range(int(low) - 1, int(high) + 1) for m in (1, 2, 5)]
    plain_ticks(ax.yaxis, [t for t in decades if 10**low <= t <= 10**high])
    ax.set_title(title, fontsize="medium")
