"""The figures of notebook 01: one network as a circuit, relaxing, estimating its gradient, learning."""

import schemdraw
import schemdraw.elements as elm
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..sweep.store import parameters
from . import canvas

PHASES = {"free": "free phase", "nudged +": "nudged phase, +β", "nudged -": "nudged phase, −β"}
NUDGE = "#d55e00"  # colour of what the nudge adds to the circuit


def circuit() -> Figure:
    """A deep resistive network with one pixel, two hidden units and two outputs, as a circuit.

    Sources hold the doubled, amplified input; every pair of neighbouring units is joined by a conductance; a hidden
    unit's diode keeps its voltage on one side of 0; the nudge is a conductance beta to the target voltage.
    """
    schemdraw.use("matplotlib")
    schemdraw.theme("default")
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawing = schemdraw.Drawing(canvas=axes, fontsize=11, unit=2.2)
    inputs = {"+A x": (0, 4.4), "−A x": (0, 0)}
    hidden, outputs = [(5, 4.4), (5, 0)], [(10, 4.4), (10, 0)]
    for name, place in inputs.items():
        drawing.add(elm.SourceV().at((place[0] - 1.6, place[1] - 2.2)).to((place[0] - 1.6, place[1])).label(name))
        drawing.add(elm.Ground().at((place[0] - 1.6, place[1] - 2.2)))
        drawing.add(elm.Line().at((place[0] - 1.6, place[1])).to(place))
    _conductances(drawing, list(inputs.values()), hidden, 0)
    _conductances(drawing, hidden, outputs, 1)
    for number, place in enumerate(hidden):
        foot = place[0], place[1] - 2.2
        drawing.add(elm.Dot().at(place).label(f"$v_{{1,{number + 1}}}$", loc="top", ofst=0.2))
        # the first unit's diode lifts it to 0 V, the second's drains it to 0 V
        ends = (foot, place) if number == 0 else (place, foot)
        drawing.add(elm.Diode().at(ends[0]).to(ends[1]).label("≥ 0" if number == 0 else "≤ 0", fontsize=9))
        drawing.add(elm.Ground().at(foot))
    for number, place in enumerate(outputs):
        far, ground = (place[0] + 2.4, place[1]), (place[0] + 2.4, place[1] - 2.2)
        drawing.add(elm.Dot().at(place).label(f"$v_{{2,{number + 1}}}$", loc="top", ofst=0.2))
        drawing.add(elm.Resistor().at(place).to(far).color(NUDGE).label("±β", color=NUDGE))
        drawing.add(elm.SourceV().at(ground).to(far).color(NUDGE).label(f"$t_{number + 1}$", loc="bot"))
        drawing.add(elm.Ground().at(ground).color(NUDGE))
    drawing.draw(show=False)
    axes.set_axis_off()
    title = "A deep resistive network: one pixel, two hidden units, two outputs (bias currents not drawn)"
    axes.set_title(title, pad=14)
    return figure


def _conductances(drawing: schemdraw.Drawing, left: list, right: list, layer: int) -> None:
    """A resistor between every two units of neighbouring layers, which are at these places (x, y)."""
    for i, start in enumerate(left):
        for j, end in enumerate(right):
            # crossing wires carry their resistors before the crossing
            (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
            near, far = [(x + share * dx, y + share * dy) for share in ((0.3, 0.7) if i == j else (0.08, 0.42))]
            label = f"$W_{{{layer},{i + 1}{j + 1}}}$"
            drawing.add(elm.Line().at(start).to(near))
            drawing.add(elm.Resistor().at(near).to(far).label(label, loc="top", ofst=0.1, fontsize=9))
            drawing.add(elm.Line().at(far).to(end))


def relaxation(ds: xr.Dataset, iterations: int) -> Figure:
    """`distance` (phase, layer, iteration) to the steady state over the iterations; the training's number marked."""
    figure, axes = canvas.blank(1, 3, (3.9, 3.2), sharex=True, sharey=True)
    for ax, phase in zip(axes[0], ds.phase.values, strict=True):
        for layer in ds.layer.values:
            ax.plot(ds.iteration, ds.distance.sel(phase=phase, layer=layer), marker="o", ms=3, label=f"layer {layer}")
        ax.axvline(iterations, color="0.5", ls=":", lw=1)
        ax.set(yscale="log", title=PHASES[phase], xlabel="iteration", ylabel="rms distance to steady state (V)")
    axes[0, 0].legend(fontsize="small")
    images = parameters(ds)["check_images"]
    note = f"untrained, float64, rms over units and {images} images; dotted: the {iterations} iterations of training"
    return canvas.finish(figure, f"Relaxation: {ds.title.item()}", ds, note, trained=False)


def gradient_check(ds: xr.Dataset) -> Figure:
    """Relative error and cosine (estimator, layer, nudge) of the EP estimate against backpropagation, over beta."""
    figure, axes = canvas.blank(2, ds.sizes["estimator"], (3.9, 2.8), sharex=True, sharey="row")
    for column, estimator in enumerate(ds.estimator.values):
        estimate = ds.sel(estimator=estimator)
        for layer in ds.layer.values:
            for ax, name in zip(axes[:, column], ("relative_error", "cosine"), strict=True):
                ax.plot(ds.nudge, estimate[name].sel(layer=layer), marker="o", ms=3, label=f"layer {layer}")
        power = 2 if estimator == "centered" else 1
        guide = float(estimate.relative_error.isel(nudge=0).min()) * (ds.nudge / ds.nudge[0]) ** power
        axes[0, column].plot(ds.nudge, guide, color="0.6", ls="--", lw=1, label=f"∝ β{'²' if power == 2 else ''}")
        axes[0, column].set(yscale="log", xscale="log", title=f"{estimator} estimate", ylabel="relative error")
        axes[1, column].set(xlabel="nudging conductance β (S)", ylabel="cosine", ylim=(0, 1.05))
        axes[0, column].legend(fontsize="x-small")
    settings = parameters(ds)
    images, iterations = settings["check_images"], settings["check_iterations"]
    note = f"untrained, float64, mean over {images} images, {iterations} iterations a phase"
    return canvas.finish(figure, f"EP gradient against backpropagation: {ds.title.item()}", ds, note, trained=False)


def learning(ds: xr.Dataset) -> Figure:
    """Test and training error (epoch,), and the share of diode units that conduct, (epoch, layer)."""
    figure, axes = canvas.blank(1, 2, (4.4, 3.2))
    error, activity = axes[0]
    error.plot(ds.epoch, ds.test_error, marker="o", ms=3, label="test")
    error.plot(ds.epoch, ds.train_error, marker="o", ms=3, ls="--", label="training, before each update")
    canvas.percent_axis(error, "error (%)", 0, None)
    for layer in ds.layer.values[:-1]:
        activity.plot(ds.epoch, ds.activity.sel(layer=layer), marker="o", ms=3, label=f"hidden layer {layer}")
    canvas.percent_axis(activity, "conducting diode units (%)")
    for ax in axes[0]:
        ax.set_xlabel("epoch")
        ax.legend(fontsize="small")
    return canvas.finish(figure, f"Learning without uncertainty: {ds.title.item()}", ds)
