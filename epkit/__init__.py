"""Equilibrium Propagation under uncertainty: networks, learning, read-out noise, and the study built on them."""

from .experiments import run
from .inputs import ParameterError, refuse_misspelt
from .learning import gradient
from .mechanism import look_inside
from .networks import DeepResistiveNetwork
from .store import origin, results
from .training import evaluate, train
from .uncertainty import GaussianReadout

__all__ = [
    "DeepResistiveNetwork",
    "GaussianReadout",
    "ParameterError",
    "evaluate",
    "gradient",
    "look_inside",
    "origin",
    "refuse_misspelt",
    "results",
    "run",
    "train",
]
