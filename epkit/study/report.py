"""What a profile's stores say of the claims that were fixed before the data: the page of notebook 05 and README.

The page has a sentence for each claim, judged over its family by the second registration's rules. Where a profile has
the stores of the notebook that this registration names, they are what is judged; otherwise its sweeps of the first
registration, which are exploratory. Data flow: `evidence` -> `judged_rows` -> `page` -> `conclusion`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, SupportsFloat

import numpy as np
import pandas as pd
import xarray as xr

from ..data import INFO
from ..sweep import store
from ..sweep.inputs import all_profiles, parameter_file
from . import claims
from .families import COLUMNS, VERDICTS, family_effects, family_rows, family_verdicts
from .intervals import t_interval
from .limit import final_error
from .plateau import benefit_over_images, first_and_longer, images_in_all
from .registration import registered_claims
from .tables import LABELS, in_words

# What judges each claim of the first registration from its notebook's store.
JUDGES: dict[str, Callable[[xr.Dataset], pd.DataFrame]] = {
    "limit": claims.claim_limit,
    "datasets": claims.claim_datasets,
    "scaling": claims.claim_scaling,
    "benefit": claims.claim_benefit,
    "beyond_tuning": claims.claim_beyond_tuning,
    "optimum": claims.claim_optimum,
}
SWEEPS = ("07_benefit_of_noise", "04_dataset_comparison", "02_critical_limit")  # of the first registration


class Said(NamedTuple):
    """A claim of the second registration in words: what it says, its measure around the number, and what shows it."""

    claim: str
    measure: str
    unit: float  # what values are multiplied by: points for shares
    figure: str


SAID = {
    "limit": Said(
        "there is a sharp critical limit",
        "the error makes 10 to 90 % of its rise within a factor of {} in σ", 1, "10_errors",
    ),
    "value": Said("the limit is 5e-5 V", "the limit σ_c is {} V", 1, "10_errors"),
    "datasets": Said("the limit is the same on all data sets", "the ratio of the limits is {}", 1, "05_claims"),
    "scaling": Said("N read-outs move the limit by √N", "the exponent is {}", 1, "10_scaling"),
    "rescue": Said(
        "in some settings noise rescues runs that are stuck at chance",
        "the best noise saves {} % of the runs from it", 100, "10_errors",
    ),
    "accuracy": Said(
        "in some settings noise lowers the error by more than a point",
        "the best noise saves {} points of error", 100, "05_claims",
    ),
    "beyond_tuning": Said(
        "in some settings noise beats a tuned learning rate by more than a point",
        "it saves {} points beyond the best rate without noise", 100, "05_claims",
    ),
    "optimum": Said(
        "the optimum lies in the decade below the limit",
        "that decade saves {} points over less noise or none", 100, "05_claims",
    ),
}  # fmt: skip


class Evidence(NamedTuple):
    """A profile's sweeps: over data sets, learning rates and sigma; over N; and N = 1 again."""

    grid: xr.Dataset
    averaging: xr.Dataset | None
    controls: list[xr.Dataset]
    fresh: bool  # from the seeds and images that the second registration names


def evidence(profile: str) -> Evidence | None:
    """What the second registration's claims are judged by; None where a profile has no sweep over sigma."""
    folder, notebook = store.results(profile), registered_claims().second.notebook
    stores = [_complete_seeds(store.read(path)) for path in sorted(folder.glob(f"{notebook}.*.nc"))]
    controls = [ds for ds in stores if "realisation" in store.parameters(ds)]
    averaging = [ds for ds in stores if ds.sizes["samples"] > 1]
    grids = [ds for ds in stores if ds.sizes["samples"] == 1 and "realisation" not in store.parameters(ds)]
    if grids:
        grids.sort(key=lambda ds: list(INFO).index(ds.dataset.values[0]))
        kept = ["test_error", "validation_error", "train_error", "diverged", "chance", "title"]
        grid = xr.concat([ds[kept] for ds in grids], "dataset", join="inner", combine_attrs="override")
        return Evidence(grid, averaging[0] if averaging else None, controls, True)
    path = folder / "03_clt_scaling.nc"
    if (earlier := exploratory(profile)) is None:
        return None
    return Evidence(earlier, store.read(path) if path.exists() else None, [], False)


