"""How long a network stays on its plateau at chance: from a store to escape times, with the runs that never left.

A store as `limit` describes it, with records within its epochs (`looks`). Time is counted in training images seen. A
run *escapes* at the first record from which its test error stays below a share of chance (`learns`, registered) to the
end of the record, so times are known to the distance of two records. A run that doesn't is *censored*: all that is
known is that its time is longer than the record. Censored runs are never left out of a share or a median.

What a store is, the parameters recorded in it say, not its name, which is a label.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from ..sweep.store import parameters
from .intervals import geometric_interval, t_interval
from .limit import first_setting
from .registration import registered_claims

Stores = Mapping[str, xr.Dataset]
Key = TypeVar("Key", bound=Hashable)


def images_seen(ds: xr.Dataset) -> xr.DataArray:
    """Training images seen at each record, over epoch."""
    return (ds.epoch * parameters(ds, "train_images")["train_images"]).round().rename("images_seen")


def images_in_all(ds: xr.Dataset) -> int:
    """Training images seen at the last record."""
    return int(images_seen(ds)[-1])


def architecture(ds: xr.Dataset) -> str:
    """The hidden layers of a store's network: "1024x3" for three of 1024 units, "100-50" for unequal ones."""
    widths = next(iter(parameters(ds, "sizes")["sizes"].values()))[1:-1]
    return f"{widths[0]}x{len(widths)}" if len(set(widths)) == 1 else "-".join(map(str, widths))


def differences(ds: xr.Dataset, other: xr.Dataset) -> set[str]:
    """Names of the recorded parameters in which two stores differ."""
    first, second = parameters(ds), parameters(other)
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


def grouped(stores: Stores, key: Callable[[xr.Dataset], Key]) -> dict[Key, dict[str, xr.Dataset]]:
    """Stores by their `key`, `architecture` or `images_in_all`, in their order."""
    groups: dict[Key, dict[str, xr.Dataset]] = {}
    for name, ds in stores.items():
        groups.setdefault(key(ds), {})[name] = ds
    return groups


