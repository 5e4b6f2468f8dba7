"""Validated parameters: what an experiment may be asked for, and one plain line for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from .choices import Averaging, Estimator
from .files import INFO


class ParameterError(ValueError):
    """Parameters that make no experiment: one line for each fault, with its place, field, value and what is allowed."""


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("values must differ from one another")
    return sorted(values) if not isinstance(values[0], str) else values


def _known(name: str) -> str:
    if name not in INFO:
        raise ValueError(f"allowed are {', '.join(INFO)}")
    return name


def _even(width: int) -> int:
    if width % 2:
        raise ValueError("hidden widths must be even, half of a layer's diodes point each way")
    return width


Axis = AfterValidator(_distinct)
Count = Annotated[StrictInt, Field(ge=1)]
Width = Annotated[StrictInt, Field(ge=2), AfterValidator(_even)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
DatasetName = Annotated[str, AfterValidator(_known)]
Model = TypeVar("Model", bound=BaseModel)


class Network(BaseModel):
    """What is trained, and how: everything that the runs of an experiment have in common.

    The defaults are those of the design's trials on 28 x 28 images: deep enough for a sharp limit, small enough to
    train an ensemble in minutes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    hidden: list[Width] = [128, 128, 128]
    input_gain: Positive = 1100.0  # A, volts per unit of pixel
    beta: Positive = 0.7  # nudging conductance
    iterations: Count = 6  # of each phase
    estimator: Estimator = "centered"
    batch_size: Count = 8
    epochs: Count = 6
    train_images: Count = 8000  # what KMNIST's t10k split holds; the same for every data set
    test_images: Count = 2000
    validation_images: Count | None = None  # training images set apart, on which choices are made; None: no such error
    decay: Annotated[float, Field(gt=0, le=1)] = 0.99  # of the learning rate, each epoch
    bias_rate: Annotated[float, Field(ge=0)] = 1.0
    dtype: Literal["float32", "float64"] = "float32"
    # Records an epoch, each with a look at response, signal-to-noise and conductances; None records the error alone.
    looks: Count | None = None
    # Learning rate of each layer at eta = 1; None takes `relative_rates`, the rates that suit an untrained network.
    rates: list[Positive] | None = None

    @model_validator(mode="after")
    def _one_rate_a_layer(self) -> Network:
        if self.rates is not None and len(self.rates) != len(self.hidden) + 1:
            raise ValueError(f"rates = {self.rates}: {len(self.hidden) + 1} are needed, one for each layer of weights")
        return self


class Sweep(Network):
    """A grid of training runs: the lists are its axes."""

    dataset: Annotated[list[DatasetName], Field(min_length=1), Axis]
    sigma: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1), Axis]  # volts, of one read-out
    samples: Annotated[list[Count], Field(min_length=1), Axis] = [1]
    averaging: Annotated[list[Averaging], Field(min_length=1), Axis] = ["shortcut"]
    learning_rate: Annotated[list[Positive], Field(min_length=1), Axis] = [0.02]  # eta of `relative_rates`
    seeds: Count = 3  # seeds 0 … seeds - 1


class Comparison(BaseModel):
    """Notebooks 08 and 09: several sweeps, each with a store of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: Annotated[dict[str, Sweep], Field(min_length=1)]


class Published(Comparison):
    """Notebook 00: networks of the literature, and what was reported of them."""

    reported_error: dict[str, Annotated[float, Field(gt=0, lt=1)]]
    reported_epochs: dict[str, Count]

    @model_validator(mode="after")
    def _reported_of_each(self) -> Published:
        for field in ("reported_error", "reported_epochs"):
            if set(getattr(self, field)) != set(self.networks):
                raise ValueError(f"{field} must have an entry for each of networks: {', '.join(self.networks)}")
        return self


class Mechanism(Network):
    """Notebook 01: one network looked at closely."""

    dataset: DatasetName
    learning_rate: Positive = 0.02
    betas: Annotated[list[Positive], Field(min_length=2), Axis]  # of the gradient check, S
    check_images: Count = 8  # of the gradient check
    check_iterations: Count = 100  # the distance to the steady state shrinks about fivefold in each


class Solved(BaseModel):
    """A published network, with its settings, that notebook 06 compares with exact solutions."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    hidden: list[Width]
    input_gain: Positive
    beta: Positive
    iterations: Count


class Oracles(BaseModel):
    """Notebook 06: the physics against exact solutions, and real diodes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: DatasetName
    images: Count = 8  # of every mean
    networks: Annotated[list[Solved], Field(min_length=1)]
    iterations: Annotated[list[Count], Field(min_length=2), Axis]  # of each phase, to stop after
    # the network whose error over beta is shown
    hidden: list[Width] = [128, 128, 128]
    input_gain: Positive = 1100.0
    betas: Annotated[list[Positive], Field(min_length=2), Axis]
    check_iterations: Count = 100
    # real diodes
    diode: Literal["1N4148"] = "1N4148"
    scales: Annotated[list[Positive], Field(min_length=1), Axis]  # of its forward voltage
    diode_hidden: list[Width] = [16, 16]
    diode_gain: Positive = 100.0
    diode_beta: Positive = 0.01  # so small that what is left is the diodes' doing
    pool: Count = 4  # pixels a side that make one input
    siemens: Positive = 1e-4  # conductance that W = 1 stands for


class Point(NamedTuple):
    """One run's place on the grid; the field names are the store's dimensions."""

    dataset: str
    learning_rate: float
    averaging: Averaging
    samples: int
    sigma: float
    seed: int


def layer_sizes(network: Network | Oracles, name: str) -> tuple[int, ...]:
    rows, columns = INFO[name].shape
    return (rows * columns, *network.hidden, 10)


def validated(model: type[Model], values: Mapping[str, object], place: str = "parameters") -> Model:
    """`values` as a `model`; ParameterError names place, field, value and what is allowed, one line a fault."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            field = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                near = get_close_matches(field, model.model_fields, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(model.model_fields)}"
                lines.append(f"{place}: {field}: no such parameter; {hint}")
            elif fault["type"] == "missing":
                lines.append(f"{place}: {field}: is missing")
            else:
                lines.append(f"{place}: {field} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}")
        raise ParameterError("\n".join(lines)) from None
