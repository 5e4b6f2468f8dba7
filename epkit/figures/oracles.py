"""The figures of notebook 06: how exact the relaxation, the nudge, float32 and ideal diodes are."""

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..sweep.store import parameters
from . import canvas


def stopping_early(ds: xr.Dataset) -> Figure:
    """Distance to the steady state and error of the gradient over the iterations, the published number marked."""
    figure, axes = canvas.blank(3, ds.sizes["network"], (3.1, 2.4), sharex=True, sharey="row")
    for (free, nudged, gradient), name in zip(axes.T, ds.network.values, strict=True):
        network = ds.sel(network=name).dropna("layer", subset=["voltage"])
        for number, layer in enumerate(network.layer.values):
            values, color = network.sel(layer=layer), f"C{number}"
            for ax, phase, dashes in ((free, "free", "-"), (nudged, "nudged +", "-"), (nudged, "nudged -", "--")):
                ax.plot(ds.iteration, values.distance.sel(phase=phase), color=color, ls=dashes)
            for reference, dashes in (("converged", "-"), ("exact", ":")):
                error = values.relative_error.sel(reference=reference)
                gradient.plot(ds.iteration, error, color=color, ls=dashes, label=f"layer {layer}")
        for ax in (free, nudged, gradient):
            ax.axvline(int(network.published_iterations), color="0.5", lw=1)
            ax.set_yscale("log")
        title = f"{canvas.literally(name)}, β = {float(network.published_beta):g} S"
        free.set_title(title, fontsize="medium")
        gradient.set_xlabel("iterations of each phase")
    looks = (
        {f"layer {layer}": {"color": f"C{k}"} for k, layer in enumerate(ds.layer.values)},
        {"+β": {"ls": "-", "color": "0.3"}, "−β": {"ls": "--", "color": "0.3"}},
        {"against converged": {"ls": "-", "color": "0.3"}, "against exact": {"ls": ":", "color": "0.3"}},
    )
    labels = ("free: distance (V)", "nudged: distance (V)", "gradient: relative error")
    for row, label, look in zip(axes, labels, looks, strict=True):
        row[0].set(ylabel=label, ylim=(1e-13, None))
        canvas.key(row[-1], look)
    note = (
        f"untrained, float64, rms over units and {_images(ds)} images; grey line: published iterations;",
        "nudged phases start at the free state after those; exact: by implicit differentiation of the steady state",
    )
    title = f"How near to the steady state, and to its gradient: {ds.title.item()}"
    return canvas.finish(figure, title, ds, *note, trained=False, networks=ds.network.values.tolist())


def error_over_beta(ds: xr.Dataset) -> Figure:
    """Error of the converged estimate over beta in float64 and float32: the nudge's bias, and the floor of rounding."""
    figure, axes = canvas.blank(1, 2, (4.6, 3.6), sharex=True, sharey=True)
    titles = {"centered": "centred estimate", "positive": "one-sided estimate, +β against free"}
    for ax, estimator, power in zip(axes[0], ds.estimator.values, (2, 1), strict=True):
        errors = ds.beta_error.sel(estimator=estimator).dropna("layer", how="all")
        for number, layer in enumerate(errors.layer.values):
            for precision, look in (("float64", {"ls": "-"}), ("float32", {"ls": "--", "marker": "o", "ms": 3})):
                values = errors.sel(layer=layer, precision=precision)
                ax.plot(ds.nudge, values, color=f"C{number}", **look, label=f"layer {layer}, {precision}")
        guide = 0.3 * ds.nudge.where(ds.nudge >= 1e-4) ** power
        ax.plot(ds.nudge, guide, color="0.5", lw=1, ls=(0, (1, 1)), label="∝ β² left, ∝ β right")
        falling = 3e-7 / ds.nudge.where(ds.nudge <= 1e-2)
        ax.plot(ds.nudge, falling, color="0.5", lw=1, ls="-.", label="∝ 1/β")
        ax.set(xscale="log", yscale="log", ylim=(1e-10, 10))
        ax.set(title=titles[estimator], xlabel="nudging conductance β (S)")
    axes[0, 0].set_ylabel("relative error of the gradient")
    canvas.key(axes[0, 1])
    note = (
        f"untrained, {_images(ds)} images, relaxed to the end; errors above 10 are off the scale",
        "reference: implicit differentiation of the exact steady state, in float64",
    )
    return canvas.finish(figure, f"Nudge and rounding: {ds.title.item()}", ds, *note, trained=False)


