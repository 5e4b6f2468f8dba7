"""The deep Hopfield network, on which Equilibrium Propagation was first shown; noise in its relaxation, if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..ep import checks
from ..ep.networks import Biases, Images, Network, States, Targets, Weights, batch_of, generators_of

# Sweeps of a relaxation after which it is asked whether it has settled; each such question costs a tenth of a sweep.
LOOK_EVERY = 8


class DeepHopfieldNetwork(Network):
    """An ensemble of layered continuous Hopfield networks with hard-sigmoid units (arXiv:1602.05179, section 2).

    Its energy is E(s) = 1/2 sum_l |s_l|^2 - sum_l s_l W_l s_{l+1} - sum_l b_l . s_l with 0 <= s <= 1 and s_0 = A x: the
    hard sigmoid is the identity there. Not a resistive network: weights have either sign, and the energy need not be
    convex. With each layer in turn at its minimum, s_l = clamp(W s of both neighbours + b_l), it falls with every step.

    Args:
        sizes: units per layer, n_0 … n_L.
        input_gain: what the inputs are multiplied by.
        members, seed, dtype, device: as of DeepResistiveNetwork.
        noise: standard deviation of what is added to each pre-activation at each step of a relaxation, as in
            arXiv:2209.00530. As in its code only those phases are noisy that a nudge or a start makes part of learning:
            predictions, and the free phase from zero, are exact.
        noise_seed: of that noise, which depends on it, the images and the phase alone: the same call gives the same
            states, interrupted training ends as it would have, and members that see the same images share it.

    Attributes:
        weights: one (member, n_pre, n_post) a layer, initially uniform in ±sqrt(1.5/(n_pre + n_post)): half of what is
            usual, for with that the coupled layers begin at their bounds, and 784-256-256-10 stays at chance.
        biases: one (member, n_post) a layer, initially 0.

    Raises:
        ValueError: for an argument that makes no network, by its name.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        input_gain: float = 1.0,
        members: int = 1,
        seed: int | Sequence[int] = 0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        noise: float = 0.0,
        noise_seed: int = 0,
    ) -> None:
        self.sizes, device = checks.sizes(sizes), checks.device(device)
        self.input_gain = checks.number("input_gain", input_gain, above=0.0)
        self.noise = checks.number("noise", noise, least=0.0)
        self.noise_seed = checks.count("noise_seed", noise_seed, 0)
        members, kind = checks.count("members", members), checks.dtype(dtype)
        drawn = {s: torch.Generator().manual_seed(s) for s in checks.seeds(seed, members)}
        self.weights: Weights = []
        for pre, post in pairwise(self.sizes):
            width = (1.5 / (pre + post)) ** 0.5
            own = {
                s: width * (2 * torch.rand(pre, post, generator=g, dtype=torch.float64) - 1) for s, g in drawn.items()
            }
            self.weights.append(torch.stack([own[s] for s in checks.seeds(seed, members)]).to(device, kind))
        self.biases: Biases = [torch.zeros(members, n, dtype=kind, device=device) for n in self.sizes[1:]]

    def relax(
        self, x: Images, iterations: int, target: Targets | None = None, beta: float = 0.0, start: States | None = None
    ) -> States:
        """States after `iterations` sweeps over the layers 1, 3, 5 … and then 2, 4, 6 …, each layer to its minimum.

        A phase without noise ends sooner once a sweep moves no unit by more than rounding does.

        Raises:
            ValueError: for a target without beta, beta <= -1, where the outputs have no minimum, other shapes.
        """
        x, iterations = checks.images(self, x), checks.count("iterations", iterations)
        noisy = self.noise > 0 and (start is not None or target is not None)
        goal, beta = checks.nudge(self, target, beta, x.shape[-2])
        if not beta > -1:
            raise ValueError(f"beta = {beta:g}: must be above -1, where the energy of the outputs has a minimum")
        x, last = batch_of(x), len(self.biases) - 1
        drive = (self.input_gain * x) @ self.weights[0]
        s = list(start or [x.new_zeros(self.members, x.shape[1], n) for n in self.sizes[1:]])
        drawn = generators_of(self.noise_seed, x, beta) if noisy else []
        rounding = 4 * torch.finfo(x.dtype).eps
        for k in range(iterations):
            before = [*s]
            noise = [torch.randn(x.shape[1], sum(self.sizes[1:]), generator=g) for g in drawn]
            added = (self.noise * torch.stack(noise).to(x)).split(self.sizes[1:], -1) if noisy else None
            for layer in (*range(0, last + 1, 2), *range(1, last + 1, 2)):
                pull = self.biases[layer][:, None] + (drive if layer == 0 else s[layer - 1] @ self.weights[layer])
                if layer < last:
                    pull = pull + s[layer + 1] @ self.weights[layer + 1].mT
                if added is not None:
                    pull = pull + added[layer]
                if layer == last and goal is not None:
                    pull = (pull + beta * goal) / (1 + beta)
                s[layer] = pull.clamp(0, 1)
            looked = k % LOOK_EVERY == LOOK_EVERY - 1 and not noisy
            if looked and all(bool((new - old).abs().max() <= rounding) for new, old in zip(s, before, strict=True)):
                break
        return s

    def energy(self, x: Images, states: States) -> Float[Tensor, "member batch"]:
        """What the free phase minimises."""
        layers = [self.input_gain * batch_of(x), *states]
        own = sum((s * (0.5 * s - b[:, None])).sum(-1) for s, b in zip(states, self.biases, strict=True))
        pairs = zip(self.weights, layers[:-1], layers[1:], strict=True)
        return torch.as_tensor(own - sum(((pre @ w) * post).sum(-1) for w, pre, post in pairs))

    def has_minimum(self, beta: float) -> Bool[Tensor, " member"]:
        """All members, or none: beyond beta = -1 the outputs' energy is no longer convex."""
        return super().has_minimum(beta) & (beta > -1)
