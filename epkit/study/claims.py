"""The paper's five claims (arXiv:2503.22810), judged from a store.

Each `claim_*` takes a store as `analysis` describes it and returns a table with the columns claim, measure,
value, low, high, n (seeds) and verdict, a row for each setting (data set, learning rate, averaging, samples)
that was run. Everything in it is computed. Thresholds, and which of the settings is the primary one that the
verdict is read at, were fixed before the data, in `params/claims.yaml` (`registered_claims`); the column setting
tells the primary from the secondary.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import SupportsFloat

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from ..files import CHECKOUT
from ..sweep.inputs import parameter_file
from ..sweep.parameters import (
    BenefitClaim,
    Claim,
    Claims,
    DatasetsClaim,
    EscapeClaim,
    LimitClaim,
    OptimumClaim,
    ScalingClaim,
    validated,
)
from ..sweep.store import parameters
from .benefit import beyond_tuning, optimum, star_over_limit
from .limit import (
    choice_error,
    critical_limit,
    curve_distance,
    final_error,
    first_setting,
    limit_ratio,
    require,
    scaling_exponent,
    sigma_step,
    t_interval,
    training_steps,
)
from .plateau import escape, escape_ratio, images_seen

FIXED = CHECKOUT / "params" / "claims.yaml"
COLUMNS = ["claim", "measure", "value", "low", "high", "n", "verdict"]
# accuracies without noise and at the best uncertainty, as the paper reports them
REPORTED = {"kmnist": (0.77, 0.97), "fashion_mnist": (0.26, 0.93)}
FIXED_COLUMNS = [*COLUMNS, "setting"]  # of the claims that `registered_claims` holds
Range = tuple[float, float]
Describe = Callable[[xr.Dataset], str]


@cache
def registered_claims() -> Claims:
    """Hypotheses, primary settings and thresholds of `params/claims.yaml`; ParameterError for what is wrong in it."""
    place = "params/claims.yaml"
    return validated(Claims, parameter_file(FIXED, place), place)


def verdict(low: SupportsFloat, high: SupportsFloat, *, inside: Range, contains: float | None = None) -> str:
    """Judge the interval [low, high] of an effect: "supported", "contradicted" or "undecided".

    Supported: it lies within the open range `inside` and, where a point hypothesis is given, `contains` it.
    Contradicted: it excludes that point or, without one, lies wholly outside the range. A NaN bound:
    undecided.
    """
    low, high = float(low), float(high)
    if math.isnan(low + high):
        return "undecided"
    if contains is not None and not low <= contains <= high:
        return "contradicted"
    if inside[0] < low and high < inside[1]:
        return "supported"
    return "contradicted" if contains is None and (high <= inside[0] or low >= inside[1]) else "undecided"


def equivalent(low: SupportsFloat, high: SupportsFloat, factor: float) -> str:
    """Verdict on "this ratio is 1 within `factor`", from the ratio's interval."""
    return verdict(low, high, inside=(1 / factor, factor))


def _claim(
    ds: xr.Dataset, claim: str, said: Claim, error: xr.DataArray, found: xr.Dataset, measure: Describe, judge: Describe
) -> pd.DataFrame:
    """Table of the (mean, low, high, n) of `found`: a row for each of its settings that was run, primary ones first.

    The measure quotes learning rate and number of updates, both of which move the limit.
    """
    primary = said.primary.model_dump(exclude_none=True)
    steps = training_steps(require(ds, "title"))
    words = {"dataset": "{}", "learning_rate": "η = {:g}", "averaging": "{} averaging", "samples": "N = {}"}
    titles = ds.title.to_series()
    ran = error.notnull().any([dim for dim in error.dims if dim not in found["mean"].dims])
    if ran.sizes.get("averaging") == 1:
        words.pop("averaging")  # nothing to tell it from
    rows = []
    for point in itertools.product(*(ran[dim].values.tolist() for dim in ran.dims)):
        at = dict(zip(ran.dims, point, strict=True))
        if ran.sel(at):
            one = found.sel(at)
            where = [words[dim].format(titles.get(at[dim], at[dim])) for dim in words if dim in at]
            text = ", ".join([measure(one), *where, f"{steps:,} steps"])
            numbers = [float(one[name]) for name in ("mean", "low", "high")]
            setting = "primary" if all(at.get(dim, value) == value for dim, value in primary.items()) else "secondary"
            rows.append([claim, text, *numbers, int(one.n), judge(one), setting])
    return pd.DataFrame(rows, columns=FIXED_COLUMNS).sort_values("setting", kind="stable", ignore_index=True)


