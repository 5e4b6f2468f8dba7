"""A store of untrained networks' signals over gain and nudge, and of errors in stored sweeps; and its plain numbers.

The page, the command and the notebook read the same table, so that they give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .. import data
from ..ep.probe import one_thread
from ..files import StoreError
from ..study.intervals import t_interval
from ..study.limit import final_error
from ..sweep import store
from ..sweep.parameters import Bench
from ..sweep.runs import memoised, progress_bar, stored_facts
from ..validation import validated
from . import signals
from .arithmetic import COMPARED

NOTEBOOK = "15_budget"
DIGITS = 4  # of every number, so that the page's text is short and no face knows more than another
MOST_REFERENCES = 8
CURVE = ("sigma", "error", "low", "high")
# What a store may record without its training being another than a budget's, beside how it was laid out.
PLAIN = {"hidden", "input_gain", "beta", "iterations", "estimator", "batch_size", "decay", "bias_rate", "dtype"}
PLAIN |= {"realisation", "sizes", "dataset", "sigma", "samples", "averaging", "learning_rate", "seeds", "first_seed"}
PLAIN |= {"epochs", "looks", "train_images", "test_images", "validation_images"}
PLAIN |= {"first_test_image", "first_validation_image"}


def signal_table(parameters: Bench | Mapping[str, object], path: str | Path) -> xr.Dataset:
    """The table of a `Bench`: read from the store at `path` where it has it, else made.

    Returns:
        Dataset over (network, gain, beta[, layer]) for targets of 1 V, geometric means over untrained networks: the
        `signals.SIGNALS` and `signals.NUDGED`, NaN where a network has no steady state; `voltage` (V) and `level` (V)
        over (network, layer[, share]) at a gain of 1; over (setting[, point]) the test errors of stored sweeps with
        their 95 % intervals, `error`, `low`, `high`, at the noise `sigma` (V), what they are compared in, and `store`.
    """
    bench = parameters if isinstance(parameters, Bench) else validated(Bench, parameters)
    path = Path(path).expanduser()
    return memoised(lambda: complete(path, bench), path, lambda name: _computed(bench, name))


def complete(path: Path, bench: Bench) -> xr.Dataset | None:
    """The table at `path`, if it is that of these parameters; StoreError if it is another's."""
    return stored_facts(path, _facts(bench))


def _facts(bench: Bench) -> dict[str, object]:
    return bench.model_dump(mode="json", exclude={"board"})


def _computed(bench: Bench, name: str) -> xr.Dataset:
    pairs = [(dataset, hidden) for dataset, layouts in bench.layouts.items() for hidden in layouts]
    with progress_bar(pairs, desc=name) as bar, one_thread():
        networks = [_network(bench, dataset, hidden) for dataset, hidden in bar]
    labels = [label_of(dataset, hidden) for dataset, hidden in pairs]
    table = xr.concat(networks, xr.Variable("network", labels), join="outer")
    for variable in table.data_vars:
        table[variable] = _rounded(table[variable])
    for key, (unit, _, text) in signals.SIGNALS.items():
        table[key].attrs = {"units": unit, "long_name": text}
    checksums = {dataset: data.checksum(dataset) for dataset in bench.layouts}
    attributes = store.provenance("Signals of untrained networks", _facts(bench), checksums)
    return table.merge(sweeps(bench.profiles)).assign_attrs(attributes)


def label_of(dataset: str, hidden: list[int]) -> str:
    return f"{dataset} {'-'.join(map(str, hidden))}"


def _rounded(values: xr.DataArray) -> xr.DataArray:
    return xr.apply_ufunc(np.vectorize(lambda v: float(f"{v:.{DIGITS}g}"), otypes=[float]), values).astype("float32")


