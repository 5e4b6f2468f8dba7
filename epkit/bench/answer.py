"""`epkit.budget`: what a board's read-outs let a network learn, and how many reads that takes, without training."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import data as datasets
from ..ep import checks
from ..ep.networks import DeepResistiveNetwork, Network
from ..ep.probe import evaluate, relative_rates
from ..ep.training import train as trained
from ..messages import ParameterError, markdown, shown
from ..readouts.chain import quantity
from ..readouts.parts import Mismatch, Noise
from ..sweep import store
from . import arithmetic, signals
from .design import Design, designed, imperfections
from .table import NOTEBOOK, label_of, plain_table

PROFILE = "study"  # whose table is interpolated
IMAGES, REFERENCES = 256, 2  # of a pass of a layout that the table hasn't, and its untrained networks
MOST_ROWS = 8  # of candidates that are shown
MOST_TRAINED, TIMED, AROUND = 8000, 200, (0.0, 0.5, 1.0, 2.0, 4.0)  # images; times the noise of the best candidate


@dataclass(frozen=True, repr=False)
class Answer:
    """A budget. Everything in it is *predicted* from untrained networks, but `trained`.

    Attributes:
        design: what was asked.
        candidates: each setting asked for, as asked and as it fits the converter: what it takes, in plain numbers.
        best: that which works with the fewest reads, or comes closest; what no stored sweep is near to stands behind.
        nearest: the stored sweep most like it, with the error there; None if none is near.
        cost: reads of its training, with time (s) and energy (J); None if no number of reads will do.
        source: where the signals are from.
        trained: what training around the best gave, if that was asked for.
    """

    design: dict[str, Any]
    candidates: list[dict[str, Any]]
    best: dict[str, Any]
    nearest: dict[str, Any] | None
    cost: dict[str, float] | None
    source: str
    trained: dict[str, Any] | None = None

    @property
    def works(self) -> bool:
        return not self.best["reason"]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        names = ("design", "candidates", "best", "nearest", "cost", "source", "trained")
        return {name: getattr(self, name) for name in names} | {"works": self.works, "sentence": sentence(self)}

    def __str__(self) -> str:
        return _text(self)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return _markdown(self)


def budget(
    network: Sequence[int] | DeepResistiveNetwork | None = None, readout: Any = None, *,
    data: str | None = None, train: float | None = None, table: str | Path | None = None, **options: Any,
) -> Answer:  # fmt: skip
    """Will a network learn with these read-outs, and how many must be averaged? A prediction; nothing is trained.

    Args:
        network: units of each hidden layer, or an untrained `DeepResistiveNetwork` of 10 outputs, no variant of it.
            Layouts of the table in results/ are interpolated there; any other is looked at in a pass.
        readout: one read, of the parts of `epkit.readouts` (or a `GaussianReadout`); None takes the options alone.
        data: name of the data set, as in `epkit.run`.
        train: seconds (about) to train around the best candidate; None: nothing is trained.
        table: store of `epkit.bench.signal_table`; None: that of the study, or none where there is none.
        options: fields of `epkit.bench.design.Design`: candidates (beta, input_gain, learning_rate, batch_size,
            scheme), imperfections (noise and adc_bits, for example, as numbers or as texts with a unit), margin, …

    Raises:
        ValueError: for what makes no design, by its name (a ParameterError, where it is an option).
        StoreError: where `table` is another store.
    """
    for name, value in (("hidden", network), ("dataset", data)):
        if value is not None and name in options:
            raise ValueError(f"{name} = {shown(options[name])}: is given twice")
    if data is not None:
        options["dataset"] = data
    if readout is not None:
        given = imperfections(readout)
        if twice := sorted(set(given) & set(options) - {"scheme"}):
            raise ValueError(f"{twice[0]} = {shown(options[twice[0]])}: is given by the readout, too")
        options = given | options
    if table is not None and not Path(table).exists():
        raise ValueError(f"table = {shown(str(table))}: no such store")
    if isinstance(network, Network):
        if type(network) is not DeepResistiveNetwork:
            what = type(network).__name__
            raise ValueError(f"network = {what}: no formula of the budget describes it, only a DeepResistiveNetwork")
        options = {"hidden": list(network.sizes[1:-1]), "input_gain": network.input_gain} | options
    elif network is not None:
        options["hidden"] = list(network) if isinstance(network, Sequence) and not isinstance(network, str) else network
    return answered(designed(options), network if isinstance(network, DeepResistiveNetwork) else None, train, table)


def answered(
    design: Design, net: DeepResistiveNetwork | None = None, seconds: float | None = None,
    path: str | Path | None = None,
) -> Answer:  # fmt: skip
    """The answer to a design, of the table or of a pass; with training for about so many seconds."""
    path = store.results(PROFILE) / f"{NOTEBOOK}.nc" if path is None else Path(path)
    plain = plain_table(path)
    label = label_of(design.dataset, design.hidden)
    asked = design.model_dump(mode="json")
    known = net is None and label in plain.get("networks", {}) and design.iterations == plain["iterations"]
    if known:
        look: arithmetic.Look = partial(arithmetic.interpolated, plain, plain["networks"][label])
        source = f"{path.parent.name}/{path.name}, interpolated"
    else:
        look, images = _pass(design, net)
        source = f"a pass of {images} images"
    try:
        found = arithmetic.candidates(asked, look, signals.SHARES, plain.get("sweeps", []))
    except ValueError as error:  # beyond the table, or a nudge that the network can't bear
        raise ParameterError(f"budget: {error}") from None
    best = arithmetic.best(found)
    answer = Answer(asked, found, best, best["nearest"], arithmetic.cost(asked, best), source)
    return answer if seconds is None else replace(answer, trained=_train(design, best, seconds))


def _pass(design: Design, net: DeepResistiveNetwork | None) -> tuple[arithmetic.Look, int]:
    """Signals at any gain and nudge from passes of untrained networks, and of how many images."""
    x, t = signals.images(design.dataset, min(IMAGES, datasets.INFO[design.dataset].n_train))
    sizes = (x.shape[1], *design.hidden, t.shape[1])
    if net is None:
        nets = [signals.untrained(sizes, seed) for seed in range(REFERENCES)]
    else:
        if net.sizes != sizes or net.members != 1 or any(bool(b.any()) for b in net.biases):
            raise ValueError(f"network: must be untrained, of one member and the sizes {sizes} of {design.dataset}")
        twin = copy(net)
        twin.weights, twin.biases = ([p.double().cpu() for p in ps] for ps in (net.weights, net.biases))
        twin.input_gain = 1.0
        nets = [twin]
    free = [net.relax(x, design.iterations) for net in nets]
    seen = [signals.voltages(states) for states in free]

    @cache
    def look(gain: float, beta: float) -> arithmetic.Signals:
        passes = []
        for each, states in zip(nets, free, strict=True):
            each.input_gain = gain
            moved = [gain * v for v in states]
            passes.append(signals.nudged(each, x, t, moved, beta=beta, iterations=design.iterations))
        found: arithmetic.Signals = {
            key: np.exp(np.mean([np.log(one[key]) for one in passes], axis=0)).tolist() for key in passes[0]
        }
        return found | {key: (gain * np.mean([one[key] for one in seen], axis=0)).tolist() for key in seen[0]}

    return look, len(x)


def _train(design: Design, best: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Test errors after training with the noise of the best candidate, less and more of it, for about so long.

    The terms of the noise are summed to one, in the same units as the simulation's target of 1 V; offsets and gains are
    as they are. Says on stderr how many images will be shown, by a short timing.
    """
    number = checks.number("train", seconds, above=0.0)
    if best["reads"] is None:
        raise ValueError(f"train = {seconds:g}: no number of reads will do, so there is nothing to train with")
    info = datasets.INFO[design.dataset]
    split = datasets.load(design.dataset, train=min(info.n_train, MOST_TRAINED), test=min(info.n_test, 1000))
    t, batch = best["target"], best["batch_size"]
    sigma = sqrt(best["averaged"] ** 2 / best["reads"] + best["floor"] ** 2) / t
    sigmas = [sigma * factor for factor in AROUND]
    sizes = (split.x_train.shape[1], *design.hidden, 10)
    settings = {"beta": best["beta"], "iterations": design.iterations, "batch_size": batch}
    gain = best["input_gain"] / t
    rates = relative_rates(sizes, split.x_train, split.y_train, input_gain=gain, **settings) * best["learning_rate"]
    readout = Mismatch(design.offset / t, design.gain_mismatch) | Noise(torch.tensor(sigmas))

    def errors(images: int) -> Any:
        net = DeepResistiveNetwork(sizes, input_gain=gain, members=len(sigmas))
        epochs = max(1, round(images / len(split.x_train)))
        x, y = split.x_train[: max(2 * batch, images)], split.y_train[: max(2 * batch, images)]
        trained(net, x, y, epochs=epochs, learning_rates=rates.tolist(), readout=readout, **settings)
        return min(images, epochs * len(x)), evaluate(net, split.x_test, split.y_test, design.iterations)[0]

    started = time.monotonic()
    errors(TIMED)
    speed = TIMED / (time.monotonic() - started)
    images = int(min(design.images, max(2 * batch, number * speed)))
    print(f"Training {images:,} images, about {images / speed:.0f} s", file=sys.stderr)
    shown_images, error = errors(images)
    return {"images": shown_images, "sigma": [sigma_ * t for sigma_ in sigmas], "error": error.tolist()}


