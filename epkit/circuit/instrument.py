"""An instrument at the other end of a serial line or a socket: text commands, one reply a line.

    command                     reply
    SIZES?                      units per layer: 3 2 2
    LIMITS?                     least and greatest conductance (S)
    CONDUCTANCE layer row g …   OK      (S), of a row of W_layer, layer and row counted from 0
    BIAS layer i …              OK      (A), of units of layer 1 … L; all are 0 until told
    INPUT v …                   OK      (V), n_0 of them, held at v and at -v
    NUDGE beta t …              OK      (S) and (V), a target for each output; NUDGE 0 releases them
    READ?                       voltages of all units (V), layer after layer

Instead of any reply: `ERROR text`. Numbers are decimal, separated by spaces. `serve` is the other end.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Sequence
from math import inf
from time import monotonic
from typing import NoReturn

import numpy as np

from ..ep import checks
from ..messages import short, shown
from .network import Circuit, CircuitError, Matrix, Vector


def connect(address: str, *, baud: int = 115200, timeout: float = 2.0) -> Instrument:
    """The instrument at a serial line ("/dev/ttyUSB0") or a socket ("host:port").

    Raises:
        CircuitError: where none answers. ValueError: for no address, time, or rate that serial lines have.
    """
    if not isinstance(address, str) or not address:
        raise ValueError(f"address = {shown(address)}: must name a serial line or be host:port")
    checks.count("baud", baud)
    checks.number("timeout", timeout, above=0.0)
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdecimal():
            return Instrument(socket.create_connection((host, int(port)), timeout).detach(), address, timeout=timeout)
        import termios  # POSIX alone has it
        import tty

        if (speed := getattr(termios, f"B{baud}", None)) is None:
            raise ValueError(f"baud = {baud}: no rate of a serial line, such as 9600 or 115200")
        link = os.open(address, os.O_RDWR | os.O_NOCTTY)
        if not os.isatty(link):
            os.close(link)
            raise OSError("not a serial line")
        tty.setraw(link)
        mode = termios.tcgetattr(link)
        termios.tcsetattr(link, termios.TCSANOW, [*mode[:4], speed, speed, mode[6]])
    except (OSError, ImportError) as error:
        raise CircuitError(f"{address}: no connection ({short(error)})") from None
    return Instrument(link, address, timeout=timeout)


class Instrument:
    """A circuit that is asked by line; any failure closes the link, lest a late reply be taken for another.

    Args:
        link: file descriptor of a line or socket, read and written; it is the instrument's from now on.
        name: what messages call it. timeout: longest wait for a reply (s).

    Raises:
        CircuitError: where it doesn't answer as it should.
    """

    def __init__(self, link: int, name: str = "instrument", *, timeout: float = 2.0) -> None:
        self.name, self.timeout = name, checks.number("timeout", timeout, above=0.0)
        self._link: int | None = checks.count("link", link, 0)
        self._unread = b""
        os.set_blocking(link, False)
        self.sizes = tuple(int(n) for n in self._numbers("SIZES?"))
        least, most = self._numbers("LIMITS?", 2)
        self.limits = least, most
        self._said = {f"BIAS {k}": " 0.0" * n for k, n in enumerate(self.sizes[1:], 1)}

    def close(self) -> None:
        if self._link is not None:
            os.close(self._link)
        self._link = None

    def set_conductances(self, weights: Sequence[Matrix], biases: Sequence[Vector]) -> None:
        """Only the rows that have changed are said again."""
        lines = {f"CONDUCTANCE {k} {i}": _text(row) for k, w in enumerate(weights) for i, row in enumerate(w)}
        for command, values in (lines | {f"BIAS {k}": _text(b) for k, b in enumerate(biases, 1)}).items():
            if self._said.get(command) != values:
                self._tell(command + values)
                self._said[command] = values

    def apply(self, voltages: Vector) -> None:
        self._tell("INPUT" + _text(voltages))

    def nudge(self, beta: float, target: Vector | None) -> None:
        self._tell("NUDGE 0" if target is None else f"NUDGE {float(beta)!r}" + _text(target))

    def read(self) -> list[Vector]:
        read = np.array(self._numbers("READ?", sum(self.sizes[1:])))
        return np.split(read, np.cumsum(self.sizes[1:-1]))

    def _tell(self, command: str) -> None:
        if (reply := self._ask(command)) != "OK":
            self._fail(f"replied {short(reply, 60)!r} to {short(command, 40)!r}: expected 'OK'")

    def _numbers(self, command: str, count: int | None = None) -> list[float]:
        reply = self._ask(command)
        try:
            numbers = [float(word) for word in reply.split()]
        except ValueError:
            numbers = []
        if not numbers or not np.isfinite(numbers).all() or count not in (None, len(numbers)):
            expected = "numbers" if count is None else f"{count} finite numbers"
            self._fail(f"replied {short(reply, 60)!r} to {command!r}: expected {expected}")
        return numbers

    def _ask(self, command: str) -> str:
        """The reply to a command, within `timeout`."""
        if self._link is None:
            raise CircuitError(f"{self.name}: the connection is closed")
        what, unsent, end = short(command, 40), command.encode("ascii") + b"\n", monotonic() + self.timeout
        try:
            while unsent or b"\n" not in self._unread:
                if (left := end - monotonic()) <= 0:
                    self._fail(f"no reply to {what!r} within {self.timeout:g} s")
                readable, writable, _ = select.select([self._link], [self._link] if unsent else [], [], left)
                if writable:
                    unsent = unsent[os.write(self._link, unsent) :]
                if readable:
                    if not (got := os.read(self._link, 65536)):
                        raise OSError("the other end has closed it")
                    self._unread += got
        except OSError as error:
            self._fail(f"the connection was lost at {what!r} ({short(error)})")
        except KeyboardInterrupt:
            self.close()
            raise
        line, _, self._unread = self._unread.partition(b"\n")
        reply = line.decode("ascii", "replace").strip()
        if reply.startswith("ERROR"):
            self._fail(f"refused {what!r}: {short(reply.removeprefix('ERROR').strip())}")
        return reply

    def _fail(self, message: str) -> NoReturn:
        self.close()
        raise CircuitError(f"{self.name}: {message}")


def serve(circuit: Circuit, link: int) -> None:
    """Be the instrument: answer from a circuit the commands that come over `link`, until the other end is gone."""
    panel, unread = Panel(circuit), b""
    try:
        while got := os.read(link, 65536):
            *lines, unread = (unread + got).split(b"\n")
            for line in lines:
                reply = panel.answer(line.decode("ascii", "replace")).encode("ascii", "replace") + b"\n"
                while reply:
                    reply = reply[os.write(link, reply) :]
    except OSError:  # how a line whose other end is closed reads
        pass


class Panel:
    """What an instrument knows between two commands: parameters, which its circuit gets before the next reading."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit, sizes = circuit, circuit.sizes
        rows = (2 * sizes[0], *sizes[1:-1])
        self.weights = [np.full(shape, circuit.limits[0]) for shape in zip(rows, sizes[1:], strict=True)]
        self.biases = [np.zeros(n) for n in sizes[1:]]
        self.changed = True

    def answer(self, command: str) -> str:
        """The reply to a command."""
        try:
            return self._done(command.split())
        except (ValueError, IndexError, CircuitError) as error:
            return f"ERROR {short(error)}"

    def _done(self, words: list[str]) -> str:
        circuit, sizes = self.circuit, self.circuit.sizes
        match words:
            case ["SIZES?"]:
                return " ".join(map(str, sizes))
            case ["LIMITS?"]:
                return _text(circuit.limits).strip()
            case ["READ?"]:
                if self.changed:
                    circuit.set_conductances(self.weights, self.biases)
                    self.changed = False
                return _text(np.concatenate(list(circuit.read()))).strip()
            case ["CONDUCTANCE", layer, row, *values]:
                w = self.weights[int(layer)]
                w[int(row)] = _vector(values, w.shape[1], circuit.limits)
                self.changed = True
            case ["BIAS", layer, *values]:
                self.biases[int(layer) - 1] = _vector(values, sizes[int(layer)])
                self.changed = True
            case ["INPUT", *values]:
                circuit.apply(_vector(values, sizes[0]))
            case ["NUDGE", "0"]:
                circuit.nudge(0.0, None)
            case ["NUDGE", beta, *values]:
                circuit.nudge(float(beta), _vector(values, sizes[-1]))
            case _:
                raise ValueError("no such command")
        return "OK"


def _vector(words: Sequence[str], count: int, limits: tuple[float, float] = (-inf, inf)) -> Vector:
    values = np.array([float(word) for word in words])
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} values: must be {count} finite numbers")
    if (values < limits[0]).any() or (values > limits[1]).any():
        raise ValueError(f"{values.min():g} to {values.max():g} is out of range: {limits[0]:g} to {limits[1]:g}")
    return values


def _text(values: Iterable[float]) -> str:
    """Numbers with all their digits, a space before each."""
    return "".join(f" {float(v)!r}" for v in values)
