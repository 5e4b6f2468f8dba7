"""From a store of runs to errors, limits and exponents, with intervals over the seeds.

The data contract of `study` and `figures`. A *store* is an xarray Dataset on the full grid (dataset, learning_rate,
averaging, samples, sigma, seed, epoch[, layer]), a dimension of length 1 being allowed wherever nothing varies:
`test_error`, `train_error` in [0, 1] over epoch, NaN where a run diverged or was not made; `activity` (share of
conducting hidden diode units) and `conductance` (S) over epoch and layer; `diverged` (bool); `chance` (dataset), the
error of always choosing the commonest class; `title` (dataset). A store may hold `validation_error`, on images set
apart for choices, and measures of each layer: `response` (V), `signal_to_noise`, `conductance_sd` (S), `clamped`.
`sigma` is the standard deviation of one read-out in volts and includes 0. `attrs["parameters"]` is a JSON string
(sizes, batch_size, epochs, train_images, ...).

An *error* here is a DataArray in [0, 1] with at least the dims (sigma, seed); other dims are carried along and each of
their points is analysed alone. NaN means "not run". The seed is the statistical unit throughout: an interval says what
other seeds would give. All intervals are two-sided at `level`; with one seed they are NaN.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.optimize import OptimizeWarning, curve_fit, isotonic_regression
from scipy.special import expit, logit

from ..files import StoreError
from ..sweep.store import parameters, place
from .intervals import geometric_interval, share, t_interval
from .registration import Definition, registered_claims

HALVINGS = 200  # of the seeds, at random
TEN_TO_NINETY = 81.0  # a logistic curve makes 10 to 90 % of its rise over 2 ln 9 widths: a factor of 81**width


def require(ds: xr.Dataset, *variables: str, dims: Sequence[str] = ()) -> xr.Dataset:
    """`ds`, if it has these variables and dims; else StoreError, which names the file and all that it lacks."""
    missing = [f"variable {name}" for name in variables if name not in ds]
    missing += [f"dimension {name}" for name in dims if name not in ds.dims]
    if missing:
        raise StoreError(f"{place(ds)}: lacks {', '.join(missing)}")
    return ds


def final_error(ds: xr.Dataset, last: int = 1, of: str = "test_error") -> xr.DataArray:
    """Test error (or another, `of`) after training, the mean of the `last` records; a diverged run counts as chance."""
    require(ds, of, "diverged", "chance", dims=("sigma", "seed", "epoch"))
    error = ds[of].isel(epoch=slice(-last, None)).mean("epoch", skipna=False, keep_attrs=True)
    diverged = ds.diverged == 1  # merging stores may have made it a float, NaN where not run
    if "epoch" in diverged.dims:
        diverged = diverged.any("epoch")
    return error.where(~diverged, ds.chance).transpose(*error.dims).rename("error")


def training_steps(ds: xr.Dataset) -> int:
    """Steps of training behind the last record."""
    recorded = parameters(ds, "train_images", "batch_size")
    return round(float(ds.epoch.max()) * (recorded["train_images"] // recorded["batch_size"]))


def choice_error(ds: xr.Dataset) -> xr.DataArray:
    """The final error that choices are made on: of the validation images or, where a store has none, the test error."""
    return final_error(ds, of="validation_error" if "validation_error" in ds else "test_error")


def distinct(stores: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Stores without those that hold the runs of an earlier one: a network under several names, under its first."""
    first: dict[tuple, str] = {}
    return {name: ds for name, ds in stores.items() if first.setdefault(tuple(ds["run"].values.flat), name) == name}


def first_setting(ds: xr.Dataset) -> xr.Dataset:
    """The first data set, learning rate and read-out of a store, over (sigma, seed, epoch[, layer])."""
    return ds.isel({dim: 0 for dim in ds.dims if dim in ("dataset", "learning_rate", "averaging", "samples")})


def half_way(error: xr.DataArray, chance: xr.DataArray | float) -> xr.DataArray:
    """The `level_at_limit` half way between chance and the lowest mean error over sigma."""
    return level_at_limit(error, chance, "half way")


