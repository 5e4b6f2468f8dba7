"""Circuits that are not our simulator: they agree with it, they learn, and each failure is one plain message."""

from __future__ import annotations

import os
import pty
import re
import socket
import threading
import tty
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

import epkit
from epkit.circuit.instrument import Instrument, Panel, connect, serve
from epkit.circuit.network import Checkpoint, CircuitError, CircuitNetwork
from epkit.circuit.ngspice import BAT42, Curve, SpiceCircuit, measured
from epkit.circuit.simulated import Board, SimulatedCircuit

pytestmark = pytest.mark.filterwarnings("ignore:the C.. engine knows no CircuitNetwork")
DOUBLE = torch.float64
# XOR with a third input that is always 1.
X = torch.tensor([[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
Y = torch.tensor([0, 1, 1, 0])
XOR = {"batch_size": 4, "beta": 0.1, "iterations": 20, "learning_rates": (0.02, 0.2), "bias_rate": 0.0, "decay": 1.0}


def on_a_line(circuit):
    """An instrument at one end of a pseudo-terminal, with `circuit` at the other."""
    board, line = pty.openpty()
    tty.setraw(line)

    def answer():
        serve(circuit, board)
        os.close(board)

    threading.Thread(target=answer, daemon=True).start()
    instrument = connect(os.ttyname(line), timeout=5.0)
    os.close(line)
    return instrument


def played(*replies, timeout=0.1):
    """An instrument whose other end says this, whatever it is asked, after its sizes and limits."""
    ours, other = socket.socketpair()
    other.sendall("\n".join(["2 2 2", "0.0 1.0", *replies, ""]).encode())
    return Instrument(ours.detach(), "bench", timeout=timeout), other


def gradient(net, sizes, beta=0.05, iterations=300):
    x = torch.linspace(-1, 1, 3 * sizes[0], dtype=DOUBLE).reshape(3, sizes[0])
    target = one_hot(torch.arange(3) % sizes[-1], sizes[-1]).double()
    return epkit.gradient(net, x, target, beta=beta, iterations=iterations)


def agree(ours, theirs, tolerance):
    for a, b in zip([*ours.weights, *ours.biases], [*theirs.weights, *theirs.biases], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def simulated(sizes, gain=4.0):
    net = epkit.DeepResistiveNetwork(sizes, input_gain=gain, dtype=DOUBLE)
    for w in net.weights:
        w.clamp_min_(0.05)  # no output without a conductance, so that every nudge has a minimum
    return net


def test_our_simulator_as_a_circuit_has_our_gradient():
    sizes = (3, 4, 4, 2)
    net = CircuitNetwork(SimulatedCircuit(sizes, iterations=100), input_gain=4.0, siemens=1e-4, volts=0.5)
    assert isinstance(net.circuit, epkit.Circuit)
    ours = simulated(sizes)
    net.weights = ours.weights
    agree(gradient(net, sizes), gradient(ours, sizes, iterations=100), 1e-10)


@pytest.mark.ngspice
@pytest.mark.parametrize("sizes", [(3, 4, 2), (4, 6, 6, 3)])
def test_ngspice_reads_our_voltages_and_has_our_gradient(sizes):
    """Voltages of order 1 agree to 1e-8, as in test_spice; their differences over 2 beta = 0.1 to 1e-6."""
    ours = simulated(sizes)
    ours.biases = [torch.linspace(-0.2, 0.3, b.numel(), dtype=DOUBLE)[None] for b in ours.biases]
    with SpiceCircuit(sizes) as circuit:
        net = CircuitNetwork(circuit, input_gain=4.0, siemens=1e-4)
        net.weights, net.biases = ours.weights, ours.biases
        x = torch.linspace(-1, 1, sizes[0], dtype=DOUBLE)[None]
        for v, w in zip(net.relax(x, 1), ours.relax(x, 1000), strict=True):
            torch.testing.assert_close(v, w, rtol=0, atol=1e-8)
        agree(gradient(net, sizes), gradient(ours, sizes), 1e-6)


@pytest.mark.ngspice
def test_a_measured_diode_is_the_one_it_was_measured_on(tmp_path):
    current = np.geomspace(1e-9, 1e-2, 200)
    rows = [f"{BAT42.forward(i)!r},{i!r}" for i in current.tolist()]
    (tmp_path / "diode.csv").write_text("\n".join(["# BAT42", "voltage, current", "-4,-1e-7", "-0.2,-1e-7", *rows]))
    curve, read = measured(tmp_path / "diode.csv"), []
    for diode in (BAT42, curve, "ideal"):
        with SpiceCircuit((3, 4, 2), diode) as circuit:
            net = CircuitNetwork(circuit, input_gain=2.0, siemens=1e-4)
            read.append(torch.cat(net.relax(X.double(), 1), -1))
    torch.testing.assert_close(read[0], read[1], rtol=0, atol=3e-3)
    assert float((read[0] - read[2]).abs().max()) > 0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table of comma-separated values"),
        ("v,i\n0,0\n", "has no column current, voltage"),
        ("voltage,current\n0,0\n1,much\n", "all with finite numbers"),
        ("voltage,current\n0,0\n0,1\n", "voltage must rise"),
        ("voltage,current\n0,1\n1,0\n", "current must not fall"),
    ],
)
def test_what_is_no_curve_is_refused(tmp_path, text, message):
    (tmp_path / "diode.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"path = .*diode\.csv: .*{message}"):
        measured(tmp_path / "diode.csv")


@pytest.mark.ngspice
def test_a_small_network_learns_digits_in_ngspice_as_in_our_simulator():
    digits = epkit.data.load("digits", train=24, test=10)
    options = {"epochs": 2, "batch_size": 6, "beta": 0.05, "iterations": 30, "learning_rates": (0.01, 0.01)}
    ours = simulated((64, 8, 10), gain=10.0)
    expected = epkit.train(ours, digits.x_train, digits.y_train, **options)
    with SpiceCircuit((64, 8, 10)) as circuit:
        net = CircuitNetwork(circuit, input_gain=10.0, siemens=1e-4)
        net.weights = [w.clamp_min(0.05) for w in net.weights]
        history = epkit.train(net, digits.x_train, digits.y_train, **options)
    np.testing.assert_array_equal(history.train_error, expected.train_error)
    np.testing.assert_allclose(history.train_cost, expected.train_cost, rtol=1e-8)
    assert float(history.train_cost[-1, 0]) < float(history.train_cost[0, 0])


def test_a_board_rounds_what_it_is_given_and_what_it_reads():
    board = Board(SimulatedCircuit((3, 4, 2)), seed=1)
    taps = (1 / board.stepped(np.array([2e-5, 1e-4, 1e-3])) - 75.0) / 100e3 * 256
    np.testing.assert_allclose(taps, np.rint(taps), atol=1e-9)
    net = CircuitNetwork(board, input_gain=4.0, siemens=1e-4)
    assert float(net.weights[0].min()) == pytest.approx(board.limits[0] / 1e-4)
    steps = torch.cat(net.relax(X, 1), -1) / 187.5e-6
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-6)


def test_a_board_on_a_serial_line_learns_xor():
    """64 potentiometers of 256 steps, read once, in steps of 187.5 µV."""
    instrument = on_a_line(Board(SimulatedCircuit((3, 8, 2), iterations=8)))
    net = CircuitNetwork(instrument, input_gain=4.0, siemens=4e-4, seed=23)
    history = epkit.train(net, X, Y, epochs=20, **XOR)
    assert history.engine == "eager"
    assert float(history.train_error[-1, 0]) == 0.0
    instrument.close()


def test_two_hidden_units_with_ideal_diodes_and_no_bias_cannot_have_xor():
    """Whatever the conductances, one and the same output is the higher one for all inputs."""
    net = epkit.DeepResistiveNetwork((3, 2, 2), input_gain=4.0, members=200, seed=range(200), dtype=DOUBLE)
    for w in net.weights:
        w.clamp_min_(0.01)
    output = net.relax(X, 1000)[-1]
    higher = output[..., 0] - output[..., 1]
    assert not ((higher > 1e-9).any(1) & (higher < -1e-9).any(1)).any()
    assert (higher.abs() > 1e-3).any(1).sum() > 100


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        ((), r"bench: no reply to 'READ\?' within 0\.1 s"),
        (("0.1 0.2",), r"bench: replied '0\.1 0\.2' to 'READ\?': expected 4 finite numbers"),
        (("0.1 0.2 nan 0.3",), "expected 4 finite numbers"),
        (("\0\xff?",), r"bench: replied '.*' to 'READ\?'"),
        (("ERROR converter over range",), r"bench: refused 'READ\?': converter over range"),
    ],
)
def test_each_failure_of_an_instrument_is_one_message(replies, message):
    instrument, other = played(*replies)
    with pytest.raises(CircuitError, match=message) as failure:
        instrument.read()
    assert "\n" not in str(failure.value)
    with pytest.raises(CircuitError, match="bench: the connection is closed"):
        instrument.read()  # a late reply must not be taken for this one
    other.close()


