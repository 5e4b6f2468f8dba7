"""The parameters of each kind of experiment, and what they may be."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import psutil
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StrictInt, model_validator

from ..data import INFO, Info
from ..ep.learning import NUDGES, Estimator
from ..ep.readout import Averaging
from ..messages import hint, short, shown
from ..networks.convolutional import check_maps
from ..readouts import PRESETS, Kind


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("values must differ from one another")
    return sorted(values) if not isinstance(values[0], str) else values


def _listed(what: str, names: Collection[str]) -> tuple[AfterValidator, Any]:
    """Allows these names alone; a schema lists them."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"no such {what}; {hint(name, names)}")
        return name

    return AfterValidator(check), Field(json_schema_extra={"enum": [*names]})


def _even(width: int) -> int:
    if width % 2:
        raise ValueError("hidden widths must be even, half of a layer's diodes point each way")
    return width


MANY = 1_000_000  # more of anything is a slip of the keyboard
Axis = AfterValidator(_distinct)
Count = Annotated[StrictInt, Field(ge=1, le=MANY)]
Place = Annotated[StrictInt, Field(ge=0, le=MANY)]  # in an order that begins with 0
Width = Annotated[StrictInt, Field(ge=2, le=MANY), AfterValidator(_even)]
# Strict, for `true` and texts are no numbers; and float32 must hold them.
Number = Annotated[float, Strict(), Field(allow_inf_nan=False, le=1e38)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(gt=0, lt=1)]
PresetName = Annotated[str, *_listed("preset", PRESETS)]
Span = Annotated[list[Number], Field(min_length=2, max_length=2)]  # low and high (V)
DatasetName = Annotated[str, *_listed("data set", INFO)]
FileName = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$")]  # part of one


class Parameters(BaseModel):
    # The texts below fields are what editors show of them, through the schemas of `publish.schemas`.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Following(Parameters):
    """How a read-out follows training, see `epkit.Schedule` and `epkit.Adaptive`; N begins with `samples`."""

    rule: Literal["until", "after", "doubling", "growing", "adaptive"] | None = None
    """Noise until as many `images`, or after them; or N doubled, or raised by `samples`, after every so many;
    or doubled where a measurement after every so many finds the signal to noise below `bound`."""
    images: Count | None = None
    """Of the rule."""
    bound: Positive | None = None
    """Of the rule adaptive, the least ratio of signal to noise in the estimate of the second layer's gradient."""
    layers: Annotated[list[Count], Field(min_length=1), Axis] | None = None
    """Layers of units whose reads are noisy; by default all."""
    updates: Annotated[list[Count | Literal["biases"]], Field(min_length=1)] | None = None
    """Layers of conductances, or biases, that are updated from noisy reads; by default all."""

    @model_validator(mode="after")
    def _possible(self) -> Following:
        if (self.rule is None) != (self.images is None):
            raise ValueError(f"images = {self.images}: is needed with a rule, and with a rule alone")
        if (self.rule == "adaptive") != (self.bound is not None):
            raise ValueError(f"bound = {self.bound}: is needed with the rule adaptive, and with that alone")
        return self


class Reading(Parameters):
    """What a read errs by if not white noise: a kind, at an rms error of sigma (`readouts.of_kind`), or a preset."""

    kind: Kind | None = None
    """What the read-out errs by, at an rms error of sigma."""
    volts: Positive | None = None
    """V, rms voltage at which relative noise and gain make errors of sigma."""
    lsb: Positive | None = None
    """V, step of a converter behind it; by default none, or that of the kind converter."""
    bits: Annotated[StrictInt, Field(ge=1, le=24)] | None = None
    """Of the kind converter, at a sigma of 0; needs spans."""
    spans: Annotated[list[Span], Field(min_length=1)] | None = None
    """V, low and high ends of the converter, one pair a layer; by default no ends."""
    mean_lsb: Positive | None = None
    """V, step of the converter of the phases' mean; by default exact."""
    differential: Literal[True] | None = None
    """The difference of the phases is converted; by default both phases."""
    preset: PresetName | None = None
    """A circuit's read-out, of `readouts.preset`, at a sigma of 0."""
    full_scale: Positive | None = None
    """V, of the preset; by default its own."""

    @model_validator(mode="after")
    def _possible(self) -> Reading:
        if (self.kind is None) == (self.preset is None):
            raise ValueError(f"kind = {self.kind!r}: either that or a preset is needed")
        converts = self.kind == "converter" or self.lsb is not None
        relative = self.kind in ("relative noise", "gain")
        allowed = {
            "volts": relative, "lsb": self.kind not in ("converter", None),
            "bits": self.kind == "converter" and self.spans, "spans": converts, "differential": converts,
            "mean_lsb": converts and self.differential, "full_scale": self.preset,
        }  # fmt: skip
        for field in (name for name in allowed if not allowed[name] and getattr(self, name) is not None):
            raise ValueError(f"{field} = {shown(getattr(self, field))}: has no meaning for this read-out")
        if relative and self.volts is None:
            raise ValueError("volts = None: relative noise and gain need it")
        if self.spans and not all(low < high for low, high in self.spans):
            raise ValueError(f"spans = {shown(self.spans)}: must be pairs of low < high (V)")
        return self


