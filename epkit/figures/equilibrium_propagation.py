"""The figures of notebooks 01 and 06.

One network as a circuit, relaxing, estimating its gradient, learning; and how exact all that is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import schemdraw
import schemdraw.elements as elm
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from .canvas import blank, captioned, finish, literally, plain_ticks

PHASES = {"free": "free phase", "nudged +": "nudged phase, +β", "nudged -": "nudged phase, −β"}


def circuit() -> Figure:
    """A deep resistive network with one pixel, two hidden units and two outputs, as a circuit.

    Sources hold the doubled, amplified input; every pair of neighbouring units is joined by a conductance; a hidden
    unit's diode keeps its voltage on one side of 0; the nudge is a conductance beta to the target voltage.
    """
    schemdraw.use("matplotlib")
    schemdraw.theme("default")
    figure, axes = plt.subplots(figsize=(8.6, 4.6), layout="constrained")
    plt.close(figure)
    drawing = schemdraw.Drawing(canvas=axes, fontsize=11, unit=2.2)
    inputs = {"+A x": (0, 4.4), "−A x": (0, 0)}
    hidden, outputs = [(5, 4.4), (5, 0)], [(10, 4.4), (10, 0)]
    for name, place in inputs.items():
        drawing.add(elm.SourceV().at((place[0] - 1.6, place[1] - 2.2)).to((place[0] - 1.6, place[1])).label(name))
        drawing.add(elm.Ground().at((place[0] - 1.6, place[1] - 2.2)))
        drawing.add(elm.Line().at((place[0] - 1.6, place[1])).to(place))
    for left, right, layer in ((list(inputs.values()), hidden, 0), (hidden, outputs, 1)):
        for i, start in enumerate(left):
            for j, end in enumerate(right):
                # crossing wires carry their resistors before the crossing
                (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
                near, far = [(x + share * dx, y + share * dy) for share in ((0.3, 0.7) if i == j else (0.08, 0.42))]
                label = f"$W_{{{layer},{i + 1}{j + 1}}}$"
                drawing.add(elm.Line().at(start).to(near))
                drawing.add(elm.Resistor().at(near).to(far).label(label, loc="top", ofst=0.1, fontsize=9))
                drawing.add(elm.Line().at(far).to(end))
    for number, place in enumerate(hidden):
        foot = (place[0], place[1] - 2.2)
        drawing.add(elm.Dot().at(place).label(f"$v_{{1,{number + 1}}}$", loc="top", ofst=0.2))
        # the first unit's diode lifts it to 0 V, the second's drains it to 0 V
        ends = (foot, place) if number == 0 else (place, foot)
        drawing.add(elm.Diode().at(ends[0]).to(ends[1]).label("≥ 0" if number == 0 else "≤ 0", fontsize=9))
        drawing.add(elm.Ground().at(foot))
    for number, place in enumerate(outputs):
        far = (place[0] + 2.4, place[1])
        drawing.add(elm.Dot().at(place).label(f"$v_{{2,{number + 1}}}$", loc="top", ofst=0.2))
        drawing.add(elm.Resistor().at(place).to(far).color("#d55e00").label("±β", color="#d55e00"))
        drawing.add(
            elm.SourceV().at((far[0], far[1] - 2.2)).to(far).color("#d55e00").label(f"$t_{number + 1}$", loc="bot")
        )
        drawing.add(elm.Ground().at((far[0], far[1] - 2.2)).color("#d55e00"))
    drawing.draw(show=False)
    axes.set_axis_off()
    axes.set_title(
        "A deep resistive network: one pixel, two hidden units, two outputs (bias currents not drawn)", pad=14
    )
    return figure


def relaxation(ds: xr.Dataset, iterations: int) -> Figure:
    """Distance of each layer to the steady state over the iterations of each phase; the training's number marked."""
    figure, axes = blank(1, 3, (3.9, 3.2), sharex=True, sharey=True)
    for ax, phase in zip(axes[0], ds.phase.values, strict=True):
        for layer in ds.layer.values:
            ax.plot(ds.iteration, ds.distance.sel(phase=phase, layer=layer), marker="o", ms=3, label=f"layer {layer}")
        ax.axvline(iterations, color="0.5", ls=":", lw=1)
        ax.set(yscale="log", title=PHASES[phase], xlabel="iteration", ylabel="rms distance to steady state (V)")
        ax.label_outer()
    axes[0, 0].legend(fontsize="small")
    images = json.loads(ds.attrs["parameters"])["check_images"]
    note = f"untrained, float64, rms over units and {images} images; dotted: the {iterations} iterations of training"
    return finish(figure, f"Relaxation: {ds.title.item()}", ds, note, trained=False)