def test_a_lost_connection_and_an_answer_that_means_something_else():
    instrument, other = played()
    other.close()
    with pytest.raises(CircuitError, match=r"bench: the connection was lost at 'INPUT 1\.0 0\.0'"):
        instrument.apply(np.array([1.0, 0.0]))
    instrument, other = played("FINE")
    with pytest.raises(CircuitError, match="replied 'FINE' to 'NUDGE 0': expected 'OK'"):
        instrument.nudge(0.0, None)
    other.close()
    with pytest.raises(CircuitError, match="/dev/none: no connection"):
        connect("/dev/none")
    with pytest.raises(CircuitError, match="localhost:1: no connection"):
        connect("localhost:1")


def test_an_instrument_refuses_what_is_out_of_range():
    instrument = on_a_line(Board(SimulatedCircuit((3, 4, 2))))
    net = CircuitNetwork(instrument, input_gain=10.0, siemens=1e-4)
    with pytest.raises(CircuitError, match=r"refused 'INPUT .*10 V is out of range: the board has -6\.144 to 6\.144 V"):
        net.relax(X, 1)
    panel = Panel(SimulatedCircuit((3, 4, 2)))
    assert panel.answer("CONDUCTANCE 1 0 1e-4 1e9").startswith("ERROR 0.0001 to 1e+09 is out of range: 0 to 1000")
    assert panel.answer("INPUT 1 2") == "ERROR 2 values: must be 3 finite numbers"
    assert panel.answer("BIAS 9 1").startswith("ERROR")
    assert panel.answer("HELLO") == "ERROR no such command"


