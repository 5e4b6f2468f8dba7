"""Noise in each step of the relaxation: notebook 17, and a figure of notebook 16."""

import numpy as np
from matplotlib.figure import Figure

from ..study.limit import first_setting
from ..study.plateau import images_seen
from ..study.rules import noise_and_nudge, published, relaxation_errors
from . import canvas

NOTE = "noise is added to every pre-activation in each step of the phases that learning compares"


def noise_in_relaxation(stores: canvas.Stores) -> Figure:
    """Errors of networks with and without noise in each step of their relaxation; a dot a seed."""
    errors = relaxation_errors(stores)
    figure, axes = canvas.blank(1, 1, (5.4, 3.0))
    ax = axes[0, 0]
    for number, noise in enumerate(errors.noise.values if "noise" in errors.dims else []):
        for row, beta in enumerate(errors.beta.values):
            runs = errors.sel(noise=noise, beta=beta)
            x = row + 0.2 * (number - 0.5) + np.linspace(-0.04, 0.04, runs.size)
            ax.plot(x, runs, "o", color=f"C{number}", ms=6, alpha=0.8, label=f"noise {noise:g}" if not row else None)
        ax.set_xticks(range(errors.sizes["beta"]), [f"β = {beta:g}" for beta in errors.beta.values])
    canvas.error_axis(ax, 0.9)
    ax.legend(fontsize="small", loc="center")
    ax.set_xlim(-0.5, 1.5)
    shown = {name: ds for name, ds in stores.items() if published(ds)}
    return canvas.finish_several(figure, "Noise in the relaxation, and the nudge", shown, f"{NOTE}; a dot a seed")


def noise_while_training(stores: canvas.Stores) -> Figure:
    """Test error over the training images seen, a panel a nudge, a line a seed; with and without noise."""
    settings = [(*noise_and_nudge(ds), first_setting(ds)) for ds in stores.values()]
    noises, nudges = (sorted({setting[k] for setting in settings}) for k in (0, 1))
    figure, axes, _ = canvas.grid(len(nudges), 2, (3.9, 2.9))
    for beta, ax in zip(nudges, axes, strict=True):
        shown = [(noise, ds) for noise, own, ds in settings if own == beta]
        for noise, ds in shown:
            runs = ds.test_error.isel(sigma=0).transpose("epoch", "seed")
            ax.plot(images_seen(ds) / 1000, runs, color=f"C{noises.index(noise)}", lw=1.2, marker=".", ms=4)
        canvas.error_axis(ax, shown[0][1].chance.item())
        ax.set(title=f"nudge β = {beta:g}", xlabel="training images seen (thousands)", xlim=(0, None))
    canvas.key(figure, {f"noise {noise:g}": {"color": f"C{k}", "lw": 2} for k, noise in enumerate(noises)})
    return canvas.finish_several(figure, "Learning with noise in the relaxation", stores, f"{NOTE}; each line a seed")
