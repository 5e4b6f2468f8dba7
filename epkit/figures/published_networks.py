"""The figure of notebook 00: networks of the literature, trained again."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from ..sweep.store import parameters
from . import canvas


def published(stores: canvas.Stores, error: Mapping[str, float], epochs: Mapping[str, int]) -> Figure:
    """Test error over the epochs, every seed, a panel a network, beside the reported `error` after so many `epochs`."""
    figure, axes = canvas.blank(1, len(stores), (3.2, 3.2), sharey=True)
    for ax, (name, ds) in zip(axes[0], stores.items(), strict=True):
        runs = ds.test_error.stack(run=("dataset", "learning_rate", "averaging", "samples", "sigma", "seed"))
        ax.plot(ds.epoch, runs.transpose("epoch", "run"), color="C0", lw=1, marker=".", ms=4)
        ax.plot(epochs[name], error[name], "*", color="C3", ms=11, label=f"reported: {error[name]:.2%}")
        done, seeds = int(ds.epoch.max()), ds.sizes["seed"]
        whole = "" if done == epochs[name] else f", {done} of {epochs[name]} epochs: partial"
        ax.set_title(f"{name}\nn = {seeds} seed{'s' * (seeds > 1)}{whole}", fontsize="medium")
        ax.set(xscale="log", yscale="log", xlabel="epoch", ylabel="test error (%)")
        canvas.plain_ticks(ax.xaxis, [count for count in (1, 2, 5, 10, 20, 50, 100) if count <= epochs[name]])
        places = (0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9)
        canvas.plain_ticks(ax.yaxis, places, [f"{100 * place:g}" for place in places])
        ax.legend(fontsize="small")
    first = next(iter(stores.values()))
    settings, title = parameters(first), canvas.literally(first.title.values[0])
    training = f"{title}, {settings['train_images']:,} images an epoch, batch {settings['batch_size']}, σ = 0"
    note = f"{training}, tested on {settings['test_images']:,} images; each line a seed"
    return canvas.captioned(figure, "Published networks trained again", note)
