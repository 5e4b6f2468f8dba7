"""Equilibrium Propagation under uncertainty: networks, learning, read-out noise, and the study built on them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .experiments import ask_oracles, look_inside, run, run_several, so_far
    from .inputs import ParameterError, refuse_misspelt
    from .learning import gradient
    from .networks import DeepResistiveNetwork
    from .store import origin, results
    from .training import evaluate, train
    from .uncertainty import GaussianReadout

# Where each name comes from: imported when first asked for, since what only draws from a store can do without torch.
_HOMES = {
    "DeepResistiveNetwork": "networks",
    "GaussianReadout": "uncertainty",
    "ParameterError": "inputs",
    "ask_oracles": "experiments",
    "evaluate": "training",
    "gradient": "learning",
    "look_inside": "experiments",
    "origin": "store",
    "refuse_misspelt": "inputs",
    "results": "store",
    "run": "experiments",
    "run_several": "experiments",
    "so_far": "experiments",
    "train": "training",
}
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
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return __all__
