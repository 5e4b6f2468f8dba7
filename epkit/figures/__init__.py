# ruff: noqa: F401, I001
# mypy: implicit-reexport
"""The figures: each takes a store and what the study says of it, and returns a Figure that can be understood alone."""

from .canvas import save, show, style
from .published_networks import published
from .equilibrium_propagation import circuit, gradient_check, learning, relaxation
from .critical_limit import conductances, error_over_sigma, signal_to_noise, training_curves, unit_activity
from .clt_scaling import clt_scaling, collapse
from .dataset_comparison import dataset_comparison, limit_ratios, sample_images
from .claims import forest
from .confirmation import replication, scaling
from .what_sets_the_limit import correlated_reads, noise_scale, predicted_limits
from .oracles import error_over_beta, real_diodes, rounding, stopping_early
from .benefit_of_noise import choice_made_on, convergence, error_map, final_accuracies
from .benefit_of_noise import noise_or_tuning, optimum_over_limit, rounding_control
from .architecture import by_first_part, conjecture, errors_over_sigma, limits_over_architecture
from .escape_from_the_plateau import along_the_way, escape_times, learning_curves, precision
from .why_noise_helps import arms, conducting
from .harnessing_noise import error_over_reads, gain_map
from .published_arms import arms_over_images, points_saved, reads_over_images
from .hardware_readouts import bits, dither_window, error_by_kind, limit_by_kind
from .noise_in_relaxation import noise_in_relaxation, noise_while_training
from .other_networks import error_by_rule
from .the_papers_numbers import quiet_seeds
from .budget import budget, budget_sliders
