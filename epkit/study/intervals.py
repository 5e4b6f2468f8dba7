"""Intervals over seeds: first functions on numpy arrays, then those that take and return labelled ones.

An interval is two-sided at `level`, as (mean, low, high, n): n values that are not NaN; with one of them the bounds are
NaN. Units are those of the values.
"""

import math
from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import stats

RESAMPLES = 2000
Statistic = Callable[..., np.ndarray]


def t_half_width(sd: np.ndarray, n: np.ndarray | int, level: float = 0.95) -> np.ndarray:
    """Half the width of the Student t interval of a mean of `n` values with standard deviation `sd`; NaN for n < 2."""
    return stats.t.ppf((1 + level) / 2, np.where(np.greater(n, 1), n - 1, np.nan)) * sd / np.sqrt(n)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float, float]:
    """The share of successes among `n`, and its Wilson interval: (mean, low, high), NaN for n = 0."""
    if not n:
        return math.nan, math.nan, math.nan
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return successes / n, interval.low, interval.high


def bootstrap(statistic: Statistic, n: int, level: float, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Percentile bootstrap interval (low, high) over `n` whole seeds.

    `statistic(seeds, axis)` takes numbers of seeds, (RESAMPLES, n), and reduces `axis`, the last; what it carries along
    is in front: (..., RESAMPLES). Percentile, not BCa, which is undefined on equal values, as seeds at chance often
    have; there the interval has zero width.
    """
    interval = stats.bootstrap(
        (np.arange(n),), statistic, axis=-1, n_resamples=RESAMPLES, confidence_level=level, method="percentile",
        rng=generator,
    ).confidence_interval  # fmt: skip
    return interval.low, interval.high


def bootstrap_of_means(values: np.ndarray, level: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval (low, high) of the mean over the last dim, from (..., n).

    All cells of as many values take the same resamples, of the generator of `seed`, and sort their values, so that the
    result depends neither on other cells nor on the order of the values.
    """
    values = np.sort(np.where(np.isfinite(values), values, np.nan))  # NaN to the end
    counts = np.isfinite(values).sum(-1)
    bounds = np.full((2, *counts.shape), np.nan)
    for n in set(counts[counts > 1].tolist()):
        cells = counts == n
        sample = values[cells][:, :n]

        def mean(places: np.ndarray, axis: int, sample: np.ndarray = sample) -> np.ndarray:
            # added up in the same order whatever the other cells are
            return np.ascontiguousarray(sample[:, places]).mean(axis)

        bounds[:, cells] = bootstrap(mean, n, level, np.random.default_rng(seed))
    return bounds[0], bounds[1]


def t_interval(values: xr.DataArray, dim: str = "seed", level: float = 0.95) -> xr.Dataset:
    """Mean over `dim` with its Student t interval: (mean, low, high, n); NaN values are left out."""
    mean, n = values.mean(dim), values.count(dim)
    half = xr.apply_ufunc(t_half_width, values.std(dim, ddof=1), n, kwargs={"level": level})
    return xr.Dataset({"mean": mean, "low": mean - half, "high": mean + half, "n": n})


def geometric_interval(values: xr.DataArray, dim: str = "seed", level: float = 0.95) -> xr.Dataset:
    """Geometric mean over `dim` with the t interval of the log: (mean, low, high, n); NaN values are left out."""
    pooled = t_interval(xr.ufuncs.log(values), dim, level)
    return pooled.assign({name: np.exp(pooled[name]) for name in ("mean", "low", "high")})


def mean_interval(values: xr.DataArray, dim: str = "seed", level: float = 0.95, rng: int = 0) -> xr.Dataset:
    """Mean over `dim` with the interval of `bootstrap_of_means`, of seed `rng`: (mean, low, high, n)."""
    low, high = xr.apply_ufunc(
        bootstrap_of_means, values, input_core_dims=[[dim]], output_core_dims=[[], []],
        kwargs={"level": level, "seed": rng},
    )  # fmt: skip
    return xr.Dataset({"mean": values.mean(dim), "low": low, "high": high, "n": values.count(dim)})


def interval_text(interval: xr.Dataset) -> xr.DataArray:
    """Text of each (mean, low, high, n), with three significant digits: "1.4 [1.2, 1.6], n = 3"."""

    def text(mean: float, low: float, high: float, n: float) -> str:
        return f"{mean:.3g} [{low:.3g}, {high:.3g}], n = {n:.0f}"

    return xr.apply_ufunc(text, *(interval[name] for name in ("mean", "low", "high", "n")), vectorize=True)
