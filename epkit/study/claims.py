"""The paper's five claims (arXiv:2503.22810), judged from a store.

Each `claim_*` takes a store as `limit` describes it (errors in [0, 1], sigma and limits in volts) and returns a table
with the columns COLUMNS, a row for each setting (data set, learning rate, averaging, samples) that was run; n are
seeds, and what a column does not apply to is NaN. Everything in it is computed. Thresholds, and which of the settings
is the primary one that the verdict is read at, are those of `registered_claims`; the column setting tells the primary
from the secondary, and both from networks that were not trained as registered. Where every run of a setting diverged
the verdict is "not testable": that the numerics failed says nothing of a claim.
"""

import itertools
import math
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
import pandas as pd
import xarray as xr

from ..sweep.store import parameters
from .benefit import beyond_tuning, optimum, star_over_limit
from .diagnosis import DIVERGED, all_diverged, diagnosis
from .intervals import t_interval
from .limit import (
    choice_error,
    critical_limit,
    final_error,
    first_setting,
    limit_ratio,
    require,
    scaling_exponent,
    sigma_step,
    training_steps,
)
from .plateau import Stores, escape, escape_ratio
from .registration import Claim, registered_claims

COLUMNS = [
    "claim", "dataset", "network", "learning_rate", "averaging", "samples", "steps", "measure", "value", "low", "high",
    "n", "verdict", "setting", "note",
]  # fmt: skip
# accuracies without noise and at the best uncertainty, as the paper reports them
REPORTED = {"kmnist": (0.77, 0.97), "fashion_mnist": (0.26, 0.93)}
FARTHEST = "σ_c ratio, the farthest from 1 of all pairs"
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
Range = tuple[float, float]
Describe = Callable[[xr.Dataset], str]


def verdict(low: SupportsFloat, high: SupportsFloat, *, inside: Range, contains: float | None = None) -> str:
    """Judge the interval [low, high] of an effect: "supported", "contradicted", "undecided" or "not testable".

    Supported: it lies within the open range `inside` and, where a point hypothesis is given, `contains` it.
    Contradicted: it excludes that point or, without one, lies wholly outside the range. A NaN bound, which says that
    nothing could be measured: not testable.
    """
    low, high = float(low), float(high)
    if math.isnan(low + high):
        return "not testable"
    if contains is not None and not low <= contains <= high:
        return "contradicted"
    if inside[0] < low and high < inside[1]:
        return "supported"
    return "contradicted" if contains is None and (high <= inside[0] or low >= inside[1]) else "undecided"


def equivalent(low: SupportsFloat, high: SupportsFloat, factor: float) -> str:
    """Verdict on "this ratio is 1 within `factor`", from the ratio's interval."""
    return verdict(low, high, inside=(1 / factor, factor))


def _judged(claim: str, measure: str, numbers: Sequence[SupportsFloat], n: int, verdict: str, **facts: object) -> dict:
    """A row of a claims table; `numbers`: value, low, high, of which the bounds may be left out."""
    value, low, high = (*map(float, numbers), math.nan, math.nan)[:3]
    return dict(claim=claim, measure=measure, value=value, low=low, high=high, n=n, verdict=verdict, **facts)


def _table(
    ds: xr.Dataset, statement: str, claim: Claim, error: xr.DataArray, effects: xr.Dataset, measure: str,
    judge: Describe, note: Describe = lambda effect: "", failed: xr.DataArray | None = None,
) -> pd.DataFrame:  # fmt: skip
    """A row for each setting of `effects`, (mean, low, high, n), at which any of `error` was run, primary ones first.

    `effects` have some of the dims dataset, learning_rate, averaging and samples; `error` has these and others.
    `judge` and `note` take the effect of one setting. Where all runs have diverged, which `failed` says or the store
    does, there is no effect to judge.
    """
    titles = require(ds, "title").title.to_series()
    kept = effects["mean"].dims
    ran = error.notnull().any([dim for dim in error.dims if dim not in kept])
    failed = all_diverged(ds) if failed is None else failed
    failed = failed.all([dim for dim in failed.dims if dim not in kept])
    rows = []
    for values in itertools.product(*(ran[dim].values.tolist() for dim in ran.dims)):
        point = dict(zip(map(str, ran.dims), values, strict=True))
        if not ran.sel(point):
            continue
        effect, all_failed = effects.sel(point), bool(failed.sel(point))
        facts: dict[str, Any] = {"setting": claim.setting(_recorded(ds), point)}
        facts["note"] = DIVERGED if all_failed else note(effect)
        facts |= point | {"network": network_name(ds, point["dataset"]), "steps": training_steps(ds)}
        facts["dataset"] = titles.get(point["dataset"], point["dataset"])
        numbers = [math.nan] * 3 if all_failed else [effect[name] for name in ("mean", "low", "high")]
        judged = "not testable" if all_failed else judge(effect)
        rows.append(_judged(statement, measure, numbers, int(effect.n), judged, **facts))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("setting", key=lambda names: names != "primary", kind="stable", ignore_index=True)


