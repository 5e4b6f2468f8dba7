# ruff: noqa: RUF012  (pydantic copies defaults)
"""A network and the board that reads it, as numbers: of options, a board file, the page, or a read-out's parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, Strict, StrictInt, model_validator

from ..ep.readout import GaussianReadout
from ..ep.schedule import Schedule
from ..files import CHECKOUT
from ..messages import ParameterError, hint, shown
from ..readouts.chain import Chain, Differential, Part
from ..readouts.parts import Converter, Drift, HeavyTails, Measured, Mismatch, Noise, RelativeNoise
from ..sweep.inputs import parameter_file
from ..sweep.parameters import MANY, Axis, DatasetName, Parameters, Width
from ..validation import validated

BOARDS = CHECKOUT / "boards"
PREFIXES = {"f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9}
QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?:(%)|([fpnuµμmkMG]?)(V|S|s|J)?)")
Scheme = Literal["direct", "differential"]


def _quantity(unit: str) -> BeforeValidator:
    """Reads 0.3mV, 300u, 2e-3 or, of a share, 5%; what isn't a text stays as it is."""
    example = {"V": "0.3mV, 300u", "S": "0.7", "s": "2us", "J": "3nJ", "": "0.05, 5%"}[unit]

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = QUANTITY.fullmatch(value.strip())
        if parts is None or (parts[2] and unit) or (parts[4] or unit) != unit or (parts[3] and not unit):
            raise ValueError(f"must be a number{f' in {unit}' if unit else ''}, such as {example} or 2e-3")
        digits, _, power = parts[1].lower().partition("e")  # one rounding, as the page's
        return float(f"{digits}e{int(power or 0) + (-2 if parts[2] else PREFIXES[parts[3] or ''])}")

    return BeforeValidator(read)


def _split(value: Any) -> Any:
    """A text of several values, or a single value, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value if isinstance(value, list) else [value]


def _whole(value: Any) -> Any:
    """A count that is written as a text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value.strip()) else value


def _of(unit: str, text: str) -> Any:
    """A field's unit and what it is: the command's help, and the page's label."""
    return Field(description=text, json_schema_extra={"unit": unit})


Whole = Annotated[StrictInt, Field(ge=1, le=MANY), BeforeValidator(_whole)]
Real = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=0, le=1e12)]
Above = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=1e-12, le=1e12)]
Share = Annotated[Real, _quantity("")]
UpToOne = Annotated[float, Strict(), Field(ge=0, le=1), _quantity("")]
Volts = Annotated[Real, _quantity("V")]


class Design(Parameters):
    """What a budget is asked for. Lists are candidates, of which the best is chosen; None and 0 are an ideal part."""

    hidden: Annotated[list[Annotated[Width, BeforeValidator(_whole)]], Field(min_length=1), BeforeValidator(_split),
                      _of("", "units of each hidden layer")] = [128, 128, 128]  # fmt: skip
    dataset: Annotated[DatasetName, _of("", "data set that is learned")] = "mnist"
    input_gain: Annotated[list[Annotated[Above, _quantity("V")]], Field(min_length=1), BeforeValidator(_split), Axis,
                          _of("V", "input gain A: volts of a white pixel")] = [1100.0]  # fmt: skip
    target: Annotated[Above, _quantity("V"), _of("V", "voltage that the output of the right class is to reach")] = 1.0
    beta: Annotated[list[Annotated[Above, _quantity("S")]], Field(min_length=1), BeforeValidator(_split), Axis,
                    _of("S", "nudge β")] = [0.7]  # fmt: skip
    iterations: Annotated[Whole, _of("", "iterations of a phase")] = 6
    learning_rate: Annotated[list[Annotated[Above, _quantity("")]], Field(min_length=1), BeforeValidator(_split), Axis,
                             _of("", "learning rate η, relative to untrained networks")] = [0.02]  # fmt: skip
    batch_size: Annotated[list[Whole], Field(min_length=1), BeforeValidator(_split), Axis,
                          _of("", "images of a step B")] = [8]  # fmt: skip
    scheme: Annotated[list[Scheme], Field(min_length=1), BeforeValidator(_split), Axis,
                      _of("", "whether the phases are converted, or their difference and mean")] = [
        "direct", "differential",
    ]  # fmt: skip
    adc_bits: Annotated[int | None, Field(ge=1, le=24), Strict(), BeforeValidator(_whole),
                        _of("", "bits of the converter")] = None  # fmt: skip
    adc_range: Annotated[float | None, Strict(), Field(ge=1e-12, le=1e12), _quantity("V"),
                         _of("V", "range of the converter, from minus half of it to half of it")] = None  # fmt: skip
    noise: Annotated[Volts, _of("V", "noise of a read, standard deviation")] = 0.0
    correlation: Annotated[UpToOne, _of("", "correlation of the noise of two reads")] = 0.0
    relative_noise: Annotated[Share, _of("", "noise of a read, as a share of the voltage")] = 0.0
    offset: Annotated[Volts, _of("V", "offsets of the reads, standard deviation over units")] = 0.0
    gain_mismatch: Annotated[Share, _of("", "gains of the reads, standard deviation over units")] = 0.0
    drift: Annotated[Volts, _of("V", "drift from one phase to the other, standard deviation")] = 0.0
    write_noise: Annotated[Share, _of("", "error of an update, as a share of the update")] = 0.0
    programming_noise: Annotated[Share, _of("", "error of an update, as a share of the mean conductance")] = 0.0
    margin: Annotated[Above, _quantity(""), _of("", "factor to stay below the predicted limit")] = 3.0
    most_reads: Annotated[Whole, _of("", "reads N that can be averaged at most")] = MANY
    images: Annotated[Whole, _of("", "training images shown, repetitions counted")] = 70000
    read_time: Annotated[Real, _quantity("s"), _of("s", "time of a read of all units")] = 0.0
    read_energy: Annotated[Real, _quantity("J"), _of("J", "energy of a read of a unit")] = 0.0

    @model_validator(mode="after")
    def _possible(self) -> Design:
        if self.adc_bits is not None and self.adc_range is None:
            raise ValueError(f"adc_range = None: is needed with adc_bits = {self.adc_bits}, whose steps it sets")
        return self


