"""The read-outs that hardware has: the limit of each kind, what averaging does to it, and how many bits are needed.

What a store's read-out is follows from the parameters that it records. Errors are those after training; where a kind
was not run at sigma = 0, that of exact reads stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..readouts.kinds import ROUNDING
from ..sweep.store import parameters
from .benefit import at_choice, held_out_choice
from .families import Effect, effect_of
from .intervals import geometric_interval, in_text, t_interval
from .limit import critical_limit, final_error

WHITE, ROUNDED, DIFFERENCE = "white noise", "rounding of both phases", "rounding of the difference"
Stores = Mapping[str, xr.Dataset]
Errors = dict[tuple[str, str], xr.DataArray]  # (title of the data set, kind) -> (samples, sigma, seed)


def _reading(ds: xr.Dataset) -> Mapping[str, Any]:
    return parameters(ds).get("readout", {})


def _error(ds: xr.Dataset) -> xr.DataArray:
    """(samples, sigma, seed), with the error of chance beside it."""
    setting = ds.isel(dataset=0, averaging=0, learning_rate=0, drop=True)
    return final_error(setting).assign_coords(chance=float(ds.chance.item()))


def kind(ds: xr.Dataset) -> str | None:
    """What the reads of a store err by; None where noise or converter are of a design of their own."""
    reading = _reading(ds)
    if {"lsb", "bits", "preset"} & reading.keys() or "schedule" in parameters(ds):
        return None
    if reading.get("kind") == "converter":
        return DIFFERENCE if "differential" in reading else ROUNDED
    return str(reading.get("kind", WHITE))


def tuned(stores: Stores) -> dict[str, xr.Dataset]:
    """The stores from which the limits of the kinds are: those of the least learning rate."""
    return _at(stores, min)


def bold(stores: Stores) -> dict[str, xr.Dataset]:
    """The stores that tell whether some of a kind helps: those of the largest learning rate."""
    return _at(stores, max)


def _at(stores: Stores, of_all: Callable[[Iterable[float]], float]) -> dict[str, xr.Dataset]:
    rate = of_all(ds.learning_rate.item() for ds in stores.values())
    return {name: ds for name, ds in stores.items() if ds.learning_rate.item() == rate and kind(ds)}


def white_noise(stores: Stores) -> list[str]:
    """Names of the sweeps over white noise at the rate at which limits are measured, one a data set."""
    return [name for name, ds in tuned(stores).items() if kind(ds) == WHITE]


def kind_errors(stores: Stores) -> Errors:
    """Errors of every kind over all sigma, by data set; of stores at a single learning rate."""
    errors: Errors = {(ds.title.item(), word): _error(ds) for ds in stores.values() if (word := kind(ds))}
    for (title, word), error in errors.items():
        if word != WHITE and (title, WHITE) in errors:
            exact = errors[title, WHITE].sel(sigma=[0.0]).isel(samples=[0]).drop_vars("samples")
            exact = xr.concat([exact] * error.sizes["samples"], error.samples)
            errors[title, word] = xr.concat([exact, error], "sigma", join="inner")
    return errors


def limits(error: xr.DataArray) -> xr.DataArray:
    """The limit (V) of each seed, half way to chance, over (samples, seed)."""
    return critical_limit(error, error.chance).limit.drop_vars("chance")


def layer_errors(stores: Stores) -> dict[tuple[str, int], xr.DataArray]:
    """Errors (sigma, seed) with white noise in the reads of a single layer, by data set and layer."""
    of_layers = ((parameters(ds).get("schedule", {}).get("layers", []), ds) for ds in stores.values())
    errors = {(ds.title.item(), k[0]): _error(ds).isel(samples=0, drop=True) for k, ds in of_layers if len(k) == 1}
    return dict(sorted(errors.items()))


def dither_errors(stores: Stores) -> dict[tuple[str, float], xr.DataArray]:
    """Errors (samples, sigma, seed) with noise before a converter, by data set and step of the converter (V)."""
    errors = {(ds.title.item(), lsb): _error(ds) for ds in stores.values() if (lsb := _reading(ds).get("lsb"))}
    return dict(sorted(errors.items()))


def bit_errors(stores: Stores) -> dict[tuple[str, str], xr.DataArray]:
    """Errors (bits, seed) of converters of the difference, and of both phases, by data set."""
    errors: dict[tuple[str, str], list[xr.DataArray]] = {}
    for ds in stores.values():
        if bits := _reading(ds).get("bits"):
            what = DIFFERENCE if "differential" in _reading(ds) else ROUNDED
            error = _error(ds).isel(samples=0, sigma=0, drop=True).expand_dims(bits=[bits])
            errors.setdefault((ds.title.item(), what), []).append(error)
    return {key: xr.concat(several, "bits").sortby("bits") for key, several in errors.items()}


def hardware_effects(stores: Stores) -> dict[str, Effect]:
    """The `Effect` of each claim registered for notebook 14."""
    errors = kind_errors(tuned(stores))
    of_kinds = {key: limits(error) for key, error in errors.items()}
    return {
        "equal": effect_of(_to_white(of_kinds), geometric_interval),
        "averaging": effect_of(_averaging(of_kinds), geometric_interval),
        "helps": effect_of(_gains(kind_errors(bold(stores)))),
        "dither": effect_of(_dither(stores)),
        "window": effect_of(_windows(stores, of_kinds), geometric_interval),
        "layer_1": effect_of(_first_layer(stores, of_kinds), geometric_interval),
        "few_bits": effect_of(_bits(stores, errors, DIFFERENCE, 6)),
        "many_bits": effect_of(_bits(stores, errors, ROUNDED, 16)),
    }


def _to_white(of_kinds: Errors) -> Iterator[tuple[str, xr.DataArray]]:
    for (title, kind), limit in of_kinds.items():
        if kind != WHITE:
            yield f"{title}, {kind}", (limit / of_kinds[title, WHITE]).sel(samples=1, drop=True)


def _averaging(of_kinds: Errors) -> Iterator[tuple[str, xr.DataArray]]:
    for (title, kind), limit in of_kinds.items():
        if limit.sizes["samples"] > 1:
            yield (
                f"{title}, {kind}",
                (limit.isel(samples=-1) / limit.isel(samples=0)).drop_vars("samples", errors="ignore"),
            )


def _gains(errors: Errors) -> Iterator[tuple[str, xr.DataArray]]:
    """Error of exact reads minus that at the best sigma > 0, chosen by the other seeds."""
    for (title, kind), error in errors.items():
        single = error.isel(samples=0, drop=True)
        noisy = single.sel(sigma=single.sigma > 0)
        best = at_choice(noisy, held_out_choice(noisy, ["sigma"]), ["sigma"])
        yield f"{title}, {kind}", single.sel(sigma=0, drop=True) - best


def _dither(stores: Stores) -> Iterator[tuple[str, xr.DataArray]]:
    for (_, lsb), error in dither_errors(stores).items():
        many = error.isel(samples=-1, drop=True)
        half = many.sel(sigma=lsb / 2, method="nearest", drop=True)
        yield f"step of {1000 * lsb:g} mV", many.sel(sigma=0, drop=True) - half


def _windows(stores: Stores, of_kinds: Errors) -> Iterator[tuple[str, xr.DataArray]]:
    for (title, lsb), error in dither_errors(stores).items():
        white = of_kinds[title, WHITE].sel(samples=1, drop=True)
        for count in error.samples.values[error.samples.values > 1]:
            ends = limits(error.sel(samples=[count])).isel(samples=0, drop=True)
            yield f"step of {1000 * lsb:g} mV, N = {count}", ends / (white * np.sqrt(count))


def _first_layer(stores: Stores, of_kinds: Errors) -> Iterator[tuple[str, xr.DataArray]]:
    for (title, layer), error in layer_errors(stores).items():
        if layer == 1:
            yield title, limits(error) / of_kinds[title, WHITE].sel(samples=1, drop=True)


def _bits(stores: Stores, errors: Errors, what: str, bits: int) -> Iterator[tuple[str, xr.DataArray]]:
    for (title, converted), error in bit_errors(stores).items():
        if converted == what and bits in error.bits:
            exact = errors[title, WHITE].sel(sigma=0).isel(samples=0).drop_vars(["sigma", "samples"])
            yield f"{title}, {bits} bits", error.sel(bits=bits, drop=True) - exact


def bits_needed(stores: Stores, before: xr.Dataset) -> xr.Dataset:
    """Bits that a converter needs in each layer of a data set's network, over (dataset, scheme, layer), by calculation.

    They count the steps of sigma_c sqrt(12) from the least to the largest voltage (`ROUNDED`), or response
    (`DIFFERENCE`), before training; sigma_c: limit of rounding in all layers alike, in the scheme. `by_layer`: the
    same with the limit of white noise in the reads of that layer alone, where it was measured.
    """
    errors, of_layers = kind_errors(tuned(stores)), layer_errors(stores)
    largest = {ROUNDED: before.largest_voltage, DIFFERENCE: before.largest_response}
    tables = []
    steps = {key: ROUNDING * float(geometric_interval(limits(error))["mean"]) for key, error in of_layers.items()}
    for name in before.network.values:
        title = stores[str(name)].title.item()
        for scheme, volts in largest.items():
            top = volts.sel(network=name, drop=True).max("seed")
            step = ROUNDING * geometric_interval(limits(errors[title, scheme]).isel(samples=0, drop=True))["mean"]
            own = top.copy(data=[steps.get((title, k), np.nan) for k in top.layer.values])
            bits = xr.Dataset({"bits": np.log2(2 * top / step), "by_layer": np.log2(2 * top / own)})
            tables.append(bits.clip(min=0).expand_dims(dataset=[title], scheme=[scheme]))
    return xr.merge(tables, join="outer", compat="no_conflicts").sel(
        dataset=[stores[str(name)].title.item() for name in before.network.values], scheme=list(largest)
    )


def hardware_table(stores: Stores, before: xr.Dataset) -> pd.DataFrame:
    """Every kind: limit with interval (V) and in effective bits of the largest voltage, N = 16, and whether it helps.

    Effective bits: log2(full scale/(sigma_c sqrt(12))), the full scale reaching from the least to the largest voltage
    of the network before training.
    """
    errors, gains = kind_errors(tuned(stores)), dict(_gains(kind_errors(bold(stores))))
    rate = max(ds.learning_rate.item() for ds in stores.values())
    of_kinds = {key: limits(error) for key, error in errors.items()}
    averaged = dict(_averaging(of_kinds))
    full_scale = {
        stores[str(name)].title.item(): 2 * float(before.largest_voltage.sel(network=name).max())
        for name in before.network.values
    }
    rows = []
    for (title, kind), limit in of_kinds.items():
        single, key = geometric_interval(limit.isel(samples=0, drop=True)), f"{title}, {kind}"
        white = geometric_interval((limit / of_kinds[title, WHITE]).isel(samples=0, drop=True))
        rows.append(
            {
                "data set": title,
                "kind": kind,
                "limit (V)": in_text(single, "{:.2g}"),
                "effective bits": f"{np.log2(full_scale[title] / (ROUNDING * float(single['mean']))):.1f}",
                "over white noise": in_text(white, "{:.3g}"),
                "N = 16 moves it by": in_text(geometric_interval(averaged[key]), "{:.2f}") if key in averaged else "",
                f"points saved at η = {rate:g}": in_text(100 * t_interval(gains[key]), "{:.1f}")
                if key in gains
                else "",
            }
        )
    return pd.DataFrame(rows)


def preset_table(stores: Stores) -> pd.DataFrame:
    """Error after training with every preset, a column a number of reads (%)."""
    rows = {}
    for ds in stores.values():
        if name := _reading(ds).get("preset"):
            interval = 100 * t_interval(_error(ds).isel(sigma=0, drop=True))
            of_counts = {f"N = {n}": in_text(interval.sel(samples=n), "{:.1f}") for n in interval.samples.values}
            rows[name] = {"full scale (V)": f"{_reading(ds)['full_scale']:g}", **of_counts}
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="preset"))
