"""The read-out budget: each term against simulation, and the same numbers in Python, the command and the page."""

import itertools
import json
import random
import subprocess
import sys
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import epkit
from epkit import bench, data
from epkit.__main__ import commands, main
from epkit.bench import answer, arithmetic, design, page, signals, table
from epkit.ep.learning import phases
from epkit.ep.prediction import predict_critical_limit, signals_before_training
from epkit.ep.readout import by_layer, draw
from epkit.ep.variants import LeakyNetwork
from epkit.readouts import Converter, Differential, Drift, Mismatch, Noise, RelativeNoise
from epkit.sweep import store

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "study" / f"{table.NOTEBOOK}.nc"
SIZES, GAIN, BETA, STEPS = (64, 32, 32, 10), 100.0, 0.3, 6
DESIGNS, IN_PROCESSES = 100, 2


@pytest.fixture(scope="module")
def network():
    """A network, its images and targets, its nudged phases, and what the budget makes of them."""
    x, t = signals.images("digits", 64)
    net = signals.untrained(SIZES, 0)
    net.input_gain = GAIN
    states = phases(net, x, t, beta=BETA, iterations=STEPS, estimator="centered")
    found = signals.nudged(net, x, t, net.relax(x, STEPS), beta=BETA, iterations=STEPS)
    return net, x, t, states, found


def error_of(network, readout, draws=40, common=False):
    """What a read-out adds to the second layer's estimate: rms for an image, or of the mean over all of them."""
    net, x, _, states, _ = network
    exact, squares = net.contrast(x, states, 2 * BETA).weights[1], []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        part = readout(seed) if callable(readout) and not hasattr(readout, "read") else readout
        xi = draw(part, (1, 2, len(x), sum(SIZES[1:])), generator)
        noise = None if xi is None else by_layer(xi.double(), states)
        read = net.contrast(x, part.read(states, noise), 2 * BETA).weights[1]
        squares.append(float((read - exact).square().mean()))
    return sqrt(np.mean(squares) * (1 if common else len(x)))


def test_the_signals_are_those_of_the_prediction(network):
    net, x, t, _, found = network
    other = signals_before_training(net, x, t, beta=BETA, iterations=STEPS, batch_size=8, estimator="centered")
    assert found["gradient"] == pytest.approx(float(other.mean_gradient[0, 1]), rel=0.02)
    assert found["noise"] == pytest.approx(float(other.noise[0, 1]), rel=0.2)  # a single draw of noise
    of_batch = sqrt(found["gradient"] ** 2 + found["spread"] ** 2 / 8)
    assert of_batch == pytest.approx(float(other.batch_gradient[0, 1]), rel=0.02)


def test_the_limit_and_the_reads_are_those_of_epkit(network):
    net = network[0]
    given = {"beta": BETA, "iterations": STEPS, "learning_rate": 0.05, "batch_size": 8}
    images = signals.images("digits", answer.IMAGES)
    limit = predict_critical_limit(net, *images, **given)
    reads = epkit.readouts_needed(net, *images, sigma=0.05, **given)
    own = epkit.budget(net, Noise(0.05), data="digits", **given).best
    assert (own["limit"], own["limit_low"]) == pytest.approx((limit.limit, limit.low), rel=0.05)
    assert own["reads"] == pytest.approx(reads.needed, rel=0.1, abs=1)


def test_voltages_are_in_proportion_to_gain_and_target(network):
    net, x, t, states, _ = network
    free = signals.untrained(SIZES, 0).relax(x, STEPS)
    for unit, at in zip(free, net.relax(x, STEPS), strict=True):
        torch.testing.assert_close(GAIN * unit, at)
    net.input_gain = GAIN / 3  # the whole network in volts a third as large
    scaled = phases(net, x, t / 3, beta=BETA, iterations=STEPS, estimator="centered")
    net.input_gain = GAIN
    for small, large in zip(scaled, states, strict=True):
        torch.testing.assert_close(3 * small, large)


