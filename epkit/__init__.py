"""Equilibrium Propagation under uncertainty: networks, learning, read-out noise, and the study built on them."""

from .experiments import look_inside, run
from .learning import evaluate, gradient, train
from .networks import DeepResistiveNetwork
from .parameters import ParameterError
from .store import origin, results
from .uncertainty import GaussianReadout

__all__ = [
    "DeepResistiveNetwork",
    "GaussianReadout",
    "ParameterError",
    "evaluate",
    "gradient",
    "look_inside",
    "origin",
    "results",
    "run",
    "train",
]
