"""Equilibrium Propagation under uncertainty: networks, learning, read-out noise, and the study built on them."""

from . import readouts
from .bench.answer import budget
from .circuit.network import Circuit, CircuitNetwork
from .data import add as add_data
from .ep.devices import DeviceNetwork
from .ep.learning import gradient
from .ep.networks import DeepResistiveNetwork, Network
from .ep.prediction import predict_critical_limit, readouts_needed
from .ep.probe import evaluate
from .ep.readout import GaussianReadout, Readout
from .ep.schedule import Adaptive, Schedule
from .ep.training import State, train
from .files import StoreError
from .messages import ParameterError
from .networks.convolutional import ConvolutionalResistiveNetwork
from .networks.hopfield import DeepHopfieldNetwork
from .networks.thermal import ThermalNetwork
from .reference.exactness import measure_exactness
from .reference.mechanism import examine_network
from .sweep.inputs import notebook
from .sweep.runs import finished_runs, predicted, run, run_several, untrained
from .sweep.store import origin, results

__all__ = [
    "Adaptive",
    "Circuit",
    "CircuitNetwork",
    "ConvolutionalResistiveNetwork",
    "DeepHopfieldNetwork",
    "DeepResistiveNetwork",
    "DeviceNetwork",
    "GaussianReadout",
    "Network",
    "ParameterError",
    "Readout",
    "Schedule",
    "State",
    "StoreError",
    "ThermalNetwork",
    "add_data",
    "budget",
    "evaluate",
    "examine_network",
    "finished_runs",
    "gradient",
    "measure_exactness",
    "notebook",
    "origin",
    "predict_critical_limit",
    "predicted",
    "readouts",
    "readouts_needed",
    "results",
    "run",
    "run_several",
    "train",
    "untrained",
]
