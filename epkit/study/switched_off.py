"""Noise that is switched off while a network of the published size trains, against none and noise throughout."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import xarray as xr

from ..sweep.store import parameters
from .arms import QUIET
from .families import Effect, effect_of
from .intervals import interval_text, t_interval
from .plateau import differences, images_seen

THROUGHOUT = "noise throughout"


def published_arms(earlier: Mapping[str, xr.Dataset], stores: Mapping[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    """Test errors of networks that differ only in when noise is there, by data set: (arm, seed, images).

    `stores` with noise until some image, and `earlier`, longer ones without noise and with noise throughout.
    """
    curves = {}
    for ds in stores.values():
        twins = [other for other in earlier.values() if _twins(ds, other)]
        if parameters(ds).get("schedule", {}).get("rule") == "until" and twins:
            longest = max(twins, key=lambda other: int(images_seen(other)[-1]))
            sigma = float(ds.sigma.max())
            errors = {
                QUIET: _over_images(longest.sel(sigma=0.0)),
                THROUGHOUT: _over_images(longest.sel(sigma=sigma, method="nearest")),
                f"noise in the first {parameters(ds)['schedule']['images']:,} images": _over_images(ds.isel(sigma=-1)),
            }
            arms = xr.Variable("arm", list(errors))
            curves[ds.title.item()] = xr.concat(list(errors.values()), arms, join="inner").assign_coords(
                chance=ds.chance.item()
            )
    return curves


def _twins(ds: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether the other's training is the same, for as long or longer, but for its noise."""
    first, second = parameters(ds), parameters(other)
    free = {"epochs", "sigma", "schedule", "looks", "first_seed", "first_test_image"}
    return differences(ds, other) <= free and second["epochs"] >= first["epochs"]


def _over_images(setting: xr.Dataset) -> xr.DataArray:
    error = setting.test_error.isel(dataset=0, averaging=0, samples=0, learning_rate=0, drop=True).drop_vars("sigma")
    return error.assign_coords(epoch=images_seen(setting).astype(int).values).rename(epoch="images")


def _saved(error: xr.DataArray) -> xr.DataArray:
    """By how much each other arm's error is above that of the last, noise that is switched off."""
    return error.isel(arm=slice(-1)) - error.isel(arm=-1, drop=True)


def published_effects(curves: Mapping[str, xr.DataArray]) -> dict[str, Effect]:
    """The `Effect` of the claims on noise that is switched off, of `published_arms`: errors at the end, paired."""
    last = {title: _saved(error).isel(images=-1) for title, error in curves.items()}
    pairs = {"off_beats_noise": THROUGHOUT, "off_beats_none": QUIET}
    return {
        claim: effect_of((title, saved.sel(arm=name, drop=True)) for title, saved in last.items())
        for claim, name in pairs.items()
    }


def published_table(curves: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """Points of error by which noise that is switched off ends below the other arms, record by record, to read."""
    columns: dict[tuple[str, str], pd.Series] = {}
    for title, error in curves.items():
        saved = interval_text(t_interval(100 * _saved(error)))
        columns |= {(title, str(arm)): saved.sel(arm=arm).to_series() for arm in saved.arm.values}
    return pd.DataFrame(columns).dropna()  # records that all data sets have
