# ruff: noqa: F401
# mypy: implicit-reexport
"""What notebooks ask of stores: limits, what noise gains, the plateau, predictions, claims, and their verdicts."""

from .arms import arm_effects, arm_table
from .benefit import at_choice, beyond_tuning, held_out_choice, optimum, star_over_limit
from .budget import budget_effects, budget_table, counted
from .claims import (
    claim_benefit,
    claim_beyond_tuning,
    claim_check,
    claim_datasets,
    claim_escape,
    claim_exactness,
    claim_gradient,
    claim_limit,
    claim_optimum,
    claim_published,
    claim_scaling,
    coverage,
    equivalent,
    runs_like_reported,
    verdict,
)
from .diagnosis import all_diverged, diagnosis
from .families import family_effects, family_rows, family_verdicts, scaling_limits, verdict_table
from .hardware import bits_needed, hardware_effects, hardware_table, preset_table, white_noise
from .intervals import geometric_interval, interval_text, t_interval
from .later import later_verdicts
from .law import collapse_factors, derivation, fitted_constant, law_effects, law_networks, predicted_table
from .limit import (
    at_limit,
    choice_error,
    collapse,
    critical_limit,
    curve_distance,
    epochs_until,
    final_error,
    first_setting,
    half_way,
    learning_share,
    limit_ratio,
    require,
    scaling_exponent,
    sigma_step,
    training_steps,
)
from .plateau import (
    architecture,
    benefit_over_images,
    escape,
    escape_ratio,
    escape_table,
    first_and_longer,
    grouped,
    images_in_all,
    images_seen,
    median_escape,
    noise_factors,
    share_escaped,
)
from .prediction import power_law, predictions
from .published import changed_table, published_arms, published_effects, saved_table
from .registration import Claim, registered_claims
from .report import (
    best_accuracies,
    conclusion,
    evidence,
    exploratory,
    family_table,
    first_registration,
    judged_rows,
    networks_of,
    page,
    verdicts,
)
from .reported import quiet_and_noisy, reported_effects, reported_table
from .rules import relaxation_effects, relaxation_table, rule_effects, rule_table
from .tables import Table, in_words, rounded, whole