def rounded(claims: pd.DataFrame) -> pd.DataFrame:
    """A claims table with rounded numbers, to show: three significant digits."""
    return claims.assign(**{name: claims[name].map("{:.3g}".format) for name in ("value", "low", "high")})


def claim_gradient(ds: xr.Dataset, within: float = 0.01) -> pd.DataFrame:
    """Notebook 01, a row a layer: the centred estimate is the gradient of backpropagation for beta -> 0.

    Supported where the relative error at the smallest beta is below `within`, else contradicted. One network, no
    interval.
    """
    one = ds.relative_error.sel(estimator="centered").isel(nudge=0)
    rows = [
        ["EP estimates the true gradient", f"relative error of layer {int(layer)} at β = {float(one.nudge):g} S",
         float(error), math.nan, math.nan, 1, "supported" if error < within else "contradicted"]
        for layer, error in zip(one.layer, one, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def claim_published(
    stores: Mapping[str, xr.Dataset], error: Mapping[str, float], epochs: Mapping[str, int], within: float = 0.003
) -> pd.DataFrame:
    """Notebook 00, a row a network: the test error after training is the reported one, `within` either way.

    The value is measured minus reported, with a t interval over seeds. A network trained for fewer epochs than
    reported, or with one seed, can't be judged.
    """
    rows = []
    for name, ds in stores.items():
        found = t_interval(final_error(ds).squeeze([d for d in final_error(ds).dims if d != "seed"], drop=True))
        difference, low, high = (float(found[part]) - error[name] for part in ("mean", "low", "high"))
        done = int(ds.epoch.max())
        measure = (
            f"{name}: {float(found['mean']):.2%} after {done} epochs, reported {error[name]:.2%} after {epochs[name]}"
        )
        judged = verdict(low, high, inside=(-within, within)) if done == epochs[name] else "undecided"
        partial = "" if done == epochs[name] else " (partial)"
        rows.append(
            ["the published error is re-earned", measure + partial, difference, low, high, int(found.n), judged]
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def claim_exactness(ds: xr.Dataset, within: float = 0.1) -> pd.DataFrame:
    """Notebook 06: what stopping early, the published nudge, float32 and real diodes do to the gradient.

    A row's value is the relative error of the worst layer; supported where it is below `within`, else contradicted
    (undecided: not computed). Untrained networks, no interval.
    """
    names = ds.network.values.tolist()
    stopped = [
        (name, ds.relative_error.sel(network=name, iteration=int(ds.published_iterations.sel(network=name))))
        for name in names
    ]
    diodes = ds.diode_error.isel(scale=-1)
    circuit = f"forward voltage {float(diodes.forward):.2f} V"
    errors = [
        *(("the published iterations suffice", n, e.sel(reference="converged")) for n, e in stopped),
        *(("the published nudge is small", n, e.sel(reference="exact")) for n, e in stopped),
        *(("float32 suffices at initialisation", n, ds.float32_error.sel(network=n)) for n in names),
        ("real diodes leave the ideal ones' gradient", circuit, diodes.sel(circuit="ideal")),
        ("EP finds the gradient of the circuit it runs on", circuit, diodes.sel(circuit="real")),
    ]
    rows = []
    for claim, where, error in errors:
        worst = float(error.max())
        judged = "undecided" if math.isnan(worst) else "supported" if worst < within else "contradicted"
        rows.append([claim, f"{where}, relative error of the worst layer", worst, math.nan, math.nan, 1, judged])
    return pd.DataFrame(rows, columns=COLUMNS)


def coverage(ds: xr.Dataset) -> pd.DataFrame:
    """Which of the paper's three data sets a store holds, and as what variant; how many of its runs diverged."""
    held = ds.title.to_series()
    diverged = ds.diverged.isel(epoch=-1, missing_dims="ignore")
    rows = {}
    for name in ("mnist", "kmnist", "fashion_mnist"):
        variants = [each for each in held.index if each.startswith(name)]
        rows[name] = "; ".join(held[variants]) or "not in this store: nothing is said about it"
    rows |= {name: f"{held[name]} (not in the paper)" for name in held.index if not name.endswith(("mnist", "split"))}
    rows["diverged runs"] = f"{int(diverged.sum())} of {diverged.size}"
    return pd.DataFrame({"": rows})


def runs_like_reported(ds: xr.Dataset, within: float = 0.05) -> pd.DataFrame:
    """Under which settings accuracies like the paper's appear: runs that end within `within` of each of them.

    A row for each accuracy reported of a data set that the store holds: how many runs, on test and on training images,
    at which learning rates and sigmas on test images; and the highest test accuracy of any run.
    """
    rows = {}
    accuracy = {name: 1 - final_error(ds, of=f"{name}_error") for name in ("test", "train")}
    for key, numbers in REPORTED.items():
        for name in ds.dataset.values[[str(each).startswith(key) for each in ds.dataset.values]]:
            for number, when in zip(numbers, ("without noise", "at its best σ"), strict=True):
                alike = {k: abs(each.sel(dataset=name) - number) < within for k, each in accuracy.items()}
                places = alike["test"].any([d for d in alike["test"].dims if d not in ("learning_rate", "sigma")])
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


def claim_limit(ds: xr.Dataset, said: LimitClaim | None = None) -> pd.DataFrame:
    """Claim 1, a row a setting: there is a critical limit (value: sigma_c in volts).

    Supported when every seed's limit is bracketed, and their interval spans less than `within` from end to end;
    contradicted when the network learns at no sigma at all; otherwise undecided: the limit may lie outside the sweep.
    """
    said = said or registered_claims().limit

    def measure(one: xr.Dataset) -> str:
        why = "; ".join(sorted(set(one.reason.values.tolist()) - {"", "not run"}))
        return f"σ_c (V), swept in steps of ×{sigma_step(ds.sigma):.2g}" + f" [{why}]" * bool(why)

    def judge(one: xr.Dataset) -> str:
        located = int(one.n) == int(one.runs) and bool(one.high / one.low < said.within)
        return "supported" if located else "contradicted" if np.isnan(one.half) else "undecided"

    error = final_error(ds)
    return _claim(ds, "a critical limit exists", said, error, critical_limit(error, ds.chance), measure, judge)


def claim_datasets(ds: xr.Dataset, said: DatasetsClaim | None = None) -> pd.DataFrame:
    """Claim 2, a row a pair of data sets and a last one for all pairs: the limit is the same within `factor`.

    The last row repeats the ratio farthest from 1 among the primary settings. It is supported if each of their pairs
    is, contradicted if any is.
    """
    said, claim = said or registered_claims().datasets, "the limit is the same on all data sets"
    error, titles = final_error(ds), require(ds, "title").title.to_series()
    limits = critical_limit(error, ds.chance).limit
    pairs = list(itertools.combinations(titles.index, 2))
    if not pairs:
        nothing = [claim, "nothing to compare: one data set", math.nan, math.nan, math.nan, 0, "undecided", "primary"]
        return pd.DataFrame([nothing], columns=FIXED_COLUMNS)
    names = pd.Index([f"{titles[a]} / {titles[b]}" for a, b in pairs], name="dataset")
    ratios = xr.concat([limit_ratio(*(limits.sel(dataset=name) for name in pair)) for pair in pairs], names)
    both = xr.concat([error.sel(dataset=a, drop=True) + error.sel(dataset=b, drop=True) for a, b in pairs], names)
    table = _claim(
        ds, claim, said, both, ratios, lambda one: "σ_c ratio", lambda one: equivalent(one.low, one.high, said.factor)
    )
    judged = table[table.setting == table.setting.iloc[0]]  # secondary ones only where none is primary
    farthest = np.log(judged.value).abs().fillna(-1).idxmax()
    verdicts = set(judged.verdict)
    overall = next((each for each in ("contradicted", "undecided") if each in verdicts), "supported")
    last = judged.loc[[farthest]].assign(measure=lambda t: "all pairs: " + t.measure, verdict=overall)
    return pd.concat([table, last], ignore_index=True)


def claim_check(ds: xr.Dataset, check: xr.Dataset, said: DatasetsClaim | None = None) -> pd.DataFrame:
    """Claim 2 on one more data set, with a network of its own: a row for each data set of `ds` and shared rate.

    In volts the limits of two networks aren't comparable, and are not judged. They are in units of what the nudge moves
    in the weakest layer (`response`, at sigma = 0, in the first record), where both stores hold it. Seeds are shared in
    number only: pairing them neither helps nor harms.
    """
    said, title = said or registered_claims().datasets, check.title.item()
    sizes = "-".join(map(str, parameters(check, "sizes")["sizes"][check.dataset.item()]))
    check = check.isel(dataset=0, drop=True)
    shared = np.intersect1d(ds.learning_rate, check.learning_rate)
    ds, check = ds.sel(learning_rate=shared), check.sel(learning_rate=shared)
    limits = [critical_limit(final_error(each), each.chance).limit for each in (check, ds)]
    natural = "response" in ds and "response" in check
    if natural:
        noiseless = [each.response.isel(epoch=0, drop=True).sel(sigma=0, drop=True) for each in (check, ds)]
        # a seed in which a layer has ceased to respond has no such unit
        units = [response.min("layer") for response in noiseless]
        limits = [limit / unit.where(unit > 0) for limit, unit in zip(limits, units, strict=True)]
    pairs = [f"{title} ({sizes}, {training_steps(check):,} steps) / {name}" for name in ds.title.values]
    return _claim(
        ds.assign(title=("dataset", pairs)), "the limit is the same where nothing was tuned", said, final_error(ds),
        limit_ratio(*limits), lambda one: "ratio of σ_c / response" if natural else "ratio of σ_c in volts",
        lambda one: equivalent(one.low, one.high, said.factor) if natural else "undecided",
    ).assign(setting="secondary")  # fmt: skip


def claim_scaling(ds: xr.Dataset, said: ScalingClaim | None = None) -> pd.DataFrame:
    """Claim 3, two rows a setting: averaging N read-outs moves the limit by √N, and the curves collapse on σ/√N."""
    said, error = said or registered_claims().scaling, final_error(ds)
    slopes = scaling_exponent(critical_limit(error, ds.chance).limit)
    slope = _claim(
        ds, "the limit scales as √N", said, error, slopes, lambda one: "slope of log σ_c over log N",
        lambda one: verdict(one.low, one.high, inside=said.inside, contains=said.exponent),
    )  # fmt: skip
    if 1 not in ds.samples or ds.sizes["samples"] < 2:
        return slope
    collapse = _claim(
        ds, "the curves collapse on σ/√N", said, error, curve_distance(error),
        lambda one: f"mean distance in error from N = 1, {float(one.floor):.2g} expected by the seeds alone",
        lambda one: verdict(one.low, one.high, inside=(-math.inf, said.collapse)),
    )  # fmt: skip
    return pd.concat([slope, collapse], ignore_index=True)


def claim_benefit(ds: xr.Dataset, said: BenefitClaim | None = None) -> pd.DataFrame:
    """Claim 4, a row a setting: a finite uncertainty lowers the test error, by more than `threshold`."""
    said, error = said or registered_claims().benefit, final_error(ds)
    return _claim(
        ds, "a finite uncertainty helps", said, error, optimum(error, choice_error(ds)),
        lambda one: f"error(0) − error(σ*), σ* = {float(one.sigma_star):.2g} V",
        lambda one: verdict(one.low, one.high, inside=(said.threshold, math.inf)),
    )  # fmt: skip


def claim_beyond_tuning(ds: xr.Dataset, said: BenefitClaim | None = None) -> pd.DataFrame:
    """Not the paper's, a row a data set: noise helps where the learning rate is tuned with and without it."""
    said, error = said or registered_claims().beyond_tuning, final_error(ds)
    return _claim(
        ds, "noise beats tuning", said, error, beyond_tuning(error, choice_error(ds)),
        lambda one: f"error of the best noiseless η ({float(one.rate_noiseless):g}) − that of the best noisy η, σ "
        f"({float(one.rate_noisy):g}, {float(one.sigma_noisy):.2g} V)",
        lambda one: verdict(one.low, one.high, inside=(said.threshold, math.inf)),
    )  # fmt: skip


def claim_optimum(ds: xr.Dataset, said: OptimumClaim | None = None) -> pd.DataFrame:
    """Claim 5, a row a setting: the optimum lies close to the limit, σ*/σ_c lying within `inside`."""
    said = said or registered_claims().optimum
    ratios = star_over_limit(choice_error(ds), critical_limit(final_error(ds), ds.chance).limit)
    return _claim(
        ds, "the optimum lies close to the limit", said, final_error(ds), ratios, lambda one: "σ*/σ_c",
        lambda one: verdict(one.low, one.high, inside=said.inside),
    )  # fmt: skip


def claim_escape(stores: Mapping[str, xr.Dataset], said: EscapeClaim | None = None) -> pd.DataFrame:
    """Claim 4 at the size of the paper's networks: with its σ they leave the plateau at chance sooner than without.

    Two rows for each store that holds both. The ratio of the times to escape, over seeds: supported where its interval
    lies below the threshold; undecided where a pair is censored, for then the ratio is that of a selection. And the
    share of pairs in which the noisy run is known to have escaped first, of those in which it is known which did, with
    its Wilson interval, in which censored runs count.
    """
    said = said or registered_claims().escape
    rows: list[list] = []
    if (sigma := said.primary.sigma) is None:
        raise ValueError("the claim on the escape names the uncertainty that is compared with none: primary.sigma")
    for name, ds in stores.items():
        one = first_setting(ds)
        if not all(np.isclose(one.sigma, value, rtol=1e-3, atol=0).any() for value in (0.0, sigma)):
            continue
        ratio = escape_ratio(escape(one), sigma)
        where = f"{name}, {one.title.item()}, σ = {sigma:g} V against 0"
        numbers = [float(ratio[part]) for part in ("mean", "low", "high")]
        censored, pairs, sooner, later = (int(ratio[part]) for part in ("censored", "pairs", "sooner", "later"))
        judged = verdict(*numbers[1:], inside=(0.0, said.below)) if not censored else "undecided"
        text = f"ratio of the times to escape, {where}" + f" [{censored} of {pairs} pairs censored]" * bool(censored)
        rows.append(["noise shortens the plateau", text, *numbers, int(ratio.n), judged])
        share = [math.nan] * 3
        if sooner + later:
            found = stats.binomtest(sooner, sooner + later).proportion_ci(method="wilson")
            share = [sooner / (sooner + later), found.low, found.high]
        text = f"share of pairs in which noise escapes first, {where}"
        judged = verdict(*share[1:], inside=(0.5, math.inf))
        rows.append(["noise shortens the plateau", text, *share, sooner + later, judged])
    return pd.DataFrame(rows, columns=COLUMNS)


def judge_unregistered(stores: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Claims 1, 2, 4 and 5, by the measures and thresholds that were fixed for other networks: a hint, no verdict.

    `stores`, by name: a network on several data sets. Those that have seen equally many images are compared, at their
    last records; with a single sigma > 0 only the benefit is judged. `setting` is "not fixed".
    """
    alike: dict[int, list[xr.Dataset]] = {}
    for ds in stores.values():
        alike.setdefault(int(images_seen(ds)[-1]), []).append(ds.isel(epoch=[-1]))
    tables = [pd.DataFrame(columns=FIXED_COLUMNS)]
    for last in alike.values():  # one may count as eight epochs what is one to the others
        last = [ds.assign_coords(epoch=last[0].epoch) for ds in last]
        together = xr.concat(last, "dataset", join="outer", combine_attrs="override")
        swept = (together.sigma > 0).sum() > 1
        judges = (claim_limit, claim_datasets, claim_benefit, claim_optimum) if swept else (claim_benefit,)
        tables += [judge(together) for judge in judges]
    return pd.concat(tables[1:] or tables, ignore_index=True).assign(setting="not fixed")
