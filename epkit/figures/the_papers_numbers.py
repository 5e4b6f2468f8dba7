"""The figure of notebook 18: accuracies of many seeds without noise."""

import numpy as np
from matplotlib.figure import Figure

from ..study.intervals import t_interval
from ..study.reported import quiet_errors
from . import canvas


def quiet_seeds(quiet: canvas.Stores) -> Figure:
    """Test accuracy after training without noise over the learning rate, a panel a data set; a dot a seed."""
    errors = quiet_errors(quiet)
    figure, axes, _ = canvas.grid(len(errors), 3, (3.6, 2.9))
    for ax, (title, error) in zip(axes, errors.items(), strict=True):
        rates, beside = error.learning_rate.values, np.linspace(-0.16, 0.16, error.sizes["seed"])
        for place, rate in enumerate(rates):
            runs = 1 - error.sel(learning_rate=rate)
            ax.plot(place + beside, runs.sortby(runs), "o", color="C0", ms=4, alpha=0.7)
            canvas.interval(ax, place + 0.3, t_interval(runs), "k")
        ax.axhline(1 - float(error.chance), color="C3", lw=1, ls=":", label="chance")
        if error.reported.notnull():
            ax.axhline(float(error.reported), color="C1", lw=1.4, ls="--", label="reported without noise")
        ax.set_xticks(range(len(rates)), [f"rates × {rate:g}" for rate in rates])
        ax.set(title=canvas.literally(title), xlim=(-0.5, len(rates) - 0.5))
        canvas.percent_axis(ax, "test accuracy (%)")
        ax.legend(fontsize="x-small", loc="upper left")
    note = "dots: seeds, in order; black: mean, 95 % t interval over seeds"
    return canvas.finish_several(figure, "Seeds without noise", quiet, note)