def board(name: str | Path) -> dict[str, Any]:
    """The settings of a board file, a path or the name of one in boards/; ParameterError names it and what is wrong."""
    path = Path(name)
    if path.suffix or path.exists():
        return parameter_file(path, str(path))
    boards = sorted(file.stem for file in BOARDS.glob("*.yaml"))
    if str(name) not in boards:
        raise ParameterError(f"board = {shown(str(name))}: no such board; {hint(name, boards)}")
    return parameter_file(BOARDS / f"{name}.yaml", f"boards/{name}.yaml")


def designed(values: Mapping[str, Any], place: str = "budget") -> Design:
    """A `Design`; ParameterError has a line for each value that isn't allowed, with what is."""
    return validated(Design, values, place)


def imperfections(readout: Any) -> dict[str, Any]:
    """What the parts of a read-out are in terms of a `Design`.

    Raises:
        ValueError: for a part whose reads no formula of the budget describes, two that are the same, noise behind a
            converter, which does not dither it, an average, or a schedule.
    """
    if isinstance(readout, Schedule):
        raise ValueError(f"readout = {shown(readout)}: must be the same throughout training")
    if isinstance(readout, GaussianReadout):
        chain = Chain((Noise(readout.sigma),), readout.samples)
    elif isinstance(readout, Chain | Part):
        chain = readout if isinstance(readout, Chain) else Chain((readout,))
    else:
        raise ValueError(f"readout = {shown(readout)}: must be made of the parts of epkit.readouts, or None")
    if chain.samples != 1:
        raise ValueError(f"readout = {shown(str(chain))}: must be a single read, the budget says how many are averaged")
    found: dict[str, Any] = {}
    for part in chain.parts:
        new = _terms(part)
        if {"noise", "relative_noise"} & set(new) and {"adc_bits", "scheme"} & set(found):
            raise ValueError(f"readout = {shown(str(chain))}: {shown(str(part))} must stand before the converter")
        if twice := set(new) & set(found):
            raise ValueError(f"readout = {shown(str(chain))}: gives {', '.join(sorted(twice))} more than once")
        found |= new
    return found


def _terms(part: Any) -> dict[str, Any]:
    def number(value: Any) -> float:
        values = torch.as_tensor(value, dtype=torch.float64).flatten()
        if values.numel() != 1:
            raise ValueError(f"readout: {shown(str(part))}: must have a single value, not one a member")
        return float(values)

    match part:
        case Noise():
            return {"noise": number(part.sigma), "correlation": part.correlation or 0.0}
        case HeavyTails():
            return {"noise": number(part.sigma)}
        case Measured():
            return {"noise": number(part.factor) * float(part.deviations.double().square().mean().sqrt())}
        case RelativeNoise():
            return {"relative_noise": number(part.share)}
        case Drift():
            return {"drift": number(part.rate) * part.gap}
        case Mismatch():
            terms = {"offset": part.offset, "gain_mismatch": part.gain}
            return {name: number(value) for name, value in terms.items() if value is not None}
        case Converter(span=spans) if part.bits is not None and len(part.spans) == 1:
            low, high = part.spans[0]
            if low == -high:
                return {"adc_bits": part.bits, "adc_range": high - low}
            raise ValueError(f"readout: {shown(spans)}: the budget takes a converter of -V to V")
        case Differential(mean=mean) if part.difference is None and mean is not None:
            return imperfections(mean) | {"scheme": ["differential"]}
    raise ValueError(f"readout: {shown(str(part))}: no formula of the budget describes it, simulate it by epkit.train")
