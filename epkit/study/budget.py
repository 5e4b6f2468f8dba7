"""What training costs in read-outs, and what schedules of them save.

The cost of a run is the number of reads of a unit in a phase, summed over all images that it has seen: N times the
images where N is constant.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from ..sweep.store import parameters
from .arms import QUIET, following
from .families import Effect, effect_of
from .intervals import geometric_interval, in_text
from .limit import final_error
from .plateau import images_seen

CONSTANT = "constant N"
ABOVE = 0.02  # of error, above that without noise: the target that costs are compared at


def label(ds: xr.Dataset) -> str:
    """How a store's read-outs follow training, in words."""
    schedule, decay = parameters(ds).get("schedule", {}), parameters(ds).get("decay", 0.99)
    rule = following(schedule) if "rule" in schedule else CONSTANT if (ds.sigma > 0).any() else QUIET
    return f"{rule}, rates x{decay:g} an epoch" if decay < 0.95 else rule


def costs(ds: xr.Dataset) -> xr.DataArray:
    """Reads of a unit in a phase, up to each record: (learning_rate, samples, sigma, seed, epoch)."""
    error = ds.test_error.isel(dataset=0, averaging=0, drop=True)
    images = xr.DataArray(images_seen(ds).values, dims="epoch", coords={"epoch": ds.epoch})
    since = images.diff("epoch", label="upper").reindex(epoch=ds.epoch, fill_value=float(images[0]))
    reads = ds.reads.isel(dataset=0, averaging=0, drop=True) if "reads" in ds else error * 0 + ds.samples
    return (reads * since).cumsum("epoch", skipna=False).assign_coords(epoch=ds.epoch)


def counted(stores: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The stores whose reads are a number, at all times: not those of noise that ends."""
    return {name: ds for name, ds in stores.items() if "reads" not in ds or not np.isinf(ds.reads).any()}


def targets(stores: Mapping[str, xr.Dataset], above: float = ABOVE) -> dict[str, float]:
    """Of each data set: the mean error without noise after training at its last learning rate, plus `above`."""
    quiet = [ds for ds in stores.values() if not (ds.sigma > 0).any()]
    return {ds.title.item(): float(final_error(ds).isel(learning_rate=-1).mean()) + above for ds in quiet}


def reads_until(ds: xr.Dataset, target: float) -> xr.DataArray:
    """Reads up to the first record at or below the target error, (learning_rate, samples, seed); else NaN."""
    error = ds.test_error.isel(dataset=0, averaging=0, drop=True)
    return costs(ds).where(error <= target).min("epoch").isel(sigma=0, drop=True)


def budget_effects(stores: Mapping[str, xr.Dataset], above: float = ABOVE) -> dict[str, Effect]:
    """The `Effect` of the claims on read-outs registered for notebook 13: ratios of reads, paired over seeds.

    `above`: of error, how far the target lies above the error without noise.
    """
    return {
        "saving": effect_of(_savings(stores, above), geometric_interval, complete=True),
        "invariance": effect_of(_invariance(stores, above), geometric_interval, complete=True),
    }


def _noisy(stores: Mapping[str, xr.Dataset], above: float) -> Iterator[tuple[str, str, xr.DataArray]]:
    """Data set, schedule and reads until the target of each store with noise."""
    aims = targets(stores, above)
    for ds in stores.values():
        if (ds.sigma > 0).any() and (title := ds.title.item()) in aims:
            yield title, label(ds), reads_until(ds, aims[title])


def best_constants(stores: Mapping[str, xr.Dataset], above: float = ABOVE) -> dict[str, xr.DataArray]:
    """Of each data set, the reads (seed,) of the constant N and eta that takes the fewest, all seeds having arrived."""
    best = {}
    for title, name, reads in _noisy(stores, above):
        if name == CONSTANT:
            means = xr.ufuncs.log(reads).mean("seed", skipna=False)
            if means.notnull().any():
                best[title] = reads[means.argmin(["learning_rate", "samples"])]
    return best


def _savings(stores: Mapping[str, xr.Dataset], above: float) -> Iterator[tuple[str, xr.DataArray]]:
    best = best_constants(stores, above)
    for title, name, reads in _noisy(stores, above):
        if name != CONSTANT and title in best:
            fewest = best[title].drop_vars(["learning_rate", "samples"])
            for rate, count in itertools.product(reads.learning_rate.values, reads.samples.values):
                taken = reads.sel(learning_rate=rate, samples=count, drop=True)
                yield f"{title}, {name}, N = {count} at first, η = {rate:g}", fewest / taken


def _invariance(stores: Mapping[str, xr.Dataset], above: float) -> Iterator[tuple[str, xr.DataArray]]:
    """Reads at (4 N, 4 eta) over those at (N, eta), constant N."""
    for title, name, reads in _noisy(stores, above):
        if name != CONSTANT:
            continue
        settings = list(itertools.product(reads.learning_rate.values, reads.samples.values))
        for (rate, count), (bolder, more) in itertools.product(settings, settings):
            if more == 4 * count and np.isclose(bolder, 4 * rate):
                many, few = (
                    reads.sel(learning_rate=r, samples=n, drop=True) for r, n in ((bolder, more), (rate, count))
                )
                yield f"{title}, N = {count}, η = {rate:g}, against four times both", many / few


def budget_table(stores: Mapping[str, xr.Dataset], above: float = ABOVE) -> pd.DataFrame:
    """Every schedule: error after training, and reads until the target (geometric mean, 95 % interval), to read."""
    rows, aims = [], targets(stores, above)
    for ds in stores.values():
        target = aims.get(ds.title.item(), np.nan)
        error = final_error(ds).isel(dataset=0, averaging=0, sigma=0)
        reads = reads_until(ds, target)
        total = costs(ds).isel(epoch=-1, sigma=0).mean("seed")
        for rate, count in itertools.product(error.learning_rate.values, error.samples.values):
            at = {"learning_rate": rate, "samples": count}
            arrived = reads.sel(at).dropna("seed")
            taken = in_text(geometric_interval(arrived), "{:.2g}") if arrived.size else "never"
            rows.append(
                {
                    "data set": ds.title.item(),
                    "read-outs": label(ds),
                    "N at first": count,
                    "η": f"{rate:g}",
                    "error at the end (%)": f"{100 * float(error.sel(at).mean()):.1f}",
                    "reads in all": f"{float(total.sel(at)):.2g}",
                    "target (%)": f"{100 * target:.1f}",
                    "reads until the target": taken,
                    "arrived": f"{arrived.size} of {reads.sizes['seed']}",
                }
            )
    return pd.DataFrame(rows)
