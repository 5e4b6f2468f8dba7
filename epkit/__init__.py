"""Equilibrium Propagation under uncertainty: networks, learning, read-out noise, and the study built on them."""

from .learning import evaluate, gradient, train
from .networks import DeepResistiveNetwork
from .uncertainty import GaussianReadout

__all__ = ["DeepResistiveNetwork", "GaussianReadout", "evaluate", "gradient", "train"]
