"""Arms of an experiment: the same training with and without an intervention, paired over seeds.

What an arm is follows from the parameters that its store records. Errors are those after training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..sweep.store import parameters
from .benefit import at_choice, held_out_choice
from .families import Effect, effect_of
from .intervals import in_text, share, t_interval
from .limit import final_error, stuck

QUIET, ALL = "no noise", "noise in all reads"
UPDATES = {"biases": "the biases"}
Errors = dict[tuple[str, str], xr.DataArray]  # (title of the data set, arm) -> (learning_rate, sigma, seed)


def arm(ds: xr.Dataset) -> str:
    """What distinguishes a store's training from plain training without noise, in words."""
    recorded: Mapping[str, Any] = parameters(ds)
    schedule = recorded.get("schedule", {})
    noise = ALL if (ds.sigma > 0).any() else QUIET
    if layers := schedule.get("layers"):
        noise = f"noise in the reads of layer {', '.join(map(str, layers))}"
    if updates := schedule.get("updates"):
        noise = f"noise in the update of {', '.join(UPDATES.get(u, f'W{u}') for u in updates)}"
    if (rule := schedule.get("rule")) in ("until", "after"):
        noise = f"{noise}, {rule} {schedule['images']:,} images".replace(f"{ALL}, ", "noise ")
    elif rule:
        noise = f"{noise}, {following(schedule)}".replace(f"{ALL}, ", "")
    others = [f"{variant} network"] if (variant := recorded.get("variant")) else []
    if recorded.get("bias_rate") == 0:
        others.append("biases that do not learn")
    if images := recorded.get("warm_up"):
        factor = float(ds.learning_rate[0]) if "rates" in recorded else 1.0
        others.append(f"warm-up of {images:,} images" + (f" to {factor:g} x the rates" if factor != 1 else ""))
    if others and (ds.sigma == 0).any():
        return ", ".join(others)
    return ", ".join([noise, *others])


def following(schedule: Mapping[str, Any]) -> str:
    """How the number of reads follows training by a recorded schedule, in words."""
    bound = f", bound {schedule['bound']:g}" if "bound" in schedule else ""
    return f"{schedule['rule']} N{bound}"


def arm_errors(stores: Mapping[str, xr.Dataset]) -> Errors:
    """Test errors after training of every arm, by data set."""
    return {
        (str(ds.title.item()), arm(ds)): final_error(ds.isel(dataset=0, averaging=0, samples=0))
        for ds in stores.values()
    }


def arm_effects(stores: Mapping[str, xr.Dataset]) -> dict[str, Effect]:
    """The `Effect` of each claim registered for notebook 12: differences of errors, paired over seeds."""
    errors = arm_errors(stores)
    spared = {word: f"{word} network" for word in ("raised", "spread", "exponential", "leaky")}
    return {
        "layer_1": effect_of(_differences(errors, ALL, "noise in the reads of layer 1")),
        "other_layers": effect_of(
            _differences(errors, QUIET, *(f"noise in the reads of layer {k}" for k in (2, 3, 4)))
        ),
        "updates": effect_of(
            _differences(errors, QUIET, *(f"noise in the update of {u}" for u in ("W1", "W2", "the biases")))
        ),
        "still_biases": effect_of(_differences(errors, QUIET, "biases that do not learn", noisy=False)),
        "larger": effect_of(_differences(errors, QUIET, spared["raised"], spared["spread"])),
        "unclamped": effect_of(_within(errors, spared["exponential"])),
        "leaky": effect_of(_within(errors, spared["leaky"])),
        "early": effect_of(_early(errors)),
        "warm_up": effect_of(_warm_ups(errors)),
    }


def _differences(errors: Errors, first: str, *others: str, noisy: bool = True) -> Iterator[tuple[str, xr.DataArray]]:
    """Error of the first arm minus that of each other, at every learning rate and sigma that they have."""
    for (title, name), error in errors.items():
        if name in others and (title, first) in errors:
            error = error if noisy or (error.sigma > 0).all() else error.sel(sigma=[0.0])
            yield from _settings(f"{title}, {name}", errors[title, first], error)


def _within(errors: Errors, name: str) -> Iterator[tuple[str, xr.DataArray]]:
    """Error without noise minus error with noise, of an arm that has both."""
    for (title, of), error in errors.items():
        if of == name:
            yield from _settings(f"{title}, {name}", error.sel(sigma=[0.0]), error.sel(sigma=error.sigma > 0))


def _early(errors: Errors) -> Iterator[tuple[str, xr.DataArray]]:
    for name in dict.fromkeys(name for _, name in errors if name.startswith("noise until")):
        yield from _differences(errors, ALL, name)


def _settings(label: str, a: xr.DataArray, b: xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    """a minus b, (seed,), of every setting; an arm without noise is compared with every sigma of the other."""
    a, b = (
        error.isel(sigma=0, drop=True) if error.sizes["sigma"] == 1 and error.sigma[0] == 0 else error
        for error in (a, b)
    )
    difference = a - b
    for rate in difference.learning_rate.values:
        of_rate = difference.sel(learning_rate=rate, drop=True)
        for sigma in difference.sigma.values if "sigma" in difference.dims else [None]:
            values = of_rate if sigma is None else of_rate.sel(sigma=sigma, drop=True)
            yield f"{label}, η = {rate:g}" + (f", σ = {sigma:g} V" if sigma is not None else ""), values


def _warm_ups(errors: Errors) -> Iterator[tuple[str, xr.DataArray]]:
    """Error with the best warm-up minus that with the best noise, both chosen by the other seeds' error."""
    for title in dict.fromkeys(title for title, _ in errors):
        tried = [
            error.isel(sigma=0, drop=True)
            for (t, name), error in errors.items()
            if t == title and name.startswith("warm-up")
        ]
        if not tried or (title, ALL) not in errors:
            continue
        warm, noisy = xr.concat(tried, xr.Variable("sigma", np.arange(len(tried), dtype=float))), errors[title, ALL]
        best = [at_choice(e, held_out_choice(e, ["sigma"]), ["sigma"]) for e in (warm, noisy)]
        for rate in noisy.learning_rate.values:
            yield f"{title}, η = {rate:g}", (best[0] - best[1]).sel(learning_rate=rate, drop=True)


def arm_table(stores: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Every arm, learning rate and sigma: error after training, share of runs stuck at chance, units that conduct."""
    rows = []
    for ds in stores.values():
        flat = ds.isel(dataset=0, averaging=0, samples=0)
        error = final_error(flat)
        mean, at_chance = t_interval(error), share(stuck(error, flat.chance))
        first = flat.activity.isel(epoch=-1, layer=0).mean("seed")
        for rate, sigma in itertools.product(error.learning_rate.values, error.sigma.values):
            at = {"learning_rate": rate, "sigma": sigma}
            rows.append(
                {
                    "data set": flat.title.item(),
                    "arm": arm(ds),
                    "η": f"{rate:g}",
                    "σ (V)": f"{sigma:g}",
                    "error (%)": in_text(100 * mean.sel(at), "{:.1f}"),
                    "stuck (%)": in_text(100 * at_chance.sel(at), "{:.0f}"),
                    "conducting units of layer 1 (%)": f"{100 * float(first.sel(at)):.0f}",
                    "n": int(mean.n.sel(at)),
                }
            )
    return pd.DataFrame(rows)
