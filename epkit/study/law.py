"""The law of the limit: how it follows learning rate, batch, read-outs and nudge, and what is predicted of it.

Stores are sweeps over sigma, each of one setting: name -> store. Networks that differ in nothing but what is varied,
and in how their sweep was laid, are set beside one another, seed by seed.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from ..ep.prediction import CONSTANT
from ..sweep.store import parameters
from .families import Effect
from .intervals import geometric_interval, share, t_interval
from .limit import critical_limit, distinct, final_error, first_setting
from .registration import registered_claims

Interval = Callable[..., xr.Dataset]
# What of its parameters says how a network was swept and tested, not what it is.
LAID = {"sigma", "epochs", "sizes", "seeds", "first_seed", "test_images", "first_test_image", "looks"}
# The scale of the noise in training, which the limit should follow: sigma^2 eta/(B N).
SCALED = {"learning_rate", "batch_size", "samples"}


def law_networks(
    stores: Mapping[str, xr.Dataset], predicted: xr.Dataset | None = None, constant: float = CONSTANT
) -> xr.Dataset:
    """Each network's limits beside what was predicted of them before training, over `network`.

    `limits` (V) of each seed by each definition, (definition, network, seed); `limit` with `low` and `high`, of the
    first definition, with `n` of `runs` seeds that have a limit; `lowest` mean error, over `chance`; `reason` why the
    network can't be judged, "" where it can; `title`, `learning_rate`, `batch_size`, `samples`, `beta`; `scale`,
    sqrt(B N/eta); with `predicted` (see `epkit.predicted`) and its `constant`, `prediction` (V). A network that appears
    under several names is taken once, under its first.
    """
    second, rows = registered_claims().second, {}
    for name, ds in distinct(stores).items():
        setting, recorded = first_setting(ds), parameters(ds, "batch_size", "beta")
        error = final_error(setting)
        found = [critical_limit(error, setting.chance, definition=word) for word in second.definitions]
        limits = xr.concat([each.limit for each in found], xr.Variable("definition", second.definitions))
        first, lowest = found[0], float(error.mean("seed").min() / setting.chance)
        facts = {
            "title": setting.title.item(), "batch_size": recorded["batch_size"], "beta": recorded["beta"],
            "learning_rate": float(setting.learning_rate), "samples": int(setting.samples), "lowest": lowest,
            "reason": f"its lowest error is {lowest:.0%} of chance" if lowest >= second.works
            else f"{int(first.n)} of {int(first.runs)} seeds have a limit" if first.n < second.bracketed * first.runs
            else "",
            **{word: first[word].item() for word in ("mean", "low", "high", "n", "runs")},
        }  # fmt: skip
        rows[name] = limits.reset_coords(drop=True).to_dataset(name="limits").assign(facts).rename(mean="limit")
    networks = xr.concat(rows.values(), xr.Variable("network", list(rows)), join="outer")
    networks["scale"] = np.sqrt(networks.batch_size * networks.samples / networks.learning_rate)
    if predicted is not None:
        second_layer = predicted.limit_over_c.sel(layer=2, network=networks.network, drop=True)
        networks["prediction"] = constant * geometric_interval(second_layer)["mean"]
    return networks


def fitted_constant(networks: xr.Dataset) -> tuple[float, float, int]:
    """The constant c that fits `law_networks` of c = 1 best, by what factor they scatter, and how many they are."""
    ratio = np.log(networks.limit / networks.prediction).where(networks.reason == "").dropna("network")
    return float(np.exp(ratio.mean())), float(np.exp(ratio.std(ddof=1))), ratio.size


def alike(stores: Mapping[str, xr.Dataset], varied: Iterable[str], least: int) -> dict[str, list[str]]:
    """Names of networks that differ in `varied` alone, in groups of `least` or more, each under its first name."""
    groups: dict[str, list[str]] = {}
    for name, ds in distinct(stores).items():
        rest = {key: value for key, value in parameters(ds).items() if key not in LAID | set(varied)}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(name)
    return {names[0]: names for names in groups.values() if len(names) >= least}


def law_effects(stores: Mapping[str, xr.Dataset], networks: xr.Dataset) -> dict[str, Effect]:
    """The `Effect` of each claim registered for notebook 11; `networks`: `law_networks` of the stores."""
    return {
        "learning_rate": _exponent(stores, networks, "learning_rate"),
        "batch": _exponent(stores, networks, "batch_size"),
        "nudge": _exponent(stores, networks, "beta"),
        "collapse": _collapse(stores, networks),
        "datasets": _datasets(stores, networks),
        "prediction": _prediction(networks),
    }


def _exponent(stores: Mapping[str, xr.Dataset], networks: xr.Dataset, varied: str) -> Effect:
    """Slope of the log limit over the log of what is varied, a seed, of groups with at least three values of it."""
    slopes, reasons = [], []
    for names in alike(stores, [varied], 3).values():
        group = networks.sel(network=names)
        x, y = np.log(group[varied].values), np.log(group.limits.sel(definition="half way").values)
        x = x - x.mean()
        slope = (x[:, None] * y).sum(0) / (x**2).sum()
        label = f"{group.title.values[0]}, {_values(group, SCALED | {'beta'}, varied)}"
        slopes.append(xr.DataArray(slope, {"seed": group.seed.values}, "seed").expand_dims(dataset=[label]))
        reasons.append(_joined(group.reason.values, np.isfinite(slope).sum()))
    return _effect(slopes, reasons)


def _values(group: xr.Dataset, names: Iterable[str], varied: str) -> str:
    """The values that a group has in common, and those of what is varied."""
    symbols = {"learning_rate": "η", "batch_size": "B", "samples": "N", "beta": "β"}
    kept = [name for name in symbols if name in names]
    texts = [f"{symbols[name]} = {', '.join(f'{v:g}' for v in np.unique(group[name].values))}" for name in kept]
    return ", ".join(sorted(texts, key=lambda text: not text.startswith(symbols[varied])))


def _joined(reasons: np.ndarray, n: int) -> str:
    return "; ".join(sorted(set(reasons) - {""})) or ("" if n > 1 else "fewer than two seeds have a limit in all")


def _effect(values: list[xr.DataArray], reasons: list[str], interval: Interval = t_interval) -> Effect:
    if not values:
        nothing = xr.DataArray([[math.nan]], {"dataset": ["none"], "seed": [0]}, ("dataset", "seed"))
        return Effect(nothing, xr.DataArray(["no such networks"], {"dataset": ["none"]}, "dataset"), interval)
    together = xr.concat(values, "dataset", join="outer")
    return Effect(together, xr.DataArray(reasons, {"dataset": together.dataset}, "dataset"), interval)


def _collapse(stores: Mapping[str, xr.Dataset], networks: xr.Dataset) -> Effect:
    """Limits over the noise scale's, relative to their geometric mean over all settings of a data set, seed by seed."""
    ratios, reasons = [], []
    for names in alike(stores, SCALED, 3).values():
        group = networks.sel(network=names)
        scaled = np.log(group.limits.sel(definition="half way", drop=True) / group.scale)
        relative = np.exp(scaled - scaled.where(group.reason == "").mean("network"))
        for name in names:
            ratio = relative.sel(network=name, drop=True)
            label = f"{group.title.values[0]}, {_values(group.sel(network=[name]), SCALED, 'batch_size')}"
            ratios.append(ratio.expand_dims(dataset=[label]))
            reasons.append(_joined(group.reason.sel(network=[name]).values, int(ratio.count())))
    return _effect(ratios, reasons, geometric_interval)


