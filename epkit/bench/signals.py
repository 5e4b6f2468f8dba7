"""What a budget needs of an untrained network: its voltages, and signal and noise of its second conductances.

All is computed for targets of 1 V. A resistive network without biases is homogeneous: input and target in proportion
scale every voltage alike. So a network of gain A and target t has t times the voltages of one of A/t and 1 V.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from .. import data
from ..ep.networks import DeepResistiveNetwork, States
from ..ep.probe import rms, squared_drop

# Of a layer's voltages, the magnitudes that such a share exceeds are kept; the last is the largest.
SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0)
# rms over the second layer of conductances; unit, how it scales with the voltages, what it is
SIGNALS = {
    "gradient": ("V2", 2, "gradient of all images"),
    "spread": ("V2", 2, "standard deviation of the gradient from image to image"),
    "noise": ("V", 1, "what noise of a read adds to the estimate from an image, over that noise"),
    "relative_noise": ("V2", 2, "the same of noise in proportion to the voltage, over the proportion"),
    "mean_noise": ("V", 1, "the same of noise in the mean of the two phases alone, over that noise"),
    "offset": ("V", 1, "error of the gradient by offsets of the reads, over the offset"),
    "gain_mismatch": ("V2", 2, "error of the gradient by gains of the reads that are not 1, over the gain's deviation"),
}
NUDGED = ("response", "largest_response")  # rms and largest of what the nudge moves in each layer (V)


def images(dataset: str, count: int) -> tuple[Float[Tensor, "n n_0"], Float[Tensor, "n n_L"]]:
    """The first training images of a set, and their targets of 1 V."""
    split = data.load(dataset, train=count, test=1, dtype=torch.float64)
    return split.x_train, one_hot(split.y_train, 10).double()


def untrained(sizes: Sequence[int], seed: int) -> DeepResistiveNetwork:
    """A network of unit gain, whose voltages are those at any gain over that gain."""
    return DeepResistiveNetwork(sizes, input_gain=1.0, seed=seed, dtype=torch.float64)


def voltages(free: States) -> dict[str, list]:
    """Of a free phase, layer by layer: rms `voltage` (V), and `level`, the magnitudes that SHARES of them exceed."""
    magnitudes = [v.abs().flatten().numpy() for v in free]
    return {
        "voltage": [float(np.sqrt(np.mean(v**2))) for v in magnitudes],
        "level": [np.quantile(v, [1 - share for share in SHARES]).tolist() for v in magnitudes],
    }


def nudged(
    net: DeepResistiveNetwork, x: Float[Tensor, "n n_0"], t: Float[Tensor, "n n_L"], free: States,
    *, beta: float, iterations: int,
) -> dict[str, float | list[float]]:  # fmt: skip
    """`SIGNALS` and `NUDGED` of the centred estimate at a nudge of ±beta (S), that begins at the `free` states.

    Raises:
        ValueError: where the nudge leaves the network without a steady state, or moves nothing.
    """
    if not bool(net.has_minimum(-beta).all()):
        least = float(net.weights[-1].sum(1).min())
        raise ValueError(f"beta = {beta:g}: must stay below the least conductance of an output unit, {least:.3g} S")
    states = [v[0] for v in net.relax_nudged(x, t, (beta, -beta), iterations, free)]
    found: dict[str, float | list[float]] = dict(_signals(states[:2], 2 * beta))
    moved = [(v[0] - v[1]).abs() for v in states]
    found["response"] = [rms(d) for d in moved]
    found["largest_response"] = [float(d.max()) for d in moved]
    if not all(np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0) for value in found.values()):
        raise ValueError(f"beta = {beta:g}: the nudge of the untrained network moves nothing that can be told")
    return found


def _signals(states: Sequence[Float[Tensor, "2 n _units"]], width: float) -> dict[str, float]:
    """`SIGNALS` of the conductances between two layers, in two phases whose nudges differ by `width` (S)."""
    (a, d), (b, e) = ((v.mean(0), v[0] - v[1]) for v in states)
    n = len(a)
    cross = (a.mT @ e + d.mT @ b) / n
    above, below = (a * d).mean(0)[:, None], (b * e).mean(0)
    of_all = _mean_square(above + below - cross)
    # An image's gradient is of rank 4: the mean of its squares needs no matrix of conductances.
    left = torch.stack([a * d, torch.ones_like(a), a, d], -1)
    right = torch.stack([torch.ones_like(b), b * e, -e, -b], -1)
    of_image = float(((left.mT @ left) * (right.mT @ right)).sum((1, 2)).mean()) / (a.shape[1] * b.shape[1])
    variance = (of_image - of_all) * n / (n - 1)
    squares = {
        # as in `ep.prediction`: without the variance between images, of which the mean still holds an n-th part
        "gradient": max(of_all - variance / n, 0.01 * of_all),
        "spread": variance,
        "noise": 2 * sum(squared_drop(v, w) for v, w in zip(*states, strict=True)),
        "relative_noise": sum(_weighted_drop(v, w) + _weighted_drop(w, v) for v, w in zip(*states, strict=True)),
        "mean_noise": 2 * squared_drop(d, e),
        "offset": 2 * squared_drop(d.mean(0, keepdim=True), e.mean(0, keepdim=True)),
        "gain_mismatch": _mean_square(2 * above - cross) + _mean_square(2 * below - cross),
    }
    return {name: square**0.5 / width for name, square in squares.items()}


def _mean_square(values: Tensor) -> float:
    return float(values.square().mean())


def _weighted_drop(v: Float[Tensor, "n _i"], w: Float[Tensor, "n _j"]) -> float:
    """Mean of (v_i - w_j)^2 v_i^2."""
    powers = [v.pow(k).mean(1) for k in (2, 3, 4)]
    return float((powers[2] - 2 * powers[1] * w.mean(1) + powers[0] * w.square().mean(1)).mean())