def first_and_longer(stores: Stores) -> tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Stores that have seen the fewest images of all of their architecture, and those that were trained for longer.

    Those in float64 are in neither: they are there to show what rounding does.
    """
    single = {name: ds for name, ds in stores.items() if parameters(ds).get("dtype", "float32") == "float32"}
    fewest = {key: min(map(images_in_all, group.values())) for key, group in grouped(single, architecture).items()}
    first = {name: ds for name, ds in single.items() if images_in_all(ds) == fewest[architecture(ds)]}
    return first, {name: ds for name, ds in single.items() if name not in first}


def escape(ds: xr.Dataset) -> xr.Dataset:
    """When each run escapes, over (sigma, seed) and what other dims the error has, but epoch.

    `images` seen until then, and until the record `before`, NaN where it hasn't; `escaped` and `ran`, bool; `followed`,
    images in all, without dims.
    """
    seen, ran = images_seen(ds), ds.test_error.notnull().all("epoch")
    below = ds.test_error < registered_claims().learns * ds.chance
    stays = below.isel(epoch=slice(None, None, -1)).cumprod("epoch").isel(epoch=slice(None, None, -1))
    images = seen.where(stays == 1).min("epoch").where(ran)
    before = seen.shift(epoch=1, fill_value=0).where(stays == 1).min("epoch").where(ran)
    facts = {"images": images, "before": before, "escaped": images.notnull(), "ran": ran, "followed": seen.max()}
    return xr.Dataset(facts)


def share_escaped(escapes: xr.Dataset, seen: xr.DataArray) -> xr.DataArray:
    """Share of the seeds that have escaped after each of `seen` images (Kaplan-Meier); NaN where none was run.

    `escapes` as `escape` returns them, `seen` as `images_seen`; over the dims of `escapes` but seed, and epoch.
    """

    def curve(images: np.ndarray, ran: np.ndarray) -> np.ndarray:
        escaped = np.isfinite(images)
        if not escaped.any():
            return np.full(len(seen), 0.0 if ran.any() else np.nan)
        times = np.where(escaped, images, float(escapes.followed))[ran]
        cdf = stats.ecdf(stats.CensoredData.right_censored(times, ~escaped[ran])).cdf
        return cdf.evaluate(seen.values)

    share: xr.DataArray = xr.apply_ufunc(
        curve, escapes.images, escapes.ran, input_core_dims=[["seed"]] * 2, output_core_dims=[["epoch"]], vectorize=True
    )
    return share.assign_coords(epoch=seen.epoch)


def median_escape(escapes: xr.Dataset, seen: xr.DataArray) -> xr.DataArray:
    """Images after which half of the seeds have escaped (Kaplan-Meier), over sigma; NaN where fewer ever have.

    `escapes` and `seen` as in `share_escaped`.
    """
    return seen.where(share_escaped(escapes, seen) >= 0.5 - 1e-9).min("epoch")


def with_and_without(ds: xr.Dataset, sigma: float) -> tuple[xr.Dataset, xr.Dataset]:
    """The runs at `sigma` (V) and at 0; KeyError where one of them was not swept."""
    noisy, quiet = (ds.sel(sigma=v, method="nearest", tolerance=1e-3 * v, drop=True) for v in (sigma, 0.0))
    return noisy, quiet


def escape_ratio(escapes: xr.Dataset, sigma: float, level: float = 0.95) -> xr.Dataset:
    """Time to escape with `sigma` (V) over that without noise, paired over seeds; `escapes` as `escape` returns them.

    (mean, low, high, n) over pairs of which both escape: geometric mean of the records at which they did, and bounds
    that allow for times known to within a record, from t intervals of the log of the least and the greatest ratios that
    are possible. `pairs` that were run, `censored` ones, of which one or both did not escape. Raises KeyError if
    `sigma` or 0 was not run.
    """
    noisy, quiet = with_and_without(escapes, sigma)
    ran = noisy.ran & quiet.ran
    censored = (ran & ~(noisy.escaped & quiet.escaped)).sum("seed")
    ratio = geometric_interval((noisy.images / quiet.images).where(ran), level=level)
    # a run that has escaped at the first record may have done so at once
    with np.errstate(divide="ignore", invalid="ignore"):
        least = geometric_interval((noisy.before / quiet.images).where(ran), level=level).low
        greatest = geometric_interval((noisy.images / quiet.before).where(ran), level=level).high
    low, high = least.fillna(0).where(ratio.low.notnull()), greatest.fillna(np.inf).where(ratio.high.notnull())
    return ratio.assign(low=low, high=high, pairs=ran.sum("seed"), censored=censored)


def noise_factors(ds: xr.Dataset, sigma: float, level: float = 0.95) -> xr.Dataset:
    """By what `sigma` (V) has multiplied each layer's response and mean conductance at the last record.

    Paired over seeds: geometric (mean, low, high, n) over (quantity, layer), t interval of the log. Raises KeyError if
    `sigma` or 0 was not run.
    """
    noisy, quiet = with_and_without(first_setting(ds)[["response", "conductance"]].isel(epoch=-1, drop=True), sigma)
    return geometric_interval((noisy / quiet).to_dataarray("quantity"), level=level)


def benefit_over_images(ds: xr.Dataset, sigma: float, level: float = 0.95) -> xr.Dataset:
    """By how much `sigma` (V) has lowered the test error at each record: (mean, low, high, n) over `images` seen.

    Paired over seeds, t interval. Raises KeyError if `sigma` or 0 was not run.
    """
    noisy, quiet = with_and_without(first_setting(ds)[["test_error"]], sigma)
    saved = (quiet - noisy).test_error.assign_coords(epoch=images_seen(ds).astype(int)).rename(epoch="images")
    return t_interval(saved, level=level)


def escape_table(stores: Stores) -> pd.DataFrame:
    """Table over (network, sigma in V): runs, how many of them escaped, and the median of the images that it took."""
    rows = {}
    for name, ds in stores.items():
        escapes = escape(first_setting(ds))
        columns = {
            "runs": escapes.ran.sum("seed"),
            "escaped": escapes.escaped.sum("seed"),
            "median": median_escape(escapes, images_seen(ds)),
        }
        for sigma in ds.sigma.values:
            rows[name, sigma] = {column: float(values.sel(sigma=sigma)) for column, values in columns.items()}
    index = pd.MultiIndex.from_tuples(list(rows), names=["network", "sigma"])
    return pd.DataFrame(list(rows.values()), index, ["runs", "escaped", "median"])
