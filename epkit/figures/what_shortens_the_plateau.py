"""The figure of the published network's arms, in notebooks 13 and 19."""

from matplotlib.figure import Figure

from ..study.published import Arms, over_images
from . import canvas


def arms_over_images(arms: Arms, stores: canvas.Stores, title: str) -> Figure:
    """Test error over images seen, a panel a data set, a colour an arm of `study.published_arms`, a thin line a seed.

    `stores`: those of the arms, which say what was trained.
    """
    names = list(dict.fromkeys(name for of_set in arms.values() for name in of_set))
    looks = {name: {"color": f"C{number}", "lw": 2} for number, name in enumerate(names)}
    figure, axes, _ = canvas.grid(len(arms), 3, (4.0, 3.2))
    for ax, (data_set, of_set) in zip(axes, arms.items(), strict=True):
        error = over_images(of_set)
        for name in of_set:
            runs = error.sel(arm=name).transpose("images", "seed").rename(images="epoch")
            canvas.runs_and_mean(ax, error.images / 1000, runs, looks[name]["color"], 0.8, 0.5, 2)
        canvas.error_axis(ax, float(error.chance))
        ax.set(xlabel="training images seen (thousands)", xlim=(0, None))
        ax.set_title(canvas.literally(data_set), fontsize="medium")
    canvas.key(figure, looks)
    return canvas.finish_several(figure, title, stores, "thin: seeds; thick: their mean")
