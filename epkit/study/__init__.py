"""What notebooks ask of stores: limits, what noise gains, the plateau, predictions, claims, and their verdicts."""

from .benefit import at_choice, beyond_tuning, held_out_choice, optimum, star_over_limit
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
from .intervals import geometric_interval, interval_text, t_interval
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
    images_seen,
    median_escape,
    noise_factors,
    share_escaped,
)
from .prediction import power_law, predictions
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
    settings_table,
    verdicts,
)
from .tables import Table, in_words, rounded, whole

__all__ = [
    "Claim", "Table", "all_diverged", "architecture", "at_choice", "at_limit", "benefit_over_images",
    "best_accuracies", "beyond_tuning", "choice_error", "claim_benefit", "claim_beyond_tuning", "claim_check",
    "claim_datasets", "claim_escape", "claim_exactness", "claim_gradient", "claim_limit", "claim_optimum",
    "claim_published", "claim_scaling", "collapse", "collapse_factors", "conclusion", "coverage", "critical_limit",
    "curve_distance", "derivation", "diagnosis", "epochs_until", "equivalent", "escape", "escape_ratio",
    "escape_table", "evidence", "exploratory", "family_effects", "family_rows", "family_table", "family_verdicts",
    "final_error", "first_and_longer", "first_registration", "first_setting", "fitted_constant",
    "geometric_interval", "grouped", "half_way", "held_out_choice", "images_seen", "in_words", "interval_text",
    "judged_rows", "law_effects", "law_networks", "learning_share", "limit_ratio", "median_escape", "networks_of",
    "noise_factors", "optimum", "page", "power_law", "predicted_table", "predictions", "registered_claims",
    "require", "rounded", "runs_like_reported", "scaling_exponent", "scaling_limits", "settings_table",
    "share_escaped", "sigma_step", "star_over_limit", "t_interval", "training_steps", "verdict", "verdict_table",
    "verdicts", "whole",
]  # fmt: skip
