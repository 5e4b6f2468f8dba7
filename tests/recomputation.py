"""The headline numbers of the second registration computed again, by numpy and scipy alone: nothing of epkit is used.

    python tests/recomputation.py results/study

For reviewers: what `params/claims.yaml` says under `second`, in the plainest steps. `test_recomputation.py` compares it
with what notebook 05 shows.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr
import yaml
from scipy import optimize, special, stats

FIXED = yaml.safe_load((Path(__file__).parents[1] / "params" / "claims.yaml").read_text(encoding="utf-8"))
SECOND, LEARNS = FIXED["second"], FIXED["learns"]
SETS = ("mnist", "fashion_mnist", "kmnist")


def t_interval(values, level=0.95):
    values = np.asarray(values)[np.isfinite(values)]
    if len(values) < 2:
        return (values.mean() if len(values) else np.nan), np.nan, np.nan
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def log_interval(values, level=0.95):
    with np.errstate(over="ignore"):
        return tuple(np.exp(t_interval(np.log(values), level)))


def share_interval(differences, level=0.95):
    """Bonett and Price's interval of a difference of paired shares."""
    values = np.asarray(differences)[np.isfinite(differences)]
    n = len(values)
    more, less = ((values > 0).sum() + 1) / (n + 2), ((values < 0).sum() + 1) / (n + 2)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt((more + less - (more - less) ** 2) / (n + 2))
    return values.mean(), max(-1, more - less - half), min(1, more - less + half)


def errors(ds, name, epoch):
    """(eta, sigma, seed), a diverged run at chance; the first of averaging, samples and data sets."""
    at = ds.isel(dataset=0, averaging=0, samples=0).sel(epoch=epoch)
    values = at[name].transpose("learning_rate", "sigma", "seed").values
    diverged = at.diverged.transpose("learning_rate", "sigma", "seed").values == 1
    return np.where(diverged, float(ds.chance[0]), values)


def limits(sigma, error, chance, definition):
    """Limit and 10 to 90 % width of each seed, of errors (sigma, seed); NaN where there is none; None: never learns."""
    mean = error.mean(1)
    best = mean.argmin()
    if not mean[best] < LEARNS * chance:
        return None
    above = (np.arange(len(sigma)) >= best) & (sigma > 0)
    top = {"half way": chance, "midpoint": mean[above].max()}.get(definition)
    level = mean[best] + SECOND["onset"] if top is None else (mean[best] + top) / 2
    return np.array([limit(np.log(sigma[above]), values, level) for values in error[above].T]).T


def limit(x, y, level):
    rising = optimize.isotonic_regression(y).x
    if rising[0] >= level or rising[-1] < level:
        return np.nan, np.nan
    k = int(np.argmax(rising >= level))
    crossing = x[k - 1] + (level - rising[k - 1]) / (rising[k] - rising[k - 1]) * (x[k] - x[k - 1])
    if len(x) >= 5:
        step = (x[-1] - x[0]) / (len(x) - 1)
        u = (x - x[0]) / step
        lower, upper = (0, 1e-6, 0, 0.1), (1, 1, u[-1], u[-1])
        start = np.clip([y.min(), np.ptp(y), (crossing - x[0]) / step, 0.5], lower, upper)
        try:
            curve = lambda u, low, rise, middle, width: low + rise * special.expit((u - middle) / width)  # noqa: E731
            low, rise, middle, width = optimize.curve_fit(curve, u, y, start, bounds=(lower, upper))[0]
            share = (level - low) / rise
            at = x[0] + step * (middle + width * special.logit(share)) if 0 < share < 1 else np.nan
            if x[0] <= at <= x[-1]:
                return np.exp(at), 81 ** (width * step)
        except RuntimeError:
            pass
    return np.exp(crossing), np.nan


def held_out(values, choice):
    """`values` (setting, seed) of each seed where the others' mean `choice` is least; NaN where there is no setting."""
    if not len(values):
        return np.full(choice.shape[1], np.nan)
    best = [np.delete(choice, seed, 1).mean(1).argmin() for seed in range(choice.shape[1])]
    return values[best, np.arange(choice.shape[1])]


