"""The claims of the second registration, judged over whole families of settings.

A family is what `params/claims.yaml` names under `second`: every data set, learning rate, time of training and
definition of the limit that a claim could be read at. Effects are values of each seed over the dims of the family; a
setting that cannot be tested has a reason. Errors, stores and intervals as in `limit`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .benefit import at_choice, beyond_tuning, held_out_choice, optimum
from .claims import verdict
from .intervals import geometric_interval, paired_share, t_interval
from .limit import choice_error, critical_limit, final_error, scaling_exponent, stuck
from .registration import Family, FamilyClaims, registered_claims

OWN = "its own best"  # of each data set: the learning rate of least validation error without noise
COLUMNS = ["claim", "dataset", "learning_rate", "definition", "epoch", "value", "low", "high", "n", "verdict",
           "in the family", "reason"]  # fmt: skip
VERDICTS = ["supported", "undecided", "contradicted", "not testable"]


class Effect(NamedTuple):
    """What a claim is judged by: `values` over its family and seed; `reason` over its family, "" where testable."""

    values: xr.DataArray
    reason: xr.DataArray
    interval: Callable[..., xr.Dataset] = t_interval


def effect_of(
    settings: Iterable[tuple[str, xr.DataArray]],
    interval: Callable[..., xr.Dataset] = t_interval,
    complete: bool = False,
) -> Effect:
    """The `Effect` of labelled settings, each (seed,); testable if two seeds, or all if `complete`, have one."""
    by_label = dict(settings)
    if not by_label:
        nothing = xr.DataArray([[np.nan]], {"dataset": ["none"], "seed": [0]}, ("dataset", "seed"))
        return Effect(nothing, xr.DataArray(["no such setting"], {"dataset": ["none"]}, "dataset"), interval)
    reasons = []
    for values in by_label.values():
        n, seeds = int(values.count()), values.sizes["seed"]
        enough = n > 1 and (n == seeds or not complete)
        reasons.append("" if enough else f"{n} of {seeds} seeds have it")
    labels = xr.Variable("dataset", list(by_label))
    together = xr.concat([v.reset_coords(drop=True) for v in by_label.values()], labels, join="outer")
    return Effect(together, xr.DataArray(reasons, {"dataset": labels}, "dataset"), interval)


def family_effects(ds: xr.Dataset, averaging: xr.Dataset | None = None, controls: Sequence[xr.Dataset] = ()) -> dict:
    """The `Effect` of each claim of the second registration, by name.

    Args:
        ds: a sweep over data sets, learning rates and sigma, with a record after each epoch.
        averaging: a sweep over samples N, explicitly averaged; `controls`: sweeps of N = 1 with other realisations.
    """
    ds = ds.isel({dim: 0 for dim in ("averaging", "samples") if dim in ds.dims}, drop=True)
    last = float(ds.epoch[-1])
    times = [t for t in registered_claims().second.epochs if t in ds.epoch and t < last] + [last]
    at_each = [ds.sel(epoch=[t]) for t in times]
    error, choice = (
        xr.concat([of(at) for at in at_each], xr.Variable("epoch", times)) for of in (final_error, choice_error)
    )
    limits = _limits(error, ds.chance)
    effects = {
        "limit": _width(limits), "value": _value(limits), "datasets": _ratios(limits, choice),
        "rescue": _rescue(error, choice, ds.chance), "accuracy": _accuracy(error, choice, ds.chance),
        "beyond_tuning": _beyond_tuning(error, choice, ds.chance),
        "optimum": _optimum(error, choice, ds.chance, limits),
    }  # fmt: skip
    if averaging is not None:
        effects["scaling"] = _scaling(averaging, controls)
    return {name: effects[name] for name in FamilyClaims.model_fields if name in effects}


def _limits(error: xr.DataArray, chance: xr.DataArray) -> xr.Dataset:
    """`limit` (V) and `width` of each seed over the family's settings, the limits' `mean`, and whether it `learns`."""
    second = registered_claims().second
    of_each = [critical_limit(error, chance, definition=name) for name in second.definitions]
    limits = xr.concat(of_each, xr.Variable("definition", second.definitions))
    ran = error.notnull().any("sigma")
    return limits[["limit", "width", "mean"]].assign(learns=limits.half.notnull(), ran=ran)


def _few(bracketed: xr.DataArray, ran: xr.DataArray, learns: xr.DataArray, what: str = "limit") -> xr.DataArray:
    """Why a limit can't be compared where too few of the seeds have what is needed for it."""
    n, of = bracketed.sum("seed"), ran.sum("seed")
    enough = (n >= registered_claims().second.bracketed * of) & (n > 1)
    few = xr.apply_ufunc(lambda n, of: f"{n} of {of} seeds have a {what}", n, of, vectorize=True)
    return xr.where(learns, xr.where(enough, "", few), "never learns")


