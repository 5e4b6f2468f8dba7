"""Read-outs that follow training and learning rates that rise, on every engine, between records, after a kill."""

import itertools
import math

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

import epkit
from epkit import data
from epkit.ep import engine, schedule
from epkit.ep.networks import Gradient
from epkit.ep.training import State
from epkit.messages import ParameterError
from epkit.sweep import ensemble, store
from epkit.sweep.parameters import Point, Sweep
from epkit.validation import validated

SIZES, BATCH, IMAGES = (64, 16, 12, 10), 8, 80
STEPS = IMAGES // BATCH
compiled = pytest.mark.skipif(engine.library() is None, reason="no C++ compiler on this machine")
few = settings(max_examples=4, deadline=None)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train=IMAGES, test=50)


def network(members=1, seed=0, dtype=torch.float64):
    return epkit.DeepResistiveNetwork(SIZES, input_gain=40.0, members=members, seed=seed, dtype=dtype)


def trained(digits, readout, *, net=None, epochs=1, engine="eager", **more):
    net = net or network()
    history = epkit.train(
        net, digits.x_train, digits.y_train, epochs=epochs, batch_size=BATCH, beta=0.2, iterations=3,
        learning_rates=(0.01, 0.05, 0.05), readout=readout, engine=engine, **more,
    )  # fmt: skip
    return net, history


def same(a, b, tolerance=0.0):
    return all(
        torch.allclose(p, q, rtol=0, atol=tolerance)
        for p, q in zip([*a.weights, *a.biases], [*b.weights, *b.biases], strict=True)
    )


class Switched(epkit.GaussianReadout):
    """Another sigma in each step."""

    def __init__(self, sigmas):
        super().__init__(1.0)
        object.__setattr__(self, "sigmas", iter(sigmas))

    def read(self, states, noise):
        sigma = next(self.sigmas)
        return [v + sigma * xi for v, xi in zip(states, noise, strict=True)]


@pytest.fixture
def reads_of(monkeypatch):
    """What the learning rule read and what was true, step by step."""
    seen, original = [], epkit.GaussianReadout.read

    def read(self, states, noise):
        found = original(self, states, noise)
        seen.append(([v.clone() for v in states], [v.clone() for v in found]))
        return found

    monkeypatch.setattr(epkit.GaussianReadout, "read", read)
    return seen


def noise_at(reads):
    """rms of what a step's reads differ by from the truth, in each layer."""
    return [[float((b - a).square().mean().sqrt()) for a, b in zip(*step, strict=True)] for step in reads]


@pytest.mark.parametrize("averaging", ["shortcut", "explicit"])
@pytest.mark.parametrize(("sigma", "samples"), [(0.0, 1), (1e-2, 1), (1e-3, 5)])
def test_a_schedule_of_constant_noise_is_a_gaussian_read_out_to_the_bit(digits, sigma, samples, averaging):
    plain, history = trained(digits, epkit.GaussianReadout(sigma, samples, averaging))
    for readout in (
        epkit.Schedule(sigma, samples, averaging),
        epkit.Schedule(sigma, samples, averaging, reads=lambda images: 1, layers=(1, 2, 3)),
        epkit.Schedule(sigma, samples, averaging, updates=(1, 2, 3, "biases")),
    ):
        followed, told = trained(digits, readout)
        assert same(plain, followed)
        assert told.reads.values == pytest.approx(samples)
        xr.testing.assert_equal(told.drop_vars("reads"), history)


@few
@given(factor=st.sampled_from([2, 4, 9]))
def test_more_reads_are_less_noise(digits, factor):
    """N over `samples` divides the noise by sqrt(N): as a smaller sigma does."""
    followed, _ = trained(digits, epkit.Schedule(1e-3, reads=lambda images: factor))
    plain, _ = trained(digits, epkit.GaussianReadout(1e-3 / factor**0.5))
    assert same(plain, followed, 1e-6)
    assert not same(plain, trained(digits, epkit.GaussianReadout(1e-3))[0], 1e-6)


