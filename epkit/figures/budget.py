"""Notebook 15: what spoils a board's reads, beside what the network bears, and a figure that follows sliders."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from ..bench.answer import Answer, sentence
from ..bench.answer import budget as answer_of
from . import canvas

MOST_READS = 1e6
# What the sliders move, with where they go: powers of ten.
SLIDERS = {"noise": (-6, -1), "offset": (-5, -1), "adc_range": (-1, 2), "beta": (-1.7, 0.1), "margin": (0, 1)}


def budget(answer: Answer) -> Figure:
    """Noise over the reads that are averaged, against the predicted limit; and each layer's voltages, of the best."""
    figure, axes = canvas.blank(1, 2, (4.6, 3.4))
    left, right = axes.flat
    best, design = answer.best, answer.design
    reads = np.geomspace(1, MOST_READS, 100)
    noise = np.sqrt(best["averaged"] ** 2 / reads + best["floor"] ** 2)
    left.axhspan(best["limit_low"], best["limit_high"], color="C0", alpha=0.2, lw=0)
    left.axhline(best["limit"], color="C0", label="predicted limit, and 95 % of such networks")
    left.axhline(best["limit"] / design["margin"], color="C0", ls="--", label=f"{design['margin']:g} times below")
    if noise[0] > 0:
        left.plot(reads, noise, color="C1", lw=2, label="all that spoils a read, averaged")
    if best["reads"] is not None and noise[0] > 0:
        at = sqrt(best["averaged"] ** 2 / best["reads"] + best["floor"] ** 2)
        left.plot([best["reads"]], [at], "o", color="C1", label=f"N = {best['reads']:,}")
    left.set(xscale="log", yscale="log", xlabel="reads averaged, N", ylabel="volts")
    left.legend(fontsize="small")
    layers = np.arange(1, len(best["layers"]) + 1)
    rms, largest, moved = ([layer[key] for layer in best["layers"]] for key in ("voltage", "largest", "response"))
    right.vlines(layers - 0.1, rms, largest, color="C0", lw=4)
    right.plot(layers - 0.1, rms, "o", color="C0", label="voltages, rms to largest")
    right.plot(layers + 0.1, moved, "D", color="C2", label="what the nudge moves, rms")
    lines = {"half the range": design["adc_range"] and design["adc_range"] / 2, "noise of a read": design["noise"]}
    if design["adc_bits"] is not None:
        lines["step of the converter"] = design["adc_range"] / 2 ** design["adc_bits"]
    for (name, value), look in zip(lines.items(), ("C3", "C1", "0.5"), strict=False):
        if value:
            right.axhline(value, color=look, ls="-" if name == "half the range" else "--", lw=1.2, label=name)
    right.set(yscale="log", xticks=layers, xlabel="layer, the last is the output", ylabel="volts")
    low, high = right.get_ylim()
    right.set_ylim(low, high * (high / low) ** 0.6)  # room for what explains the lines
    right.legend(fontsize="small", loc="upper right")
    title = f"Predicted: A = {best['input_gain']:.4g} V, target {best['target']:.3g} V, β = {best['beta']:.3g}"
    return canvas.captioned(figure, title, f"{'-'.join(map(str, design['hidden']))} on {design['dataset']}")


def budget_sliders(design: dict[str, Any], table: Path | None = None) -> ipywidgets.VBox:
    """Sliders for some of a design's values; figure and sentence are those of `epkit.budget` and follow them."""
    first = answer_of(table=table, **design).design
    sliders = {}
    for name, (low, high) in SLIDERS.items():
        value = first[name][-1] if isinstance(first[name], list) else first[name] or 10.0**low
        options = {
            "base": 10,
            "min": low,
            "max": high,
            "step": 0.05,
            "readout_format": ".2g",
            "continuous_update": False,
        }
        sliders[name] = ipywidgets.FloatLogSlider(value=value, description=name.replace("_", " "), **options)
    picture, words = ipywidgets.Image(format="png"), ipywidgets.HTML()  # a label does not wrap

    def follow(_: Any = None) -> None:
        answer = answer_of(table=table, **design | {name: slider.value for name, slider in sliders.items()})
        picture.value, words.value = canvas.draw(budget(answer), "15_budget")["png"], sentence(answer)

    for slider in sliders.values():
        slider.observe(follow, "value")
    follow()
    return ipywidgets.VBox([*sliders.values(), words, picture])
