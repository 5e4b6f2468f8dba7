"""How long a network stays on its plateau at chance: from a store to escape times, with the runs that never left.

A store as `analysis` describes it, with records within its epochs (`looks`). Time is counted in training images seen. A
run *escapes* at the first record from which its test error stays below LEARNS of chance to the end of the record, so
times are known to the distance of two records. A run that doesn't is *censored*: all that is known is that its time is
longer than the record. Censored runs are never left out of a share or a median.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from ..sweep import store
from .limit import LEARNS, first_setting, geometric_interval, t_interval

FLOAT64 = "-float64"  # ends the name of a control, whose twin is in float32
LONGER = "-long"  # ends the name of a network that is trained on beyond its first epoch, at fewer sigmas


def images_seen(ds: xr.Dataset) -> xr.DataArray:
    """Training images seen at each record."""
    return (ds.epoch * store.parameters(ds)["train_images"]).round().rename("images_seen")


def escape(ds: xr.Dataset) -> xr.Dataset:
    """Of each run: `images` seen until it escapes, NaN where it hasn't; `escaped`, `ran` (bool); `followed`, images."""
    seen, ran = images_seen(ds), ds.test_error.notnull().all("epoch")
    learns = ds.test_error < LEARNS * ds.chance
    stays = learns.isel(epoch=slice(None, None, -1)).cumprod("epoch").isel(epoch=slice(None, None, -1))
    images = seen.where(stays == 1).min("epoch").where(ran)
    return xr.Dataset({"images": images, "escaped": images.notnull(), "ran": ran, "followed": seen.max()})


def share_escaped(found: xr.Dataset, seen: xr.DataArray) -> xr.DataArray:
    """Share of the seeds that have escaped after each of `seen` images (Kaplan-Meier); NaN where none was run.

    `found` as `escape` returns it.
    """

    def curve(images: np.ndarray, ran: np.ndarray) -> np.ndarray:
        escaped = np.isfinite(images)
        if not escaped.any():
            return np.full(len(seen), 0.0 if ran.any() else np.nan)
        times = np.where(escaped, images, float(found.followed))[ran]
        cdf = stats.ecdf(stats.CensoredData.right_censored(times, ~escaped[ran])).cdf
        return cdf.evaluate(seen.values)

    share: xr.DataArray = xr.apply_ufunc(
        curve, found.images, found.ran, input_core_dims=[["seed"]] * 2, output_core_dims=[["epoch"]], vectorize=True
    )
    return share.assign_coords(epoch=seen.epoch)


def median_escape(found: xr.Dataset, seen: xr.DataArray) -> xr.DataArray:
    """Images after which half of the seeds have escaped (Kaplan-Meier); NaN where fewer have in the whole record."""
    return seen.where(share_escaped(found, seen) >= 0.5 - 1e-9).min("epoch")


def _with_and_without(ds: xr.Dataset, sigma: float) -> tuple[xr.Dataset, xr.Dataset]:
    noisy, quiet = (ds.sel(sigma=v, method="nearest", tolerance=1e-3 * v, drop=True) for v in (sigma, 0.0))
    return noisy, quiet


def escape_ratio(found: xr.Dataset, sigma: float, level: float = 0.95) -> xr.Dataset:
    """Time to escape with `sigma` over that without noise, paired over seeds.

    Geometric (mean, low, high, n), t interval of the log, over pairs of which both escape; `pairs` that were run,
    `censored` ones, of which one or both did not escape; `sooner` and `later`, pairs, censored ones among them, in
    which it is known that the noisy run escaped before or after the other. Raises KeyError if `sigma` or 0 was not run.
    """
    noisy, quiet = _with_and_without(found, sigma)
    ran = noisy.ran & quiet.ran
    at, before = (each.images.fillna(np.inf) for each in (noisy, quiet))
    counts = {
        "pairs": ran,
        "censored": ran & ~(noisy.escaped & quiet.escaped),
        "sooner": ran & (at < before),
        "later": ran & (at > before),
    }
    ratio = geometric_interval((noisy.images / quiet.images).where(ran), level=level)
    return ratio.assign({name: each.sum("seed") for name, each in counts.items()})


def noise_factors(ds: xr.Dataset, sigma: float, level: float = 0.95) -> xr.Dataset:
    """By what noise has multiplied each layer's response and mean conductance at the last record.

    Paired over seeds: geometric (mean, low, high, n) over (quantity, layer), t interval of the log. Raises KeyError if
    `sigma` or 0 was not run.
    """
    noisy, quiet = _with_and_without(first_setting(ds)[["response", "conductance"]].isel(epoch=-1, drop=True), sigma)
    return geometric_interval((noisy / quiet).to_dataarray("quantity"), level=level)


def benefit_over_images(ds: xr.Dataset, sigma: float, level: float = 0.95) -> xr.Dataset:
    """By how much `sigma` has lowered the test error at each record: (mean, low, high, n) over `images` seen.

    Paired over seeds, t interval. Raises KeyError if `sigma` or 0 was not run.
    """
    noisy, quiet = _with_and_without(first_setting(ds)[["test_error"]], sigma)
    saved = (quiet - noisy).test_error.assign_coords(epoch=images_seen(ds).astype(int)).rename(epoch="images")
    return t_interval(saved, level=level)


def escape_table(stores: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Table over (network, sigma): runs, how many of them escaped, and the median of the images that it took."""
    rows = {}
    for name, ds in stores.items():
        found = escape(first_setting(ds))
        facts = {
            "runs": found.ran.sum("seed"),
            "escaped": found.escaped.sum("seed"),
            "median": median_escape(found, images_seen(ds)),
        }
        for sigma in ds.sigma.values:
            rows[name, sigma] = {key: float(v.sel(sigma=sigma)) for key, v in facts.items()}
    index = pd.MultiIndex.from_tuples(list(rows), names=["network", "sigma"])
    return pd.DataFrame(list(rows.values()), index, ["runs", "escaped", "median"])