def _complete_seeds(ds: xr.Dataset) -> xr.Dataset:
    """The seeds of which every run has been made."""
    return ds.isel(seed=(ds["run"] != "").all([dim for dim in ds["run"].dims if dim != "seed"]).values)


def exploratory(profile: str) -> xr.Dataset | None:
    """The first registration's sweep over data sets and learning rates, or what a profile has of it."""
    paths = (store.results(profile) / f"{name}.nc" for name in SWEEPS)
    return next((store.read(path) for path in paths if path.exists()), None)


def judged_rows(found: Evidence | None) -> pd.DataFrame:
    """`family_rows` of the evidence. Registered sweeps are judged when the registered number of seeds is there."""
    if found is None:
        return pd.DataFrame(columns=COLUMNS)
    rows, second = family_rows(family_effects(found.grid, found.averaging, found.controls)), registered_claims().second
    titles = dict(zip(found.grid.dataset.values.tolist(), found.grid.title.values.tolist(), strict=True))
    rows["dataset"] = [" / ".join(titles.get(name, name) for name in names.split(" / ")) for names in rows.dataset]
    for judged, ds, wanted in (
        (rows.claim != "scaling", found.grid, second.seeds),
        (rows.claim == "scaling", found.averaging, second.averaging_seeds),
    ):
        if found.fresh and ds is not None and ds.sizes["seed"] < wanted:
            why = f"{ds.sizes['seed']} of {wanted} seeds are there"
            rows.loc[judged, ["verdict", "in the family", "reason"]] = ["not testable", "not testable", why]
    return rows