def _network(bench: Bench, dataset: str, hidden: list[int]) -> xr.Dataset:
    """Geometric means over the untrained networks of one layout."""
    x, t = signals.images(dataset, bench.images)
    sizes = (x.shape[1], *hidden, t.shape[1])
    references = min(MOST_REFERENCES, max(1, bench.units // sum(hidden)))
    layers = {"layer": np.arange(1, len(sizes))}
    found = []
    for seed in range(references):
        net = signals.untrained(sizes, seed)
        free = net.relax(x, bench.iterations)
        rows = [
            [_nudged(net, x, t, free, gain, beta, bench.iterations) for beta in bench.betas] for gain in bench.gains
        ]
        grid = {
            key: (
                ("gain", "beta", "layer")[: 2 + (key in signals.NUDGED)],
                [[cell[key] for cell in row] for row in rows],
            )
            for key in (*signals.SIGNALS, *signals.NUDGED)
        }
        seen = signals.voltages(free)
        of_seed = grid | {"voltage": ("layer", seen["voltage"]), "level": (("layer", "share"), seen["level"])}
        axes = {"gain": bench.gains, "beta": bench.betas, "share": list(signals.SHARES)}
        found.append(xr.Dataset(of_seed, layers | axes))
    together = xr.concat(found, "seed")
    with np.errstate(divide="ignore"):
        means = xr.ufuncs.exp(xr.ufuncs.log(together.drop_vars("level")).mean("seed", skipna=False))
    return means.assign(level=together.level.mean("seed"))


def _nudged(net: Any, x: Any, t: Any, free: Any, gain: float, beta: float, iterations: int) -> dict[str, Any]:
    """`signals.nudged` at a gain, NaN where the network has no steady state."""
    net.input_gain = gain
    try:
        return signals.nudged(net, x, t, [gain * v for v in free], beta=beta, iterations=iterations)
    except ValueError:
        nothing: dict[str, Any] = dict.fromkeys(signals.SIGNALS, math.nan)
        return nothing | dict.fromkeys(signals.NUDGED, [math.nan] * len(free))


def sweeps(profiles: list[str]) -> xr.Dataset:
    """Test errors over the noise of a read of N, of all stored sweeps of these profiles, over (setting, point)."""
    rows: dict[tuple, dict[str, Any]] = {}
    for path in (path for profile in profiles for path in sorted(store.results(profile).glob("*.nc"))):
        for setting, row in _settings(path):
            if setting not in rows or row["n"] > rows[setting]["n"]:
                rows[setting] = row
    points = max((len(row["sigma"]) for row in rows.values()), default=1)
    wide = {
        key: (("setting", "point"), np.array([_padded(row[key], points) for row in rows.values()]).reshape(-1, points))
        for key in CURVE
    }
    flat = {key: ("setting", [row[key] for row in rows.values()]) for key in ("dataset", "store", "n", *COMPARED)}
    ds = xr.Dataset(wide | flat)
    for key in wide:
        ds[key] = _rounded(ds[key])
    return ds.rename({key: f"swept_{key}" for key in ds.data_vars})


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values.astype(float), (0, length - len(values)), constant_values=np.nan)


def _settings(path: Path) -> Iterator[tuple[tuple, dict[str, Any]]]:
    """Each setting of a store that trains as a budget's network does, with what names it."""
    ds = store.read(path)
    recorded = store.parameters(ds)
    if "run" not in ds or set(recorded) - PLAIN or recorded["estimator"] != "centered" or recorded["bias_rate"] != 1:
        return
    hidden, batch = recorded["hidden"], recorded["batch_size"]
    dims = ("dataset", "learning_rate", "samples", "sigma", "seed")
    errors = final_error(ds).isel(averaging=0).sortby("sigma").sel(sigma=ds.sigma.sortby("sigma") > 0).transpose(*dims)
    if errors.sizes["sigma"] < 2 or errors.sizes["seed"] < 2:
        return
    interval = t_interval(errors)
    images = round(float(ds.epoch.max()) * (recorded["train_images"] // batch) * batch)
    curves = {key: interval[name].values for key, name in zip(CURVE[1:], ("mean", "low", "high"), strict=True)}
    for place in np.ndindex(curves["error"].shape[:-1]):
        known = np.isfinite(curves["error"][place])
        dataset, rate, samples = (errors[dim].values[k] for dim, k in zip(dims, place, strict=False))
        if known.sum() < 2:
            continue
        row = {
            "dataset": str(dataset), "store": f"{path.parent.name}/{path.name}", "gain": recorded["input_gain"],
            "beta": recorded["beta"], "batch_size": float(batch), "learning_rate": float(rate),
            "width": round(math.exp(np.mean(np.log(hidden))), 3), "depth": float(len(hidden)),
            "images": float(images), "n": int(errors.sizes["seed"]), "sigma": errors.sigma.values[known] / samples**0.5,
        } | {key: values[place][known].clip(0, 1) for key, values in curves.items()}  # fmt: skip
        yield (*(row[key] for key in ("dataset", *COMPARED)), tuple(hidden), int(samples)), row


def plain_table(path: Path) -> dict[str, Any]:
    """A table as plain numbers, the text that the page holds; {} where there is no such store.

    `networks`: by `label`, each with its signals as lists over (gain, beta[, layer]), null where there are none;
    `sweeps`: a mapping a setting. Raises StoreError for another store.
    """
    return _read(path, path.stat().st_mtime_ns) if path.exists() else {}


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> dict[str, Any]:
    """`plain_table` of a file as it was last `changed`."""
    ds = store.read(path)
    if not {"network", "gain", "beta", "setting"} <= set(ds.dims):
        raise StoreError(f"{path}: is no table of untrained networks, as notebook 15 makes it")
    facts = store.parameters(ds)
    networks = {}
    for name in ds.network.values:
        own = ds.sel(network=name)
        own = own.isel(layer=own.voltage.notnull().values)
        keys = [*signals.SIGNALS, *signals.NUDGED, "voltage", "level"]
        networks[str(name)] = {key: _plain(own[key].transpose(*_order(own[key])).values) for key in keys}
    rows = []
    for setting in range(ds.sizes["setting"]):
        row = {key: ds[f"swept_{key}"].values[setting] for key in (*CURVE, "dataset", "store", "n", *COMPARED)}
        known = np.isfinite(row["sigma"])
        rows.append({key: _plain(v[known]) if key in CURVE else v.item() for key, v in row.items()})
    axes = {"gains": [float(v) for v in ds.gain.values], "betas": [float(v) for v in ds.beta.values]}
    return {
        "networks": networks,
        "sweeps": rows,
        "shares": list(signals.SHARES),
        "iterations": facts["iterations"],
    } | axes


def _order(values: xr.DataArray) -> list[str]:
    return [dim for dim in ("gain", "beta", "layer", "share", "point") if dim in values.dims]


def _plain(values: np.ndarray) -> Any:
    """Nested lists of numbers of few digits, null for what is missing."""
    if values.ndim:
        return [_plain(v) for v in values]
    return float(f"{float(values):.{DIGITS}g}") if math.isfinite(float(values)) else None
