"""Read-outs by kind in sweeps, and what notebook 14 asks of its stores, on synthetic ones whose answers are planted."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from synthetic import recorded, store

import epkit
from epkit import data, figures, study
from epkit.ep.readout import draw
from epkit.readouts import KINDS, Converter, Noise, of_kind
from epkit.study import hardware
from epkit.sweep import ensemble
from epkit.sweep.grid import groups, run_ids
from epkit.sweep.parameters import Sweep
from epkit.validation import validated

TINY = {
    "dataset": ["digits"], "hidden": [12, 12], "input_gain": 60.0, "beta": 0.1, "iterations": 4, "train_images": 64,
    "test_images": 40, "epochs": 1, "seeds": 2, "learning_rate": [0.1], "sigma": [1e-3, 1e-2],
}  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, "converter"])
def test_a_read_of_every_kind_is_off_by_sigma_rms(kind):
    """Of voltages of 2 V rms, spread over many units; drift is of the second phase alone."""
    sigma, units = 0.05, 40_000
    v = (2 * torch.randn(1, 2, 1, units, generator=torch.Generator().manual_seed(1))).double()
    readout = of_kind(kind, sigma, volts=2.0, circuit=3)
    xi = draw(readout, (2, 1, units), torch.Generator().manual_seed(2))
    error = readout.read([v], None if xi is None else [xi[None].double()])[0] - v
    off = error[:, 1] if kind == "drift" else error
    assert float(off.square().mean().sqrt()) == pytest.approx(
        sigma, rel=0.08 if kind == "heavy tails" else 0.02
    )  # few outliers make theirs
    if kind == "drift":
        assert not error[:, 0].any()


def test_converters_stand_behind_a_kind_or_take_its_place():
    span = [[-1.0, 1.0], [-2.0, 2.0]]
    assert str(of_kind("noise", 0.1, lsb=0.5)) == "noise 100 mV | converter steps of 500 mV"
    assert str(of_kind("converter", 0.1, bits=3, spans=span)).startswith("converter 3 bits of 250 mV, a span a layer")
    of_difference = of_kind("converter", 0.5 / 12**0.5, 4, mean_lsb=0.2, differential=True)
    text = "difference [converter steps of 500 mV], mean [converter steps of 200 mV] | mean of 4 reads"
    assert str(of_difference) == text
    assert str(of_kind("converter", 0.0)) == "exact"


@pytest.mark.parametrize(
    ("readout", "allowed"),
    [
        ({}, "kind = None: either that or a preset is needed"),
        ({"kind": "noise", "preset": "op-amp"}, "kind = 'noise': either that or a preset is needed"),
        ({"kind": "nose"}, "readout.kind = 'nose'"),
        ({"preset": "op-am"}, "no such preset; did you mean op-amp"),
        ({"kind": "gain"}, "volts = None: relative noise and gain need it"),
        ({"kind": "noise", "volts": 1.0}, "volts = 1.0: has no meaning for this read-out"),
        ({"kind": "noise", "differential": True}, "differential = True: has no meaning"),
        ({"kind": "converter", "lsb": 0.1}, "lsb = 0.1: has no meaning"),
        ({"kind": "converter", "mean_lsb": 0.1}, "mean_lsb = 0.1: has no meaning"),
        ({"kind": "converter", "bits": 4}, "bits = 4: has no meaning"),
        ({"kind": "converter", "spans": [[1.0, 1.0]]}, "must be pairs of low < high (V)"),
        ({"kind": "converter", "spans": [[-1.0, 1.0]]}, "3 pairs are needed, one a layer"),
        ({"preset": "op-amp"}, "sigma = [0.001, 0.01]: a read-out of a preset or of bits has its own numbers"),
        ({"kind": "noise", "full_scale": 2.0}, "full_scale = 2.0: has no meaning"),
        ({"kind": "noise", "loudness": 2.0}, "readout.loudness: no such parameter"),
    ],
)
def test_a_read_out_that_means_nothing_is_refused(readout, allowed):
    with pytest.raises(epkit.ParameterError) as refused:
        validated(Sweep, TINY | {"readout": readout})
    assert allowed in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3


def test_a_schedule_is_of_white_noise_alone():
    with pytest.raises(epkit.ParameterError, match="a schedule is of white noise alone"):
        validated(Sweep, TINY | {"readout": {"kind": "offset"}, "schedule": {"layers": [1]}})


@pytest.mark.parametrize(
    ("reading", "readout"),
    [
        ({"kind": "converter"}, lambda sigma: Converter(lsb=sigma * 12**0.5)),
        ({"kind": "noise", "lsb": 0.02}, lambda sigma: Noise(sigma) | Converter(lsb=0.02)),
    ],
)
def test_a_sweep_trains_with_the_read_out_that_it_names(tmp_path, reading, readout):
    """As `train` does with that read-out by hand, whatever trains together."""
    ds = epkit.run(TINY | {"readout": reading}, tmp_path / "sweep.nc")
    images = data.load("digits", train=64, test=40)
    for sigma in (1e-3, 1e-2):
        net = epkit.DeepResistiveNetwork((64, 12, 12, 10), input_gain=60.0, seed=1)
        history = epkit.train(
            net, images.x_train, images.y_train, epochs=1, batch_size=8, beta=0.1, iterations=4, seed=1, decay=0.99,
            learning_rates=[0.1 * r for r in (ds.rate[0, 0] / 0.1).values.tolist()], readout=readout(sigma),
            test=(images.x_test, images.y_test),
        )  # fmt: skip
        trained = ds.sel(sigma=sigma, seed=1).isel(epoch=-1)
        np.testing.assert_allclose(trained.train_cost.item(), history.train_cost.isel(epoch=-1).item(), rtol=2e-3)


def test_converters_of_different_steps_do_not_train_together():
    for kind, together in (("converter", 1), ("offset", 2)):
        sweep = validated(Sweep, TINY | {"readout": {"kind": kind}})
        ids = run_ids(sweep)
        assert {len(group) for group in groups(sweep, list(ids), ids).values()} == {together}


def test_a_circuit_is_drawn_for_every_seed(monkeypatch, tmp_path):
    """Otherwise an interval over seeds would say nothing of other circuits."""
    made = []
    monkeypatch.setattr(ensemble, "of_kind", lambda **facts: made.append(facts["circuit"]) or of_kind(**facts))
    epkit.run(TINY | {"readout": {"kind": "offset"}}, tmp_path / "sweep.nc")
    assert made == [0, 1]


def test_the_offset_that_spoils_the_gradient_is_known(tmp_path):
    """The formula, a root mean square over circuits, against the circuits of a few seeds."""
    before = epkit.untrained({"a": TINY | {"hidden": [64, 64], "seeds": 4}}, tmp_path / "before.nc")
    ratio = (before.offset_limit / before.expected_offset_limit).mean("seed")
    np.testing.assert_allclose(ratio, 1, rtol=0.2)
    assert (before.largest_voltage >= before.voltage).all()
    assert (before.largest_response >= before.response).all()


def sweep(limit, readout=None, schedule=None, samples=(1, 16), exponent=0.5, span=(-1.2, 1.6), zero=False):
    """Of one network; limits of the same five seeds that scale exactly."""
    sigmas = ((0.0,) if zero else ()) + tuple(limit * np.logspace(*span, 11))
    ds = store(sigmas=sigmas, limit=limit, samples=samples, exponent=exponent, spread=0.2, noise=0.0, epochs=1)
    return recorded(ds, readout=readout, schedule=schedule)


def level(error, readout, rate=0.02, sigmas=(0.0,), samples=(1,)):
    """A store of given errors after training, (sigma,) or (samples, sigma), alike for all seeds but for their luck."""
    ds = store(sigmas=sigmas, samples=samples, noise=0.0, epochs=1, rates=(rate,))
    luck = np.array([0.0, 0.01, -0.01, 0.02, -0.02])
    values = np.broadcast_to(np.asarray(error, float), (len(samples), len(sigmas)))
    ds["test_error"][:] = values[None, None, None, :, :, None, None] + luck[:, None]
    return recorded(ds, readout=readout)


def hardware_stores():
    differential = {"kind": "converter", "differential": True}
    return {
        "noise": sweep(2e-4, zero=True),
        "offset": sweep(2.0, {"kind": "offset"}, exponent=0.0),
        "converter": sweep(3e-4, {"kind": "converter"}, exponent=0.0),
        "difference": sweep(1e-4, differential, exponent=0.0),
        "layer-1": sweep(2.2e-4, None, {"layers": [1]}, samples=(1,), zero=True),
        "dither": sweep(1.1 * 2e-4, {"kind": "noise", "lsb": 1e-3}, samples=(1, 64), zero=True, span=(-1, 2)),
        "bold-noise": level([0.5, 0.4, 0.45], None, 0.1, (0.0, 5e-5, 1e-4)),
        "bold-offset": level([0.6, 0.55], {"kind": "offset"}, 0.1, (0.5, 1.0)),
        "bits-6": level([0.06], differential | {"bits": 6}),
        "bits-16": level([0.4], {"kind": "converter", "bits": 16}),
        "preset": level([[0.3], [0.2]], {"preset": "op-amp", "full_scale": 64.0}, samples=(1, 64)),
    }


def voltages():
    coords = {"network": ["noise"], "seed": [0, 1], "layer": [1, 2]}
    largest = xr.DataArray(np.broadcast_to([50.0, 2.0], (1, 2, 2)), coords)
    return xr.Dataset({"largest_voltage": largest, "largest_response": largest / 1e5})


def test_the_planted_answers_are_read():
    effects = study.hardware_effects(hardware_stores())
    assert set(effects) == set(study.registered_claims().later["14_hardware_readouts"].claims)
    geometric = {name: np.exp(np.log(effects[name].values).mean("seed")) for name in ("equal", "averaging", "layer_1")}
    expected = {"offset": 1e4, hardware.ROUNDED: 1.5, hardware.DIFFERENCE: 0.5}
    for kind, ratio in expected.items():
        assert float(geometric["equal"].sel(dataset=f"MNIST, {kind}")) == pytest.approx(ratio, rel=0.02)
    assert float(geometric["averaging"].sel(dataset="MNIST, white noise")) == pytest.approx(4, rel=0.02)
    assert float(geometric["averaging"].sel(dataset="MNIST, offset")) == pytest.approx(1, rel=0.02)
    assert geometric["layer_1"].item() == pytest.approx(1.1, rel=0.02)
    window = effects["window"].values
    assert window.dataset.values.tolist() == ["step of 1 mV, N = 64"]
    np.testing.assert_allclose(window, 1.1, rtol=0.02)
    gains = effects["helps"].values.mean("seed")
    assert float(gains.sel(dataset="MNIST, white noise")) == pytest.approx(0.1)
    assert float(gains.sel(dataset="MNIST, offset")) == pytest.approx(-0.05)  # over exact reads, which white noise has
    exact = float(hardware_stores()["noise"].test_error.sel(sigma=0, samples=1).isel(epoch=-1).mean())
    assert float(effects["few_bits"].values.mean()) == pytest.approx(0.06 - exact)
    assert float(effects["many_bits"].values.mean()) == pytest.approx(0.4 - exact)


def test_no_answer_hangs_on_the_order_of_the_stores():
    """Of two data sets; the layers are those of one of them."""
    other = {"kind": "offset"}
    stores = hardware_stores() | {
        "fashion-noise": other_set(sweep(9e-4, zero=True)),
        "fashion-offset": other_set(sweep(5.0, other, exponent=0.0)),
    }
    first, second = (study.hardware_effects(dict(order)) for order in (stores.items(), reversed(stores.items())))
    for name, effect in first.items():
        again = second[name].values.sel(dataset=effect.values.dataset)
        xr.testing.assert_allclose(effect.values, again)
    assert first["layer_1"].values.dataset.values.tolist() == ["MNIST"]


def other_set(ds):
    return ds.assign(title=("dataset", ["FashionMNIST"]))


def test_bits_count_the_steps_of_the_limit():
    needed = study.bits_needed(hardware_stores(), voltages()).isel(dataset=0)
    of_limits = {hardware.ROUNDED: (50.0, 3e-4), hardware.DIFFERENCE: (5e-4, 1e-4)}
    for scheme, (largest, limit) in of_limits.items():
        geometric = limit * np.exp(0.2 * np.random.default_rng(0).standard_normal(5).mean())
        bits = float(needed.bits.sel(scheme=scheme, layer=1))
        assert bits == pytest.approx(np.log2(2 * largest / (geometric * 12**0.5)), abs=0.05)
    assert (needed.bits >= 0).all()
    assert needed.by_layer.sel(layer=2).isnull().all()  # whose own limit was not measured


def test_tables_and_figures_say_what_stores_hold():
    stores, before = hardware_stores(), voltages()
    table = study.hardware_table(stores, before).set_index("kind")
    assert list(table.index) == ["white noise", "offset", hardware.ROUNDED, hardware.DIFFERENCE]
    assert table.loc["offset", "N = 16 moves it by"].startswith("1.00 [")
    assert table.loc["white noise", "points saved at η = 0.1"].startswith("10.0 [")
    assert study.preset_table(stores).loc["op-amp", "N = 64"].startswith("20.0 [")
    figures.style()
    drawn = [
        figures.error_by_kind(stores), figures.limit_by_kind(stores), figures.dither_window(stores),
        figures.bits(stores, study.bits_needed(stores, before)),
    ]  # fmt: skip
    assert [len(figure.axes) for figure in drawn] == [4, 1, 1, 3]
    titles = [ax.get_title() for ax in drawn[0].axes]
    assert titles[:4] == ["white noise", "offset", hardware.ROUNDED, hardware.DIFFERENCE]
    plt.close("all")