def families(stores):
    """Of each claim the settings that can be tested: (values of the seeds, where), and how to make an interval."""
    sigma, rates = stores["mnist"].sigma.values, stores["mnist"].learning_rate.values
    last = SECOND["epochs"][-1]
    E = {(s, t): errors(stores[s], "test_error", t) for s in SETS for t in SECOND["epochs"]}
    V = {(s, t): errors(stores[s], "validation_error", t) for s in SETS for t in SECOND["epochs"]}
    chance = {s: float(stores[s].chance[0]) for s in SETS}
    L = {
        (s, t, k, d): limits(sigma, E[s, t][k], chance[s], d)
        for (s, t), k, d in itertools.product(E, range(len(rates)), SECOND["definitions"])
    }
    enough = lambda values: np.isfinite(values).mean() >= SECOND["bracketed"]  # noqa: E731
    noisy, settings = sigma > 0, {name: [] for name in SECOND["claims"]}
    for s, k in itertools.product(SETS, range(len(rates))):
        where, e, v = f"{s}, {rates[k]:g}", E[s, last][k], V[s, last][k]
        found = L[s, last, k, "half way"]
        if found is not None and enough(found[1]):
            settings["limit"].append((found[1], where))
        if found is not None and enough(found[0]):
            settings["value"].append((found[0], where))
        stuck = (e >= LEARNS * chance[s]).astype(float)
        if stuck[0].any():
            settings["rescue"].append((stuck[0] - held_out(stuck[noisy], v[noisy]), where))
        works = e.mean(1).min() < SECOND["works"] * chance[s]
        if works and found is not None and enough(found[0]):
            middle = np.exp(np.nanmean(np.log(found[0])))
            below, decade = sigma < middle / 10, (sigma >= middle / 10) & (sigma <= middle)
            settings["optimum"].append((held_out(e[below], v[below]) - held_out(e[decade], v[decade]), where))
    for (s, t), e in E.items():
        v, where = V[s, t], f"{s}, epoch {t}"
        for k in range(len(rates)):
            if e[k].mean(1).min() < SECOND["works"] * chance[s]:
                gain = e[k][0] - held_out(e[k][noisy], v[k][noisy])
                settings["accuracy"].append((gain, f"{where}, {rates[k]:g}"))
        if e.mean(2).min() < SECOND["works"] * chance[s]:
            plane = [x[:, noisy].reshape(-1, x.shape[2]) for x in (e, v)]
            settings["beyond_tuning"].append((held_out(e[:, 0], v[:, 0]) - held_out(*plane), where))
    for (a, b), t, d in itertools.product(itertools.combinations(SETS, 2), SECOND["epochs"], SECOND["definitions"]):
        own = [int(V[s, t][:, 0].mean(1).argmin()) for s in (a, b)]
        for k, m in [(k, k) for k in range(len(rates))] + [tuple(own)]:
            pair = L[a, t, k, d], L[b, t, m, d]
            if all(p is not None for p in pair) and enough(pair[0][0] / pair[1][0]):
                settings["datasets"].append((pair[0][0] / pair[1][0], f"{a} / {b}, epoch {t}, {d}, {k} {m}"))
    settings["scaling"] = exponent(stores)
    return settings


def exponent(stores):
    """The exponent of N of each seed, if that of the control does not exclude 1/2."""
    ds = stores["averaging"].isel(epoch=-1, dataset=0, learning_rate=0, averaging=0)
    counts, swept = ds.samples.values, ds.sigma.values
    chance = float(stores["averaging"].chance[0])
    window = swept.min() * (1 - 1e-6), swept.max() / np.sqrt(counts.max()) * (1 + 1e-6)

    def at(run, count):
        sigma = run.sigma.values
        kept = (sigma / np.sqrt(count) >= window[0]) & (sigma / np.sqrt(count) <= window[1])
        error = run.test_error.transpose("sigma", "seed").values[kept]
        return limits(sigma[kept], error, chance, "half way")[0]

    def slopes(of_each):
        x, y = np.log(counts), np.log(np.array(of_each))
        return ((x - x.mean())[:, None] * (y - y.mean(0))).sum(0) / ((x - x.mean()) ** 2).sum()

    single = [
        stores[f"control-{k}"].isel(epoch=-1, dataset=0, learning_rate=0, averaging=0, samples=0) for k in (1, 2, 3)
    ]
    again = [at(run, 1) * np.sqrt(n) for run, n in zip([ds.sel(samples=1), *single], counts, strict=True)]
    _, low, high = t_interval(slopes(again))
    return [(slopes([at(ds.sel(samples=n), n) for n in counts]), "N")] if low <= 0.5 <= high else []