@pytest.mark.parametrize(
    ("name", "readout", "volts"),
    [
        ("noise", Noise(1e-4), 1e-4),
        ("drift", Drift(2e-4, 1.0), 2e-4 / sqrt(2)),
        ("steps of the converter", Noise(4e-4) | Converter(bits=17, span=(-32, 32)), sqrt(16e-8 + 4.0**-11 / 12)),
    ],
)
def test_a_term_is_the_noise_that_spoils_the_estimate_as_much(network, name, readout, volts):
    assert error_of(network, readout) == pytest.approx(network[-1]["noise"] * volts, rel=0.05), name


def test_relative_noise_and_correlated_reads(network):
    assert error_of(network, RelativeNoise(1e-4)) == pytest.approx(network[-1]["relative_noise"] * 1e-4, rel=0.05)
    many = Noise(1e-4, correlation=0.2) | Noise(0.0)
    floor = error_of(network, many.averaged(10_000))
    assert floor == pytest.approx(network[-1]["noise"] * 1e-4 * sqrt(0.2), rel=0.05)


def test_a_converter_of_difference_and_mean(network):
    *_, found = network
    asked = {"correlation": 0.0, "noise": 0.0, "relative_noise": 0.0, "drift": 0.0, "adc_bits": 10, "adc_range": 40.0}
    fine, coarse = arithmetic._terms(asked, found, 1.0, "differential")[-2:]
    spans = [(-v, v) for v in found["largest_response"]]
    dither = Noise(0.05)  # of the mean, as large as half a step
    added = error_of(network, dither) ** 2
    both = (
        error_of(network, dither | Differential(Converter(bits=10, span=spans), Converter(bits=10, span=(-20, 20))))
        ** 2
    )
    expected = found["noise"] ** 2 * (fine["volts"] ** 2 + coarse["volts"] ** 2)
    assert expected < 0.05 * added or both - added == pytest.approx(expected, rel=0.3)
    alone = error_of(network, Differential(None, Converter(bits=10, span=(-20, 20))), draws=1)
    assert alone == pytest.approx(found["noise"] * coarse["volts"], rel=0.35)  # one circuit, without dither


def test_offsets_and_gains_bend_the_gradient_alike_in_all_steps(network):
    *_, found = network
    drawn = error_of(network, lambda seed: Mismatch(offset=1e-3, seed=seed), draws=60, common=True)
    assert drawn == pytest.approx(1e-3 * found["offset"], rel=0.15)
    drawn = error_of(network, lambda seed: Mismatch(gain=1e-3, seed=seed), draws=60, common=True)
    assert drawn == pytest.approx(1e-3 * found["gain_mismatch"], rel=0.15)