def sentence(answer: Answer) -> str:
    """Yes or no, with what, how many reads, which error to expect, and what binds."""
    best, why = answer.best, REASONS[answer.best["reason"]]
    how = f"β = {best['beta']:g}, A = {volts(best['input_gain'])} and a target of {volts(best['target'])}"
    if not answer.works:
        return f"No, predicted: with {how}, {why.format(**_words(answer))}."
    scheme = f", {best['scheme']} conversion" if answer.design["adc_bits"] else ""
    near = answer.nearest
    error = (
        f"expected error {interval(near)} as in {near['store']}"
        if near
        else "no stored sweep is near, so train before you build"
    )
    yes = "Yes, predicted" if near else "Yes, predicted but untested"
    return (
        f"{yes}: with {how}{scheme}, average N = {best['reads']:,} reads, from {best['reads_low']:,} to "
        f"{_count(best['reads_high'])}; {error}; what binds: {best['binding']}."
    )


REASONS = {
    "": "",
    "range": "the voltages exceed the converter's range, whatever N",
    "bias": "{binding} bend the gradient by {bias:.0%} of itself, which no number of reads averages away",
    "floor": "no number of reads will do: {binding} does not average, and alone is {above:.2g} times what is allowed",
    "reads": "{reads:,} reads would have to be averaged, and {most:,} can be; what binds: {binding}",
}