@pytest.mark.parametrize("which", ["eager", pytest.param("native", marks=compiled)])
def test_noise_that_never_is_or_has_ended_is_none(digits, which):
    quiet, _ = trained(digits, None, engine=which)
    noisy, _ = trained(digits, epkit.GaussianReadout(1e-2), engine=which)
    for reads in (schedule.until(0), schedule.after(10**9)):
        found, history = trained(digits, epkit.Schedule(1e-2, reads=reads), engine=which)
        assert same(found, quiet)
        assert np.isinf(history.reads.values).all()
    for reads in (schedule.until(10**9), schedule.after(0)):
        assert same(trained(digits, epkit.Schedule(1e-2, reads=reads), engine=which)[0], noisy)


@few
@given(step=st.integers(0, STEPS), offset=st.integers(0, BATCH - 1), looks=st.sampled_from([None, 3]))
def test_noise_is_there_until_or_after_the_image_that_is_said(digits, step, offset, looks):
    """From the first step on that begins with so many images behind it."""
    images = max(0, BATCH * step - offset)
    for rule, sigmas in ((schedule.until, (1e-2, 0.0)), (schedule.after, (0.0, 1e-2))):
        found, _ = trained(digits, epkit.Schedule(1e-2, reads=rule(images)), looks=looks)
        by_hand, _ = trained(digits, Switched([sigmas[0]] * step + [sigmas[1]] * STEPS))
        assert same(found, by_hand, 1e-6)  # sigma is rounded to float32 there


def test_noise_in_one_layer_leaves_the_reads_of_the_others_exact(digits, reads_of):
    for layer in (1, 2, 3):
        reads_of.clear()
        trained(digits, epkit.Schedule(1e-3, layers=[layer]))
        assert len(reads_of) == STEPS
        for step in noise_at(reads_of):
            assert step[layer - 1] == pytest.approx(1e-3, rel=0.5)
            assert [noise for k, noise in enumerate(step, 1) if k != layer] == [0.0, 0.0]


@pytest.mark.parametrize("updates", [(1,), (2,), (3,), ("biases",), (1, "biases"), ()])
def test_only_the_updates_that_are_named_come_from_noisy_reads(digits, updates):
    x, target = digits.x_train[:8].double(), one_hot(digits.y_train[:8], 10).double()

    def estimate(readout):
        generator = torch.Generator().manual_seed(5)
        return epkit.gradient(network(), x, target, beta=0.2, iterations=3, readout=readout, generator=generator)

    exact, noisy = estimate(None), estimate(epkit.GaussianReadout(1e-2))
    mixed = estimate(epkit.Schedule(1e-2, updates=updates))
    for k, (a, b, c) in enumerate(zip(exact.weights, noisy.weights, mixed.weights, strict=True), 1):
        assert torch.equal(c, b if k in updates else a)
        assert not torch.equal(a, b)
    for a, b, c in zip(exact.biases, noisy.biases, mixed.biases, strict=True):
        assert torch.equal(c, b if "biases" in updates else a)
    trained_so, quiet = (trained(digits, readout)[0] for readout in (epkit.Schedule(1e-2, updates=updates), None))
    assert same(trained_so, quiet) == (not updates)
    fast, history = trained(digits, epkit.Schedule(1e-2, updates=updates), engine="auto")
    assert history.engine == ("native" if engine.library() else "eager")
    assert same(trained_so, fast, 1e-9)