def test_the_table_is_what_a_pass_tells_between_its_points():
    plain = table.plain_table(TABLE)
    units = store.parameters(store.read(TABLE))["units"]
    x, t = signals.images("digits", 256)
    hidden = [128, 128]
    nets = [signals.untrained((64, *hidden, 10), seed) for seed in range(units // sum(hidden))]
    free = [net.relax(x, STEPS) for net in nets]
    for gain, beta in ((55.0, 0.1), (450.0, 0.5), (2000.0, 1.0)):
        found = arithmetic.interpolated(plain, plain["networks"][table.label_of("digits", hidden)], gain, beta)
        passes = []
        for net, states in zip(nets, free, strict=True):
            net.input_gain = gain
            passes.append(signals.nudged(net, x, t, [gain * v for v in states], beta=beta, iterations=STEPS))
        for key in (*signals.SIGNALS, *signals.NUDGED):
            direct = np.exp(np.mean([np.log(one[key]) for one in passes], axis=0))
            np.testing.assert_allclose(found[key], direct, rtol=0.15, err_msg=f"{key} at {gain}, {beta}")
        np.testing.assert_allclose(found["voltage"], [gain * v for v in plain_voltage(nets, free)], rtol=0.01)


def plain_voltage(nets, free):
    return np.exp(np.mean([np.log(signals.voltages(states)["voltage"]) for states in free], axis=0))


def random_designs():
    """Designs of all kinds, on the layouts of the table."""
    dice, plain = random.Random(25), table.plain_table(TABLE)
    zero_or = lambda low, high: dice.choice([0.0, 10 ** dice.uniform(low, high)])  # noqa: E731
    for label in itertools.islice(itertools.cycle(plain["networks"]), DESIGNS):
        dataset, layers = label.split()
        strongest = -0.6 if layers.startswith("32") else -0.1
        values = {
            "dataset": dataset, "hidden": [int(n) for n in layers.split("-")],
            "input_gain": [10 ** dice.uniform(1.3, 3.5) for _ in range(dice.randint(1, 2))],
            "target": dice.choice([1.0, 1.0, 0.5, 1.7]), "beta": [10 ** dice.uniform(-1.5, strongest)],
            "learning_rate": [10 ** dice.uniform(-2.5, -1)], "batch_size": [dice.choice([1, 4, 8, 32])],
            "scheme": dice.choice([["direct"], ["differential"], ["direct", "differential"]]),
            "noise": zero_or(-6, -2), "correlation": dice.choice([0.0, 0.0, 0.01, 1.0]),
            "relative_noise": zero_or(-6, -2), "offset": zero_or(-5, -1), "gain_mismatch": zero_or(-5, -1),
            "drift": zero_or(-7, -4), "write_noise": zero_or(-3, 0), "programming_noise": zero_or(-6, -2),
            "margin": dice.choice([1.0, 3.0, 5.5]), "most_reads": dice.choice([100, 10_000, 1_000_000]),
            "images": dice.choice([7000, 70_000]), "read_time": zero_or(-8, -4), "read_energy": zero_or(-12, -8),
        }  # fmt: skip
        if dice.random() < 0.3:  # as the study's networks, or nearly
            values |= {"input_gain": [1100.0], "beta": [0.2], "learning_rate": [0.02], "batch_size": [8], "target": 1.0}
        else:
            values["input_gain"] = sorted(gain * values["target"] for gain in values["input_gain"])
            values |= {"adc_bits": dice.randint(6, 18), "adc_range": 10 ** dice.uniform(-1, 2)}
        yield values


@pytest.fixture(scope="module")
def answers():
    return [(values, epkit.budget(**values).to_dict()) for values in random_designs()]


def alike(one, other, place="answer"):
    """The same content, numbers to rounding."""
    if isinstance(one, dict):
        assert set(one) >= set(other), place
        for key in other:
            alike(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for k, pair in enumerate(zip(one, other, strict=True)):
            alike(*pair, f"{place}[{k}]")
    elif isinstance(one, float) or isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-300), place
    else:
        assert one == other, place


def options_of(values):
    text = lambda value: ",".join(map(str, value)) if isinstance(value, list) else str(value)  # noqa: E731
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", text(value))]


def test_designs_of_all_kinds_are_answered_in_all_ways(answers):
    assert {one["reason"] for _, found in answers for one in found["candidates"]} == set(arithmetic.REASONS)
    assert any(found["nearest"] for _, found in answers)


def test_the_command_gives_the_same_numbers(answers):
    for values, expected in answers:
        done = CliRunner().invoke(commands, ["budget", "--json", *options_of(values)])
        assert done.exit_code == 0, done.output
        alike(json.loads(done.output), json.loads(json.dumps(expected)))
    for values, expected in answers[:IN_PROCESSES]:
        command = [sys.executable, "-m", "epkit", "budget", "--json", *options_of(values)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        alike(json.loads(done.stdout), json.loads(json.dumps(expected)))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return page.write(tmp_path_factory.mktemp("page") / "budget.html").as_uri()


@pytest.fixture
def opened(browser, address):
    """The page from its file, without a network; anything that it asks for or complains of fails the test."""
    context = browser.new_context(offline=True)
    shown, wrong = context.new_page(), []
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("request", lambda asked: wrong.append(asked.url) if asked.url != address else None)
    shown.goto(address)
    yield shown
    context.close()
    assert not wrong


@pytest.mark.chromium
def test_the_page_gives_the_same_numbers(opened, answers):
    designs = [found["design"] for _, found in answers]
    told = opened.evaluate(
        "designs => designs.map(d => { const a = epkit.answer(d); return {...a, sentence: epkit.sentence(a)} })",
        designs,
    )
    for (_, expected), found in zip(answers, told, strict=True):
        words = found.pop("sentence")
        alike(json.loads(json.dumps(expected)), found)
        assert words.partition(":")[0] == expected["sentence"].partition(":")[0]


@pytest.mark.chromium
def test_the_page_begins_with_the_designers_board(opened):
    expected = epkit.budget(**bench.board("designer")).to_dict()
    alike(json.loads(json.dumps(expected)), opened.evaluate("() => epkit.answer(epkit.designed())"))
    assert opened.locator("#reads").inner_text() == f"{expected['best']['reads']:,}"
    assert opened.locator("#sentence").inner_text() == expected["sentence"]


@pytest.mark.chromium
def test_a_slider_moves_the_number_and_the_figure_by_keyboard_alone(opened):
    before = opened.locator("#reads").inner_text(), opened.locator("#limit-figure").inner_html()
    slider = opened.get_by_label("noise of a read, slider")
    slider.focus()
    for _ in range(12):
        opened.keyboard.press("PageUp")
    after = opened.locator("#reads").inner_text(), opened.locator("#limit-figure").inner_html()
    assert before[0] != after[0]
    assert before[1] != after[1]
    opened.get_by_label("noise of a read", exact=True).fill("0.3mV")
    assert (opened.locator("#reads").inner_text(), opened.locator("#limit-figure").inner_html()) == before


@pytest.mark.chromium
def test_the_page_says_what_it_can_not_take(opened):
    opened.get_by_label("noise of a read", exact=True).fill("3 q")
    assert "noise of a read: 3 q is no number in V" in opened.get_by_role("alert").inner_text()
    opened.get_by_label("noise of a read", exact=True).fill("1 mV")
    assert not opened.get_by_role("alert").is_visible()
    opened.get_by_label("nudge β", exact=True).fill("7")
    assert "beta = 7: allowed are" in opened.get_by_role("alert").inner_text()


@pytest.mark.chromium
def test_every_input_has_a_label_and_nothing_is_wider_than_a_telephone(browser, address):
    context = browser.new_context(viewport={"width": 360, "height": 740}, offline=True)
    shown = context.new_page()
    shown.goto(address)
    nameless = "[...document.querySelectorAll('input,select')].filter(e => !e.labels.length && !e.ariaLabel).length"
    assert shown.evaluate(nameless) == 0
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


@pytest.mark.parametrize("field", [name for name in design.Design.model_fields if name not in ("dataset", "scheme")])
def test_an_option_that_makes_no_sense_is_refused_by_its_name(field, capsys):
    assert main(["budget", f"--{field.replace('_', '-')}", "-1"]) == 1
    told = capsys.readouterr()
    assert not told.out
    (line,) = told.err.splitlines()
    assert line.startswith(f"budget: {field}")
    assert main(["budget", f"--{field.replace('_', '-')}", "3 apples"]) == 1
    assert capsys.readouterr().err.startswith(f"budget: {field}")


def test_what_else_is_refused(tmp_path, capsys):
    for arguments, message in {
        ("--datset", "mnist"): "No such option '--datset'. (Did you mean one of: '--dataset'",
        ("--dataset", "minst"): "dataset = 'minst': no such data set; did you mean mnist?",
        ("--scheme", "twice"): "scheme.0 = 'twice': Input should be 'direct' or 'differential'",
        ("--adc-bits", "12"): "adc_range = None: is needed with adc_bits = 12",
        ("--beta", "70", "--dataset", "digits", "--hidden", "128,128"): "beta = 70: allowed are",
        ("board.yaml",): "board.yaml: cannot be read",
        ("desinger",): "board = 'desinger': no such board; did you mean designer?",
    }.items():
        assert main(["budget", *arguments]) != 0
        assert message in capsys.readouterr().err
    (tmp_path / "mine.yaml").write_text("nois: 3\n")
    assert main(["budget", str(tmp_path / "mine.yaml")]) == 1
    assert "mine.yaml: nois: no such parameter; did you mean noise?" in capsys.readouterr().err


def test_networks_and_read_outs_that_no_formula_describes_are_refused(tmp_path):
    values = {"data": "digits", "input_gain": 100.0, "beta": 0.3}
    converter = Converter(bits=10, span=(-20, 20))
    refused = {
        "'noise 30 mV' must stand before the converter": {"readout": converter | Noise(0.03)},
        "must be the same throughout training": {"readout": epkit.Schedule(0.01)},
        "network = LeakyNetwork: no formula": {"network": LeakyNetwork((64, 32, 10), input_gain=20.0)},
        "table = .*nowhere.nc': no such store": {"table": tmp_path / "nowhere.nc"},
        "10_confirmation.mnist.nc: is no table of": {"table": store.results("study") / "10_confirmation.mnist.nc"},
    }
    for message, change in refused.items():
        given = {name: value for name, value in values.items() if name != "input_gain" or "network" not in change}
        with pytest.raises((ValueError, epkit.StoreError), match=message):
            epkit.budget(**({"network": (32, 32)} | given | change))


def test_a_table_that_is_made_later_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "results", lambda profile: tmp_path)
    values = {"network": (128, 128, 128), "data": "mnist"}
    assert "pass" in epkit.budget(**values).source
    (tmp_path / TABLE.name).write_bytes(TABLE.read_bytes())
    assert "interpolated" in epkit.budget(**values).source


def test_a_set_of_ones_own_may_be_small(own_set):
    assert "a pass of 40 images" in epkit.budget((32, 32), Noise(0.03), data=own_set, input_gain=100.0, beta=0.3).source


@pytest.fixture
def own_set():
    x, y = torch.rand(60, 64, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 10
    epkit.add_data("small", (x[:40], y[:40]), (x[40:], y[40:]))
    yield "small"
    data.INFO.pop("small")


def test_boards_are_designs_and_read_outs_are_boards():
    for path in sorted((ROOT / "boards").glob("*.yaml")):
        assert design.designed(bench.board(path.stem), path.name)
    readout = Mismatch(offset=2e-3, gain=0.01) | Noise(3e-4, correlation=0.1) | Converter(bits=12, span=(-0.5, 0.5))
    assert design.imperfections(readout) == {
        "offset": 2e-3, "gain_mismatch": 0.01, "noise": 3e-4, "correlation": 0.1, "adc_bits": 12, "adc_range": 1.0,
    }  # fmt: skip


def test_it_is_answered_at_once_and_trains_when_asked():
    values = {"network": (32, 32), "data": "digits", "input_gain": 100.0, "beta": 0.3, "noise": "1mV"}
    trained = epkit.budget(**values, train=0.5).trained
    assert len(trained["error"]) == len(trained["sigma"]) == len(answer.AROUND)
    assert all(0 <= error <= 1 for error in trained["error"])


def test_the_listed_sweeps_are_those_of_the_stores():
    path = store.results("study") / "10_confirmation.mnist.nc"
    listed = [row for row in table.plain_table(TABLE)["sweeps"] if row["store"] == f"study/{path.name}"]
    assert listed
    ds = store.read(path)
    for row in listed:
        error = ds.test_error.isel(dataset=0, averaging=0, samples=0, epoch=-1).sel(learning_rate=row["learning_rate"])
        diverged = ds.diverged.isel(dataset=0, averaging=0, samples=0).sel(learning_rate=row["learning_rate"]) == 1
        mean = (
            error.where(~(diverged.any("epoch") if "epoch" in diverged.dims else diverged), ds.chance.item())
            .mean("seed")
            .sortby("sigma")
        )
        np.testing.assert_allclose(row["error"], mean.sel(sigma=mean.sigma > 0).values, rtol=1e-3)
