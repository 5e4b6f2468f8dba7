"""The figures of notebook 16: error over noise of other networks and rules, and noise in the relaxation."""

import numpy as np
from matplotlib.figure import Figure

from ..study.limit import critical_limit
from ..study.rules import relaxation_errors, rule_errors
from . import canvas


def error_by_rule(stores: canvas.Stores) -> Figure:
    """Test error over read-out noise; a panel a rule or network, with its limit."""
    errors = {name: error for name, error in rule_errors(stores).items() if error.sizes["sigma"] > 1}
    baselines = [float(e.mean()) for e in rule_errors(stores).values() if e.sizes["sigma"] == 1]
    figure, axes, _ = canvas.grid(len(errors), 4, (3.0, 2.4))
    for ax, (name, error) in zip(axes, errors.items(), strict=True):
        canvas.seeds_and_mean(ax, error, "C0")
        canvas.sigma_axis(ax, error.sigma.values)
        limits = canvas.steady(critical_limit(error, error.chance))
        text = canvas.limit_band(ax, limits, short=True)
        for baseline in baselines:
            ax.axhline(baseline, color="C2", lw=1, ls="--")
        canvas.error_axis(ax, float(error.chance))
        ax.set_title(f"{name}\n{text}", fontsize="small")
    shown = {name: ds for name, ds in stores.items() if ds.dataset.values.tolist() == ["digits"]}
    note = "green: backpropagation through the relaxation, without noise" if baselines else ""
    return canvas.finish_several(figure, "The limit of other networks and rules", shown, f"{canvas.BARS}; {note}")


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
    note = "noise is added to every pre-activation in each step of the nudged phases; a dot a seed"
    shown = {name: ds for name, ds in stores.items() if "nudged_iterations" in ds.attrs["parameters"]}
    return canvas.finish_several(figure, "Noise in the relaxation, and the nudge", shown, note)