def _words(answer: Answer) -> dict[str, Any]:
    best, margin = answer.best, answer.design["margin"]
    return {
        "binding": best["binding"], "bias": sqrt(best["offset"] ** 2 + best["gain_mismatch"] ** 2),
        "above": margin * best["floor"] / best["limit"], "reads": best["reads"], "most": answer.design["most_reads"],
    }  # fmt: skip


def volts(value: float) -> str:
    return quantity(value, "V")


def percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def verdict(candidate: dict[str, Any]) -> str:
    return candidate["reason"] or ("works" if candidate["nearest"] else "untested")


def interval(near: dict[str, Any]) -> str:
    return f"{percent(near['error'])} [{percent(near['low'])}, {percent(near['high'])}]"


def _count(reads: int | None) -> str:
    return "no number" if reads is None else f"{reads:,}"


Section = tuple[str, tuple[list[str], list[list[str]]] | str]


def _sections(answer: Answer) -> list[Section]:
    """What the answer says, in order: a title, and a text or a table's columns and rows."""
    design, best, asked = answer.design, answer.best, answer.candidates[0]
    half = None if design["adc_range"] is None else design["adc_range"] / 2
    size = "-".join(map(str, design["hidden"]))
    fits = "no converter limits them" if half is None else f"the converter takes ±{volts(half)}"
    usable = "" if half is None else f"; the largest usable input gain is A = {volts(asked['usable_gain'])}"
    columns = ["layer", "rms", "largest", "beyond the range", "the nudge moves (rms)", "largest, best"]
    voltages = [
        [
            str(k),
            volts(a["voltage"]),
            volts(a["largest"]),
            percent(a["beyond"]),
            volts(a["response"]),
            volts(b["largest"]),
        ]
        for k, (a, b) in enumerate(zip(asked["layers"], best["layers"], strict=True), 1)
    ]
    noise = sqrt(best["averaged"] ** 2 + best["floor"] ** 2)
    limit = (
        f"{volts(best['limit'])} for a read, in 95 % of such networks {volts(best['limit_low'])} to "
        f"{volts(best['limit_high'])}; all that spoils a read of this board is as {volts(noise)} of noise, and is to "
        f"stay {design['margin']:g} times below"
    )
    alone = [
        [term["name"], volts(term["volts"]), "yes" if term["averages"] else "no", _count(term["alone"])]
        for term in best["terms"] if term["volts"] > 0
    ] + [
        [name, f"{percent(best[key])} of the gradient", "no", "1" if best[key] <= arithmetic.BIAS else "no number"]
        for key, name in (("offset", "offsets"), ("gain_mismatch", "gain mismatch")) if best[key] > 0
    ]  # fmt: skip
    rows = [
        [c["fit"], volts(c["input_gain"]), volts(c["target"]), f"{c['beta']:g}", f"{c['learning_rate']:g}",
         str(c["batch_size"]), c["scheme"], volts(c["limit"]), _count(c["reads"]),
         f"{_count(c['reads_low'])} to {_count(c['reads_high'])}", verdict(c)]
        for c in sorted(answer.candidates, key=arithmetic.rank)[:MOST_ROWS]
    ]  # fmt: skip
    names = ["", "A", "target", "β", "η", "B", "scheme", "limit", "reads N", "range of N", "verdict"]
    sections: list[Section] = [
        (f"Read-out budget of {size} on {design['dataset']}", f"predicted from untrained networks: {answer.source}"),
        (f"Voltages before training: {fits}{usable}", (columns, voltages)),
        ("Predicted limit of the best candidate", limit),
        ("Candidates, the best first", (names, rows)),
        ("What each imperfection costs alone", (["", "as noise of a read", "averages", "reads N"], alone)),
    ]
    return [*sections, *_facts(answer), ("", sentence(answer))]