def judged(name, settings):
    """The verdict over the family, and the setting that shows it best with its 95 % interval."""
    claim = SECOND["claims"][name]
    (low, high), point, everywhere = claim["inside"], claim.get("contains"), claim["holds"] == "everywhere"
    high = np.inf if high == 1 else high  # of a share, whose interval may end at 1
    interval = {"limit": log_interval, "value": log_interval, "datasets": log_interval, "rescue": share_interval}.get(
        name, t_interval
    )

    def verdict(a, b):
        if point is not None and not a <= point <= b:
            return "contradicted"
        if low < a and b < high:
            return "supported"
        return "contradicted" if point is None and (b <= low or a >= high) else "undecided"

    if not settings:
        return {"headline": (np.nan,) * 3, "verdict": "not testable", "m": 0, "where": ""}
    m = len(settings)
    plain = [interval(values) for values, _ in settings]
    single = [verdict(*i[1:]) for i in plain]
    family = [verdict(*interval(values, 1 - 0.05 / m)[1:]) for values, _ in settings]
    decisive, other = ("contradicted", "supported") if everywhere else ("supported", "contradicted")
    overall = decisive if decisive in family else other if set(single) == {other} else "undecided"
    shown = [k for k in range(m) if family[k] == decisive] or range(m)
    value = np.array([i[0] for i in plain])
    if name in ("value", "datasets"):
        out = np.abs(np.log(value / np.sqrt(low * high)))
    else:
        out = value if name == "limit" or not everywhere else -value
    best = max(shown, key=lambda k: out[k])
    return {"headline": tuple(map(float, plain[best])), "verdict": overall, "m": m, "where": settings[best][1]}


def escape(ds):
    """Images until the error stays below the share of chance, with 5e-5 V over without; known to within a record."""
    runs = ds.isel(dataset=0, learning_rate=0, averaging=0, samples=0)
    seen = np.round(ds.epoch.values * json.loads(ds.attrs["parameters"])["train_images"])
    below = (runs.test_error < LEARNS * float(ds.chance[0])).transpose("sigma", "seed", "epoch").values
    record = np.array([[next(k for k in range(len(seen)) if run[k:].all()) for run in at] for at in below[[
        0, int(np.argmin(np.abs(ds.sigma.values - FIXED["escape"]["primary"]["sigma"])))]]])  # fmt: skip
    (quiet, noisy), (before_quiet, before_noisy) = seen[record], np.concatenate([[0], seen])[record]
    value = log_interval(noisy / quiet)[0]
    return {"headline": (value, log_interval(before_noisy / quiet)[1], log_interval(noisy / before_quiet)[2])}


def best_accuracy(ds):
    """The highest mean test accuracy of any eta and sigma, with its interval."""
    error = errors(ds, "test_error", SECOND["epochs"][-1])
    k, s = np.unravel_index(error.mean(2).argmin(), error.shape[:2])
    return {"headline": t_interval(1 - error[k, s])}


def recompute(folder):
    """Of each claim its headline (value, low, high); of those of the second registration also verdict, m and where."""
    names = [*SETS, "averaging", "control-1", "control-2", "control-3"]
    stores = {name: xr.load_dataset(Path(folder) / f"10_confirmation.{name}.nc", engine="netcdf4") for name in names}
    whole = {
        name: ds.seed.values[(ds.run != "").all([d for d in ds.run.dims if d != "seed"])] for name, ds in stores.items()
    }
    for name in SETS:  # the seeds that all data sets have
        stores[name] = stores[name].sel(seed=sorted(set.intersection(*(set(whole[other]) for other in SETS))))
    found = {name: judged(name, settings) for name, settings in families(stores).items()}
    found["escape"] = escape(
        xr.load_dataset(Path(folder) / "09_escape_from_the_plateau.1024x3-mnist.nc", engine="netcdf4")
    )
    return found | {f"best accuracy, {name}": best_accuracy(stores[name]) for name in SETS[1:]}


if __name__ == "__main__":
    for claim, facts in recompute(sys.argv[1]).items():
        value, low, high = facts["headline"]
        rest = f"{facts['verdict']}, {facts['m']} settings, {facts['where']}" if "verdict" in facts else ""
        print(f"{claim:<28}{value:10.3g} [{low:.3g}, {high:.3g}]  {rest}")
