"""Intervals over seeds: first functions on numpy arrays, then those that take and return labelled ones.

An interval is two-sided at `level`, as (mean, low, high, n): n values that are not NaN; with one of them the bounds
are NaN. Units are those of the values. `tests/test_coverage.py` simulates how often each contains the truth, for the 3
to 20 seeds of the study: t intervals do so too seldom where a few values differ much from the others, which are alike.
"""

import math

import numpy as np
import xarray as xr
from scipy import stats


def t_half_width(sd: np.ndarray, n: np.ndarray | int, level: float = 0.95) -> np.ndarray:
    """Half the width of the Student t interval of a mean of `n` values with standard deviation `sd`; NaN for n < 2."""
    return stats.t.ppf((1 + level) / 2, np.where(np.greater(n, 1), n - 1, np.nan)) * sd / np.sqrt(n)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float, float]:
    """The share of successes among `n`, and its Wilson interval: (mean, low, high), NaN for n = 0."""
    if not n:
        return math.nan, math.nan, math.nan
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return successes / n, interval.low, interval.high


def t_interval(values: xr.DataArray, dim: str = "seed", level: float = 0.95) -> xr.Dataset:
    """Mean over `dim` with its Student t interval: (mean, low, high, n); NaN values are left out."""
    mean, n = values.mean(dim), values.count(dim)
    half = xr.apply_ufunc(t_half_width, values.std(dim, ddof=1), n, kwargs={"level": level})
    return xr.Dataset({"mean": mean, "low": mean - half, "high": mean + half, "n": n})


def paired_share(difference: xr.DataArray, dim: str = "seed", level: float = 0.95) -> xr.Dataset:
    """Mean over `dim` of the differences of paired outcomes, each -1, 0 or 1: (mean, low, high, n), between -1 and 1.

    The interval of Bonett and Price (2012), which holds its level where few pairs differ, as a t interval does not:
    that of Wald with one more pair of either kind.
    """
    n = difference.count(dim)
    first, second = ((difference * sign > 0).sum(dim) for sign in (1, -1))
    more, less = (first + 1) / (n + 2), (second + 1) / (n + 2)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt((more + less - (more - less) ** 2) / (n + 2))
    bounds = {"low": (more - less - half).clip(min=-1), "high": (more - less + half).clip(max=1)}
    known = {name: bound.where(n > 1) for name, bound in bounds.items()}
    return xr.Dataset({"mean": difference.mean(dim), **known, "n": n})


def share(outcomes: xr.DataArray, dim: str = "seed", level: float = 0.95) -> xr.Dataset:
    """Share over `dim` of the outcomes that are 1, not 0, with its Wilson interval: (mean, low, high, n)."""
    n = outcomes.count(dim)
    of_each = xr.apply_ufunc(wilson, outcomes.sum(dim), n, output_core_dims=[[]] * 3, vectorize=True,
                             kwargs={"level": level})  # fmt: skip
    return xr.Dataset(dict(zip(("mean", "low", "high"), of_each, strict=True)) | {"n": n})


def geometric_interval(values: xr.DataArray, dim: str = "seed", level: float = 0.95) -> xr.Dataset:
    """Geometric mean over `dim` with the t interval of the log: (mean, low, high, n); NaN values are left out."""
    pooled = t_interval(xr.ufuncs.log(values), dim, level)
    with np.errstate(over="ignore"):  # two seeds that differ exclude hardly anything at a level near 1
        return pooled.assign({name: np.exp(pooled[name]) for name in ("mean", "low", "high")})


def in_text(interval: xr.Dataset, form: str) -> str:
    """Text of a single (mean, low, high), each in a format: "1.4 [1.2, 1.6]" for "{:.1f}"."""
    mean, low, high = (form.format(float(interval[name])) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def interval_text(interval: xr.Dataset) -> xr.DataArray:
    """Text of each (mean, low, high, n), with three significant digits: "1.4 [1.2, 1.6], n = 3"."""

    def text(mean: float, low: float, high: float, n: float) -> str:
        return f"{mean:.3g} [{low:.3g}, {high:.3g}], n = {n:.0f}"

    return xr.apply_ufunc(text, *(interval[name] for name in ("mean", "low", "high", "n")), vectorize=True)