class Network(Parameters):
    """What is trained, and how: everything that the runs of an experiment have in common.

    The defaults are those of the design's trials on 28 x 28 images: deep enough for a sharp limit, small enough to
    train an ensemble in minutes.
    """

    hidden: Annotated[list[Width], Field(min_length=1)] = [128, 128, 128]
    """Units of the hidden layers; half of a layer's diodes point each way."""
    input_gain: Positive = 1100.0
    """A, volts per unit of pixel."""
    beta: Positive = 0.7
    """Nudging conductance (S)."""
    iterations: Count = 6
    """Iterations of a phase."""
    estimator: Estimator = "centered"
    """From which phases the gradient is estimated."""
    batch_size: Count = 8
    """Images an update."""
    epochs: Count = 6
    """Passes over the training images."""
    train_images: Count = 8000
    """The default is what KMNIST's t10k split holds; the same for every data set."""
    test_images: Count = 2000
    """Images that a record's test error is of."""
    validation_images: Count | None = None
    """Training images set apart, on which choices are made; by default none, and no such error."""
    first_test_image: Place | None = None
    """In the fixed order of `data.load`; by default 0."""
    first_validation_image: Place | None = None
    """Likewise among the training images; by default after those trained on."""
    decay: Annotated[Number, Field(gt=0, le=1)] = 0.99
    """Factor to the learning rates after each epoch."""
    bias_rate: Annotated[Number, Field(ge=0)] = 1.0
    """Learning rate of biases over that of their layer's conductances."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of the simulation."""
    looks: Count | None = None
    """Records an epoch, with a look at response, signal to noise and conductances; by default the error alone, once."""
    rates: list[Positive] | None = None
    """Learning rate of each layer at eta = 1; by default its `relative_rates`, which suit an untrained network."""
    schedule: Following | None = None
    """How N, or where noise enters, follows training; by default always and everywhere alike."""
    readout: Reading | None = None
    """What a read errs by; by default white noise."""
    warm_up: Count | None = None
    """Images over which the learning rates rise from 0; by default none."""
    variant: Literal["raised", "spread", "exponential", "leaky"] | None = None
    """Of the network, see `ep.variants`."""
    network: Literal["hopfield", "convolutional"] | None = None
    """Another network than the deep resistive one, see `epkit.networks`; its input_gain is another, too."""
    relaxation_noise: Positive | None = None
    """Added to each pre-activation at each step; of the network hopfield."""
    nudged_iterations: Count | None = None
    """Iterations of the nudged phases; by default as many as of the free one."""
    optimiser: Literal["momentum", "adam"] | None = None
    """What is made of the estimates; by default plain gradient descent."""
    cold: Literal[True] | None = None
    """Both phases that are compared start at zero; by default at the free state."""
    realisation: Count | None = None
    """Another data order and noise, with the same initial conductances; by default that of the seed itself."""

    def _check(self, names: Sequence[str], members: int) -> None:
        """ValueError where fields exclude one another, or ask for more than the data sets or the machine have."""
        if self.rates is not None and len(self.rates) != (layers := len(self.hidden) + 1):
            raise ValueError(f"rates = {shown(self.rates)}: {layers} are needed, one for each layer of weights")
        for info in (INFO[name] for name in names):
            most_tests = info.n_test - (self.first_test_image or 0)
            if most_tests < 1:
                place = f"first_test_image = {self.first_test_image}"
                raise ValueError(f"{place}: {info.title} allows 0 to {info.n_test - 1}")
            for field, most in (("train_images", info.n_train), ("test_images", most_tests)):
                if (wanted := getattr(self, field)) > most:
                    raise ValueError(f"{field} = {wanted}: {info.title} allows 1 to {most}")
            self._check_validation(info)
            sizes = (2 * math.prod(info.shape), *self.hidden, 10)
            conductances = members * sum(n * m for n, m in pairwise(sizes))
            check_memory("hidden", self.hidden, conductances * (8 if self.dtype == "float64" else 4), "conductances")
        most = len(self.hidden) + 1
        if self.readout is not None and self.schedule is not None:
            raise ValueError("readout: a schedule is of white noise alone, so one of the two is allowed")
        if self.readout is not None and len(self.readout.spans or [0] * most) != most:
            raise ValueError(f"readout.spans = {shown(self.readout.spans)}: {most} pairs are needed, one a layer")
        for field in ("layers", "updates"):
            for layer in getattr(self.schedule, field, None) or ():
                if isinstance(layer, int) and layer > most:
                    raise ValueError(f"schedule.{field} = {layer}: allowed are 1 to {most}, the layers of the network")
        if self.batch_size > self.train_images:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to train_images")
        if (self.looks or 1) > (steps := self.train_images // self.batch_size):
            raise ValueError(f"looks = {self.looks}: allowed are 1 to {steps}, the steps of an epoch")
        self._check_physics(names)

    def _check_physics(self, names: Sequence[str]) -> None:
        """ValueError where the network or its rule can't have what others do."""
        for info in (INFO[name] for name in names if self.network == "convolutional"):
            try:
                check_maps((math.prod(info.shape), *self.hidden, 10))
            except ValueError as error:
                raise ValueError(f"hidden = {self.hidden}: {info.title} has {info.shape} pixels ({error})") from None
        if self.network is not None and self.variant is not None:
            raise ValueError(f"variant = {self.variant!r}: is of the deep resistive network, not of another one")
        if self.relaxation_noise is not None and self.network != "hopfield":
            raise ValueError(f"relaxation_noise = {self.relaxation_noise}: is of the network hopfield alone")
        if self.estimator == "backpropagation":
            for field in ("nudged_iterations", "cold", "schedule", "readout"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field} = {shown(getattr(self, field))}: backpropagation has no phases to read")

    def _check_validation(self, info: Info) -> None:
        """ValueError where the images to validate on are trained on too, or there are not as many."""
        first = self.first_validation_image
        if first is not None and (first < self.train_images or self.validation_images is None):
            allowed = f"{self.train_images} or more, beside train_images, and with validation_images"
            raise ValueError(f"first_validation_image = {first}: allowed are {allowed}")
        place = self.train_images if first is None else first
        if place + (held_back := self.validation_images or 0) > info.n_train:
            before = f"train_images = {place}" if first is None else f"first_validation_image = {place}"
            left = f"{max(0, info.n_train - place)}, beside {before}"
            raise ValueError(f"validation_images = {held_back}: {info.title} allows up to {left}")


class Sweep(Network):
    """A grid of training runs: the lists are its axes."""

    dataset: Annotated[list[DatasetName], Field(min_length=1), Axis]
    """Data sets."""
    sigma: Annotated[list[Annotated[Number, Field(ge=0)]], Field(min_length=1), Axis]
    """V, standard deviation of the noise of a read."""
    samples: Annotated[list[Count], Field(min_length=1), Axis] = [1]
    """N, reads that are averaged."""
    averaging: Annotated[list[Averaging], Field(min_length=1), Axis] = ["shortcut"]
    """Whether the mean of N reads is drawn at once, as sigma / sqrt(N), or read by read."""
    learning_rate: Annotated[list[Positive], Field(min_length=1), Axis] = [0.02]
    """Eta, a factor to `rates`, or to `relative_rates`."""
    seeds: Count = 3
    """How many, from the first on."""
    first_seed: Place | None = None
    """The first seed; by default 0."""

    @model_validator(mode="after")
    def _possible(self) -> Sweep:
        self._check(self.dataset, len(self.sigma) * len(self.learning_rate))
        for field, value in (("sigma", [0.0]), ("samples", [1])):
            if self.estimator == "backpropagation" and (given := getattr(self, field)) != value:
                raise ValueError(f"{field} = {shown(given)}: backpropagation reads nothing, so only {value} is allowed")
        if self.readout is not None and (self.readout.preset or self.readout.bits) and self.sigma != [0.0]:
            what = "a read-out of a preset or of bits has its own numbers"
            raise ValueError(f"sigma = {shown(self.sigma)}: {what}, so only [0.0] is allowed")
        axes = (self.dataset, self.sigma, self.samples, self.averaging, self.learning_rate)
        runs = self.seeds * math.prod(len(axis) for axis in axes)
        check_memory("seeds", self.seeds, runs * self.epochs * len(self.hidden) * 16, f"results of {runs:,} runs")
        return self

    @property
    def seed_numbers(self) -> list[int]:
        first = self.first_seed or 0
        return list(range(first, first + self.seeds))


class Comparison(Parameters):
    """Notebooks 08 and 09: several sweeps, each with a store of its own; what one doesn't say is that of the base.

    Those that `compute` names are computed, all if it is None; the others may take nights, and are shown as they are.
    """

    base: dict[str, Any] = {}
    """What each network has unless it says otherwise."""
    networks: Annotated[dict[FileName, Sweep], Field(min_length=1)]
    """By name, with what differs from the base."""
    compute: list[str] | None = None
    """Names of networks to compute where their store lacks runs; by default all."""

    @model_validator(mode="before")
    @classmethod
    def _upon_the_base(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        base, networks = values.get("base"), values.get("networks")
        if not isinstance(base, dict) or not isinstance(networks, dict):
            return values
        if unknown := [name for name in base if name not in Sweep.model_fields]:
            raise ValueError(f"base.{short(unknown[0], 60)}: no such parameter; {hint(unknown[0], Sweep.model_fields)}")
        whole = {name: base | network if isinstance(network, dict) else network for name, network in networks.items()}
        return values | {"networks": whole}

    @model_validator(mode="after")
    def _of_the_networks(self) -> Comparison:
        if unknown := sorted(set(self.compute or []) - set(self.networks)):
            raise ValueError(f"compute = {unknown}: allowed are the names in networks: {', '.join(self.networks)}")
        return self

    def wanted(self) -> dict[str, Sweep]:
        """The sweeps that are to be computed."""
        return {name: sweep for name, sweep in self.networks.items() if self.compute is None or name in self.compute}


class Checked(Sweep):
    """Notebooks 04 and 07: a sweep, and a second one as a check of what the first says.

    What `check` doesn't say is that of the first.
    """

    check: Sweep | None = None
    """The second sweep, with what differs from the first."""

    @model_validator(mode="before")
    @classmethod
    def _check_upon_the_sweep(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("check"), dict):
            return values
        first = {name: values[name] for name in Sweep.model_fields if name in values}
        return values | {"check": first | values["check"]}

    @property
    def sweep(self) -> Sweep:
        return Sweep(**self.model_dump(exclude={"check"}))


class Published(Comparison):
    """Notebook 00: networks of the literature, and what was reported of them."""

    reported_error: dict[str, Share]
    """Of each network, a fraction of 1."""
    reported_epochs: dict[str, Count]
    """After which it was reported."""

    @model_validator(mode="after")
    def _reported_of_each(self) -> Published:
        for field in ("reported_error", "reported_epochs"):
            if set(getattr(self, field)) != set(self.networks):
                names = short(", ".join(self.networks))
                raise ValueError(f"{field} = {shown(getattr(self, field))}: must have an entry for each of {names}")
        return self


class Mechanism(Network):
    """Notebook 01: one network looked at closely."""

    dataset: DatasetName
    """A data set."""
    learning_rate: Positive = 0.02
    """Eta, a factor to `rates`, or to `relative_rates`."""
    betas: Annotated[list[Positive], Field(min_length=2), Axis]
    """S, of the gradient check."""
    check_images: Count = 8
    """Of the gradient check."""
    check_iterations: Count = 100
    """Of the gradient check; the distance to the steady state shrinks about fivefold in each."""

    @model_validator(mode="after")
    def _possible(self) -> Mechanism:
        self._check([self.dataset], 1)
        for field, other in (("network", self.network is not None), ("estimator", self.estimator not in NUDGES)):
            if other:
                value = shown(getattr(self, field))
                raise ValueError(f"{field} = {value}: allowed is what trains the deep resistive network by EP")
        if self.check_images > self.train_images:
            raise ValueError(f"check_images = {self.check_images}: allowed are 1 to train_images")
        return self


class Solved(Parameters):
    """A published network, with its settings, that notebook 06 compares with exact solutions."""

    hidden: list[Width]
    """Units of the hidden layers."""
    input_gain: Positive
    """A, volts per unit of pixel."""
    beta: Positive
    """Nudging conductance (S)."""
    iterations: Count
    """Iterations of a phase."""


class Oracles(Parameters):
    """Notebook 06: the physics against exact solutions, and real diodes."""

    dataset: DatasetName
    """A data set."""
    images: Count = 8
    """Of every mean."""
    networks: Annotated[list[Solved], Field(min_length=1)]
    """Those compared with exact solutions."""
    iterations: Annotated[list[Count], Field(min_length=2), Axis]
    """Iterations of a phase, to stop after."""
    hidden: list[Width] = [128, 128, 128]
    """Of the network whose error over beta is shown."""
    input_gain: Positive = 1100.0
    """Of the network whose error over beta is shown, volts per unit of pixel."""
    betas: Annotated[list[Positive], Field(min_length=2), Axis]
    """S, of the network whose error over beta is shown."""
    check_iterations: Count = 100
    """Of the network whose error over beta is shown."""
    diode: Literal["1N4148"] = "1N4148"
    """A real diode."""
    scales: Annotated[list[Positive], Field(min_length=1), Axis]
    """Factors to the real diode's forward voltage."""
    diode_hidden: list[Width] = [16, 16]
    """Of the network with real diodes."""
    diode_gain: Positive = 100.0
    """Of the network with real diodes, volts per unit of pixel."""
    diode_beta: Positive = 0.01
    """S, of the network with real diodes; so small that what is left is the diodes' doing."""
    pool: Count = 4
    """Pixels a side that make an input of the network with real diodes."""
    siemens: Positive = 1e-4
    """S, conductance that W = 1 stands for in a circuit."""

    @model_validator(mode="after")
    def _possible(self) -> Oracles:
        info = INFO[self.dataset]
        if self.images > info.n_train:
            raise ValueError(f"images = {self.images}: {info.title} allows 1 to {info.n_train}")
        if any(side % self.pool for side in info.shape):
            raise ValueError(f"pool = {self.pool}: must divide the images' sides, {info.shape}")
        if missing := sorted({p.iterations for p in self.networks} - set(self.iterations)):
            raise ValueError(f"iterations = {shown(self.iterations)}: must contain the networks' own, {missing}")
        networks = {f"networks.{k}.hidden": p.hidden for k, p in enumerate(self.networks)}
        if len({tuple(hidden) for hidden in networks.values()}) < len(networks):
            raise ValueError(f"networks = {shown(self.networks)}: their hidden widths, which name them, must differ")
        for field, hidden in (networks | {"hidden": self.hidden, "diode_hidden": self.diode_hidden}).items():
            check_memory(field, hidden, 8 * sum(hidden) ** 2, "equations of the exact steady state")
        return self


class Bench(Parameters):
    """Notebook 15: signals of untrained networks over gain and nudge, and what stored sweeps say of errors."""

    layouts: Annotated[dict[DatasetName, list[Annotated[list[Width], Field(min_length=1)]]], Field(min_length=1)]
    """Of a data set, the units of the hidden layers of networks."""
    gains: Annotated[list[Positive], Field(min_length=2), Axis]
    """Input gain over the target's voltage."""
    betas: Annotated[list[Positive], Field(min_length=2), Axis]
    """Nudging conductances (S)."""
    iterations: Count = 6
    """Iterations of a phase."""
    images: Annotated[Count, Field(ge=2)] = 256
    """Of every mean."""
    units: Count = 1536
    """Hidden ones of all the untrained networks that a mean is of; a wide network is its own mean."""
    profiles: list[FileName] = []
    """Whose stored sweeps are listed."""
    board: FileName = "designer"
    """A file of boards/."""

    @model_validator(mode="after")
    def _possible(self) -> Bench:
        for info in (INFO[name] for name in self.layouts):
            if self.images > info.n_train:
                raise ValueError(f"images = {self.images}: {info.title} allows 2 to {info.n_train}")
        return self

    @property
    def dataset(self) -> list[str]:
        return list(self.layouts)


class Summary(Parameters):
    """Notebook 05: computes nothing, and sums up the profile's stores."""


Experiment = Sweep | Mechanism | Oracles


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


def settings(network: Sweep | Mechanism | Oracles) -> dict[str, object]:
    """The parameters as a store records them, with the layer sizes that they amount to."""
    names = network.dataset if isinstance(network.dataset, list) else [network.dataset]
    sizes = {name: list(layer_sizes(network, name)) for name in names}
    return network.model_dump(mode="json", exclude_none=True) | {"sizes": sizes}


def check_memory(field: str, value: object, needed: float, what: str) -> None:
    """ValueError where the least that an experiment must hold is more than the memory of this machine."""
    if needed > (there := psutil.virtual_memory().total):
        sizes = f"{needed / 1e9:,.0f} GB, this machine has {there / 1e9:,.0f} GB"
        raise ValueError(f"{field} = {shown(value)}: the {what} alone take {sizes} of memory")