def test_a_gradient_and_a_look_read_as_the_schedule_says(digits):
    """Not only training: layers, updates, and N at the time of the look."""
    x, target = digits.x_train[:8].double(), one_hot(digits.y_train[:8], 10).double()
    exact = epkit.gradient(network(), x, target, beta=0.2, iterations=3)
    last = epkit.gradient(network(), x, target, beta=0.2, iterations=3, readout=epkit.Schedule(1e-2, layers=[3]))
    differs = [not torch.equal(a, b) for a, b in zip(exact.weights, last.weights, strict=True)]
    assert differs == [False, False, True]

    def seen(readout):
        return trained(digits, readout, epochs=2, looks=1)[1].signal_to_noise[:, 0].values

    quiet = seen(epkit.Schedule(1e-4, reads=schedule.until(IMAGES)))
    assert np.isinf(quiet).all()
    finite = np.isfinite(seen(epkit.Schedule(1e-4, layers=[3])))
    assert (finite == [False, False, True]).all()
    assert (np.isfinite(seen(epkit.Schedule(1e-4, updates=[2]))) == [False, True, False]).all()
    grown, constant = (seen(epkit.Schedule(1e-8, reads=f)) for f in (lambda n: 1 if n < IMAGES else 4, None))
    np.testing.assert_allclose(grown[0] / constant[0], 2, rtol=1e-3)


