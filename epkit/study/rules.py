"""Other networks and other rules: what a store's training is, the limit of each, and the baseline.

What distinguishes a store follows from the parameters that it records. Errors are those after training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
import xarray as xr

from ..sweep.store import parameters
from .families import Effect, effect_of
from .intervals import geometric_interval, in_text, t_interval
from .limit import critical_limit, final_error, first_setting
from .plateau import images_in_all

PLAIN, BASELINE = "centred estimate", "backpropagation"
ESTIMATES = {"centered": PLAIN, "positive": "positive estimate", "negative": "negative estimate"}
NETWORKS = {"hopfield": "Hopfield network", "convolutional": "convolutional network"}
Stores = Mapping[str, xr.Dataset]


def rule(ds: xr.Dataset) -> str:
    """What distinguishes a store's network and rule from plain EP, in words."""
    recorded = parameters(ds)
    words = [NETWORKS[recorded["network"]]] if "network" in recorded else []
    estimator = recorded["estimator"]
    if not words and "optimiser" not in recorded:
        words.append(ESTIMATES.get(estimator, BASELINE))
    if name := recorded.get("optimiser"):
        words.append(name if name != "adam" else "Adam")
    if recorded.get("cold"):
        words.append("phases that start cold")
    return ", ".join(words)


def rule_errors(stores: Stores) -> dict[str, xr.DataArray]:
    """Errors (sigma, seed) of every rule, with the error of chance beside them; relaxations with noise are apart."""
    return {
        rule(ds): final_error(first_setting(ds)).assign_coords(chance=ds.chance.item())
        for ds in stores.values()
        if not published(ds)
    }


def relaxation_errors(stores: Stores) -> xr.DataArray:
    """Errors (noise, beta, seed) of networks with noise in each step of their relaxation, and of their exact twins."""
    parts = []
    for ds in filter(published, stores.values()):
        noise, beta = noise_and_nudge(ds)
        parts.append(final_error(first_setting(ds)).isel(sigma=0, drop=True).expand_dims(noise=[noise], beta=[beta]))
    whole = xr.merge(parts, join="outer", compat="no_conflicts") if parts else {"error": xr.DataArray([], dims="seed")}
    return whole["error"]


def rule_effects(stores: Stores) -> dict[str, Effect]:
    """The `Effect` of each claim registered for notebook 16."""
    errors = rule_errors(stores)
    limits = {name: critical_limit(error, error.chance).limit for name, error in errors.items()}
    positive, cold = ESTIMATES["positive"], f"{ESTIMATES['positive']}, phases that start cold"
    return {
        "one_sided": effect_of(_ratios(limits, PLAIN, positive, ESTIMATES["negative"]), geometric_interval),
        "cold": effect_of(_ratios(limits, positive, cold), geometric_interval),
        "momentum": effect_of(_ratios(limits, PLAIN, "momentum"), geometric_interval),
        "adam": effect_of(_ratios(limits, PLAIN, "Adam"), geometric_interval),
        "baseline": effect_of(_baseline(errors)),
        "relaxation": effect_of(_nudges(stores)),
    }


def relaxation_effects(stores: Stores) -> dict[str, Effect]:
    """The `Effect` of each claim registered for notebook 17."""
    return {
        "nudge": effect_of(_nudges(stores)),
        "cost": effect_of(_noises(stores, 0)),
        "averaging": effect_of(_noises(stores, 1)),
    }


def relaxation_table(stores: Stores) -> pd.DataFrame:
    """Of each noise and nudge: the images trained on, the error (%) after them with its interval, and every seed's."""
    rows = {}
    for ds in sorted(filter(published, stores.values()), key=noise_and_nudge):
        runs = 100 * final_error(first_setting(ds)).isel(sigma=0)
        seeds = ", ".join(f"{error:.1f}" for error in runs.values)
        error = in_text(t_interval(runs), "{:.1f}")
        rows[noise_and_nudge(ds)] = {"images": f"{images_in_all(ds):,}", "error (%)": error, "seeds": seeds}
    return pd.DataFrame(rows.values(), index=pd.MultiIndex.from_tuples(rows, names=["noise", "nudge"]))


def rule_table(stores: Stores) -> pd.DataFrame:
    """Every rule: error without noise (%), the limit with its interval (V), and how many seeds have one."""
    rows = {}
    for name, error in rule_errors(stores).items():
        exact, limit = t_interval(error.sel(sigma=0)), critical_limit(error, error.chance)
        rows[name] = {
            "error without noise (%)": in_text(100 * exact, "{:.1f}"),
            "limit": in_text(limit, "{:.2g}") if int(limit.n) > 1 else "none",
            "n": f"{int(limit.n)} of {int(limit.runs)}",
        }
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="rule"))


def published(ds: xr.Dataset) -> bool:
    """Whether it is of the published setting, whose rates are absolute and whose nudged phases are shorter."""
    return "nudged_iterations" in parameters(ds)


def noise_and_nudge(ds: xr.Dataset) -> tuple[float, float]:
    """Noise in the relaxation of a store's network, and its nudge."""
    return parameters(ds).get("relaxation_noise", 0.0), parameters(ds)["beta"]


def _ratios(limits: Mapping[str, xr.DataArray], of: str, *names: str) -> Iterator[tuple[str, xr.DataArray]]:
    for name in names:
        if name in limits and of in limits:
            yield name, limits[name] / limits[of]


def _baseline(errors: Mapping[str, xr.DataArray]) -> Iterator[tuple[str, xr.DataArray]]:
    if {PLAIN, BASELINE} <= set(errors):
        first, second = (errors[name].sel(sigma=0, drop=True) for name in (PLAIN, BASELINE))
        yield PLAIN, first - second


def _nudges(stores: Stores) -> Iterator[tuple[str, xr.DataArray]]:
    errors = relaxation_errors(stores)
    if "noise" in errors.dims and errors.sizes["beta"] > 1:
        noisy = errors.isel(noise=-1, drop=True)
        yield "nudges of .1 and .4", noisy.isel(beta=0, drop=True) - noisy.isel(beta=-1, drop=True)


def _noises(stores: Stores, less: int) -> Iterator[tuple[str, xr.DataArray]]:
    """With the strongest nudge: error with the most noise minus that with a lesser one, after as many images."""
    networks = sorted(filter(published, stores.values()), key=noise_and_nudge)
    strongest = max((noise_and_nudge(ds)[1] for ds in networks), default=0.0)
    strong = [ds for ds in networks if noise_and_nudge(ds)[1] == strongest]
    if len(strong) > less + 1:
        pair = strong[-1], strong[less]
        last = min(float(ds.epoch.max()) for ds in pair)
        most, other = (final_error(first_setting(ds.sel(epoch=slice(last)))).isel(sigma=0, drop=True) for ds in pair)
        yield f"a nudge of {strongest:g}", most - other
