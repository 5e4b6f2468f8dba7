"""What one pass of untrained networks tells, and the conjecture that their critical limits follow from it.

The conjecture: read-out noise spoils training when it exceeds what the nudge moves in the layer where it moves least,
sigma_c = c sqrt(N) rms(dV of the weakest layer), with a c of order 1 that is the same for all networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy import stats

from .intervals import t_half_width
from .limit import critical_limit, distinct, final_error, first_setting


def predictions(stores: Mapping[str, xr.Dataset], before: xr.Dataset) -> xr.Dataset:
    """Each network's critical limit beside what its untrained weakest layer responds, over `network`.

    `response` (V): least over layers of the geometric mean over seeds, times sqrt(N); `limit`, `low`, `high` (V), `n`
    and `runs`: of `critical_limit`; `reason`, why some seed has no limit. Sweeps with several settings give
    their first one. A network that appears under several names is taken once, under its first.
    """
    rows: dict[str, dict[str, object]] = {}
    for name, ds in distinct(stores).items():
        setting = first_setting(ds)
        limits = critical_limit(final_error(setting), setting.chance)
        weakest = float(np.exp(np.log(before.response.sel(network=name)).mean("seed")).min("layer"))
        rows[name] = {
            "response": weakest * math.sqrt(float(setting.samples)),
            "limit": float(limits["mean"]),
            **{key: float(limits[key]) for key in ("low", "high")},
            **{key: int(limits[key]) for key in ("n", "runs")},
            "reason": "; ".join(sorted({*limits.reason.values.tolist()} - {"", "not run"})),
        }
    columns = {key: ("network", [row[key] for row in rows.values()]) for key in next(iter(rows.values()))}
    return xr.Dataset(columns, {"network": list(rows)})


def power_law(networks: xr.Dataset, level: float = 0.95) -> xr.Dataset:
    """Fit limit = a response^p over the networks of `predictions`, and the conjecture's limit = c response.

    `exponent` and `c` over `part` (mean, low, high): least squares on logs, t intervals over the `n` networks that have
    a limit; `scatter`, the factor by which limits scatter about c response (one standard deviation). With fewer than
    three networks there is no exponent.
    """
    bracketed = networks.limit.notnull()
    x, y = (np.log(networks[name].values[bracketed]) for name in ("response", "limit"))
    n, nan = len(x), math.nan
    exponent, c, scatter = [nan] * 3, [nan] * 3, nan
    if n > 2 and np.ptp(x) > 0:
        fit = stats.linregress(x, y)
        half = stats.t.ppf((1 + level) / 2, n - 2) * fit.stderr
        exponent = [fit.slope, fit.slope - half, fit.slope + half]
    if n:
        ratio = y - x
        scatter = math.exp(ratio.std(ddof=1)) if n > 1 else nan
        half = t_half_width(ratio.std(ddof=1), n, level) if n > 1 else nan
        c = [math.exp(ratio.mean() + shift) for shift in (0, -half, half)]
    return xr.Dataset(
        {"exponent": ("part", exponent), "c": ("part", c), "scatter": scatter, "n": n},
        {"part": ["mean", "low", "high"]},
    )