def level_at_limit(error: xr.DataArray, chance: xr.DataArray | float, definition: Definition) -> xr.DataArray:
    """The error that is crossed at the limit; NaN where the network never learns.

    By definition: half way from the lowest mean error over sigma to chance ("half way"), or to the highest mean error
    above the optimum ("midpoint"); or `onset` of `params/claims.yaml` above the lowest ("onset"). A network learns when
    its lowest mean error is below `learns` of chance there. Raises ValueError for another definition.
    """
    fixed, mean = registered_claims(), error.mean("seed")
    lowest = mean.min("sigma")
    match definition:
        case "half way":
            level = (lowest + chance) / 2
        case "midpoint":
            optimum = mean.fillna(np.inf).idxmin("sigma")
            level = (lowest + mean.where((mean.sigma >= optimum) & (mean.sigma > 0)).max("sigma")) / 2
        case "onset":
            level = lowest + fixed.second.onset
        case _:
            raise ValueError(f"definition = {definition!r}: allowed are {', '.join(fixed.second.definitions)}")
    return level.where(lowest < fixed.learns * chance)


def stuck(error: xr.DataArray, chance: xr.DataArray | float) -> xr.DataArray:
    """Whether runs are at chance, with an error of `learns` of it (registered) or more: 1, 0, NaN where not made."""
    return (error >= registered_claims().learns * chance).where(error.notnull())


def learning_share(
    error: xr.DataArray, chance: xr.DataArray | float, half: xr.DataArray | None = None, level: float = 0.95
) -> xr.Dataset:
    """Share of the seeds that learn (error below `half`) with its Wilson interval: (mean, low, high, n).

    `half` is `half_way` of this error unless another level is given. Near a limit runs are bimodal, and a mean error
    describes none of them; this does.
    """
    learn = error < (half_way(error, chance) if half is None else half)
    return share(learn.where(error.notnull()), level=level)