def rounding(ds: xr.Dataset) -> Figure:
    """Each layer's response to the nudge beside its voltage and a float32 rounding step of it, and what that costs."""
    figure, axes = canvas.blank(2, 1, (8.2, 2.6), sharex=True)
    above, below = axes[:, 0]
    values = ds[["voltage", "response", "rounding", "float32_error"]].stack(place=("network", "layer")).dropna("place")
    places, networks = np.arange(values.sizes["place"]), values.network.values
    looks = {"voltage": ("s", "free voltage"), "response": ("o", "nudged response, +β less −β"),
             "rounding": ("_", "one float32 rounding step")}  # fmt: skip
    for name, (marker, label) in looks.items():
        above.plot(places, values[name], marker=marker, ls="", ms=7, mew=1.5, label=label)
    above.vlines(places, values["rounding"], values.response, color="0.8", zorder=0)
    below.plot(places, values.float32_error, marker="D", ls="", color="0.3")
    above.set(yscale="log", ylabel="rms (V)")
    below.set(yscale="log", ylabel="relative error\nof the gradient in float32")
    below.set_xticks(places, [f"layer {layer}" for layer in values.layer.values], fontsize="x-small")
    starts = [k for k in range(len(places)) if k == 0 or networks[k] != networks[k - 1]]
    for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
        above.text((start + end - 1) / 2, 1.02, canvas.literally(networks[start]), ha="center", fontsize="small",
                   transform=above.get_xaxis_transform())  # fmt: skip
        for ax in (above, below):
            ax.axvline(start - 0.5, color="0.8", lw=1)
    canvas.key(above)
    note = f"untrained, at the published gain, β and iterations; rms over units and {_images(ds)} images"
    title = f"Response and rounding: {ds.title.item()}"
    return canvas.finish(figure, title, ds, note, trained=False, networks=ds.network.values.tolist())


def real_diodes(ds: xr.Dataset) -> Figure:
    """Voltages and EP gradient of a small network over the forward voltage of its diodes."""
    figure, axes = canvas.blank(1, 2, (4.4, 3.4), sharex=True)
    shift, cosine = axes[0]
    for number, layer in enumerate(ds["shift"].dropna("layer", how="all").layer.values):
        values, look = ds.sel(layer=layer), {"marker": "o", "ms": 3, "color": f"C{number}"}
        shift.plot(ds.forward, values["shift"], label=f"layer {layer}", **look)
        for circuit, dashes in (("ideal", "-"), ("real", "--")):
            cosine.plot(ds.forward, values.diode_cosine.sel(circuit=circuit), ls=dashes, **look)
    if ds["shift"].isnull().all():
        shift.text(0.5, 0.5, "not computed: ngspice was not installed", ha="center", transform=shift.transAxes)
    else:
        shift.legend(fontsize="small")
    shift.set(xscale="log", yscale="log", ylabel="rms shift / rms voltage", xlabel="forward voltage at 1 mA (V)")
    cosine.set(xlabel="forward voltage at 1 mA (V)", ylabel="cosine of the EP gradient", ylim=(None, 1.05))
    looks = {"with EP in the ideal circuit": {"color": "0.3", "ls": "-"},
             "with the real circuit's exact gradient": {"color": "0.3", "ls": "--"}}  # fmt: skip
    canvas.key(cosine, looks, loc="lower left", fontsize="small")
    settings = parameters(ds)
    pool, gain, beta = settings["pool"], settings["diode_gain"], settings["diode_beta"]
    note = (
        f"untrained, ngspice, {_images(ds)} images of {pool} × {pool} averaged pixels, A = {gain:g}, β = {beta:g} S, "
        f"W = 1 is {settings['siemens']:g} S;",
        f"last point: {settings['diode']}; before it the same diode with its forward voltage scaled down",
    )
    network = "-".join(map(str, json.loads(ds.diode_sizes.item())))
    return canvas.finish(figure, f"Real diodes: {ds.title.item()}", ds, *note, trained=False, networks=[network])


def _images(ds: xr.Dataset) -> int:
    return parameters(ds)["images"]