def gradient_check(ds: xr.Dataset) -> Figure:
    """Relative error and cosine of the EP estimate, against backpropagation through the relaxation, over beta."""
    figure, axes = blank(2, ds.sizes["estimator"], (3.9, 2.8), sharex=True, sharey="row")
    for column, estimator in enumerate(ds.estimator.values):
        one = ds.sel(estimator=estimator)
        for layer in ds.layer.values:
            for ax, name in zip(axes[:, column], ("relative_error", "cosine"), strict=True):
                ax.plot(ds.nudge, one[name].sel(layer=layer), marker="o", ms=3, label=f"layer {layer}")
        power = 2 if estimator == "centered" else 1
        first = float(one.relative_error.isel(nudge=0).min())
        guide = first * (ds.nudge / ds.nudge[0]) ** power
        axes[0, column].plot(ds.nudge, guide, color="0.6", ls="--", lw=1, label=f"∝ β{'²' if power == 2 else ''}")
        axes[0, column].set(yscale="log", xscale="log", title=f"{estimator} estimate", ylabel="relative error")
        axes[1, column].set(xlabel="nudging conductance β (S)", ylabel="cosine", ylim=(0, 1.05))
        axes[0, column].legend(fontsize="x-small")
    for ax in axes.flat:
        ax.label_outer()
    given = json.loads(ds.attrs["parameters"])
    note = (
        f"untrained, float64, mean over {given['check_images']} images, {given['check_iterations']} iterations a phase"
    )
    return finish(figure, f"EP gradient against backpropagation: {ds.title.item()}", ds, note, trained=False)


def learning(ds: xr.Dataset) -> Figure:
    """Error over the epochs, and the share of diode units that conduct."""
    figure, axes = blank(1, 2, (4.4, 3.2))
    error, activity = axes[0]
    error.plot(ds.epoch, ds.test_error, marker="o", ms=3, label="test")
    error.plot(ds.epoch, ds.train_error, marker="o", ms=3, ls="--", label="training, before each update")
    error.set(xlabel="epoch", ylabel="error (%)", ylim=(0, None))
    for layer in ds.layer.values[:-1]:
        activity.plot(ds.epoch, ds.activity.sel(layer=layer), marker="o", ms=3, label=f"hidden layer {layer}")
    activity.set(xlabel="epoch", ylabel="conducting diode units (%)", ylim=(0, 1))
    for ax in axes[0]:
        ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol="", decimals=0))
        ax.legend(fontsize="small")
    return finish(figure, f"Learning without uncertainty: {ds.title.item()}", ds)


def published(stores: Mapping[str, xr.Dataset], error: Mapping[str, float], epochs: Mapping[str, int]) -> Figure:
    """Test error of networks of the literature over the epochs, every seed, with the reported error where it was."""
    figure, axes = blank(1, len(stores), (3.2, 3.2), sharey=True)
    for ax, (name, ds) in zip(axes[0], stores.items(), strict=True):
        runs = ds.test_error.stack(run=("dataset", "learning_rate", "averaging", "samples", "sigma", "seed"))
        ax.plot(ds.epoch, runs.transpose("epoch", "run"), color="C0", lw=1, marker=".", ms=4)
        ax.plot(epochs[name], error[name], "*", color="C3", ms=11, label=f"reported: {error[name]:.2%}")
        done, seeds = int(ds.epoch.max()), ds.sizes["seed"]
        whole = "" if done == epochs[name] else f", {done} of {epochs[name]} epochs: partial"
        ax.set_title(f"{name}\nn = {seeds} seed{'s' * (seeds > 1)}{whole}", fontsize="medium")
        ax.set(xscale="log", yscale="log", xlabel="epoch", ylabel="test error (%)")
        plain_ticks(ax.xaxis, [count for count in (1, 2, 5, 10, 20, 50, 100) if count <= epochs[name]])
        places = (0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9)
        plain_ticks(ax.yaxis, places, [f"{100 * place:g}" for place in places])
        ax.legend(fontsize="small")
        ax.label_outer()
    first = next(iter(stores.values()))
    given = json.loads(first.attrs["parameters"])
    title = literally(first.title.values[0])
    trained = f"{title}, {given['train_images']:,} images an epoch, batch {given['batch_size']}, σ = 0"
    note = f"{trained}, tested on {given['test_images']:,} images; each line a seed"
    return captioned(figure, "Published networks trained again", note)