@given(images=st.integers(1, 10**6), seen=st.integers(0, 10**9))
def test_rules_are_as_documented(images, seen):
    assert schedule.until(images)(seen) == (1 if seen < images else math.inf)
    assert schedule.after(images)(seen) == (math.inf if seen < images else 1)
    growing, doubling = schedule.growing(images), schedule.doubling(images)
    assert growing(0) == doubling(0) == 1
    assert growing(seen + images) - growing(seen) == pytest.approx(1, rel=1e-6)
    if seen < 900 * images:
        assert doubling(seen + images) == 2 * doubling(seen)
        assert doubling(seen // images * images) == doubling(seen)


def test_the_history_tells_the_mean_number_of_reads(digits):
    _, history = trained(digits, epkit.Schedule(1e-3, samples=3, reads=schedule.growing(40)), epochs=2, looks=2)
    seen = np.arange(2 * STEPS) * BATCH
    expected = 3 * (1 + seen / 40).reshape(4, -1).mean(1)
    np.testing.assert_allclose(history.reads[:, 0], expected, rtol=1e-6)
    _, history = trained(digits, epkit.Schedule(1e-3, samples=2, reads=schedule.doubling(80)))
    np.testing.assert_allclose(history.reads[0], 2 * (2 ** (seen[:STEPS] // 80)).mean())


def adaptive(bound, sigma=1e-2, **more):
    return epkit.Adaptive(sigma, bound=bound, every=40, **more)


@compiled
def test_adaptive_reads_are_the_same_by_the_native_engine(digits):
    sigma, found = torch.tensor([0.0, 1e-3, 3e-2]), []
    for which in ("eager", "native"):
        net = network(members=3, seed=(0, 1, 1))
        found.append(trained(digits, adaptive(1.5, sigma), net=net, epochs=2, engine=which, seed=(0, 1, 1)))
    (eager, history), (native, other) = found
    assert same(eager, native, 1e-8)
    np.testing.assert_array_equal(history.reads, other.reads)
    assert history.reads[-1, 0] < history.reads[-1, 2]
    assert other.engine == "native"


def test_exact_reads_are_not_measured_in_whatever_company(digits):
    _, history = trained(digits, adaptive(1e9, torch.tensor([0.0, 1e-2])), net=network(members=2), epochs=2)
    _, alone = trained(digits, adaptive(1e9, 0.0), epochs=2)
    np.testing.assert_array_equal(history.reads[:, 0], 1.0)
    np.testing.assert_array_equal(alone.reads, 1.0)
    assert (history.reads[:, 1] > 1).all()


@pytest.fixture
def measured(monkeypatch):
    """Every measurement: N before, the two estimates, N after."""
    seen, original = [], schedule.Adaptive.more

    def more(self, reads, twice):
        found = original(self, reads, twice)
        seen.append((reads.clone(), twice, found.clone()))
        return found

    monkeypatch.setattr(schedule.Adaptive, "more", more)
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_reads_are_doubled_just_where_two_estimates_say_so(seed):
    """A bound just below the ratio of signal to noise, or just above it."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(5, 6, 7, generator=generator)
    size = torch.logspace(-2, 0, 5)[:, None, None]
    pair = [signal + size * torch.randn(signal.shape, generator=generator) for _ in range(2)]
    twice = [Gradient([torch.zeros(5, 3, 3), g], []) for g in pair]
    reads = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    for member in range(5):
        a, b = (g[member].double().numpy() for g in pair)
        ratio = math.sqrt((a * b).mean() / (((a - b) ** 2).mean() / 2))
        below, above = (
            float(epkit.Adaptive(1.0, bound=ratio * factor, most=16).more(reads, twice)[member])
            for factor in (0.99, 1.01)
        )
        assert (below, above) == (2.0**member, min(16.0, 2.0 ** (member + 1)))


@pytest.mark.parametrize("looks", [None, 5])
def test_adaptive_reads_are_measured_where_said_and_counted(digits, measured, looks):
    """After every 40 images, whatever the records; the reads of a measurement are paid for, too."""
    found, history = trained(digits, adaptive(1e9, samples=2), epochs=2, looks=looks)
    plain, _ = trained(digits, adaptive(1e9, samples=2), epochs=2)
    assert same(found, plain)
    counts = [float(before[0]) for before, _, _ in measured[:3]]
    assert counts == [1.0, 2.0, 4.0]
    assert len(measured) == 6  # of both trainings
    used = sum(2 * 2.0**k * 40 for k in range(4)) + sum(2 * 2 * BATCH * count for count in counts)
    total = float((history.reads[:, 0] * 2 * IMAGES / history.sizes["epoch"]).sum())
    assert total == pytest.approx(used)


def test_adaptive_reads_stop_at_the_most_and_stay_where_signal_prevails(digits, measured):
    _, history = trained(digits, adaptive(1e9, most=4), epochs=2)
    assert max(float(after) for _, _, after in measured) == 4
    measured.clear()
    _, history = trained(digits, adaptive(1.0, sigma=1e-7), epochs=2)
    assert [float(after) for _, _, after in measured] == [1.0] * 3
    measured.clear()
    _, history = trained(digits, adaptive(1e9, sigma=0.0), epochs=1)
    assert not measured
    assert history.reads.item() == 1


def test_what_is_measured_has_noise_of_its_own(digits, measured, reads_of):
    """Neither reading is one that training uses, and they share no noise with one another."""
    trained(digits, adaptive(2.0))
    noises = [torch.cat([(b - a).flatten() for a, b in zip(*step, strict=True)]) for step in reads_of]
    units = torch.stack([xi / xi.std() for xi in noises])
    correlations = (units @ units.T / units.shape[1]).fill_diagonal_(0)
    assert len(noises) == STEPS + 2
    assert float(correlations.abs().max()) < 0.25


class Stop(Exception):
    pass


FOLLOWING = {
    "until": lambda: epkit.Schedule(1e-2, reads=schedule.until(60)),
    "growing": lambda: epkit.Schedule(1e-2, reads=schedule.growing(50)),
    "updates": lambda: epkit.Schedule(1e-2, updates=[2, "biases"]),
    "adaptive": lambda: adaptive(2.0),
}


@pytest.mark.parametrize("warm_up", [None, 50])
@pytest.mark.parametrize("name", FOLLOWING)
def test_training_goes_on_as_if_undisturbed(digits, name, warm_up):
    options = {"epochs": 2, "looks": 2, "warm_up": warm_up}
    whole, history = trained(digits, FOLLOWING[name](), **options)
    for after in (1, 3):
        blocks, state, net = itertools.count(1), State(), network()

        def stop(images, blocks=blocks, after=after):
            if next(blocks) == after:
                raise Stop

        with pytest.raises(Stop):
            trained(digits, FOLLOWING[name](), net=net, state=state, progress=stop, **options)
        _, continued = trained(digits, FOLLOWING[name](), net=net, state=state, **options)
        xr.testing.assert_identical(continued, history)
        assert same(whole, net)


SWEEP = {
    "dataset": ["digits"], "sigma": [1e-3, 1e-2], "learning_rate": [0.05], "seeds": 1, "hidden": [12, 12],
    "input_gain": 50.0, "beta": 0.1, "iterations": 3, "epochs": 2, "train_images": 80, "test_images": 40,
}  # fmt: skip
RULES = [
    {"rule": "until", "images": 100, "layers": [2], "updates": [1, "biases"]},
    {"rule": "adaptive", "images": 40, "bound": 3.0},
]


@pytest.mark.parametrize("following", RULES, ids=lambda rule: rule["rule"])
def test_a_killed_ensemble_goes_on_from_its_checkpoint(tmp_path, monkeypatch, following):
    """With all that its records say, the number of reads among it."""
    sweep = Sweep(**SWEEP, schedule=following, warm_up=140, looks=2)
    group = [Point("digits", 0.05, "shortcut", 1, sigma, 0) for sigma in sweep.sigma]

    def trained_here(path, progress=lambda images: None):
        return ensemble.trained(sweep, group, [0.1] * 3, checkpoint=path, progress=progress)

    whole, seen = trained_here(tmp_path / "whole"), itertools.count()

    def stop(images):
        if next(seen) == 4:  # in the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(ensemble, "KEEP_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained_here(tmp_path / "killed", stop)
    kept = store.read(tmp_path / "killed")
    assert (kept.finished_epochs, kept.finished_steps, kept.sizes["epoch"]) == (1, 5, 3)
    again = trained_here(tmp_path / "killed")
    xr.testing.assert_equal(again.drop_vars("wall_time"), whole.drop_vars("wall_time"))
    assert whole.reads.notnull().all()
    assert whole.reads.sizes == {"epoch": 4, "member": 2}


def test_a_checkpoint_that_lacks_what_is_counted_is_not_gone_on_from(tmp_path):
    sweep = Sweep(**SWEEP)
    group = [Point("digits", 0.05, "shortcut", 1, 1e-3, 0)]
    net = epkit.DeepResistiveNetwork((64, 12, 12, 10), input_gain=50.0)
    ensemble._keep(tmp_path / "old", net, State(epoch=1), 1.0)
    store.write(store.read(tmp_path / "old").drop_vars("averaged"), tmp_path / "old")
    history = ensemble.trained(sweep, group, [0.1] * 3, checkpoint=tmp_path / "old", progress=lambda images: None)
    assert history.sizes["epoch"] == 2


@pytest.mark.parametrize("which", ["eager", pytest.param("native", marks=compiled)])
@pytest.mark.parametrize("looks", [None, 4])
def test_rates_rise_by_the_same_amount_at_every_step(digits, looks, which, monkeypatch):
    rates = []
    for name in ("torch_steps", "native_steps"):
        original = getattr(engine, name)

        def steps(net, block, rule, original=original):
            rates.extend((block.rise[:, None] * rule.rates[:, 0]).tolist())
            return original(net, block, rule)

        monkeypatch.setattr(engine, name, steps)
    trained(digits, None, warm_up=100, epochs=2, looks=looks, decay=0.9, engine=which)
    decayed = np.repeat([1.0, 0.9], STEPS)
    rise = np.minimum(1, BATCH * np.arange(1, 2 * STEPS + 1) / 100)
    np.testing.assert_allclose(rates, np.outer(decayed * rise, (0.01, 0.05, 0.05)), rtol=1e-6)


def test_a_warm_up_changes_nothing_but_its_own_steps(digits):
    readout = epkit.GaussianReadout(1e-2)
    plain, history = trained(digits, readout)
    within, same_history = trained(digits, readout, warm_up=BATCH)  # over with the first step
    assert same(plain, within)
    costs = [ds.train_cost for ds in (same_history, history)]
    np.testing.assert_allclose(*costs, rtol=1e-14)  # they are summed block by block, in double
    xr.testing.assert_equal(*(ds.drop_vars("train_cost") for ds in (same_history, history)))
    slow, _ = trained(digits, readout, warm_up=IMAGES)
    looked, _ = trained(digits, readout, warm_up=IMAGES, looks=5)
    assert same(slow, looked)
    assert not same(slow, plain, 1e-6)
    by_hand = network()
    for step in range(STEPS):
        state = State(step=step)

        def stop(images):
            raise Stop

        with pytest.raises(Stop):
            epkit.train(by_hand, digits.x_train, digits.y_train, epochs=1, batch_size=BATCH, beta=0.2, iterations=3,
                        learning_rates=[r * (step + 1) / STEPS for r in (0.01, 0.05, 0.05)], readout=readout,
                        looks=STEPS, state=state, progress=stop, engine="eager")  # fmt: skip
    assert same(slow, by_hand, 1e-6)  # rates are rounded to float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: epkit.Schedule(-1.0), r"sigma = -1\.0: a standard deviation must be finite and >= 0"),
        (lambda: epkit.Schedule(1.0, samples=0), "samples = 0: must be an integer >= 1"),
        (lambda: epkit.Schedule(1.0, reads=3), "reads = 3: must be a function of the number of images seen, or None"),
        (lambda: epkit.Schedule(1.0, layers=[0]), r"layers\[0\] = 0: must be an integer >= 1"),
        (lambda: epkit.Schedule(1.0, layers=2), "layers = 2: must be a list of layers, or None for all"),
        (lambda: epkit.Schedule(1.0, layers=["biases"]), r"layers\[0\] = 'biases': must be an integer >= 1"),
        (lambda: epkit.Schedule(1.0, updates="biases"), "updates = 'biases': must be a list"),
        (lambda: epkit.Schedule(1.0, updates=[1, "bias"]), r"updates\[1\] = 'bias': must be an integer >= 1"),
        (lambda: epkit.Adaptive(1.0, bound=0.0), r"bound = 0\.0: must be a finite number > 0"),
        (lambda: epkit.Adaptive(1.0, every=0), "every = 0: must be an integer >= 1"),
        (lambda: epkit.Adaptive(1.0, layer=0), "layer = 0: must be an integer >= 1"),
        (lambda: epkit.Adaptive(1.0, most=0.5), r"most = 0\.5: must be an integer >= 1"),
    ],
)
def test_read_outs_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reads": lambda images: 0.5}, r"reads\(0\) = 0\.5: a number of reads must be >= 1"),
        ({"reads": lambda images: math.nan}, r"reads\(0\) = nan: a number of reads must be >= 1"),
        ({"layers": [1, 4]}, r"layers = \[4\]: allowed are 1 to 3, the layers of the network"),
        ({"updates": [5, "biases"]}, r"updates = \[5\]: allowed are 1 to 3, the layers of the network"),
    ],
)
def test_what_fits_no_network_is_refused_before_any_step(digits, options, message):
    net, before = network(), network()
    with pytest.raises(ValueError, match=message):
        trained(digits, epkit.Schedule(1e-3, **options), net=net)
    assert same(net, before)


@pytest.mark.parametrize("warm_up", [0, -5, 1.5, "a"])
def test_a_warm_up_is_a_number_of_images(digits, warm_up):
    with pytest.raises(ValueError, match=r"warm_up = .*: must be an integer >= 1"):
        trained(digits, None, warm_up=warm_up)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": {"rule": "until"}}, r"schedule\.images = None: is needed with a rule"),
        ({"schedule": {"images": 5}}, r"schedule\.images = 5: is needed with a rule"),
        ({"schedule": {"rule": "adaptive", "images": 5}}, r"schedule\.bound = None: is needed with the rule"),
        (
            {"schedule": {"rule": "until", "images": 5, "bound": 1.0}},
            r"schedule\.bound = 1\.0: is needed",
        ),
        ({"schedule": {"rule": "sometimes", "images": 5}}, "schedule.rule"),
        ({"schedule": {"layers": [4]}}, r"schedule\.layers = 4: allowed are 1 to 3, the layers of the network"),
        ({"schedule": {"updates": [4]}}, r"schedule\.updates = 4: allowed are 1 to 3"),
        ({"schedule": {"updates": ["bias"]}}, "schedule.updates"),
        ({"warm_up": 0}, "warm_up"),
        ({"variant": "bold"}, "variant"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ParameterError, match=message) as refused:
        validated(Sweep, SWEEP | change)
    assert len(str(refused.value).splitlines()) <= 3
