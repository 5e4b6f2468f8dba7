"""Equilibrium Propagation under uncertainty: networks, learning, read-out noise, and the study built on them."""

from .data import add as add_data
from .ep.learning import gradient
from .ep.networks import DeepResistiveNetwork, Network
from .ep.probe import evaluate
from .ep.readout import GaussianReadout, Readout
from .ep.training import State, train
from .files import StoreError
from .messages import ParameterError
from .reference.exactness import measure_exactness
from .reference.mechanism import examine_network
from .sweep.inputs import notebook
from .sweep.runs import finished_runs, run, run_several, untrained
from .sweep.store import origin, results

__all__ = [
    "DeepResistiveNetwork",
    "GaussianReadout",
    "Network",
    "ParameterError",
    "Readout",
    "State",
    "StoreError",
    "add_data",
    "evaluate",
    "examine_network",
    "finished_runs",
    "gradient",
    "measure_exactness",
    "notebook",
    "origin",
    "results",
    "run",
    "run_several",
    "train",
    "untrained",
]
