"""What noise gains: the best uncertainty, what it saves, and how close to the limit it lies, chosen and measured apart.

Errors, dims and intervals as in `limit`.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from .intervals import t_interval


def held_out_choice(error: xr.DataArray, over: Sequence[str]) -> xr.DataArray:
    """For each seed, the place (along `over`, stacked) of the least mean error of the *other* seeds; -1: none was run.

    The least of many noisy means flatters itself, so what is chosen by some seeds must be measured on another.
    """

    def group(error: np.ndarray) -> np.ndarray:
        chosen = np.full(error.shape[1], -1)
        for seed in range(error.shape[1]):
            # sorted, so that ties do not hang on the order in which seeds are added
            others = np.ma.masked_invalid(np.sort(np.delete(error, seed, axis=1)))
            if others.count():
                chosen[seed] = others.mean(axis=1).filled(np.inf).argmin()
        return chosen

    return xr.apply_ufunc(
        group, _stacked(error, over),
        input_core_dims=[["setting", "seed"]], output_core_dims=[["seed"]], vectorize=True,
    )  # fmt: skip


def at_choice(values: xr.DataArray, chosen: xr.DataArray, over: Sequence[str]) -> xr.DataArray:
    """`values` at the setting that `held_out_choice` has chosen for each seed; NaN where there is none."""
    return _stacked(values, over).isel(setting=chosen.clip(min=0)).where(chosen >= 0)


def _stacked(values: xr.DataArray, over: Sequence[str]) -> xr.DataArray:
    return values.sortby(list(over)).stack(setting=over, create_index=False).drop_vars(over)


def _against_zero(error: xr.DataArray, chosen_on: xr.DataArray | None) -> tuple[xr.DataArray, ...]:
    """Errors at sigma = 0 and at sigma > 0, then what choices are made on, split alike."""
    if not (error.sigma == 0).any() or not (error.sigma > 0).any():
        raise ValueError("the benefit of noise needs errors at sigma = 0 and at some sigma > 0; one of them is missing")
    errors = (error, error if chosen_on is None else chosen_on)
    return tuple(part for e in errors for part in (e.sel(sigma=0, drop=True), e.sel(sigma=e.sigma > 0)))


def optimum(error: xr.DataArray, chosen_on: xr.DataArray | None = None, level: float = 0.95) -> xr.Dataset:
    """The benefit error(0) - error(sigma*) of each seed, at the sigma* > 0 that is best for the *other* seeds.

    `chosen_on`: the error by which sigma* is chosen, that of the validation images; without it, `error` itself.
    Returns per seed the errors `at_zero` and `at_star` and their difference `benefit`, whose t interval over seeds is
    (mean, low, high, n); and `sigma_star` (V), the choice of all seeds together. Raises ValueError without sigma = 0,
    or without others.
    """
    at_zero, noisy, _, choice = _against_zero(error, chosen_on)
    at_star = at_choice(noisy, held_out_choice(choice, ["sigma"]), ["sigma"])
    errors = {"at_zero": at_zero, "at_star": at_star, "benefit": at_zero - at_star}
    return t_interval(errors["benefit"], level=level).assign(errors | {"sigma_star": _best(choice).sigma})


def beyond_tuning(error: xr.DataArray, chosen_on: xr.DataArray | None = None, level: float = 0.95) -> xr.Dataset:
    """What noise adds to a good learning rate: the best noiseless setting's error minus the best noisy one's.

    Noiseless: any learning rate at sigma = 0; noisy: any learning rate at any sigma > 0; both the best for the *other*
    seeds by `chosen_on`, as in `optimum`. Returns per seed the errors `noiseless` and `noisy` and their `difference`,
    whose t interval over seeds is (mean, low, high, n); and the settings that all seeds together choose:
    `rate_noiseless`, `rate_noisy`, `sigma_noisy` (V).
    """
    at_zero, above, choice_zero, choice_above = _against_zero(error, chosen_on)
    rates, plane = ["learning_rate"], ["learning_rate", "sigma"]
    noiseless = at_choice(at_zero, held_out_choice(choice_zero, rates), rates)
    noisy = at_choice(above, held_out_choice(choice_above, plane), plane)
    best = _best(choice_above, *plane)
    settings = {"rate_noisy": best.learning_rate, "sigma_noisy": best.sigma}
    settings |= {"rate_noiseless": _best(choice_zero, *rates).learning_rate}
    errors = {"noiseless": noiseless, "noisy": noisy, "difference": noiseless - noisy}
    return t_interval(errors["difference"], level=level).assign(errors | settings)


def _best(error: xr.DataArray, *over: str) -> xr.Dataset:
    """Coordinates (`over`, or sigma) of the least mean error of all seeds; NaN where none was run."""
    over = over or ("sigma",)
    mean = error.mean("seed")
    ran = mean.notnull().any(over)
    place = mean.fillna(np.inf).sortby(list(over)).argmin(over)
    return xr.Dataset({dim: mean[dim].sortby(dim)[place[dim]].drop_vars(dim).where(ran) for dim in over})


def star_over_limit(error: xr.DataArray, limit: xr.DataArray) -> xr.Dataset:
    """sigma_star / sigma_c over the bracketed seeds: (mean, low, high, n), the bounds NaN.

    sigma_star, 0 allowed, has the least mean `error`: that of `choice_error`, where there are validation images.
    `limit` (seed, ...) comes from `critical_limit`; only bracketed seeds count, and only sigmas that all of them ran.
    There is no interval: a bootstrap over whole seeds does not hold its level (simulated in `tests/test_coverage.py`).
    """

    def group(sigma: np.ndarray, error: np.ndarray, limit: np.ndarray) -> tuple[float, int]:
        bracketed = np.isfinite(limit)
        complete = np.isfinite(error[:, bracketed]).all(axis=1)
        if not bracketed.any() or not complete.any():
            return np.nan, 0
        star = sigma[complete][error[complete][:, bracketed].mean(axis=1).argmin()]
        return float(star / np.exp(np.log(limit[bracketed]).mean())), int(bracketed.sum())

    error, limit = error.sortby(["sigma", "seed"]), limit.sortby("seed")
    mean, n = xr.apply_ufunc(
        group, error.sigma, error, limit,
        input_core_dims=[["sigma"], ["sigma", "seed"], ["seed"]], output_core_dims=[[]] * 2, vectorize=True,
    )  # fmt: skip
    nothing = xr.full_like(mean, np.nan)
    return xr.Dataset({"mean": mean, "low": nothing, "high": nothing, "n": n})
