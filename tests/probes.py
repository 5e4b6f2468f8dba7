"""Public calls with one argument that makes no sense: a table of (call, argument, value), run by test_public_calls.

Run as a script, for what checks the shapes of the tests' tensors would refuse them before epkit does. Prints one JSON
object: probe -> [kind of error, message].
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import torch

import epkit
from epkit import readouts
from epkit.circuit import instrument, network, ngspice, simulated
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


def made(function: Callable[..., object], *first: Any, **fixed: Any) -> Callable[..., object]:
    """The call with arguments that make sense; a probe changes one of them."""
    return lambda **change: function(*first, **fixed | change)


def of_net(function: Callable[..., object], **fixed: Any) -> Callable[..., object]:
    """The same of what is called with a network."""
    return lambda **change: function(net(), **fixed | change)


def part(kind: Any, **fixed: Any) -> Callable[..., object]:
    """The same of a read-out, which trains, for some of what makes no sense shows beside a network alone."""
    return lambda **change: train(readout=kind(**fixed | change))


train = of_net(epkit.train, **TRAIN)
STEP = {"beta": 0.05, "iterations": 3}
PREDICT = {"x": X, "t": T, **STEP, "learning_rate": 0.1, "batch_size": 4}
RATED = {"sizes": (6, 8, 4), "x": X, "y": Y, "input_gain": 5.0, **STEP, "batch_size": 4}
CIRCUIT = simulated.SimulatedCircuit((3, 4, 2))
LINE = os.open(os.devnull, os.O_RDWR)
CALLS = {
    "DeepResistiveNetwork": net, "gradient": of_net(epkit.gradient, x=X, target=T, **STEP), "train": train,
    "evaluate": of_net(epkit.evaluate, x=X, y=Y, iterations=3),
    "relax": of_net(epkit.DeepResistiveNetwork.relax, x=X, iterations=3),
    "relative_rates": made(relative_rates, **RATED), "GaussianReadout": made(epkit.GaussianReadout, sigma=1e-3),
    "predict_critical_limit": of_net(epkit.predict_critical_limit, **PREDICT),
    "readouts_needed": of_net(epkit.readouts_needed, sigma=1e-3, **PREDICT),
    "Schedule": part(epkit.Schedule, sigma=1e-3), "Adaptive": part(epkit.Adaptive, sigma=1e-3),
    "Noise": part(readouts.Noise, sigma=1e-3), "thermal": made(readouts.thermal, capacitance=1e-12),
    "RelativeNoise": part(readouts.RelativeNoise, share=0.1), "HeavyTails": part(readouts.HeavyTails, sigma=1e-3),
    "Drift": part(readouts.Drift, rate=1e-3, gap=1.0),
    "Flicker": part(readouts.Flicker, density=1e-3, gap=1e-3, interval=1e-3),
    "Measured": part(readouts.Measured, path="none.csv"), "Mismatch": part(readouts.Mismatch, offset=1e-3),
    "Converter": part(readouts.Converter, bits=8, span=(-1, 1)),
    "Comparator": part(readouts.Comparator, level=1e-3), "Differential": part(readouts.Differential),
    "Chain": part(readouts.Chain, parts=(readouts.Noise(1e-3),)), "preset": made(readouts.preset, name="kT/C"),
    "DeviceNetwork": made(epkit.DeviceNetwork, **NET, largest=1.0),
    "ThermalNetwork": made(epkit.ThermalNetwork, **NET, power=1e-9),
    "DeepHopfieldNetwork": made(epkit.DeepHopfieldNetwork, **NET),
    "ConvolutionalResistiveNetwork": made(epkit.ConvolutionalResistiveNetwork, **NET | {"sizes": (16, 8, 4)}),
    "CircuitNetwork": made(epkit.CircuitNetwork, circuit=CIRCUIT, input_gain=1.0),
    "CircuitNetwork.relax": made(epkit.CircuitNetwork(CIRCUIT, input_gain=1.0).relax, x=X[:, :3], iterations=1),
    "SimulatedCircuit": made(simulated.SimulatedCircuit, sizes=(3, 4, 2)),
    "Board": made(simulated.Board, circuit=CIRCUIT),
    "SpiceCircuit": made(ngspice.SpiceCircuit, sizes=(3, 4, 2)), "measured": ngspice.measured,
    "connect": made(instrument.connect, address="/dev/null"), "Instrument": made(instrument.Instrument, link=LINE),
    "Checkpoint": network.Checkpoint,
    "budget": made(epkit.budget, network=(32, 32), data="digits", input_gain=100.0, beta=0.3),
}  # fmt: skip
LEAST = [-0.1, nan, inf, "a", None, True]
SHARES = [1.1, -0.1, nan, inf, "a", True]
SIGMAS = [-1e-3, nan, inf, "a", None, True, torch.tensor([0.0, -1.0]), torch.ones(3), torch.ones(1, 2)]
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
        "optimiser": ["adma", 3, lambda parameters: None],
        "nudged_iterations": [0, -3, 1.5, "a", True],
        "cold": [1, 0, "yes", None],
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
    "Noise": {"sigma": SIGMAS, "correlation": [-0.1, 1.1, nan, "a", True]},
    "thermal": {"capacitance": AMOUNTS, "temperature": LEAST},
    "RelativeNoise": {"share": SIGMAS},
    "HeavyTails": {"sigma": SIGMAS, "freedom": [*AMOUNTS, 2.0]},
    "Drift": {"rate": SIGMAS, "gap": LEAST},
    "Flicker": {"density": SIGMAS, "gap": AMOUNTS, "interval": AMOUNTS, "longest": [*AMOUNTS, 2e-3]},
    "Measured": {"path": ["none.csv", "", None, 3, "\0", ".", __file__]},
    "Mismatch": {
        "offset": [s for s in SIGMAS if s is not None], "gain": [s for s in SIGMAS if s is not None],
        "seed": [-1, 1.5, "0", None, (), (0,), (0, 1, 2), (0, -1), True],
    },
    "Converter": {
        "bits": [*COUNTS, 25],
        "span": [((0, 1), (1, 0)), (), (1, -1), (0, 0), (0,), 3.0, "ab", None, (nan, 1), (0, inf), ((0, 1),) * 3],
        "lsb": [1.0, *(a for a in AMOUNTS if a is not None)],
    },
    "Comparator": {"level": AMOUNTS, "threshold": [nan, inf, "a", None, True]},
    "Differential": {name: [3, "a", readouts.Noise(1e-3), readouts.Differential(), epkit.GaussianReadout(1e-3),
                            readouts.Converter, readouts.Chain((readouts.Comparator(1.0),), 4)]
                     for name in ("difference", "mean")},
    "Chain": {
        "parts": [3, "a", (3,), (readouts.Noise,), (epkit.Schedule(1e-3),),
                  (epkit.Adaptive(1e-3), readouts.Comparator(1.0)), readouts.Chain((), 2)],
        "samples": [*COUNTS, lambda images: 0, lambda images: inf, lambda images: "a", lambda images: None],
        "averaging": ["mean", None],
    },
    "preset": {"name": ["kt/c", "", None, 3, ["kT/C"]], "full_scale": [a for a in AMOUNTS if a is not None]},
    "DeviceNetwork": {
        "largest": [a for a in AMOUNTS if a is not None], "states": [c for c in COUNTS if c is not None] + [1],
        "rounding": ["up", None], "asymmetry": [-1.1, 1.1, nan, "a", True], "between": SHARES[1:], "within": SHARES[1:],
        "stuck": SHARES, "stuck_units": SHARES, "held_at": [nan, inf, "a", True],
        "write": [nan, inf, "a", True, (0.1, "a"), (), {}], "device_seed": [-1, 1.5, "0", None, True],
        "sizes": [(6,), (6, 7, 4)], "input_gain": AMOUNTS,
    },
    "ThermalNetwork": {"power": LEAST, "noise_seed": [-1, 1.5, "0", None, True], "stuck": SHARES},
    "DeepHopfieldNetwork": {
        "sizes": [(6,), (), (6, 0, 4), "6-8-4", None], "input_gain": AMOUNTS, "members": COUNTS,
        "seed": [-1, 1.5, (0,), "0", None], "dtype": [torch.float16, "float32", None],
        "device": ["cuda:99", "gpu", 5.5], "noise": LEAST, "noise_seed": [-1, 1.5, "0", None, True],
    },
    "ConvolutionalResistiveNetwork": {
        "sizes": [(15, 8, 4), (16, 7, 4), (16,), (), "ab", None], "kernel": [*COUNTS, 5], "stride": COUNTS,
        "input_gain": AMOUNTS, "members": COUNTS, "seed": [-1, 1.5, (0,), "0", None], "dtype": [torch.float16, None],
        "device": ["gpu", 5.5],
    },
    "CircuitNetwork": {
        "circuit": ["board", None, 3, simulated.SimulatedCircuit], "input_gain": AMOUNTS, "siemens": AMOUNTS,
        "volts": AMOUNTS, "reads": COUNTS, "seed": [-1, (0, 1), 1.5, "a", None],
    },
    "CircuitNetwork.relax": {"x": IMAGES, "beta": [0.1, nan, "a"]},
    "SimulatedCircuit": {"sizes": [(3,), (3, 5, 2), "a", None], "iterations": COUNTS},
    "Board": {
        "circuit": ["board", None, 3], "total": AMOUNTS, "wiper": LEAST, "steps": COUNTS, "noise": LEAST,
        "lsb": LEAST, "span": AMOUNTS, "seed": [-1, 1.5, "a", None],
    },
    "SpiceCircuit": {"sizes": [(3,), (3, 5, 2), "a", None], "diode": ["tube", None, 3, (1, 2)]},
    "measured": {"path": ["none.csv", "", None, 3, "\0", ".", __file__]},
    "connect": {"address": [None, 3, ""], "baud": [0, -1, "a", None, 1.5], "timeout": AMOUNTS},
    "Instrument": {"link": [None, "a", -1, 1.5], "timeout": AMOUNTS},
    "Checkpoint": {"net": [None, 3, CIRCUIT]},
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
    try:
        CALLS[call](**change)
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
