"""Equilibrium Propagation under uncertainty: networks, learning, read-out noise, and the study built on them."""

from .ep.learning import gradient
from .ep.networks import DeepResistiveNetwork
from .ep.readout import GaussianReadout
from .ep.training import evaluate, train
from .messages import ParameterError
from .reference.exactness import ask_oracles
from .reference.mechanism import look_inside
from .sweep.inputs import refuse_misspelt
from .sweep.runs import run, run_several, so_far, untrained
from .sweep.store import origin, results

__all__ = [
    "DeepResistiveNetwork",
    "GaussianReadout",
    "ParameterError",
    "ask_oracles",
    "evaluate",
    "gradient",
    "look_inside",
    "origin",
    "refuse_misspelt",
    "results",
    "run",
    "run_several",
    "so_far",
    "train",
    "untrained",
]
