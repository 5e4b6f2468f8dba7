"""The paper's numbers in a network of its size: the limit after long training, and which seeds learn without noise.

Stores with noise hold the limit of a data set, those without it many seeds at several learning rates.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pandas as pd
import xarray as xr

from .claims import REPORTED
from .families import Effect, effect_of
from .intervals import geometric_interval, in_text, share, t_interval
from .limit import critical_limit, final_error, first_setting, stuck
from .plateau import Stores


def quiet_and_noisy(stores: Stores) -> tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Stores without noise, and stores with it."""
    quiet = {name: ds for name, ds in stores.items() if ds.sizes["sigma"] == 1}
    return quiet, {name: ds for name, ds in stores.items() if name not in quiet}


def quiet_errors(quiet: Stores) -> dict[str, xr.DataArray]:
    """Test errors (learning_rate, seed) after training without noise of each data set.

    Beside them the error of `chance`, and the accuracy that is `reported` without noise, NaN where none is.
    """
    errors = {}
    for ds in quiet.values():
        reported = [numbers[0] for name, numbers in REPORTED.items() if ds.dataset.item().startswith(name)]
        error = final_error(ds).isel(dataset=0, averaging=0, samples=0, sigma=0, drop=True)
        beside = {"chance": ds.chance.item(), "reported": reported[0] if reported else float("nan")}
        errors[ds.title.item()] = error.dropna("learning_rate", how="all").assign_coords(beside)
    return errors


def reported_effects(stores: Stores) -> dict[str, Effect]:
    """The `Effect` of each claim registered for notebook 18."""
    quiet, noisy = quiet_and_noisy(stores)
    settings = list(_settings(quiet_errors(quiet)))
    limits = {
        ds.title.item(): critical_limit(final_error(first_setting(ds)), ds.chance.item()).limit for ds in noisy.values()
    }
    ratios = ((f"{a} / {b}", limits[a] / limits[b]) for a, b in itertools.combinations(limits, 2))
    return {
        "value": effect_of(limits.items(), geometric_interval),
        "datasets": effect_of(ratios, geometric_interval),
        "dead": effect_of(((label, stuck(error, error.chance)) for label, error in settings), share, complete=True),
        "mixture": effect_of(
            ((label, 1 - error - error.reported) for label, error in settings if error.reported.notnull()),
            complete=True,
        ),
    }


def reported_table(quiet: Stores) -> pd.DataFrame:
    """Of each data set and rate: how many seeds are at chance, and the accuracies (%) of all and of the others."""
    rows = {}
    for label, error in _settings(quiet_errors(quiet)):
        dead, accuracy = stuck(error, error.chance), 100 * (1 - error)
        alive = accuracy.where(dead == 0)
        rows[label] = {
            "seeds": int(dead.count()),
            "at chance (%)": in_text(100 * share(dead), "{:.0f}"),
            "accuracy of all": in_text(t_interval(accuracy), "{:.1f}"),
            "of those that learn": in_text(t_interval(alive), "{:.1f}") if alive.count() > 1 else "",
            "reported": f"{100 * float(error.reported):.0f}" if error.reported.notnull() else "",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _settings(errors: dict[str, xr.DataArray]) -> Iterator[tuple[str, xr.DataArray]]:
    for title, error in errors.items():
        for rate in error.learning_rate.values:
            yield f"{title}, rates × {rate:g}", error.sel(learning_rate=rate, drop=True)
