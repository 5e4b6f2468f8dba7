"""The figure of notebook 05: what the stores say of each claim."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import canvas


def verdict_counts(rows: pd.DataFrame) -> Figure:
    """Of each claim how many settings support it, leave it open or contradict it: a panel a kind of setting.

    `rows` of `study.verdicts`, and of `study.verdicts_at_published_size`, whose settings are networks.
    """
    kinds = {"supported": "C2", "undecided": "0.75", "contradicted": "C1"}
    names, setting = rows.claim.drop_duplicates().tolist(), rows.setting.fillna("primary")
    fixed = {
        "primary": "primary settings", "secondary": "other settings",
        "another setting": "other networks\nor training",
    }  # fmt: skip
    networks = {network: network.replace(", ", "\n", 1) for network in setting if network not in fixed}
    titles = {kind: title for kind, title in fixed.items() if kind in set(setting)} | networks or {"primary": ""}
    figure, axes = canvas.blank(1, len(titles), (1.9, 0.45 * len(names) + 0.4), sharey=True, sharex=True)
    for ax, (network, title) in zip(axes[0], titles.items(), strict=True):
        panel = rows[setting == network]
        counts = pd.crosstab(panel.claim, panel.verdict).reindex(index=names, columns=list(kinds), fill_value=0)
        left = np.zeros(len(names))
        for kind, color in kinds.items():
            bars = ax.barh(names, counts[kind], left=left, color=color, label=kind)
            ax.bar_label(bars, [str(n) if n else "" for n in counts[kind]], label_type="center", fontsize="small")
            left += counts[kind].to_numpy()
        ax.set_title(title, fontsize="medium")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].invert_yaxis()
    canvas.key(figure)
    note = (
        "number of settings: data sets, learning rates, ways of averaging; one may be judged in two ways",
        "primary and other settings, and their thresholds, were fixed before the data",
        *["the others: networks of notebook 09, by thresholds that were fixed for smaller ones"] * bool(networks),
    )
    return canvas.captioned(figure, "What the stores say of each claim", *note)
