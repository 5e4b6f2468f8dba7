"""Public calls with one argument that makes no sense: a table of (call, argument, value), run by test_public_calls.

Run as a script, for what checks the shapes of the tests' tensors would refuse them before epkit does. Prints one JSON
object: probe -> [kind of error, message].
"""

from __future__ import annotations

import json
import warnings
from math import inf, nan
from typing import Any

import numpy as np
import torch

import epkit
from epkit.ep.probe import relative_rates

NET = {"sizes": (6, 8, 4), "input_gain": 5.0, "members": 2}
X, Y = torch.rand(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
T = torch.eye(4)[Y]
TRAIN = {
    "x": X, "y": Y, "epochs": 1, "batch_size": 4, "beta": 0.05, "iterations": 3, "learning_rates": (0.01, 0.01),
}  # fmt: skip


class Shapeless(epkit.GaussianReadout):
    def noise(self, shape, generator=None):
        return torch.zeros(3)


def net(**change: Any) -> epkit.DeepResistiveNetwork:
    return epkit.DeepResistiveNetwork(**NET | change)


def gradient(**change: Any) -> object:
    return epkit.gradient(net(), **{"x": X, "target": T, "beta": 0.05, "iterations": 3} | change)


def train(**change: Any) -> object:
    return epkit.train(net(), **TRAIN | change)


def evaluate(**change: Any) -> object:
    return epkit.evaluate(net(), **{"x": X, "y": Y, "iterations": 3} | change)


def relax(**change: Any) -> object:
    return net().relax(**{"x": X, "iterations": 3} | change)


def rates(**change: Any) -> object:
    fixed = {"sizes": (6, 8, 4), "x": X, "y": Y, "input_gain": 5.0, "beta": 0.05, "iterations": 3, "batch_size": 4}
    return relative_rates(**fixed | change)


def predict(**change: Any) -> object:
    fixed = {"x": X, "t": T, "beta": 0.05, "iterations": 3, "learning_rate": 0.1, "batch_size": 4}
    return epkit.predict_critical_limit(net(), **fixed | change)


def needed(**change: Any) -> object:
    fixed = {"x": X, "t": T, "sigma": 1e-3, "beta": 0.05, "iterations": 3, "learning_rate": 0.1, "batch_size": 4}
    return epkit.readouts_needed(net(), **fixed | change)


def budget(**change: Any) -> object:
    return epkit.budget(**{"network": (32, 32), "data": "digits", "input_gain": 100.0, "beta": 0.3} | change)


def adaptive(**change: Any) -> object:
    return train(readout=epkit.Adaptive(**{"sigma": 1e-3} | change))


def schedule(**change: Any) -> object:
    return train(readout=epkit.Schedule(**{"sigma": 1e-3} | change))


CALLS = {"DeepResistiveNetwork": net, "gradient": gradient, "train": train, "evaluate": evaluate, "relax": relax,
         "relative_rates": rates, "GaussianReadout": epkit.GaussianReadout, "predict_critical_limit": predict,
         "readouts_needed": needed, "Schedule": schedule, "Adaptive": adaptive, "budget": budget}  # fmt: skip
COUNTS = [0, -3, 1.5, "3", None, True, nan]
AMOUNTS = [0.0, -0.1, nan, inf, "a", None, True]
IMAGES = [X[:, :5], X[:0], X.clone().fill_(nan), X > 0.5, "x", None, 3, X[None, None], X.to(torch.complex64)]
CLASSES = [Y[:-1], Y.float(), -Y, Y + 1, torch.eye(4)[Y], "y", None, Y[:, None]]
TARGETS = [Y, Y.float(), torch.ones(12, 4), T[:, :3], T[:5], T.clone().fill_(inf), "t", None]
READOUTS = [1e-3, "gaussian", object(), epkit.GaussianReadout(torch.ones(3)), Shapeless(1e-3)]
RATES = [*AMOUNTS, (0.1,), (0.1, -0.1), (0.1, 0.1, 0.1), "ab", (nan, 0.1), [None, 0.1], torch.ones(2, 2)]
PAIRS = [X, (X,), (X, Y[:3]), (X[:, :2], Y), (X, Y.float()), "test"]

PROBES: dict[str, dict[str, list[Any]]] = {
    "DeepResistiveNetwork": {
        "sizes": [(6,), (), (6, 7, 4), (6, 0, 4), (6, 8.5, 4), "6-8-4", None, (6, -8, 4)],
        "input_gain": AMOUNTS,
        "members": COUNTS,
        "seed": [-1, 1.5, (0,), (0, 1, 2), "0", None, (0, 0.5)],
        "dtype": [torch.float16, torch.int64, "float32"],
        "device": ["cuda:99", "gpu", 5.5],
    },
    "gradient": {
        "x": IMAGES,
        "target": TARGETS,
        "beta": [*AMOUNTS, 100.0],
        "iterations": COUNTS,
        "estimator": ["foo", None, 1],
        "readout": READOUTS,
    },
    "train": {
        "x": [*IMAGES, X[:5]],
        "y": CLASSES,
        "epochs": [-1, 1.5, "1", None, nan],
        "batch_size": [*COUNTS, 13],
        "beta": AMOUNTS,
        "iterations": COUNTS,
        "learning_rates": [(0.01,), (0.01, -0.1), (nan, 0.01), (0.01, "a"), 0.01, None, (torch.ones(3), 0.01), "ab"],
        "readout": READOUTS,
        "seed": [-1, (0,), 1.5, "a"],
        "decay": [-1.0, 0.0, nan, "a"],
        "bias_rate": [-1.0, nan, "a", None],
        "test": PAIRS,
        "validation": PAIRS,
        "estimator": ["foo", None],
        "looks": [0, 4, 1.5, "a"],
        "engine": ["foo", None],
        "warm_up": [0, -8, 1.5, "a", nan, True],
    },
    "evaluate": {"x": IMAGES, "y": CLASSES, "iterations": COUNTS},
    "relax": {"x": IMAGES, "iterations": COUNTS, "beta": [0.1, nan, "a"]},
    "relative_rates": {
        "sizes": [(6,), (6, 7, 4)], "x": IMAGES[:5], "y": CLASSES[:5], "input_gain": AMOUNTS,
        "beta": [*AMOUNTS, 1e-30], "iterations": COUNTS, "batch_size": [*COUNTS, 13],
    },
    "GaussianReadout": {
        "sigma": [-1e-3, nan, inf, "a", None, torch.tensor([0.0, -1.0])],
        "samples": [0, -1, 1.5, "a", None],
        "averaging": ["mean", None],
    },
    "predict_critical_limit": {
        "x": IMAGES, "t": TARGETS, "beta": [*AMOUNTS, 100.0, 1e-30], "iterations": COUNTS,
        "learning_rate": RATES, "batch_size": [*COUNTS, 7], "samples": COUNTS, "estimator": ["foo", None, 1],
    },
    "readouts_needed": {
        "x": IMAGES[:5], "t": TARGETS, "sigma": [-1.0, nan, inf, "a", None, True, torch.ones(2)],
        "beta": AMOUNTS, "iterations": COUNTS, "learning_rate": RATES, "batch_size": [*COUNTS, 7],
        "margin": AMOUNTS, "estimator": ["foo", None, 1],
    },
    "Schedule": {
        "sigma": [-1e-3, nan, None, torch.ones(3)], "samples": COUNTS, "averaging": ["mean", None],
        "reads": [3, "until", lambda images: 0, lambda images: nan, lambda images: "a", lambda images: None],
        "layers": [2, "1", [0], [3], [1.5], [True], ["biases"], [None], [[1]]],
        "updates": [2, "biases", [0], [3], [1.5], ["bias"], [None], [[1]]],
    },
    "budget": {
        "network": [(33,), (0,), "32,a", 32.5, (32, 1.5)], "data": ["minst", 3],
        "readout": [1e-3, "gaussian", object()], "noise": [-1.0, nan, inf, "3 apples", True], "beta": AMOUNTS,
        "input_gain": AMOUNTS, "learning_rate": AMOUNTS, "batch_size": [0, -3, 1.5, "a", True],
        "adc_bits": [0, 25, 1.5, "a"], "margin": AMOUNTS, "scheme": ["twice", 3],
    },
    "Adaptive": {"bound": AMOUNTS, "every": COUNTS, "layer": COUNTS, "most": COUNTS, "layers": [[3]]},
}  # fmt: skip
# What must be taken, whatever its type.
ACCEPTED = {
    "train": [
        {"x": X.numpy(), "y": Y.numpy()}, {"x": X.double()}, {"x": X.tolist(), "y": Y.tolist()}, {"epochs": 0},
        {"epochs": np.int64(1), "beta": np.float32(0.05)}, {"learning_rates": [0.01, np.array([0.01, 0.02])]},
        {"test": [X.numpy(), Y.numpy()]}, {"y": Y.to(torch.int32)}, {"warm_up": np.int64(4)}, {"warm_up": 10**9},
    ],
    "predict_critical_limit": [
        {"x": X.numpy(), "t": T.numpy()}, {"learning_rate": [0.1, 0.2]}, {"learning_rate": np.array([0.1, 0.2])},
        {"learning_rate": torch.tensor([0.1, 0.2])}, {"learning_rate": 1}, {"learning_rate": np.float32(0.1)},
    ],
    "Schedule": [{"layers": (1,)}, {"layers": np.array([1, 2])}, {"updates": ["biases", 2]}, {"layers": []},
                 {"reads": lambda images: np.int64(2)}, {"reads": lambda images: torch.tensor(2)}],
    "gradient": [{"x": X.numpy(), "target": T.numpy()}, {"x": X.double()}, {"target": T.double()}],
    "evaluate": [{"x": X.numpy(), "y": Y.numpy()}],
    "relative_rates": [{"x": X.double()}, {"x": X.numpy(), "y": Y.numpy()}],
    "DeepResistiveNetwork": [{"sizes": [6, 8, 4]}, {"sizes": np.array([6, 8, 4])}, {"seed": np.int64(3)}],
}  # fmt: skip


def outcome(call: str, change: dict[str, Any]) -> tuple[str, str]:
    arguments = {"sigma": 1e-3} | change if call == "GaussianReadout" else change
    try:
        CALLS[call](**arguments)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def main() -> None:
    warnings.simplefilter("ignore")
    found = {}
    for call, arguments in PROBES.items():
        for argument, values in arguments.items():
            for k, value in enumerate(values):
                found[f"{call}.{argument}[{k}] = {type(value).__name__} {str(value)[:30]}"] = outcome(
                    call, {argument: value}
                )
    taken = {f"{call} {k}": outcome(call, change) for call, many in ACCEPTED.items() for k, change in enumerate(many)}
    print(json.dumps({"refused": found, "accepted": taken}))


if __name__ == "__main__":
    main()
