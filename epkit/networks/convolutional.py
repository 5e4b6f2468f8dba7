"""A convolutional resistive network: conductances that many places of an image share."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import unfold

from ..ep import checks
from ..ep.networks import DeepResistiveNetwork, Gradient, Images, PhaseStates, States, Targets


class ConvolutionalResistiveNetwork(DeepResistiveNetwork):
    """A deep resistive network in which the hidden layers are maps and their conductances are kernels.

    It is the circuit of arXiv:2402.11674 with a conductance only where a kernel reaches, equal at each of its places,
    and is computed as that circuit, dense matrices with zeros: meant for small images. The images and maps are square;
    hidden layers take strides and no pooling; each channel has one bias; the outputs are dense. The diodes of the first
    half of the channels point upwards. The energy stays convex.

    Args:
        sizes: n_0 a square number, hidden n_l = channels x places: with a kernel of 3 and a stride of 2 an image of
            8 x 8 has 3 x 3 places, so (64, 72, 10) has 8 channels.
        kernel, stride: of every hidden layer (pixels).
        input_gain, members, seed, dtype, device: as of DeepResistiveNetwork.

    Attributes:
        weights: kernels >= 0 (S), one (member, channels of the layer before x kernel^2, channels) a hidden layer, then
            the outputs' (member, n_pre, n_post). The inputs are two channels, +x and -x. Initially uniform in
            ±sqrt(1/n) with the negatives set to 0, n being the conductances that lead to a unit.
        biases: currents (A), one (member, channels) a hidden layer, then the outputs' (member, n_post), initially 0.

    Raises:
        ValueError: for an argument that makes no network, by its name.
    """

    def __init__(self, sizes: Sequence[int], *, kernel: int = 3, stride: int = 2, seed: int | Sequence[int] = 0,
                 members: int = 1, **options: object) -> None:  # fmt: skip
        maps = check_maps(sizes, kernel, stride)
        self._places = [_shared(*each, kernel, stride) for each in maps]
        shapes = [(before * kernel**2, channels) for _, before, channels in maps]
        # for the options that both share, and what is wrong with them; the parameters take these ones' place
        super().__init__((1, 2), members=members, seed=seed, **options)  # type: ignore[arg-type]
        like, seeds = self.biases[0], checks.seeds(seed, members)
        self.sizes = checks.sizes(sizes)
        shapes.append((self.sizes[-2] * (2 if len(self.sizes) == 2 else 1), self.sizes[-1]))
        generators = {s: torch.Generator().manual_seed(s) for s in seeds}
        self.weights = []
        for shape in shapes:
            drawn = {s: (2 * torch.rand(shape, generator=g, dtype=torch.float64) - 1) for s, g in generators.items()}
            kernels = torch.stack([drawn[s] for s in seeds]).clamp_min(0) * sqrt(1 / shape[0])
            self.weights.append(kernels.to(like))
        self.biases = [like.new_zeros(members, shape[1]) for shape in shapes]

    def relax(
        self, x: Images, iterations: int, target: Targets | None = None, beta: float = 0.0, start: States | None = None
    ) -> States:
        """As of DeepResistiveNetwork; maps are flat, channel by channel."""
        return self._circuitry().relax(x, iterations, target, beta, start)

    def energy(self, x: Images, states: States) -> Float[Tensor, "member batch"]:
        return self._circuitry().energy(x, states)

    def relax_phases(self, x: Images, target: Targets, nudges: Tensor, iterations: int) -> tuple[States, PhaseStates]:
        return self._circuitry().relax_phases(x, target, nudges, iterations)

    def contrast(self, x: Images, states: PhaseStates, width: float | Tensor) -> Gradient:
        """That of the circuit, summed over the places that share a conductance or a bias."""
        dense = self._circuitry().contrast(x, states, width)
        weights, biases = [], []
        for layer, places in enumerate(self._places):
            kernels, g = self.weights[layer], dense.weights[layer]
            sums = g.new_zeros(len(g), kernels[0].numel() + 1).index_add(1, places.flatten().to(g.device), g.flatten(1))
            weights.append(sums[:, :-1].unflatten(1, kernels.shape[1:]))
            biases.append(dense.biases[layer].unflatten(1, (kernels.shape[2], -1)).sum(2))
        return Gradient([*weights, dense.weights[-1]], [*biases, dense.biases[-1]])

    def sampled(self, states: PhaseStates, most: int) -> PhaseStates:
        """All units, for a kernel's estimate is a sum over its places."""
        return states

    def _circuitry(self) -> DeepResistiveNetwork:
        """The circuit with a conductance of its own at each place, as far as autograd is concerned too."""
        circuit = DeepResistiveNetwork.__new__(DeepResistiveNetwork)
        circuit.sizes, circuit.input_gain, circuit.weights, circuit.biases = self.sizes, self.input_gain, [], []
        for kernels, biases, places in zip(self.weights, self.biases, self._places, strict=False):
            none = kernels.new_zeros(len(kernels), 1)
            circuit.weights.append(torch.cat([kernels.flatten(1), none], 1)[:, places])
            circuit.biases.append(biases.repeat_interleave(places.shape[1] // biases.shape[1], 1))
        circuit.weights.append(self.weights[-1])
        circuit.biases.append(self.biases[-1])
        return circuit


def check_maps(sizes: Sequence[int], kernel: int = 3, stride: int = 2) -> list[tuple[int, int, int]]:
    """Of each hidden layer the side and the channels of the maps before it, and its own channels.

    Raises:
        ValueError: for sizes that are not those of maps.
    """
    units = checks.sizes(sizes)
    checks.count("kernel", kernel)
    checks.count("stride", stride)
    side, before, maps = isqrt(units[0]), 2, []
    if side**2 != units[0]:
        raise ValueError(f"sizes[0] = {units[0]}: must be a square number, of the pixels of an image")
    for layer, n in enumerate(units[1:-1], 1):
        if side < kernel:
            raise ValueError(f"kernel = {kernel}: must fit into the maps before layer {layer}, of {side} x {side}")
        places = ((side - kernel) // stride + 1) ** 2
        channels, left = divmod(n, places)
        if left or channels % 2:
            raise ValueError(f"sizes[{layer}] = {n}: must be an even number of channels times {places} places")
        maps.append((side, before, channels))
        side, before = isqrt(places), channels
    return maps


def _shared(side: int, before: int, channels: int, kernel: int, stride: int) -> Int[Tensor, "n_pre n_post"]:
    """Which entry of the kernels, (before x kernel^2, channels) counted row by row, leads from a unit to a unit.

    The number after the last stands for none.
    """
    units = torch.arange(before * side**2, dtype=torch.float64).reshape(1, before, side, side)
    reached = unfold(units, kernel, stride=stride)[0].long()  # (before x kernel^2, places)
    entries, places = reached.shape
    shared = torch.full((before * side**2, channels, places), entries * channels)
    for entry in range(entries):
        for channel in range(channels):
            shared[reached[entry], channel, torch.arange(places)] = entry * channels + channel
    return shared.flatten(1)
