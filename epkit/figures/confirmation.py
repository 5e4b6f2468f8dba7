"""The figures of notebook 10: fresh seeds and images beside the exploratory half, and √N beside its control."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..study.intervals import geometric_interval, t_interval
from ..study.limit import final_error, scaling_exponent, stuck
from ..study.registration import registered_claims
from . import canvas

ARMS: dict[str, dict[str, Any]] = {"read-outs": {"color": "C0"}, "control": {"color": "C1", "mfc": "w"}}


def replication(fresh: xr.Dataset, earlier: xr.Dataset | None) -> Figure:
    """Over sigma, a column a data set: mean test error, above, and share of the runs stuck at chance, below.

    Fresh seeds as lines, with 95 % t intervals of the error; `earlier`, where there is such a store, dashed. A colour a
    learning rate. One averaging, one number of samples: else ValueError.
    """
    fresh = canvas.single(fresh, *canvas.READS)
    earlier = None if earlier is None else canvas.single(earlier, *canvas.READS)
    figure, axes = canvas.blank(2, fresh.sizes["dataset"], (3.2, 2.5), sharex=True, sharey="row")
    for (above, below), name in zip(axes.T, fresh.dataset.values, strict=True):
        for ds, look in ((fresh, {"ls": "-", "lw": 1.3}), (earlier, {"ls": ":", "lw": 1.0})):
            if ds is None or name not in ds.dataset:
                continue
            error = final_error(ds).sel(dataset=name).sortby("sigma")
            x = np.where(error.sigma > 0, error.sigma, canvas.place_of_zero(fresh.sigma.values))
            for number, rate in enumerate(error.learning_rate.values):
                runs, color = error.sel(learning_rate=rate), f"C{number}"
                mean = t_interval(runs)
                above.plot(x, mean["mean"], color=color, label=f"η = {rate:g}", **look)
                if ds is fresh:
                    above.vlines(x, mean.low, mean.high, color=color, lw=0.9)
                below.plot(x, stuck(runs, ds.chance.sel(dataset=name)).mean("seed"), color=color, **look)
        above.set_title(canvas.literally(fresh.title.sel(dataset=name).item()), fontsize="medium")
        canvas.error_axis(above, fresh.chance.sel(dataset=name).item())
        canvas.percent_axis(below, "stuck at chance (%)", -0.03, 1.03)
        canvas.sigma_axis(above, fresh.sigma.values)
        canvas.sigma_axis(below, fresh.sigma.values)
    rates = {f"η = {rate:g}": {"color": f"C{k}", "lw": 2} for k, rate in enumerate(fresh.learning_rate.values)}
    canvas.key(figure, rates | ({"exploratory half": {"color": "0.3", "ls": ":"}} if earlier is not None else {}))
    note = f"bars: 95 % t intervals; stuck: error of {registered_claims().learns:g} of chance or more"
    return canvas.finish(figure, "Is the same measured again?", fresh, note)


def scaling(limits: xr.DataArray, ds: xr.Dataset) -> Figure:
    """The limit over N, from `study.scaling_limits` of `ds`, with the exponent of each arm; the control's is 1/2.

    One data set, one learning rate: else ValueError.
    """
    figure, axes = canvas.blank(1, 1, (5.2, 3.6))
    ax = axes[0, 0]
    for arm, look in ARMS.items():
        if arm not in limits.arm:
            continue
        of_arm = limits.sel(arm=arm)
        slope = canvas.steady(scaling_exponent(of_arm))
        shift = 1.04 if arm == "control" else 1.0
        label = f"{arm}: exponent {float(slope['mean']):.3f} [{float(slope.low):.3f}, {float(slope.high):.3f}]"
        canvas.interval(ax, limits.samples * shift, canvas.steady(geometric_interval(of_arm)), label=label, **look)
    middle = geometric_interval(limits.sel(arm="read-outs"))["mean"]
    ax.plot(limits.samples, float(middle[0]) * np.sqrt(limits.samples / limits.samples[0]), "k:", lw=1, label="√N")
    ax.set(xscale="log", yscale="log", xlabel="number of read-outs N", ylabel=canvas.LIMIT)
    canvas.plain_ticks(ax.xaxis, limits.samples.values.tolist())
    ax.legend(fontsize="small", loc="upper left")
    ds = canvas.single(ds, "dataset", "learning_rate")
    return canvas.finish(
        figure, f"Does averaging move the limit by √N? {canvas.setting(ds, ds.learning_rate)}", ds,
        "bars: geometric means with 95 % t intervals over seeds; exponents likewise",
        "control: a single read-out with other data order and noise, scaled by √N",
    )  # fmt: skip
