"""Arms of the published network: what is changed in the training of notebook 09, against its runs there.

They are paired over seeds. What an arm is, the parameters that its store records say (`arms`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import xarray as xr

from ..sweep.store import parameters
from .arms import QUIET, arm
from .families import Effect, effect_of
from .intervals import in_text, interval_text, t_interval
from .limit import first_setting
from .plateau import Stores, differences, escape, images_in_all, images_seen, median_escape, with_and_without
from .registration import registered_claims

THROUGHOUT = "noise throughout"
CHANGES = {  # claim of notebook 19: how the names of its arms begin
    "layer_1": ("noise in the reads of layer 1",), "other_layers": ("noise in the reads of layer 2, 3, 4",),
    "still_biases": ("biases that do not learn",), "larger": ("raised", "spread"), "warm_up": ("warm-up",),
}  # fmt: skip
Arms = Mapping[str, Mapping[str, xr.Dataset]]  # by title of the data set and name of the arm, (seed, epoch[, layer])


def published_arms(earlier: Stores, stores: Stores) -> dict[str, dict[str, xr.Dataset]]:
    """The `Arms` of `stores`, after the runs without noise and with noise throughout of those `earlier`.

    Of stores of equal training, `earlier` or longer, but for noise and what an arm changes; else none. Raises KeyError
    where the earlier ones lack the noise of an arm.
    """
    arms: dict[str, dict[str, xr.Dataset]] = {}
    for ds in stores.values():
        if twins := [other for other in earlier.values() if _twins(ds, other)]:
            longest = first_setting(max(twins, key=images_in_all))
            sigma = float(ds.sigma.max()) or registered_claims().escape.primary.sigma or 0.0
            noisy, quiet = with_and_without(longest, sigma)
            of_set = arms.setdefault(ds.title.item(), {QUIET: quiet, THROUGHOUT: noisy})
            of_set[arm(ds)] = first_setting(ds).isel(sigma=-1)
    return arms


def _twins(ds: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether the other's training is the same, for as long or longer, but for noise and what an arm changes."""
    first, second = parameters(ds), parameters(other)
    changed = {"sigma", "schedule", "bias_rate", "variant", "warm_up"}
    free = {"epochs", "looks", "first_seed", "first_test_image"} | changed
    return differences(ds, other) <= free and second["epochs"] >= first["epochs"]


def over_images(arms: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """Test errors (arm, seed, images) of a data set's arms, with the error of `chance` beside them."""

    def error(ds: xr.Dataset) -> xr.DataArray:
        seen = images_seen(ds).astype(int).values
        return ds.test_error.reset_coords(drop=True).assign_coords(epoch=seen).rename(epoch="images")

    names = xr.Variable("arm", list(arms))
    chance = next(iter(arms.values())).chance.item()
    return xr.concat(map(error, arms.values()), names, join="inner").assign_coords(chance=chance)


def _saved(error: xr.DataArray) -> xr.DataArray:
    """By how much the error of each other arm is above that of the last, noise that is switched off."""
    return error.isel(arm=slice(-1)) - error.isel(arm=-1, drop=True)


def switched_off_effects(arms: Arms) -> dict[str, Effect]:
    """The `Effect` of notebook 13's claims on noise that is switched off: errors at the end, paired."""
    last = {title: _saved(over_images(of_set)).isel(images=-1) for title, of_set in arms.items()}
    pairs = {"off_beats_noise": THROUGHOUT, "off_beats_none": QUIET}
    return {
        claim: effect_of((title, saved.sel(arm=name, drop=True)) for title, saved in last.items())
        for claim, name in pairs.items()
    }


def switched_off_table(arms: Arms) -> pd.DataFrame:
    """Points of error by which noise that is switched off ends below the other arms, record by record, to read."""
    columns: dict[tuple[str, str], pd.Series] = {}
    for title, of_set in arms.items():
        saved = interval_text(t_interval(100 * _saved(over_images(of_set))))
        columns |= {(title, str(name)): saved.sel(arm=name).to_series() for name in saved.arm.values}
    return pd.DataFrame(columns).dropna()  # records that all data sets have


def changed_effects(arms: Arms) -> dict[str, Effect]:
    """The `Effect` of each claim registered for notebook 19: error without noise minus that of an arm, at the end."""
    settings: dict[str, list[tuple[str, xr.DataArray]]] = {claim: [] for claim in CHANGES}
    for title, of_set in arms.items():
        error = over_images(of_set).isel(images=-1)
        for claim, beginnings in CHANGES.items():
            for name in (name for name in of_set if name.startswith(beginnings)):
                settings[claim].append((f"{title}, {name}", error.sel(arm=QUIET) - error.sel(arm=name)))
    return {claim: effect_of(values) for claim, values in settings.items()}


def changed_table(arms: Arms) -> pd.DataFrame:
    """Every arm: what it saves of the error without noise, seeds that have left chance, and units that conduct."""
    rows = []
    for title, of_set in arms.items():
        error = over_images(of_set).isel(images=-1)
        for name, ds in of_set.items():
            escapes, seen = escape(ds), images_seen(ds)
            saved = 100 * (error.sel(arm=QUIET) - error.sel(arm=name))
            median = float(median_escape(escapes, seen))
            rows.append(
                {
                    "data set": title,
                    "arm": name,
                    "error (%)": in_text(t_interval(100 * error.sel(arm=name)), "{:.1f}"),
                    "points saved": "" if name == QUIET else in_text(t_interval(saved), "{:.1f}"),
                    "left chance": f"{int(escapes.escaped.sum())} of {int(escapes.ran.sum())}",
                    "after images (median)": "" if pd.isna(median) else f"{median:,.0f}",
                    "conducting units of layer 1 (%)": f"{100 * float(ds.activity.isel(epoch=-1, layer=0).mean()):.0f}",
                }
            )
    return pd.DataFrame(rows)