def _datasets(stores: Mapping[str, xr.Dataset], networks: xr.Dataset) -> Effect:
    """Ratios of two data sets' limits in networks that are otherwise alike, by each definition."""
    ratios, reasons = [], []
    for names in alike(stores, ["dataset"], 2).values():
        for a, b in itertools.combinations(names, 2):
            pair = networks.sel(network=[a, b])
            ratio = pair.limits.sel(network=a, drop=True) / pair.limits.sel(network=b, drop=True)
            label = f"{' / '.join(pair.title.values)}, {_values(pair, SCALED, 'batch_size')}"
            ratios.append(ratio.expand_dims(dataset=[label]))
            reasons.append(_joined(pair.reason.values, int(ratio.sel(definition="half way").count())))
    return _effect(ratios, reasons, geometric_interval)


def within(networks: xr.Dataset, factor: float = 2.0) -> xr.DataArray:
    """Over the networks that can be judged: 1 where measured and predicted limit are within a factor, else 0."""
    judged = networks.sel(network=networks.reason == "")
    return (np.abs(np.log(judged.limit / judged.prediction)) <= math.log(factor)).astype(float)


def _prediction(networks: xr.Dataset) -> Effect:
    outcomes = within(networks).rename(network="seed").expand_dims(dataset=["all networks of the notebook"])
    reason = "" if outcomes.sizes["seed"] else "no network can be judged"
    return Effect(outcomes, xr.DataArray([reason], {"dataset": outcomes.dataset}, "dataset"), share)