def page(rows: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The page, of `judged_rows` and the profile's networks of the published size: a row a claim, at most ten.

    Columns: claim, verdict, `in part` (it holds in some settings and fails in others), `sentence` in Markdown, figure.
    """
    lines: list[list[object]] = []
    for name, overall in family_verdicts(rows).iterrows():
        said, family = SAID[str(name)], rows[rows.claim == name]
        text = f"**{_sentence(said.claim)}: {overall.verdict}.** {_measured(overall, said)}{_where(family, overall)}"
        lines.append([name, overall.verdict, overall.supported > 0 < overall.contradicted, text, said.figure])
    lines += _published_size(profile)
    return pd.DataFrame(lines, columns=["claim", "verdict", "in part", "sentence", "figure"])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _interval(value: SupportsFloat, low: SupportsFloat, high: SupportsFloat, unit: float = 1) -> str:
    numbers = (f"{unit * float(number):.2g}" for number in (value, low, high))
    return "{:g} [{:g}, {:g}]".format(*map(float, numbers))  # 120, not 1.2e+02


def _measured(row: pd.Series, said: Said) -> str:
    """A setting's number with its interval, and what the setting is."""
    if np.isnan(row.low):
        return f"{_sentence(row.reason)}. "
    place = [row.dataset]
    place += [f"η = {row.learning_rate}"] * (not pd.isna(row.learning_rate))
    place += [f"{row.definition} definition"] * (not pd.isna(row.definition) and row.definition != "half way")
    place += [f"after {row.epoch:g} epochs"] * (not pd.isna(row.epoch))
    number = _interval(row.value, row.low, row.high, said.unit)
    waits = f"; not judged: {row.reason}" if row.reason else ""
    return f"{_sentence(said.measure.format(number))} ({', '.join(place)}, {row.n:.0f} seeds{waits}). "


def _where(rows: pd.DataFrame, overall: pd.Series) -> str:
    """Where in its family a claim holds, and where it fails, by the 95 % intervals of single settings."""
    if len(rows) == 1 or not overall.m:
        return ""
    counts = f"it holds in {overall.supported}, fails in {overall.contradicted}"
    parts = [f"of {overall.m} settings that can be tested {counts}"]
    if rows.definition.nunique() > 1:
        tested = rows[rows.verdict != "not testable"].groupby("definition", sort=False).verdict
        counts = ", ".join(f"{d} {(v == 'supported').sum()} of {len(v)}" for d, v in tested)
        return ". ".join(map(_sentence, [*parts, f"holds by definition: {counts}"])) + "."
    for word, verdict in (("holds", "supported"), ("fails", "contradicted")):
        places = []
        for dataset, group in rows[rows.verdict == verdict].groupby("dataset", sort=False):
            rates = group.learning_rate.dropna().map("{:g}".format).drop_duplicates()
            places.append(dataset + f" at η = {', '.join(rates)}" * bool(len(rates)))
        parts += [f"{word}: {'; '.join(places)}"] * bool(places)
    return ". ".join(map(_sentence, parts)) + "."


def _published_size(profile: str) -> list[list[object]]:
    """What networks of the paper's own size say, as far as they are trained: exploratory."""
    escape = registered_claims().escape
    first, longer = first_and_longer(networks_of(profile, escape.notebook))
    escapes = claims.claim_escape(first)
    primary = escapes[escapes.setting == "primary"]
    if primary.empty:
        return []
    row, sigma, saved = primary.iloc[0], escape.primary.sigma or 0.0, []
    for stores in (first, longer):
        same = [ds for ds in stores.values() if claims.network_name(ds) == row.network]
        of_each = {ds.title.item(): benefit_over_images(ds, sigma).isel(images=-1) for ds in same}
        numbers = [f"{name} {_interval(s['mean'], s.low, s.high, 100)}" for name, s in of_each.items()]
        saved += [f"after {images_in_all(ds):,} images {', '.join(numbers)}" for ds in same[:1]]
    text = (
        f"**Noise shortens the plateau at the published size: {row.verdict}, in an exploratory sweep.** With "
        f"{row.network} and σ = {sigma:g} V the time to leave chance is {_interval(row.value, row.low, row.high)} of "
        f"that without noise ({row.dataset}, {row.n} seeds). Points of error saved {'; '.join(saved)}."
    )
    return [["escape", row.verdict, False, text, "09_longer"]]


def family_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each claim, of `judged_rows`: the setting that shows it best, counts, and its verdict; to read."""
    table = family_verdicts(rows)
    units = [SAID[str(name)].unit for name in table.index]
    numbers = zip(table["value"], table.low, table.high, units, strict=True)
    effect = ["none" if np.isnan(parts[0]) else _interval(*parts) for parts in numbers]
    words = in_words(table).rename(columns=LABELS)[["data set", "η", "definition", "epochs"]]
    shown = words.assign(**{"most telling [95 %]": effect, "settings": table[VERDICTS].sum(axis=1), "tested": table.m})
    shown = shown.assign(**{name: table[name] for name in VERDICTS[:3]}, verdict=table.verdict)
    return shown.set_axis([SAID[str(name)].claim for name in table.index])


def best_accuracies(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Of each data set with a reported accuracy, by its title: the highest mean test accuracy of any learning rate and
    sigma, (mean, low, high, n) over seeds, with the `learning_rate` and `sigma` (V) that it belongs to.
    """
    accuracy, best = 1 - final_error(ds).squeeze(["averaging", "samples"], drop=True), {}
    for name in [name for name in ds.dataset.values if str(name).startswith(tuple(claims.REPORTED))]:
        of_set = accuracy.sel(dataset=name, drop=True)
        place = of_set.mean("seed").argmax(["learning_rate", "sigma"])
        best[ds.title.sel(dataset=name).item()] = t_interval(of_set[place])
    return best


CONCLUSION = """\
{where}, in a model system ({network}; {images:,} training images, {seeds} seeds):

- **Confirmed:** {supported}.
- **Contradicted**, as a statement on the whole family of settings: {contradicted}. **Open:** {undecided}.
  **Not testable** here: {untested}.
- **Only in part:** {partly}. The sentences above say where such a claim holds and where it fails, and, at the
  published size, what noise saves early and costs late.
- **Not reproduced:** the accuracies reported with noise, {reported}. The best mean test accuracies of any learning rate
  and noise are here {best}.
  Runs within 5 points of the reported numbers: {alike}.{trained}
- **Not known of the paper's settings:** the widths of its layers (that "3-layer" means three hidden layers is our
  reading), the number of epochs, the grid of σ, which phases are read with noise, the number of repetitions, and
  whether its accuracies are of test images. A network that differs from ours in these may behave otherwise.
"""


def conclusion(found: Evidence | None, said: pd.DataFrame, profile: str) -> str:
    """What we conclude of the `page`, in Markdown: what is confirmed, what is not, what isn't reproduced or known."""
    if found is None:
        return "This profile has no sweep to conclude from."
    of_claims = said[said.claim.isin(list(SAID))]

    def listed(which: pd.Series) -> str:
        return "; ".join(SAID[name].claim for name in of_claims.claim[which]) or "nothing"

    best = (
        f"{100 * float(b['mean']):.1f} [{100 * float(b.low):.1f}, {100 * float(b.high):.1f}] % on {title}"
        for title, b in best_accuracies(found.grid).items()
    )
    alike = (
        f"{name}: {row['runs like that (test)']} by test and {row['(training)']} by training images"
        for name, row in claims.runs_like_reported(found.grid).iterrows()
    )
    _, longer = first_and_longer(networks_of(profile, registered_claims().escape.notebook))
    trained = (
        f"{float(1 - final_error(ds, of='train_error').sel(sigma=0).mean()):.1%} on {ds.title.item()}"
        for ds in longer.values()
        if str(ds.dataset.values[0]).startswith(tuple(claims.REPORTED))
    )
    text = ", ".join(trained)
    reported = (f"{with_noise:.0%} for {INFO[name].title}" for name, (_, with_noise) in claims.REPORTED.items())
    return CONCLUSION.format(
        where="On seeds that no pilot had seen" if found.fresh else "In exploratory sweeps",
        network=claims.network_name(found.grid), images=store.parameters(found.grid)["train_images"],
        seeds=found.grid.sizes["seed"], partly=listed(of_claims["in part"]),
        untested=listed(of_claims.verdict == "not testable"), best=", ".join(best) or "those of no such data set",
        alike="; ".join(alike) or "none", reported=" and ".join(reported),
        trained=f"\n  Training accuracies without noise at the published size: {text}." * bool(text),
        **{verdict: listed(of_claims.verdict == verdict) for verdict in VERDICTS[:3]},
    )  # fmt: skip


def verdicts(profile: str) -> pd.DataFrame:
    """The first registration: every claim that a profile's stores can judge, a row for each setting that was run.

    Columns: those of `claims`, and `store`, a file name. Its stores are exploratory, for a pilot was known.
    """
    tables = []
    for name, judge in JUDGES.items():
        path = store.results(profile) / f"{getattr(registered_claims(), name).notebook}.nc"
        if path.exists():
            tables.append(judge(store.read(path)).assign(store=path.name))
    notebook = registered_claims().escape.notebook
    first, _ = first_and_longer(networks_of(profile, notebook))
    tables += [claims.claim_escape({name: ds}).assign(store=f"{notebook}.{name}.nc") for name, ds in first.items()]
    nothing = pd.DataFrame(columns=[*claims.COLUMNS, "store"])
    return pd.concat([table for table in tables if len(table)] or [nothing], ignore_index=True)


def first_registration(judged: pd.DataFrame) -> pd.DataFrame:
    """A table of `verdicts` at the primary settings, to read."""
    words = in_words(judged[judged.setting == "primary"])
    effect = [f"{v} [{low}, {high}]" if low else v or "none" for v, low, high in words[["value", "low", "high"]].values]
    columns = ["claim", "dataset", "learning_rate", "measure", "measured [95 %]", "n", "verdict", "note", "store"]
    table = words.assign(**{"measured [95 %]": effect})[columns]
    return table.rename(columns=LABELS)


def networks_of(profile: str, notebook: str) -> dict[str, xr.Dataset]:
    """The trained networks of a notebook that has a store for each, by name, which is that of the file.

    In the order of the profile's parameters, if there are any, as the notebook itself has them: what is said of them
    does not depend on who reads them.
    """
    path = all_profiles() / profile / f"{notebook}.yaml"
    order = list(parameter_file(path, f"params/{profile}/{path.name}").get("networks") or {}) if path.exists() else []
    names = sorted(path.stem.removeprefix(f"{notebook}.") for path in store.results(profile).glob(f"{notebook}.*.nc"))
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    stores = {name: store.read(store.results(profile) / f"{notebook}.{name}.nc") for name in names}
    return {name: ds for name, ds in stores.items() if "test_error" in ds}