def _last(values: Any) -> Any:
    return values.isel(epoch=[-1])


def _width(limits: xr.Dataset) -> Effect:
    first = _last(limits.sel(definition=["half way"]))
    return Effect(first.width, _few(first.width.notnull(), first.ran, first.learns, "width"), geometric_interval)


def _value(limits: xr.Dataset) -> Effect:
    first = _last(limits.sel(definition=["half way"]))
    return Effect(first.limit, _few(first.limit.notnull(), first.ran, first.learns), geometric_interval)


def _ratios(limits: xr.Dataset, choice: xr.DataArray) -> Effect:
    """Of each pair of data sets, at equal learning rates and with the own best of both."""
    best = choice.sel(sigma=0, drop=True).mean("seed").fillna(np.inf).argmin("learning_rate")
    own = limits.isel(learning_rate=best, drop=True).drop_vars("learning_rate", errors="ignore")
    labels = [f"{rate:g}" for rate in limits.learning_rate.values]
    rates = xr.concat(
        [limits.assign_coords(learning_rate=labels), own.expand_dims(learning_rate=[OWN])], "learning_rate"
    )
    ratios, reasons, pairs = [], [], list(itertools.combinations(limits.dataset.values.tolist(), 2))
    for a, b in (tuple(rates.sel(dataset=name, drop=True) for name in pair) for pair in pairs):
        ratio = a.limit / b.limit
        ratios.append(ratio)
        reasons.append(_few(ratio.notnull(), a.ran & b.ran, a.learns & b.learns, "limit on both data sets"))
    names = xr.Variable("dataset", [" / ".join(pair) for pair in pairs])
    if not pairs:
        nothing = rates.limit.isel(dataset=[0]).assign_coords(dataset=limits.dataset)
        return Effect(
            nothing * np.nan,
            xr.full_like(nothing.isel(seed=0, drop=True), "a single data set", object),
            geometric_interval,
        )
    return Effect(xr.concat(ratios, names), xr.concat(reasons, names), geometric_interval)


def _works(error: xr.DataArray, chance: xr.DataArray, over: Sequence[str] = ("sigma",)) -> xr.DataArray:
    """Why accuracies say little where the network hardly learns."""
    lowest = error.mean("seed").min(over)
    text = xr.apply_ufunc(lambda lowest: f"at best {1 - lowest:.0%} correct", lowest, vectorize=True)
    return xr.where(lowest < registered_claims().second.works * chance, "", text)


def _rescue(error: xr.DataArray, choice: xr.DataArray, chance: xr.DataArray) -> Effect:
    error, choice = _last(error), _last(choice)
    at_chance = stuck(error, chance)
    quiet, noisy = at_chance.sel(sigma=0, drop=True), at_chance.sel(sigma=at_chance.sigma > 0)
    chosen = held_out_choice(choice.sel(sigma=choice.sigma > 0), ["sigma"])
    rescued = quiet - at_choice(noisy, chosen, ["sigma"])
    return Effect(rescued, xr.where((quiet == 1).any("seed"), "", "no run is stuck without noise"), paired_share)


def _accuracy(error: xr.DataArray, choice: xr.DataArray, chance: xr.DataArray) -> Effect:
    return Effect(optimum(error, choice).benefit, _works(error, chance))