def collapse_factors(stores: Mapping[str, xr.Dataset], networks: xr.Dataset, untrained: xr.Dataset) -> pd.DataFrame:
    """By what factor (one standard deviation) the limits scatter, a row for each data set and one for all networks.

    Columns: `networks` that can be judged; the scatter of the limit itself, `alone`; of the limit over the `response`
    of the weakest layer of `epkit.untrained`, times sqrt(N); over sqrt(B N/eta), `noise scale`; and over what was
    `predicted`.
    """
    response = untrained.response.min("layer").mean("seed")
    rows = {str(networks.title.sel(network=a).item()): names for a, names in alike(stores, SCALED, 3).items()}
    rows["all networks"] = networks.network.values.tolist()
    table = {}
    for label, names in rows.items():
        group = networks.sel(network=names)
        group = group.sel(network=group.reason == "")
        of = {
            "alone": group.limit,
            "response": group.limit / response.sel(network=group.network) / np.sqrt(group.samples),
            "noise scale": group.limit / group.scale,
            "predicted": group.limit / group.prediction,
        }
        scatter = {word: math.exp(np.log(values).std(ddof=1)) for word, values in of.items()}
        table[label] = {"networks": group.sizes["network"]} | scatter
    return pd.DataFrame(table).T


def derivation(stores: Mapping[str, xr.Dataset], predicted: xr.Dataset) -> pd.DataFrame:
    """The steps of the derivation that can be simulated, over their formulas: a row for each step and layer.

    Of `epkit.predicted`: the noise of estimates over sqrt(2 s) drop/(2 beta), and how far noise has carried
    conductances over the walk's formula; geometric mean over networks and seeds, and the range over networks.
    """
    width = xr.DataArray(
        [2 * parameters(ds, "beta")["beta"] for ds in stores.values()], {"network": list(stores)}, "network"
    )
    ends = xr.where(predicted.layer == 1, 1, 2)
    ratios = {
        "noise of an estimate": predicted.noise / (predicted.voltage_drop * np.sqrt(2 * ends) / width),
        "walk in 1/η steps": predicted.walk / predicted.expected_walk,
    }
    table = {}
    for step, ratio in ratios.items():
        of_networks = np.exp(np.log(ratio.sel(network=width.network)).mean("seed"))
        for layer in predicted.layer.values:
            values = of_networks.sel(layer=layer).dropna("network")
            middle = float(np.exp(np.log(values).mean()))
            extremes = {"least": float(values.min()), "largest": float(values.max())}
            table[step, int(layer)] = {"simulated / formula": middle} | extremes | {"networks": values.size}
    return pd.DataFrame(table).T.rename_axis(["step", "layer of conductances"])


def predicted_table(networks: xr.Dataset) -> pd.DataFrame:
    """Measured and predicted limits (V), network by network, to read."""
    columns = networks[["title", "limit", "low", "high", "prediction", "n", "runs", "lowest", "reason"]]
    table = columns.to_dataframe().drop(columns="definition", errors="ignore")
    ratio = (networks.limit / networks.prediction).to_series()
    volts = table[["limit", "low", "high", "prediction"]].map("{:.3g}".format)
    return pd.concat(
        [table.title, volts, ratio.map("{:.2f}".format).rename("measured / predicted"), table.n.astype(int),
         table.runs.astype(int), table.lowest.map("{:.0%}".format).rename("lowest error / chance"), table.reason],
        axis=1,
    )  # fmt: skip
