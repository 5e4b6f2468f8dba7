"""The figure of notebook 16: error over noise of other networks and rules."""

from matplotlib.figure import Figure

from ..study.limit import critical_limit
from ..study.rules import NETWORKS, rule_errors
from . import canvas


def error_by_rule(stores: canvas.Stores) -> Figure:
    """Test error over read-out noise; a panel a rule or network, with its limit."""
    errors = {name: error for name, error in rule_errors(stores).items() if error.sizes["sigma"] > 1}
    baselines = [float(e.mean()) for e in rule_errors(stores).values() if e.sizes["sigma"] == 1]
    figure, axes, _ = canvas.grid(len(errors), 4, (3.0, 2.4))
    for ax, (name, error) in zip(axes, errors.items(), strict=True):
        canvas.seeds_and_mean(ax, error, "C0")
        activations = name.startswith(NETWORKS["hopfield"])  # from 0 to 1, without a unit
        canvas.sigma_axis(ax, error.sigma.values, "read-out uncertainty σ" if activations else canvas.SIGMA)
        limits = canvas.steady(critical_limit(error, error.chance))
        text = canvas.limit_band(ax, limits, short=True, unit="" if activations else " V")
        for baseline in baselines:
            ax.axhline(baseline, color="C2", lw=1, ls="--")
        canvas.error_axis(ax, float(error.chance))
        ax.set_title(f"{name}\n{text}", fontsize="small")
    shown = {name: ds for name, ds in stores.items() if ds.dataset.values.tolist() == ["digits"]}
    note = "green: backpropagation through the relaxation, without noise" if baselines else ""
    return canvas.finish_several(figure, "The limit of other networks and rules", shown, f"{canvas.BARS}; {note}")
