"""The netlist as text, and its node voltages by ngspice against the relaxation."""

from collections import Counter

import numpy as np
import pytest
import torch

from epkit import DeepResistiveNetwork
from epkit.reference import spice

DOUBLE = torch.float64


def circuit(sizes, gain=5.0, members=1):
    net = DeepResistiveNetwork(sizes, input_gain=gain, members=members, seed=range(members), dtype=DOUBLE)
    generator = torch.Generator().manual_seed(1)
    net.biases = [0.1 * torch.randn(b.shape, generator=generator, dtype=DOUBLE) for b in net.biases]
    x = torch.rand(3, sizes[0], generator=generator, dtype=DOUBLE)
    target = torch.rand(3, sizes[-1], generator=generator, dtype=DOUBLE)
    return net, x, target


def elements(text):
    return Counter(line[0] for line in text.splitlines()[1:] if line[0].isalpha())


def test_a_netlist_has_one_element_for_each_part():
    net, x, target = circuit((3, 4, 2), members=2)
    conducting = sum(int((w[1] > 0).sum()) for w in net.weights)
    assert conducting < 2 * 3 * 4 + 4 * 2
    free = elements(spice.netlist(net, x[0], 1))
    assert free == {"V": 6, "R": conducting, "I": 6, "B": 4}
    nudged = elements(spice.netlist(net, x[0], 1, target[0], -0.1, "1N4148"))
    assert nudged == {"V": 6, "R": conducting, "I": 6 + 2, "G": 2, "D": 4}


def test_no_resistor_where_nothing_conducts_and_the_values_are_the_networks():
    net, x, _ = circuit((3, 4, 2))
    net.weights[0][0, 1, 2] = 0.0
    net.weights[1][0, 0, 1] = 0.25
    lines = spice.netlist(net, x[0], siemens=1e-3).splitlines()
    assert not any(line.startswith("R0_2_3 ") for line in lines)
    assert "R1_1_2 v1_1 v2_2 4000.0" in lines
    assert f"V0_4 v0_4 0 {-5.0 * float(x[0, 0])!r}" in lines


def test_what_makes_no_circuit_is_refused():
    net, x, target = circuit((3, 4, 2))
    with pytest.raises(ValueError, match="allowed are 'ideal', '1N4148'"):
        spice.netlist(net, x[0], diode="tube")
    with pytest.raises(ValueError, match="a nudge takes a target and a beta"):
        spice.netlist(net, x[0], target=target[0])


def test_missing_ngspice_is_named(monkeypatch):
    monkeypatch.setattr(spice.shutil, "which", lambda name: None)
    with pytest.raises(spice.SpiceUnavailable, match="package `ngspice`"):
        spice.solve("", (1, 1))


def test_the_slope_of_a_diode_is_the_derivative_of_its_forward_voltage():
    diode = spice.MODELS["1N4148"].scaled(0.5)
    current, step = 1e-3, 1e-8
    slope = 2 * step / (diode.forward(current + step) - diode.forward(current - step))
    assert float(diode.slope(torch.tensor(current, dtype=DOUBLE))) == pytest.approx(slope, rel=1e-6)


@pytest.mark.ngspice
@pytest.mark.parametrize("beta", [0.0, 0.1, -0.05])
@pytest.mark.parametrize("sizes", [(3, 4, 2), (4, 6, 6, 3), (2, 4, 4, 4, 2), (16, 32, 32, 10)])
def test_ngspice_finds_the_voltages_of_the_relaxation(sizes, beta):
    """Voltages of order 1 agree to 1e-8: what is left is the ideal diode's drop, the node's current over 1e9 S."""
    net, x, target = circuit(sizes, members=2)
    goal = target if beta else None
    relaxed = net.relax(x, 1000, goal, beta)
    for member in range(2):
        for k in range(len(x)):
            text = spice.netlist(net, x[k], member, None if goal is None else goal[k], beta, siemens=1e-4)
            for solved, v in zip(spice.solve(text, sizes), relaxed, strict=True):
                np.testing.assert_allclose(solved, v[member, k].numpy(), rtol=0, atol=1e-8)


@pytest.mark.ngspice
def test_a_real_diode_with_a_vanishing_forward_voltage_is_an_ideal_one():
    net, x, _ = circuit((4, 6, 6, 3))
    ideal = np.concatenate(spice.solve(spice.netlist(net, x[0]), net.sizes))
    scales = (1.0, 0.1, 0.01)
    shifts = [
        np.abs(np.concatenate(spice.solve(spice.netlist(net, x[0], diode="1N4148", scale=s), net.sizes)) - ideal).max()
        for s in scales
    ]
    assert shifts[0] > 0.1
    np.testing.assert_allclose(shifts[2], shifts[1] / 10, rtol=0.2)


@pytest.mark.ngspice
def test_a_netlist_without_solution_is_an_error():
    with pytest.raises(spice.SpiceError, match="no operating point"):
        spice.solve("* nothing\nR1 a 0 no_number\n.op\n.end\n", (1, 1))
