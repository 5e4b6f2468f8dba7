"""What a profile's stores say of the claims that were fixed before the data: for notebook 05 and README."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pandas as pd
import xarray as xr

from ..sweep import store
from . import claims
from .plateau import architecture, first_and_longer, grouped, images_in_all
from .registration import registered_claims
from .tables import LABELS, in_words

# What judges each claim of `params/claims.yaml` from its notebook's store, and the figure that shows it.
JUDGES: dict[str, tuple[Callable[[xr.Dataset], pd.DataFrame], str]] = {
    "limit": (claims.claim_limit, "02_error_over_sigma"),
    "datasets": (claims.claim_datasets, "04_limit_ratios"),
    "scaling": (claims.claim_scaling, "03_clt_scaling"),
    "benefit": (claims.claim_benefit, "07_error_map"),
    "beyond_tuning": (claims.claim_beyond_tuning, "07_noise_or_tuning"),
    "optimum": (claims.claim_optimum, "07_optimum_over_limit"),
}
COLUMNS = [*claims.COLUMNS, "paper", "notebook", "figure", "store"]


def verdicts(profile: str) -> pd.DataFrame:
    """Every claim that a profile's stores can judge, a row for each setting that was run.

    Columns: those of `claims`, and paper (what it reports), notebook, figure and store (their file names).
    """
    tables = []
    for name, (judge, figure) in JUDGES.items():
        claim = getattr(registered_claims(), name)
        path = store.results(profile) / f"{claim.notebook}.nc"
        if path.exists():
            table = judge(store.read(path))
            tables.append(table.assign(paper=claim.paper, notebook=claim.notebook, figure=figure, store=path.name))
    escape = registered_claims().escape
    first, _ = first_and_longer(_networks(profile, escape.notebook))
    for name, ds in first.items():
        facts = {"figure": f"09_escape_times.{architecture(ds)}", "store": f"{escape.notebook}.{name}.nc"}
        table = claims.claim_escape({name: ds})
        tables.append(table.assign(paper=escape.paper, notebook=escape.notebook, **facts))
    return _joined(tables)


def verdicts_at_published_size(profile: str) -> pd.DataFrame:
    """What the other claims' measures and thresholds say of the networks of notebook 09: columns as of `verdicts`.

    They were fixed for smaller networks, so these rows stand apart.
    """
    notebook = registered_claims().escape.notebook
    first, longer = first_and_longer(_networks(profile, notebook))
    tables = []
    for stores, figure in ((first, "09_errors_over_sigma"), (longer, "09_longer")):
        for (network, images), group in grouped(stores, lambda ds: (architecture(ds), images_in_all(ds))).items():
            judged = claims.judge_unregistered(group)
            judged = judged.assign(setting=f"{network}, {images:,} images")
            names = _pattern(f"{notebook}.{name}.nc" for name in group)
            tables.append(judged.assign(paper="", notebook=notebook, figure=figure, store=names))
    return _joined(tables)


def primary_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A claim's rows at its primary settings, and the others' verdicts in words; all rows where none is primary."""
    primary = rows.setting == "primary"
    if not primary.any():
        return rows, "none of these settings is the primary one"
    counts = rows.verdict[~primary].value_counts()
    text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return rows[primary], f"other settings: {text}" if text else ""


def verdict_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Notebook 05's table, of `verdicts`: each claim at its primary setting, as reported and as measured, and where.

    All cells are texts. What is said of a whole claim, or of several rows, stands in the first.
    """
    rows: list[dict[str, str]] = []
    for claim, settings in judged.groupby("claim", sort=False):
        shown, rest = primary_rows(settings)
        above = ""
        for number, row in enumerate(in_words(shown).to_dict("records")):
            of_claim = {"claim": claim, "the paper": row["paper"], "beside it": rest}
            of_claim = of_claim if not number else dict.fromkeys(of_claim, "")
            where = f"figures/{row['figure']}, {row['store']}"
            of_claim["figure, store"], above = where if where != above else "", where
            effect = f"{row['value'] or 'none'} [{row['low']}, {row['high']}]" if row["low"] else row["value"] or "none"
            rows.append(row | of_claim | {"measured [95 %]": effect})
    columns = [
        "claim", "the paper", "dataset", "network", "learning_rate", "averaging", "samples", "steps", "measure",
        "measured [95 %]", "n", "verdict", "note", "beside it", "figure, store",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).rename(columns=LABELS)


def _networks(profile: str, notebook: str) -> dict[str, xr.Dataset]:
    """The trained networks of a notebook that has a store for each, by name, which is that of the file."""
    paths = sorted(store.results(profile).glob(f"{notebook}.*.nc"))
    stores = {path.stem.removeprefix(f"{notebook}."): store.read(path) for path in paths}
    return {name: ds for name, ds in stores.items() if "test_error" in ds}


def _pattern(names: Iterable[str]) -> str:
    """File names as one, with a * for each part, between hyphens or dots, in which they differ."""
    parts = zip(*(re.split("([-.])", name) for name in names), strict=False)
    return "".join(part[0] if len(set(part)) == 1 else "*" for part in parts)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table for table in tables if len(table)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)
