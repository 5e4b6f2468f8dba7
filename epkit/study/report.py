"""What a profile's stores say of the claims that were fixed before the data: for notebook 05 and README."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from ..sweep import store
from . import claims
from .plateau import FLOAT64, LONGER, images_seen

# What judges each claim of `params/claims.yaml`, and the figure that shows it: one for each kind of network where a
# notebook has a store for each network, of which the claim is judged one by one.
JUDGES: dict[str, tuple[Callable[[Any], pd.DataFrame], str]] = {
    "limit": (claims.claim_limit, "02_error_over_sigma"),
    "datasets": (claims.claim_datasets, "04_limit_ratios"),
    "scaling": (claims.claim_scaling, "03_clt_scaling"),
    "benefit": (claims.claim_benefit, "07_error_map"),
    "beyond_tuning": (claims.claim_beyond_tuning, "07_noise_or_tuning"),
    "optimum": (claims.claim_optimum, "07_optimum_over_limit"),
    "escape": (claims.claim_escape, "09_escape_times"),
}
COLUMNS = [*claims.FIXED_COLUMNS, "paper", "notebook", "figure", "store"]


def verdicts(profile: str) -> pd.DataFrame:
    """Every claim that a profile's stores can judge, a row for each setting that was run.

    Columns: those of `claims`, and paper (what it reports), notebook, figure and store (their file names).
    """
    tables = []
    for name, (judge, figure) in JUDGES.items():
        said = getattr(claims.registered_claims(), name)
        for path in _stores(profile, said.notebook):
            ds, network = store.read(path), path.stem.removeprefix(said.notebook)[1:]
            shown = f"{figure}.{network.partition('-')[0]}" if network else figure
            judged = judge({network: ds} if network else ds)
            tables.append(judged.assign(paper=said.paper, notebook=said.notebook, figure=shown, store=path.name))
    return pd.concat([table for table in tables if len(table)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)


def verdicts_at_published_size(profile: str) -> pd.DataFrame:
    """What the other claims' measures and thresholds say of the networks of notebook 09: columns as of `verdicts`.

    They were fixed for smaller networks, so these rows stand apart.
    """
    notebook = claims.registered_claims().escape.notebook
    stores = _stores(profile, notebook, controls=(FLOAT64,))
    networks = {path.stem.removeprefix(notebook)[1:]: store.read(path) for path in stores}
    tables = []
    alike: dict[tuple[str, bool, int], dict[str, xr.Dataset]] = {}
    for name, ds in networks.items():
        key = name.partition("-")[0], name.endswith(LONGER), int(images_seen(ds)[-1])
        alike.setdefault(key, {})[name] = ds
    for (kind, longer, images), together in sorted(alike.items()):
        judged = claims.judge_unregistered(together)
        judged = judged.assign(measure=f"{kind}: " + judged.measure, setting=f"{kind}, {images:,} images")
        figure = "09_longer" if longer else "09_errors_over_sigma"
        store_names = f"{notebook}.{kind}-*{LONGER * longer}.nc"
        tables.append(judged.assign(paper="", notebook=notebook, figure=figure, store=store_names))
    return pd.concat(tables or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)


def primary_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A claim's rows at its primary settings, and the others' verdicts in words; all rows where none is primary."""
    chosen = rows.setting != "secondary"
    if not chosen.any():
        return rows, "none of these settings is the primary one"
    counts = rows.verdict[~chosen].value_counts()
    counted = ", ".join(f"{count} {judged}" for judged, count in counts.items())
    return rows[chosen], f"secondary settings: {counted}" if counted else ""


def verdict_table(found: pd.DataFrame) -> pd.DataFrame:
    """Notebook 05's table: each claim at its primary setting, what the paper reports, what is measured, and where.

    Args:
        found: of `verdicts`.
    """
    rows = []
    for claim, settings in found.groupby("claim", sort=False):
        shown, rest = primary_rows(settings)
        for row in shown.itertuples():
            effect = f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]"
            where = f"figures/{row.figure}, {row.store}"
            rows.append([claim, row.paper, row.measure, effect, row.n, row.verdict, rest, where])
    columns = ["claim", "the paper", "measure", "measured [95 %]", "n", "verdict", "beside it", "figure, store"]
    return pd.DataFrame(rows, columns=columns)


def _stores(profile: str, notebook: str, controls: tuple[str, ...] = (FLOAT64, LONGER)) -> list[Path]:
    """A notebook's store, or where it has one for each network those that its claim is about: not its `controls`."""
    folder = store.results(profile)
    whole = folder / f"{notebook}.nc"
    every = {path: path.name.removeprefix(f"{notebook}.") for path in sorted(folder.glob(f"{notebook}.*.nc"))}
    judged = [
        path
        for path, name in every.items()
        if not name.startswith(("untrained", "check")) and not name.removesuffix(".nc").endswith(controls)
    ]
    return [whole] if whole.exists() else judged
