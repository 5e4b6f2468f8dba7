"""Arms of the published network: what is changed in the training of notebook 09, against its runs there.

They are paired over seeds. What an arm is, the parameters that its store records say (`arms`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
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
EARLY = 60_000  # images


class Pair(NamedTuple):
    """What a claim compares: the error of the first arm minus that of the second. Arms by regular expressions."""

    first: str
    second: str
    images: int | None = None  # the last record of both up to so many; None: of all


PAIRS = {  # by notebook and claim
    "13_harnessing_noise": {
        "off_beats_noise": Pair(THROUGHOUT, "noise until .*"),
        "off_beats_none": Pair(QUIET, "noise until .*"),
    },
    "19_what_shortens_the_plateau": {
        "layer_1": Pair(QUIET, "noise in the reads of layer 1"),
        "other_layers": Pair(QUIET, "noise in the reads of layer 2, 3, 4"),
        "still_biases": Pair(QUIET, "biases that do not learn"),
        "larger": Pair(QUIET, "(raised|spread) network"),
        "warm_up": Pair(QUIET, "warm-up .*"),
        "updates": Pair(QUIET, "noise in the update of .*"),
        "after": Pair(QUIET, "noise after .*"),
        "unclamped": Pair("exponential network, 0 V", "exponential network, [^0].* V"),
        "leaky": Pair("leaky network, 0 V", "leaky network, [^0].* V"),
    },
    "20_early_and_late": {
        "growing_early": Pair(QUIET, "growing N", EARLY),
        "growing_late": Pair("growing N", QUIET),
        "growing_beats_noise": Pair(THROUGHOUT, "growing N"),
        "adaptive_early": Pair(QUIET, "adaptive N.*", EARLY),
        "adaptive_late": Pair("adaptive N.*", QUIET),
        "adaptive_beats_noise": Pair(THROUGHOUT, "adaptive N.*"),
        "warm_up_early": Pair(QUIET, "warm-up .*", EARLY),
        "warm_up_late": Pair("warm-up .*", QUIET),
    },
    "21_bold_rates": {
        "bold_early": Pair(QUIET, "warm-up .*", EARLY),
        "bold_beats_ended": Pair("noise until [0-9,]* images", "warm-up .*", EARLY),
        "bold_late": Pair("warm-up .*", QUIET),
        "bold_noise": Pair("warm-up .*", "noise in all reads, warm-up .*", EARLY),
        "bold_ended": Pair("warm-up .*", "noise until [0-9,]* images, warm-up .*", EARLY),
        "adaptive_late": Pair("adaptive N.*", QUIET),
        "adaptive_beats_noise": Pair(THROUGHOUT, "adaptive N.*"),
        "bold_beats_adaptive": Pair("adaptive N.*", "warm-up .*"),
    },
}
Arms = Mapping[str, Mapping[str, xr.Dataset]]  # by title of the data set and name of the arm, (seed, epoch[, layer])


def published_arms(earlier: Stores, stores: Stores) -> dict[str, dict[str, xr.Dataset]]:
    """The `Arms` of `stores`, after the runs without noise and with noise throughout of those `earlier`.

    Of stores of equal training, `earlier` or longer, but for noise and what an arm changes; else none. Raises KeyError
    where the earlier ones lack the noise of an arm, ValueError where the arms of a data set belong to different ones.
    """
    arms: dict[str, dict[str, xr.Dataset]] = {}
    runs: dict[str, xr.Dataset] = {}
    for ds in stores.values():
        if twins := [other for other in earlier.values() if _twins(ds, other)]:
            title, longest = ds.title.item(), max(twins, key=images_in_all)
            if runs.setdefault(title, longest) is not longest:
                raise ValueError(f"{title}, {arm(ds)}: is of another training than the arms before it, ask apart")
            longest = first_setting(longest)
            sigma = float(ds.sigma.max()) or registered_claims().escape.primary.sigma or 0.0
            noisy, quiet = with_and_without(longest, sigma)
            of_set = arms.setdefault(title, {QUIET: quiet, THROUGHOUT: noisy})
            for value in ds.sigma.values:
                of_setting = f", {value:g} V" if ds.sizes["sigma"] > 1 else ""
                of_set[arm(ds) + of_setting] = first_setting(ds).sel(sigma=value)
    return arms


def _twins(ds: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether the other's training is the same, for as long or longer, but for noise and what an arm changes."""
    first, second = parameters(ds), parameters(other)
    changed = {"sigma", "schedule", "bias_rate", "variant", "warm_up", "learning_rate"}
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


def published_effects(arms: Arms, notebook: str) -> dict[str, Effect]:
    """The `Effect` of each claim on arms that is registered for a notebook of `PAIRS`: errors paired over seeds."""
    return {claim: effect_of(_compared(arms, pair)) for claim, pair in PAIRS[notebook].items()}


def _compared(arms: Arms, pair: Pair) -> Iterator[tuple[str, xr.DataArray]]:
    for title, of_set in arms.items():
        named = [[name for name in of_set if re.fullmatch(wanted, name)] for wanted in (pair.first, pair.second)]
        for a, b in itertools.product(*named):
            error = over_images({name: of_set[name] for name in (a, b)}).sel(images=slice(pair.images)).isel(images=-1)
            yield f"{title}, {a if b in (QUIET, THROUGHOUT) else b}", error.sel(arm=a) - error.sel(arm=b)


def saved_table(arms: Arms) -> pd.DataFrame:
    """Points of error that every arm saves against training without noise, record by record, to read."""
    columns: dict[tuple[str, str], pd.Series] = {}
    for title, of_set in arms.items():
        error = over_images(of_set)
        saved = interval_text(t_interval(100 * (error.sel(arm=QUIET) - error.drop_sel(arm=QUIET))))
        columns |= {(title, str(name)): saved.sel(arm=name).to_series() for name in saved.arm.values}
    return pd.DataFrame(columns).dropna()  # records that all data sets have


def changed_table(arms: Arms) -> pd.DataFrame:
    """Every arm: what it saves of the error without noise, seeds that have left chance, and units that conduct.

    And the reads N (geometric mean over seeds) at the last record, if they follow training anywhere.
    """
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
                    "N at the end": _reads(ds),
                }
            )
    return pd.DataFrame(rows).dropna(axis="columns", how="all").fillna("")


def _reads(ds: xr.Dataset) -> str | None:
    if "reads" not in ds:
        return None
    last = float(np.exp(np.log(ds.reads.isel(epoch=-1)).mean("seed")))
    return "exact" if np.isinf(last) else f"{last:,.0f}"