def _logistic_crossing(x: np.ndarray, y: np.ndarray, half: float, guess: float) -> tuple[float, float]:
    """Where a logistic curve with free asymptotes, fitted to y(x), crosses `half`, and its width; NaN if it doesn't."""
    if len(x) < 5:  # it has four parameters
        return math.nan, math.nan
    step = np.ptp(x) / (len(x) - 1)
    u = (x - x[0]) / step  # in steps of the grid, so that the fit knows no units

    def curve(u: np.ndarray, low: float, rise: float, middle: float, width: float) -> np.ndarray:
        return low + rise * expit((u - middle) / width)

    def slopes(u: np.ndarray, low: float, rise: float, middle: float, width: float) -> np.ndarray:
        z = (u - middle) / width
        share = expit(z)
        steep = rise * share * (1 - share) / width
        return np.column_stack([np.ones_like(u), share, -steep, -steep * z])

    # a turn sharper than a tenth of a step can't be told from a jump
    bounds = np.array([(0, 1e-6, 0, 0.1), (1, 1, u[-1], u[-1])])
    start = np.clip((y.min(), np.ptp(y), (guess - x[0]) / step, 0.5), *bounds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # the covariance, which isn't used
            low, rise, middle, width = curve_fit(curve, u, y, p0=start, bounds=bounds, jac=slopes)[0]
    except RuntimeError:  # no convergence
        return math.nan, math.nan
    share = (half - low) / rise
    place = float(x[0] + step * (middle + width * logit(share))) if 0 < share < 1 else math.nan
    return place, float(step * width)


def _seed_limit(sigma: np.ndarray, error: np.ndarray, half: float) -> tuple[float, float, str, str]:
    """The limit of a seed, its width, how they were estimated, and why not: sigma (k,) > 0 rising, from the optimum."""
    run = np.isfinite(error)
    if not run.any():
        return math.nan, math.nan, "none", "not run"
    if math.isnan(half):
        return math.nan, math.nan, "none", "never learns"
    x, y = np.log(sigma[run]), error[run]
    rising = isotonic_regression(y).x
    if rising[0] >= half:
        return math.nan, math.nan, "none", "above half way from the optimum on"
    if rising[-1] < half:
        return math.nan, math.nan, "none", "below half way even at the largest σ"
    after = int(np.argmax(rising >= half))
    crossing = float(np.interp(half, rising[after - 1 : after + 1], x[after - 1 : after + 1]))
    fitted, width = _logistic_crossing(x, y, half, crossing)
    if x[0] <= fitted <= x[-1]:
        return math.exp(fitted), TEN_TO_NINETY**width, "logistic", ""
    return math.exp(crossing), math.nan, "interpolation", ""


def sigma_step(sigma: xr.DataArray) -> float:
    """The median ratio of neighbouring positive sigmas: the grain of the sweep; NaN for fewer than two."""
    positive = np.sort(sigma.values[sigma.values > 0])
    return float(np.median(positive[1:] / positive[:-1])) if len(positive) > 1 else math.nan


def critical_limit(
    error: xr.DataArray, chance: xr.DataArray | float, level: float = 0.95, definition: Definition = "half way"
) -> xr.Dataset:
    """The critical limit sigma_c in volts: where the error, above the optimum, crosses `level_at_limit`.

    One limit a seed, from a logistic fit on log sigma (> 0) with free asymptotes. A seed is *bracketed* when
    the best rising step curve through its errors (isotonic regression) starts below half way and ends above;
    other limits are censored (NaN, with a `reason`), never extrapolated. Where there are fewer than five
    sigmas, or the fit fails or leaves the grid, the limit is where the rising curve, interpolated on log
    sigma, crosses (`method` "interpolation").

    Returns per seed `limit`, `bracketed`, `method`, `reason` and `width`, the ratio of the sigmas at which the fitted
    curve has made 90 and 10 % of its rise, NaN without a fit; over the bracketed seeds the geometric `mean`
    with `low`, `high` (t interval of the log) and `n`; `runs` (number of seeds run) and the level `half`. The
    interval knows nothing of the grid: a turn sharper than `sigma_step` is located within one step only.
    """
    error = error.sortby("sigma")

    def group(sigma: np.ndarray, error: np.ndarray, half: float) -> tuple[np.ndarray, ...]:
        means = np.ma.masked_invalid(error).mean(axis=1).filled(np.inf)
        side = (np.arange(len(sigma)) >= means.argmin()) & (sigma > 0)
        limits = [_seed_limit(sigma[side], values[side], half) for values in error.T]
        return tuple(np.array(column, dtype=object) for column in zip(*limits, strict=True))

    half = level_at_limit(error, chance, definition)
    limit, width, method, reason = xr.apply_ufunc(
        group, error.sigma, error, half,
        input_core_dims=[["sigma"], ["sigma", "seed"], []], output_core_dims=[["seed"]] * 4, vectorize=True,
    )  # fmt: skip
    limit = limit.astype(float)
    return geometric_interval(limit, level=level).assign(
        {
            "limit": limit,
            "width": width.astype(float),
            "bracketed": limit.notnull(),
            "method": method.astype(str),
            "reason": reason.astype(str),
            "runs": error.notnull().any("sigma").sum("seed"),
            "half": half,
        }
    )


def at_limit(values: xr.DataArray, limit: xr.DataArray) -> xr.DataArray:
    """`values` > 0 over sigma, interpolated (log-log) at each seed's limit; NaN where that is not bracketed."""
    values = values.sortby("sigma").sel(sigma=values.sigma > 0)

    def group(sigma: np.ndarray, values: np.ndarray, limit: float) -> float:
        positive = np.isfinite(values) & (values > 0)
        if not positive.any() or math.isnan(limit):
            return math.nan
        return math.exp(np.interp(math.log(limit), np.log(sigma[positive]), np.log(values[positive])))

    return xr.apply_ufunc(
        group, values.sigma, values, limit, input_core_dims=[["sigma"], ["sigma"], []], vectorize=True
    )


def epochs_until(error: xr.DataArray, level: xr.DataArray | float) -> xr.DataArray:
    """Epochs until the error is below `level` for the first time, to within a record; infinite where it never is."""
    return error.epoch.where(error < level, np.inf).min("epoch")


def scaling_exponent(limits: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """Exponent p of sigma_c ~ N^p from limits (samples, seed, ...): a `slope` a seed, t interval over seeds.

    A seed's slope uses the N it has a limit for, and is NaN if these are fewer than three. Where the turn is
    sharper than the steps of the sweep, the error of the grid is common to all seeds and the interval misses
    it. Under p = 1/2 it cancels if sqrt(N) moves by whole steps: sweep N = 1, 4, 16 in steps of 2 or sqrt(2).
    """

    def slope(samples: np.ndarray, limits: np.ndarray) -> float:
        bracketed = np.isfinite(limits)
        if bracketed.sum() < 3:  # two points fit any line
            return math.nan
        return float(np.polyfit(np.log(samples[bracketed]), np.log(limits[bracketed]), 1)[0])

    slopes = xr.apply_ufunc(slope, limits.samples, limits, input_core_dims=[["samples"], ["samples"]], vectorize=True)
    return t_interval(slopes, level=level).assign(slope=slopes)


def collapse(error: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """How well the errors of N averaged reads fall on those of a single one at equal sigma/sqrt(N).

    For each N > 1, over the `points` where sigma/sqrt(N) coincides with a sigma of N = 1: the mean difference
    error(N, sigma) - error(1, sigma/sqrt(N)), (mean, low, high, n) over (samples, ...), t interval over seeds; and the
    `distance` of the two curves (see `curve_distance`) with its `floor`. Raises ValueError without samples = 1.
    """
    rows = []
    for count in error.samples.values[error.samples.values > 1]:
        averaged, single = _coinciding(error, [count])
        difference = t_interval((averaged - single).mean("point"), level=level)
        distance = curve_distance(error.sel(samples=[1, count]))
        rows.append(difference.assign(points=averaged.sizes["point"], distance=distance["mean"], floor=distance.floor))
    return xr.concat(rows, xr.DataArray(error.samples[error.samples > 1].values, dims="samples", name="samples"))


def curve_distance(error: xr.DataArray, rng: int = 0) -> xr.Dataset:
    """Mean absolute distance of all curves of N > 1 from that of N = 1 on sigma/sqrt(N): `mean`, `floor` and `n` seeds.

    A curve is the mean over seeds. An absolute value is never 0: `floor` is the distance that two curves of n seeds
    have by the seeds alone, estimated from random halves of the seeds of N = 1. Its factor sqrt(1/2) allows for the
    halves being noisier than the whole.
    """

    def group(averaged: np.ndarray, single: np.ndarray) -> tuple[float, float, int]:
        complete = np.isfinite(averaged + single).all(axis=0)
        averaged, single, n = averaged[:, complete], single[:, complete], int(complete.sum())
        if not n or not len(averaged):
            return np.nan, np.nan, n
        distance = float(np.abs((averaged - single).mean(axis=1)).mean())
        if n == 1:
            return distance, np.nan, n
        generator = np.random.default_rng(rng)
        halves = np.stack([generator.permutation(n) for _ in range(HALVINGS)])
        first, second = single[:, halves[:, : n // 2]].mean(-1), single[:, halves[:, n // 2 :]].mean(-1)
        return distance, float(math.sqrt(0.5) * np.abs(first - second).mean()), n

    averaged, single = _coinciding(error.sortby("seed"), error.samples.values[error.samples.values > 1])
    distances = xr.apply_ufunc(
        group, averaged, single, input_core_dims=[["point", "seed"]] * 2, output_core_dims=[[]] * 3, vectorize=True
    )
    return xr.Dataset(dict(zip(("mean", "floor", "n"), distances, strict=True)))


def _coinciding(error: xr.DataArray, counts: Sequence[int] | np.ndarray) -> tuple[xr.DataArray, xr.DataArray]:
    """error(N, sigma) for N in `counts` and error(1, sigma/sqrt(N)), along `point`, where both were swept."""
    if 1 not in error.samples:
        raise ValueError("a collapse compares with a single read-out, samples = 1, which this error does not hold")
    sigma = error.sigma.values
    scaled = sigma / np.sqrt(np.asarray(counts))[:, None]  # of (count, sigma)
    pairs = np.nonzero(np.isclose(scaled[..., None], sigma, rtol=1e-6) & (sigma[:, None] > 0))
    of_many, of_one = (xr.DataArray(places, dims="point") for places in pairs[1:])
    averaged = error.sel(samples=xr.DataArray(np.asarray(counts)[pairs[0]], dims="point")).isel(sigma=of_many)
    single = error.sel(samples=1, drop=True).isel(sigma=of_one)
    return averaged.drop_vars(["samples", "sigma"]), single.drop_vars("sigma")


def limit_ratio(limits_a: xr.DataArray, limits_b: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """Ratio a/b of limits paired over seeds: geometric (mean, low, high, n), t interval of the log."""
    return geometric_interval(limits_a / limits_b, level=level)