def test_training_that_goes_on_after_a_lost_connection_equals_the_uninterrupted():
    class Unplugged(Board):
        left = 45  # readings: up to the test at the end of the third epoch

        def read(self):
            self.left -= 1
            if not self.left:
                raise OSError
            return super().read()

    def instrument(kind=Board):
        return on_a_line(kind(SimulatedCircuit((3, 4, 2), iterations=8), noise=0.0))

    options = {**XOR, "epochs": 4, "test": (X, Y)}
    whole = CircuitNetwork(instrument(), input_gain=4.0, siemens=1e-4)
    expected = epkit.train(whole, X, Y, **options)
    net = CircuitNetwork(instrument(Unplugged), input_gain=4.0, siemens=1e-4)
    checkpoint = Checkpoint(net)
    with pytest.raises(CircuitError, match=r"/dev/pts/\d+: the connection was lost at 'READ\?'"):
        epkit.train(net, X, Y, **options, state=checkpoint.state, progress=checkpoint.keep)
    net.circuit = instrument()
    history = epkit.train(net, X, Y, **options, state=checkpoint.restored(), progress=checkpoint.keep)
    assert history.identical(expected)
    assert all(map(torch.equal, net.weights, whole.weights))


def test_what_makes_no_network_of_a_circuit_is_refused():
    circuit = SimulatedCircuit((3, 4, 2))
    for name, value in {"reads": 0, "siemens": 0.0, "volts": -1.0, "input_gain": 0.0}.items():
        with pytest.raises(ValueError, match=f"{name} = {value}: must be"):
            CircuitNetwork(circuit, **{"input_gain": 1.0, name: value})
    with pytest.raises(ValueError, match=r"circuit = 'board': must have what epkit\.Circuit lists"):
        CircuitNetwork("board", input_gain=1.0)
    net = CircuitNetwork(circuit, input_gain=1.0)
    with pytest.raises(ValueError, match="beta = 50: must stay below the least total conductance"):
        net.relax(X, 1, one_hot(Y, 2), -50.0)
    net.weights[0][0, 0, 0] = 2e3
    with pytest.raises(ValueError, match=r"weights\[0\] holds conductances from 0 to 2e\+03 S: the circuit has 0 to"):
        net.relax(X, 1)
    biased = CircuitNetwork(Board(circuit), input_gain=1.0, siemens=1e-4)
    biased.biases[0] += 0.1
    with pytest.raises(CircuitError, match="feeds no bias currents"):
        biased.relax(X, 1)
    with pytest.raises(ValueError, match="diode = 'tube': allowed are 'ideal'"):
        SpiceCircuit((3, 4, 2), "tube")


@pytest.mark.ngspice
def test_an_ngspice_that_has_ended_is_named():
    circuit = SpiceCircuit((3, 4, 2), Curve((0.0, 1.0), (0.0, 1e-3)))
    circuit.close()
    with pytest.raises(CircuitError, match=r"ngspice is gone|ngspice ended"):
        circuit.read()


def test_the_page_that_says_how_to_bring_a_circuit_of_ones_own():
    page = (Path(__file__).parents[1] / "docs" / "circuit.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert float(names["history"].train_error[-1, 0]) == 0.0
