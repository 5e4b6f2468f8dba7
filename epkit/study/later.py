"""What the stores of notebooks 11 to 19 say of the hypotheses that were registered for them: README's table."""

from __future__ import annotations

import pandas as pd

from ..sweep import store
from .arms import arm_effects
from .budget import budget_effects, counted
from .families import Effect, family_rows, verdict_table
from .hardware import hardware_effects
from .law import fitted_constant, law_effects, law_networks
from .published import changed_effects, published_arms, switched_off_effects
from .registration import registered_claims
from .report import networks_of
from .reported import reported_effects
from .rules import relaxation_effects, rule_effects

LIMIT, CAUSE, USE = "11_what_sets_the_limit", "12_why_noise_helps", "13_harnessing_noise"
BENCH, RULES, RELAXED = "14_hardware_readouts", "16_other_networks", "17_noise_in_relaxation"
PAPER, PLATEAU = "18_the_papers_numbers", "19_what_shortens_the_plateau"


def later_effects(profile: str) -> dict[str, dict[str, Effect]]:
    """The `Effect` of each hypothesis, by notebook, of those notebooks that a profile has stores of."""
    names = (LIMIT, CAUSE, USE, BENCH, RULES, RELAXED, PAPER, PLATEAU)
    law, arms, reads, bench, rules, relaxed, paper, changed = (networks_of(profile, name) for name in names)
    escapes = networks_of(profile, registered_claims().escape.notebook)
    before, predicted = (store.results(profile) / f"{LIMIT}.{name}.nc" for name in ("earlier", "predicted"))
    effects = {}
    if law and before.exists() and predicted.exists():
        earlier = law_networks(networks_of(profile, "08_architecture"), store.read(before), 1.0)
        effects[LIMIT] = law_effects(law, law_networks(law, store.read(predicted), fitted_constant(earlier)[0]))
    if arms:
        effects[CAUSE] = arm_effects(arms)
    if reads:
        budget = counted(reads)
        ended = published_arms(escapes, {name: ds for name, ds in reads.items() if name not in budget})
        effects[USE] = budget_effects(budget) | switched_off_effects(ended)
    if bench:
        effects[BENCH] = hardware_effects(bench)
    if rules:
        effects[RULES] = rule_effects(rules)
    if relaxed:
        effects[RELAXED] = relaxation_effects(relaxed)
    if paper:
        effects[PAPER] = reported_effects(paper)
    if changed:
        effects[PLATEAU] = changed_effects(published_arms(escapes, changed))
    return effects


def later_verdicts(profile: str) -> pd.DataFrame:
    """`verdict_table` of all these notebooks together, a row a hypothesis, with the `notebook`."""
    claims = registered_claims().later
    tables = [
        verdict_table(family_rows(effects, claims[name].claims), claims[name].claims).assign(notebook=name[:2])
        for name, effects in later_effects(profile).items()
    ]
    return pd.concat(tables) if tables else pd.DataFrame()