def _facts(answer: Answer) -> list[Section]:
    found: list[Section] = []
    if (near := answer.nearest) is not None:
        text = (
            f"{interval(near)} of {near['n']} seeds, at this noise in {near['store']}, "
            f"{near['distance']:.2f} decades away"
        )
        found.append(("Expected test error", text))
    if answer.cost is not None and answer.cost["seconds"] + answer.cost["joules"] > 0:
        spent = f"{quantity(answer.cost['seconds'], 's')}, {quantity(answer.cost['joules'], 'J')}"
        text = f"{spent} for {answer.cost['reads']:.3g} reads of all units"
        found.append(("Time and energy of the reads", text))
    if answer.trained is not None:
        pairs = zip(answer.trained["sigma"], answer.trained["error"], strict=True)
        rows = [[volts(sigma), percent(error)] for sigma, error in pairs]
        found.append(
            (f"Trained on {answer.trained['images']:,} images", (["noise after averaging", "test error"], rows))
        )
    return found


def _text(answer: Answer) -> str:
    lines: list[str] = []
    for title, content in _sections(answer):
        if isinstance(content, str):
            lines += textwrap.wrap(f"{title}: {content}" if title else content, 110)
        else:
            columns, rows = content
            widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
            lines += [f"{title}:"] if rows else []
            lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in [columns, *rows] if rows]
        lines.append("")
    return "\n".join(lines[:-1])


def _markdown(answer: Answer) -> str:
    parts = []
    for title, content in _sections(answer):
        if isinstance(content, str):
            parts.append(f"**{title}:** {content}" if title else f"**{content}**")
        elif content[1]:
            parts.append(f"**{title}**\n\n{markdown(*content)}")
    return "\n\n".join(parts)