def _recorded(ds: xr.Dataset) -> dict[str, Any]:
    """The parameters of a store, with the epochs that it is looked at after."""
    return parameters(ds) | {"epochs": float(ds.epoch.max())}


def network_name(ds: xr.Dataset, dataset: Hashable = None) -> str:
    """The layers of a store's network on one of its data sets, or on all that it has: "784-128³-10"."""
    sizes = parameters(ds, "sizes")["sizes"]
    widths = [sizes[dataset]] if dataset in sizes else sizes.values()

    def name(inputs: int, *layers: int) -> str:
        runs = [(width, len(list(same))) for width, same in itertools.groupby(layers)]
        return "-".join([str(inputs), *(f"{width}{str(n).translate(SUPERSCRIPT) * (n > 1)}" for width, n in runs)])

    return " / ".join(dict.fromkeys(name(*layers) for layers in widths))


def claim_gradient(ds: xr.Dataset) -> pd.DataFrame:
    """Notebook 01, a row a layer: the centred estimate is the gradient of backpropagation for beta -> 0.

    `ds` holds `relative_error` (estimator, nudge in S, layer). Supported where it is below `within` at the smallest
    beta, else contradicted. One network, no interval.
    """
    claim = registered_claims().gradient
    errors = ds.relative_error.sel(estimator="centered").isel(nudge=0)
    rows = [
        _judged("EP estimates the true gradient", f"relative error of layer {int(layer)}", [error], 1,
                _below(error, claim.within), note=f"at β = {float(errors.nudge):g} S")
        for layer, error in zip(errors.layer, errors, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _below(error: SupportsFloat, bound: float) -> str:
    """Verdict on an error without interval; not testable where it could not be computed."""
    error = float(error)
    return "not testable" if math.isnan(error) else "supported" if error < bound else "contradicted"


def claim_published(stores: Stores, error: Mapping[str, float], epochs: Mapping[str, int]) -> pd.DataFrame:
    """Notebook 00, a row a network: the test error after training is the reported one, `within` either way.

    `error` in [0, 1] and `epochs` are those reported, by the names of `stores`. The value is measured minus reported,
    with a t interval over seeds. A network trained for fewer epochs than reported, or with one seed, can't be judged.
    """
    claim, rows = registered_claims().published, []
    for name, ds in stores.items():
        final = final_error(ds)
        measured = t_interval(final.squeeze([dim for dim in final.dims if dim != "seed"], drop=True))
        difference, low, high = (float(measured[part]) - error[name] for part in ("mean", "low", "high"))
        done = int(ds.epoch.max())
        complete, failed = done == epochs[name], bool(all_diverged(ds).all())
        judged = verdict(low, high, inside=(-claim.within, claim.within)) if complete and not failed else "not testable"
        text = f"{float(measured['mean']):.2%} after {done} epochs, reported {error[name]:.2%} after {epochs[name]}"
        facts = {"dataset": ds.title.values.flat[0], "network": network_name(ds), "steps": training_steps(ds)}
        facts["note"] = DIVERGED if failed else text + " (partial)" * (not complete)
        measure, numbers = "test error − reported one", [difference, low, high]
        rows.append(_judged("the published error is re-earned", measure, numbers, int(measured.n), judged, **facts))
    return pd.DataFrame(rows, columns=COLUMNS)


def claim_exactness(ds: xr.Dataset) -> pd.DataFrame:
    """Notebook 06: what stopping early, the published nudge, float32 and real diodes do to the gradient.

    `ds` holds relative errors of gradients: `relative_error` (network, iteration, reference, layer), `float32_error`
    (network, layer), `diode_error` (scale, circuit, layer). A row's value is that of the worst layer; supported where
    it is below `within`, else contradicted (not testable: not computed). Untrained networks, no interval.
    """
    claim, names = registered_claims().exactness, ds.network.values.tolist()
    stopped = [
        (name, ds.relative_error.sel(network=name, iteration=int(ds.published_iterations.sel(network=name))))
        for name in names
    ]
    diodes = ds.diode_error.isel(scale=-1)
    circuit = f"diodes of {float(diodes.forward):.2f} V"
    errors = [
        *(("the published iterations suffice", name, e.sel(reference="converged")) for name, e in stopped),
        *(("the published nudge is small", name, e.sel(reference="exact")) for name, e in stopped),
        *(("float32 suffices at initialisation", name, ds.float32_error.sel(network=name)) for name in names),
        ("real diodes leave the ideal ones' gradient", circuit, diodes.sel(circuit="ideal")),
        ("EP finds the gradient of the circuit it runs on", circuit, diodes.sel(circuit="real")),
    ]
    rows = []
    for statement, where, error in errors:
        worst = float(error.max())
        judged = _below(worst, claim.within)
        rows.append(_judged(statement, "relative error of the worst layer", [worst], 1, judged, network=where))
    return pd.DataFrame(rows, columns=COLUMNS)


def coverage(ds: xr.Dataset) -> pd.DataFrame:
    """Which of the paper's three data sets a store holds, and as what variant; how many of its runs diverged."""
    titles = ds.title.to_series()
    diverged = ds.diverged.isel(epoch=-1, missing_dims="ignore")
    rows = {}
    for name in ("mnist", "kmnist", "fashion_mnist"):
        variants = [variant for variant in titles.index if variant.startswith(name)]
        rows[name] = "; ".join(titles[variants]) or "not in this store: nothing is said about it"
    others = [name for name in titles.index if not name.startswith(tuple(rows))]
    rows |= {name: f"{titles[name]} (not in the paper)" for name in others}
    rows["diverged runs"] = f"{int(diverged.sum())} of {diverged.size}"
    return pd.DataFrame({"": rows})


def runs_like_reported(ds: xr.Dataset, within: float = 0.05) -> pd.DataFrame:
    """Under which settings accuracies like the paper's appear: runs that end `within` of each of them.

    A row for each accuracy reported of a data set that the store holds: how many runs, on test and on training images,
    at which learning rates and sigmas (V) on test images; and the highest test accuracy of any run.
    """
    rows = {}
    accuracy = {name: 1 - final_error(ds, of=f"{name}_error") for name in ("test", "train")}
    for key, numbers in REPORTED.items():
        for name in [name for name in ds.dataset.values if str(name).startswith(key)]:
            for number, when in zip(numbers, ("without noise", "at its best σ"), strict=True):
                alike = {images: abs(a.sel(dataset=name) - number) < within for images, a in accuracy.items()}
                places = alike["test"].any([dim for dim in alike["test"].dims if dim not in ("learning_rate", "sigma")])
                where = [
                    f"η = {float(rate):g}, σ = {float(sigmas.min()):g} … {float(sigmas.max()):g} V"
                    for rate in places.learning_rate
                    if len(sigmas := places.sigma[places.sel(learning_rate=rate)])
                ]
                rows[f"{ds.title.sel(dataset=name).item()}: {number:.0%} {when}"] = {
                    "runs like that (test)": int(alike["test"].sum()),
                    "(training)": int(alike["train"].sum()),
                    "at (test)": "; ".join(where) or "nowhere",
                    "highest test accuracy": f"{float(accuracy['test'].sel(dataset=name).max()):.1%}",
                }
    return pd.DataFrame.from_dict(rows, orient="index")


def claim_limit(ds: xr.Dataset) -> pd.DataFrame:
    """Claim 1, a row a setting: there is a critical limit (value: sigma_c in volts).

    Supported when every seed's limit is bracketed, and their interval spans less than `within` from end to end;
    contradicted when the network learns at no sigma at all; otherwise undecided: the limit may lie outside the sweep.
    """
    claim, error = registered_claims().limit, final_error(ds)

    def note(effect: xr.Dataset) -> str:
        why = sorted({*effect.reason.values.tolist()} - {"", "not run"})
        why = [f"{text}: {effect.diagnosis.item()}" if effect.diagnosis.item() else text for text in why]
        return "; ".join([f"swept in steps of ×{round(sigma_step(ds.sigma), 1):g}", *why])

    def judge(effect: xr.Dataset) -> str:
        located = int(effect.n) == int(effect.runs) and bool(effect.high / effect.low < claim.within)
        return "supported" if located else "contradicted" if np.isnan(effect.half) else "undecided"

    limits = critical_limit(error, ds.chance).assign(diagnosis=diagnosis(ds))
    return _table(ds, "a critical limit exists", claim, error, limits, "σ_c (V)", judge, note)


def claim_datasets(ds: xr.Dataset) -> pd.DataFrame:
    """Claim 2, a row a pair of data sets and a last one for all pairs: the limit is the same within `factor`.

    The last row repeats the ratio farthest from 1 among the settings at the registered rate. It is supported if each of
    their pairs is, contradicted if any is, not testable if the others are supported and some can't be.
    """
    claim, statement = registered_claims().datasets, "the limit is the same on all data sets"
    error, titles = final_error(ds), require(ds, "title").title.to_series()
    limits = critical_limit(error, ds.chance).limit
    pairs = list(itertools.combinations(titles.index, 2))
    if not pairs:
        facts = {"setting": claim.setting(_recorded(ds), {}), "note": "nothing to compare: one data set"}
        facts |= {"dataset": titles.iloc[0], "network": network_name(ds)}
        row = _judged(statement, "σ_c ratio", [math.nan], 0, "not testable", **facts)
        return pd.DataFrame([row], columns=COLUMNS)
    names = pd.Index([f"{titles[a]} / {titles[b]}" for a, b in pairs], name="dataset")

    def of_pairs(combine: Callable[[xr.DataArray, xr.DataArray], Any], values: xr.DataArray) -> Any:
        return xr.concat([combine(*(values.sel(dataset=name, drop=True) for name in pair)) for pair in pairs], names)

    table = _table(
        ds, statement, claim, of_pairs(operator.add, error), of_pairs(limit_ratio, limits), "σ_c ratio",
        lambda effect: equivalent(effect.low, effect.high, claim.factor),
        failed=of_pairs(operator.or_, all_diverged(ds)),
    )  # fmt: skip
    registered = [claim.primary.includes(row) for row in table.to_dict("records")]
    compared = table[registered] if any(registered) else table  # the others only where none is at the registered rate
    farthest = np.log(compared.value).abs().fillna(-1).idxmax()
    verdicts = set(compared.verdict)
    overall = next(
        (judged for judged in ("contradicted", "undecided", "not testable") if judged in verdicts), "supported"
    )
    last = compared.loc[[farthest]].assign(measure=FARTHEST, verdict=overall)
    return pd.concat([table, last], ignore_index=True)


def claim_check(ds: xr.Dataset, check: xr.Dataset) -> pd.DataFrame:
    """Claim 2 on one more data set, with a network of its own: a row for each data set of `ds` and shared rate.

    In volts the limits of two networks aren't comparable, and are not judged. They are in units of what the nudge moves
    in the weakest layer (`response` in V, at sigma = 0, in the first record), where both stores hold it. Seeds are
    shared in number only: pairing them neither helps nor harms.
    """
    claim, title = registered_claims().datasets, check.title.item()
    failed = all_diverged(ds) | all_diverged(check).isel(dataset=0, drop=True)
    check = check.isel(dataset=0, drop=True)
    shared = np.intersect1d(ds.learning_rate, check.learning_rate)
    ds, check = ds.sel(learning_rate=shared), check.sel(learning_rate=shared)
    limits = [critical_limit(final_error(runs), runs.chance).limit for runs in (check, ds)]
    natural = "response" in ds and "response" in check
    if natural:
        noiseless = [runs.response.isel(epoch=0, drop=True).sel(sigma=0, drop=True) for runs in (check, ds)]
        # a seed in which a layer has ceased to respond has no such unit
        units = [response.min("layer") for response in noiseless]
        limits = [limit / unit.where(unit > 0) for limit, unit in zip(limits, units, strict=True)]
    table = _table(
        ds.assign(title=("dataset", [f"{title} / {name}" for name in ds.title.values])),
        "the limit is the same where nothing was tuned", claim, final_error(ds), limit_ratio(*limits),
        "ratio of σ_c / response" if natural else "ratio of σ_c in volts",
        lambda effect: equivalent(effect.low, effect.high, claim.factor) if natural else "not testable", failed=failed,
    )  # fmt: skip
    networks = f"{network_name(check)} / {network_name(ds)}"
    steps = f"{training_steps(check):,} / {training_steps(ds):,}"
    return table.assign(setting="another setting", network=networks, steps=steps)


def claim_scaling(ds: xr.Dataset) -> pd.DataFrame:
    """Claim 3, a row a setting: averaging N read-outs moves the limit by √N.

    How well the curves collapse on σ/√N is not judged: the registered bound would also pass exponents from .43 to .60.
    """
    claim, error = registered_claims().scaling, final_error(ds)
    slopes = scaling_exponent(critical_limit(error, ds.chance).limit)
    return _table(
        ds, "the limit scales as √N", claim, error, slopes, "slope of log σ_c over log N",
        lambda effect: verdict(effect.low, effect.high, inside=claim.inside, contains=claim.exponent),
    )  # fmt: skip


def claim_benefit(ds: xr.Dataset) -> pd.DataFrame:
    """Claim 4, a row a setting: a finite uncertainty lowers the test error, by more than `threshold`."""
    claim, error = registered_claims().benefit, final_error(ds)
    return _table(
        ds, "a finite uncertainty helps", claim, error, optimum(error, choice_error(ds)), "error(0) − error(σ*)",
        lambda effect: verdict(effect.low, effect.high, inside=(claim.threshold, math.inf)),
        lambda effect: f"σ* = {float(effect.sigma_star):.2g} V",
    )  # fmt: skip


def claim_beyond_tuning(ds: xr.Dataset) -> pd.DataFrame:
    """Not the paper's, a row a data set: noise helps where the learning rate is tuned with and without it."""
    claim, error = registered_claims().beyond_tuning, final_error(ds)
    return _table(
        ds, "noise beats tuning", claim, error, beyond_tuning(error, choice_error(ds)),
        "error(0, best η) − error(best σ, η)",
        lambda effect: verdict(effect.low, effect.high, inside=(claim.threshold, math.inf)),
        lambda effect: f"without noise η = {float(effect.rate_noiseless):g}, "
        f"with it η = {float(effect.rate_noisy):g}, σ = {float(effect.sigma_noisy):.2g} V",
    )  # fmt: skip


def claim_optimum(ds: xr.Dataset) -> pd.DataFrame:
    """Claim 5, a row a setting: the optimum lies close to the limit, σ*/σ_c lying within `inside`.

    Not testable by the measure that was registered, of which no interval holds its level with so few seeds.
    """
    claim = registered_claims().optimum
    ratios = star_over_limit(choice_error(ds), critical_limit(final_error(ds), ds.chance).limit)
    return _table(
        ds, "the optimum lies close to the limit", claim, final_error(ds), ratios, "σ*/σ_c",
        lambda effect: verdict(effect.low, effect.high, inside=claim.inside),
        lambda effect: "no interval of this ratio holds its level",
    )  # fmt: skip


def claim_escape(stores: Stores) -> pd.DataFrame:
    """Claim 4 at the size of the paper's networks: with its σ they leave the plateau at chance sooner than without.

    A row for each store that holds both: the ratio of the times to escape, over seeds, with an interval that allows for
    times known to within a record. Supported where it lies below the threshold; undecided where a pair is censored, for
    then the ratio is that of a selection.
    """
    claim, rows = registered_claims().escape, []
    if (sigma := claim.primary.sigma) is None:
        raise ValueError("the claim on the escape needs primary.sigma, the uncertainty that is compared with none")
    for ds in stores.values():
        runs = first_setting(ds)
        if not all(np.isclose(runs.sigma, value, rtol=1e-3, atol=0).any() for value in (0.0, sigma)):
            continue
        ratio = escape_ratio(escape(runs), sigma)
        point = {name: runs[name].item() for name in ("dataset", "learning_rate", "averaging", "samples")}
        facts: dict[str, Any] = {"setting": claim.setting(_recorded(ds), point), "steps": training_steps(ds)}
        facts |= point | {"network": network_name(ds, point["dataset"]), "dataset": runs.title.item()}
        censored, pairs = int(ratio.censored), int(ratio.pairs)
        facts["note"] = f"σ = {sigma:g} V against 0" + f"; {censored} of {pairs} pairs censored" * bool(censored)
        numbers = [float(ratio[part]) for part in ("mean", "low", "high")]
        judged = "undecided" if censored else verdict(*numbers[1:], inside=(-math.inf, claim.below))
        measure = "ratio of the times to escape"
        rows.append(_judged("noise shortens the plateau", measure, numbers, int(ratio.n), judged, **facts))
    return pd.DataFrame(rows, columns=COLUMNS)