def _beyond_tuning(error: xr.DataArray, choice: xr.DataArray, chance: xr.DataArray) -> Effect:
    return Effect(beyond_tuning(error, choice).difference, _works(error, chance, ("sigma", "learning_rate")))


def _optimum(error: xr.DataArray, choice: xr.DataArray, chance: xr.DataArray, limits: xr.Dataset) -> Effect:
    """The decade below the limit against all that lies below that decade, no noise among it."""
    error, choice, first = _last(error), _last(choice), _last(limits.sel(definition="half way", drop=True))
    limit = first["mean"]
    parts = (error.sigma < limit / 10, (error.sigma >= limit / 10) & (error.sigma <= limit))
    below, decade = (at_choice(error, held_out_choice(choice.where(part), ["sigma"]), ["sigma"]) for part in parts)
    works, few = _works(error, chance), _few(first.limit.notnull(), first.ran, first.learns)
    reason = xr.where(works != "", works, few)
    return Effect(below - decade, xr.where((reason == "") & ~parts[1].any("sigma"), "no σ in that decade", reason))


def scaling_limits(ds: xr.Dataset, controls: Sequence[xr.Dataset] = ()) -> xr.DataArray:
    """Limits (V) over (arm, samples, seed), from sweeps that are equally wide in sigma/sqrt(N) at every N.

    The arm "read-outs" holds those of `ds`, explicitly averaged where it was. The arm "control" holds N = 1 with
    several realisations of data order and noise, the first that of `ds`, taken for N = 1, 4, …: its exponent is 1/2.
    """
    ds = ds.sel(averaging="explicit" if "explicit" in ds.averaging else ds.averaging[0], drop=True)
    counts, swept = ds.samples.values, ds.sigma.values[ds.sigma.values > 0]
    low, high = swept.min() / counts.min() ** 0.5 * (1 - 1e-6), swept.max() / counts.max() ** 0.5 * (1 + 1e-6)

    def limit(store: xr.Dataset, count: int) -> xr.DataArray:
        error, single = final_error(store), store.sigma / count**0.5
        return critical_limit(error.sel(sigma=(single >= low) & (single <= high)), store.chance).limit.squeeze(
            drop=True
        )

    arms = {"read-outs": [limit(ds.sel(samples=count, drop=True), count) for count in counts]}
    if controls:
        again = [
            ds.sel(samples=1, drop=True),
            *(control.isel(samples=0, averaging=0, drop=True) for control in controls),
        ]
        arms["control"] = [limit(store, 1) * count**0.5 for store, count in zip(again, counts, strict=False)]
    along = [xr.concat(limits, xr.Variable("samples", counts[: len(limits)])) for limits in arms.values()]
    return xr.concat(along, xr.Variable("arm", list(arms)), join="outer")


def _scaling(ds: xr.Dataset, controls: Sequence[xr.Dataset]) -> Effect:
    limits = scaling_limits(ds, controls)
    slopes = scaling_exponent(limits.where(limits.notnull().all("samples"))).slope
    setting = {name: [ds[name].item()] for name in ("dataset", "learning_rate")}
    control, values = t_interval(slopes), slopes.sel(arm="read-outs", drop=True).expand_dims(setting)
    reason = "" if values.count() > 1 else "fewer than two seeds have a limit at every N"
    if not reason and "control" in slopes.arm:
        low, high = (float(bound.sel(arm="control")) for bound in (control.low, control.high))
        reason = "" if low <= 0.5 <= high else f"the control's interval, [{low:.3f}, {high:.3f}], misses 0.5"
    return Effect(values, xr.full_like(values.isel(seed=0, drop=True), reason, object))