def stopping_early(ds: xr.Dataset) -> Figure:
    """Distance to the steady state and error of the gradient over the iterations, the published number marked."""
    figure, axes = blank(3, ds.sizes["network"], (3.1, 2.4), sharex=True, sharey="row")
    for column, name in enumerate(ds.network.values):
        one = ds.sel(network=name).dropna("layer", subset=["voltage"])
        for number, layer in enumerate(one.layer.values):
            at, colour = one.sel(layer=layer), f"C{number}"
            for row, phase, dashes in ((0, "free", "-"), (1, "nudged +", "-"), (1, "nudged -", "--")):
                axes[row, column].plot(ds.iteration, at.distance.sel(phase=phase), color=colour, ls=dashes)
            for reference, dashes in (("converged", "-"), ("exact", ":")):
                error = at.relative_error.sel(reference=reference)
                axes[2, column].plot(ds.iteration, error, color=colour, ls=dashes, label=f"layer {layer}")
        for ax in axes[:, column]:
            ax.axvline(int(one.published_iterations), color="0.5", lw=1)
            ax.set_yscale("log")
        axes[0, column].set_title(f"{literally(name)}, β = {float(one.published_beta):g} S", fontsize="medium")
        axes[2, column].set_xlabel("iterations of each phase")
    legends: tuple[dict[str, dict[str, Any]], ...] = (
        {f"layer {layer}": {"color": f"C{k}"} for k, layer in enumerate(ds.layer.values)},
        {"+β": {"ls": "-", "color": "0.3"}, "−β": {"ls": "--", "color": "0.3"}},
        {"against converged": {"ls": "-", "color": "0.3"}, "against exact": {"ls": ":", "color": "0.3"}},
    )
    labels = ("free: distance (V)", "nudged: distance (V)", "gradient: relative error")
    for row, label, looks in zip(axes, labels, legends, strict=True):
        row[0].set(ylabel=label, ylim=(1e-13, None))
        lines = [Line2D([], [], label=name, **look) for name, look in looks.items()]
        row[-1].legend(handles=lines, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    note = (
        f"untrained, float64, rms over units and {_images(ds)} images; grey line: published iterations;",
        "nudged phases start at the free state after those; exact: by implicit differentiation of the steady state",
    )
    title = f"How near to the steady state, and to its gradient: {ds.title.item()}"
    return finish(figure, title, _bare(ds), *note, trained=False)


def error_over_beta(ds: xr.Dataset) -> Figure:
    """Error of the converged estimate over beta in float64 and float32: the nudge's bias, and the floor of rounding."""
    figure, axes = blank(1, 2, (4.6, 3.6), sharex=True, sharey=True)
    titles = {"centered": "centred estimate", "positive": "one-sided estimate, +β against free"}
    for ax, estimator, power in zip(axes[0], ds.estimator.values, (2, 1), strict=True):
        one = ds.beta_error.sel(estimator=estimator).dropna("layer", how="all")
        for number, layer in enumerate(one.layer.values):
            for precision, look in (("float64", {"ls": "-"}), ("float32", {"ls": "--", "marker": "o", "ms": 3})):
                values = one.sel(layer=layer, precision=precision)
                ax.plot(ds.nudge, values, color=f"C{number}", **look, label=f"layer {layer}, {precision}")
        guide = ds.nudge.where(ds.nudge >= 1e-4)
        ax.plot(ds.nudge, 0.3 * guide**power, color="0.5", lw=1, ls=(0, (1, 1)), label="∝ β² left, ∝ β right")
        falling = ds.nudge.where(ds.nudge <= 1e-2)
        ax.plot(ds.nudge, 3e-7 / falling, color="0.5", lw=1, ls="-.", label="∝ 1/β")
        ax.set(
            xscale="log", yscale="log", ylim=(1e-10, 10), title=titles[estimator], xlabel="nudging conductance β (S)"
        )
    axes[0, 0].set_ylabel("relative error of the gradient")
    axes[0, 1].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    note = f"untrained, {_images(ds)} images, relaxed to the end; errors above 10 are off the scale"
    note += "\nreference: implicit differentiation of the exact steady state, in float64"
    return finish(figure, f"Nudge and rounding: {ds.title.item()}", ds, note, trained=False)


def rounding(ds: xr.Dataset) -> Figure:
    """Each layer's response to the nudge beside its voltage and a float32 rounding step of it, and what that costs."""
    figure, axes = blank(2, 1, (8.2, 2.6), sharex=True)
    shown = ds[["voltage", "response", "rounding", "float32_error"]].stack(place=("network", "layer")).dropna("place")
    places, networks = np.arange(shown.sizes["place"]), shown.network.values
    looks = {"voltage": ("s", "free voltage"), "response": ("o", "nudged response, +β less −β"),
             "rounding": ("_", "one float32 rounding step")}  # fmt: skip
    for name, (marker, label) in looks.items():
        axes[0, 0].plot(places, shown[name], marker=marker, ls="", ms=7, mew=1.5, label=label)
    axes[0, 0].vlines(places, shown["rounding"], shown.response, color="0.8", zorder=0)
    axes[1, 0].plot(places, shown.float32_error, marker="D", ls="", color="0.3")
    axes[0, 0].set(yscale="log", ylabel="rms (V)")
    axes[1, 0].set(yscale="log", ylabel="relative error\nof the gradient in float32")
    axes[1, 0].set_xticks(places, [f"layer {layer}" for layer in shown.layer.values], fontsize="x-small")
    starts = [k for k in range(len(places)) if k == 0 or networks[k] != networks[k - 1]]
    for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
        axes[0, 0].text((start + end - 1) / 2, 1.02, literally(networks[start]), ha="center", fontsize="small",
                        transform=axes[0, 0].get_xaxis_transform())  # fmt: skip
        for ax in axes[:, 0]:
            ax.axvline(start - 0.5, color="0.8", lw=1)
    axes[0, 0].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    note = f"untrained, at the published gain, β and iterations; rms over units and {_images(ds)} images"
    return finish(figure, f"Response and rounding: {ds.title.item()}", _bare(ds), note, trained=False)


def real_diodes(ds: xr.Dataset) -> Figure:
    """Voltages and EP gradient of a small network over the forward voltage of its diodes."""
    figure, axes = blank(1, 2, (4.4, 3.4), sharex=True)
    for number, layer in enumerate(ds["shift"].dropna("layer", how="all").layer.values):
        one, colour = ds.sel(layer=layer), f"C{number}"
        axes[0, 0].plot(ds.forward, one["shift"], marker="o", ms=3, color=colour, label=f"layer {layer}")
        for circuit, dashes in (("ideal", "-"), ("real", "--")):
            cosine = one.diode_cosine.sel(circuit=circuit)
            axes[0, 1].plot(ds.forward, cosine, marker="o", ms=3, ls=dashes, color=colour)
    given = json.loads(ds.attrs["parameters"])
    if ds["shift"].isnull().all():
        axes[0, 0].text(
            0.5, 0.5, "not computed: ngspice was not installed", ha="center", transform=axes[0, 0].transAxes
        )
    else:
        axes[0, 0].legend(fontsize="small")
    axes[0, 0].set(xscale="log", yscale="log", ylabel="rms shift / rms voltage", xlabel="forward voltage at 1 mA (V)")
    axes[0, 1].set(xlabel="forward voltage at 1 mA (V)", ylabel="cosine of the EP gradient", ylim=(None, 1.05))
    looks = {"-": "with EP in the ideal circuit", "--": "with the real circuit's exact gradient"}
    lines = [Line2D([], [], color="0.3", ls=dashes, label=label) for dashes, label in looks.items()]
    axes[0, 1].legend(handles=lines, fontsize="small", loc="lower left")
    note = (
        f"untrained, ngspice, {_images(ds)} images of {given['pool']} × {given['pool']} averaged pixels, A = "
        f"{given['diode_gain']:g}, β = {given['diode_beta']:g} S, W = 1 is {given['siemens']:g} S;",
        f"last point: {given['diode']}; before it the same diode with its forward voltage scaled down",
    )
    return finish(
        figure, f"Real diodes: {ds.title.item()}", _bare(ds, json.loads(ds.diode_sizes.item())), *note, trained=False
    )


def _images(ds: xr.Dataset) -> int:
    return json.loads(ds.attrs["parameters"])["images"]


def _bare(ds: xr.Dataset, *sizes: list[int]) -> xr.Dataset:
    """A store whose figure names other networks than the store's own: these, or those of its networks axis."""
    named = {str(k): s for k, s in enumerate(sizes)} or {n: [n] for n in ds.network.values.tolist()}
    return ds.assign_attrs(parameters=json.dumps({"sizes": named}))
