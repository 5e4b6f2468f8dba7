"""What the stores of notebooks 11 to 21 say of the hypotheses that were registered for them: README's table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pandas as pd

from ..sweep import store
from .arms import arm_effects
from .budget import budget_effects, counted
from .families import Effect, family_rows, verdict_table
from .hardware import hardware_effects
from .law import fitted_constant, law_effects, law_networks
from .plateau import Stores
from .published import PAIRS, published_arms, published_effects
from .registration import registered_claims
from .report import networks_of
from .reported import reported_effects
from .rules import relaxation_effects, rule_effects

LAW, HARNESS, BOLD = "11_what_sets_the_limit", "13_harnessing_noise", "21_bold_rates"


def later_effects(profile: str) -> dict[str, dict[str, Effect]]:
    """The `Effect` of each hypothesis, by notebook, of those notebooks that a profile has stores of."""
    networks = cache(partial(networks_of, profile))
    earlier = networks(registered_claims().escape.notebook)

    def of_arms(notebook: str, stores: Stores) -> dict[str, Effect]:
        return published_effects(published_arms(earlier, stores), notebook)

    judges: dict[str, Callable[[Stores], dict[str, Effect]]] = {
        LAW: partial(_of_the_law, profile),
        "12_why_noise_helps": arm_effects,
        HARNESS: lambda stores: budget_effects(counted(stores)) | of_arms(HARNESS, stores),
        "14_hardware_readouts": hardware_effects,
        "16_other_networks": rule_effects,
        "17_noise_in_relaxation": relaxation_effects,
        "18_the_papers_numbers": reported_effects,
        **{name: partial(of_arms, name) for name in PAIRS if name != HARNESS},
        BOLD: lambda stores: of_arms(BOLD, networks(HARNESS) | dict(stores)),
    }
    return {
        name: effects for name, judge in judges.items() if (stores := networks(name)) and (effects := judge(stores))
    }


def _of_the_law(profile: str, law: Stores) -> dict[str, Effect]:
    before, predicted = (store.results(profile) / f"{LAW}.{name}.nc" for name in ("earlier", "predicted"))
    if not (before.exists() and predicted.exists()):
        return {}
    earlier = law_networks(networks_of(profile, "08_architecture"), store.read(before), 1.0)
    return law_effects(law, law_networks(law, store.read(predicted), fitted_constant(earlier)[0]))


def later_verdicts(profile: str) -> pd.DataFrame:
    """`verdict_table` of all these notebooks together, a row a hypothesis, with the `notebook`."""
    claims = registered_claims().later
    tables = [
        verdict_table(family_rows(effects, claims[name].claims), claims[name].claims).assign(notebook=name[:2])
        for name, effects in later_effects(profile).items()
    ]
    return pd.concat(tables) if tables else pd.DataFrame()