def family_rows(effects: Mapping[str, Effect], claims: Mapping[str, Family] | None = None) -> pd.DataFrame:
    """A row for each setting of each claim's family: COLUMNS. `claims`: by name, None for the second registration's.

    `verdict` is by the 95 % interval (low, high); `in the family` by the wider one, at 1 - 0.05/m for the m settings of
    the family that can be tested. `value` and the bounds are in the units of the claim's measure.
    """
    tables, claims = [], claims or dict(registered_claims().second.claims)
    for name, (values, reason, interval) in effects.items():
        claim = claims[name]
        m = max(1, int((reason == "").sum()))
        # a share, and a difference of errors, is never above 1: its interval may end there
        inside = claim.inside[0], np.inf if claim.inside[1] == 1 else claim.inside[1]
        effect, wide = interval(values), interval(values, level=1 - 0.05 / m)
        columns = effect.assign(wide_low=wide.low, wide_high=wide.high, reason=reason).rename(mean="value")
        table = columns.to_dataframe().reset_index().query("n > 0 or reason != ''")
        for column, low, high in (("verdict", "low", "high"), ("in the family", "wide_low", "wide_high")):
            table[column] = [
                "not testable" if why else verdict(a, b, inside=inside, contains=claim.contains)
                for why, a, b in zip(table.reason, table[low], table[high], strict=True)
            ]
        tables.append(table.assign(claim=name))
    return pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)


def family_verdicts(rows: pd.DataFrame, claims: Mapping[str, Family] | None = None) -> pd.DataFrame:
    """A row for each claim, of `family_rows`: its verdict over the family, and the setting that shows it best.

    That is, of a claim that should hold everywhere, the setting farthest from it, and of others the setting most in
    their favour; of those that decide the verdict, where any do. `m` settings can be tested; the columns named by
    verdicts count them by their 95 % intervals.
    """
    columns = [name for name in COLUMNS if name not in ("claim", "in the family")] + ["m", *VERDICTS]
    verdicts, claims = {}, claims or dict(registered_claims().second.claims)
    for name, settings in rows.groupby("claim", sort=False):
        claim = claims[str(name)]
        tested = settings[settings.verdict != "not testable"]
        decisive, other = (
            ("contradicted", "supported") if claim.holds == "everywhere" else ("supported", "contradicted")
        )
        deciding = tested[tested["in the family"] == decisive]
        judged = (
            decisive if len(deciding) else other if len(tested) and (tested.verdict == other).all() else "undecided"
        )
        candidates = deciding if len(deciding) else tested
        if len(candidates):
            extreme = candidates.loc[_against(claim, candidates.value).idxmax()].to_dict()
        else:
            nothing = dict.fromkeys(("value", "low", "high"), np.nan) | {"reason": settings.reason.mode()[0]}
            extreme, judged = settings.iloc[0].to_dict() | nothing, "not testable"
        counts = settings.verdict.value_counts().reindex(VERDICTS, fill_value=0).to_dict()
        shown = extreme | {"verdict": judged, "m": len(tested)} | counts
        verdicts[name] = [shown[column] for column in columns]
    return pd.DataFrame.from_dict(verdicts, orient="index", columns=columns)


def verdict_table(rows: pd.DataFrame, claims: Mapping[str, Family]) -> pd.DataFrame:
    """`family_verdicts` of a later registration to read: a row for each hypothesis."""
    table = family_verdicts(rows, claims)
    numbers = zip(table["value"], table.low, table.high, strict=True)
    effect = ["none" if np.isnan(v) else f"{v:.3g} [{low:.3g}, {high:.3g}]" for v, low, high in numbers]
    shown = {"most telling setting": table.dataset, "value [95 %]": effect, "n": table.n, "tested": table.m}
    counts = {name: table[name] for name in VERDICTS[:3]}
    hypotheses = [claims[str(name)].hypothesis for name in table.index]
    return pd.DataFrame(shown | counts | {"verdict": table.verdict}).set_axis(hypotheses)


def _against(claim: Family, value: pd.Series) -> pd.Series:
    """How far a value lies out: in favour of a claim on some settings, away from a claim on all."""
    low, high = claim.inside
    if claim.holds == "somewhere":
        return value
    if high == 1:  # shares and errors, the more the better
        return -value
    return np.log(value / np.sqrt(low * high)).abs() if low > 0 else (value - (low + high) / 2).abs()
