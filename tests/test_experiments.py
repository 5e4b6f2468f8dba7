"""The memoised sweep: what is computed, what is not, and what a kill leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import epkit
from epkit import data
from epkit.messages import ParameterError
from epkit.sweep import ensemble, store
from epkit.sweep.parameters import Sweep
from epkit.validation import validated

TINY = {
    "dataset": ["digits"], "sigma": [0.0, 1e-3], "learning_rate": [0.05], "seeds": 2, "hidden": [12, 12],
    "input_gain": 50.0, "beta": 0.1, "iterations": 3, "epochs": 2, "train_images": 80, "test_images": 40,
}  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """The groups that are trained, as lists of points."""
    groups, original = [], ensemble.trained
    monkeypatch.setattr(
        ensemble, "trained", lambda sweep, group, *a, **k: groups.append(group) or original(sweep, group, *a, **k)
    )
    return groups


def test_a_store_is_labelled_and_says_where_it_comes_from(tmp_path):
    ds = epkit.run(TINY, tmp_path / "sweep.nc")
    assert ds.test_error.dims == ("dataset", "learning_rate", "averaging", "samples", "sigma", "seed", "epoch")
    assert ds.sigma.values.tolist() == [0.0, 1e-3]
    assert ds.test_error.notnull().all()
    assert ds.image.shape == (1, 10, 8, 8)
    assert all("units" in ds[name].attrs for name in ("test_error", "activity", "conductance", "sigma"))
    given = store.parameters(ds)
    assert given["sizes"] == {"digits": [64, 12, 12, 10]}
    assert ds.attrs["parameters_sha256"] == store.digest(ds.attrs["parameters"])
    assert json.loads(ds.attrs["data_sha256"]) == {"digits": data.checksum("digits")}
    assert "source sha256" in ds.attrs["source"]
    assert not list(tmp_path.glob("*.parts"))
    assert ds.wall_time.sum() > 0


def test_a_complete_store_is_only_read(tmp_path, counted, monkeypatch):
    first = epkit.run(TINY, tmp_path / "sweep.nc")
    assert [len(group) for group in counted] == [2, 2]
    # not even the data set is needed
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("a complete store needs no data"))
    xr.testing.assert_identical(epkit.run(TINY, tmp_path / "sweep.nc"), first)
    assert len(counted) == 2


def test_only_the_runs_that_are_missing_are_computed(tmp_path, counted):
    first = epkit.run(TINY, tmp_path / "sweep.nc")
    counted.clear()
    wider = epkit.run(TINY | {"sigma": [0.0, 1e-4, 1e-3], "seeds": 3}, tmp_path / "sweep.nc")
    assert sorted((p.sigma, p.seed) for group in counted for p in group) == [
        (0.0, 2), (1e-4, 0), (1e-4, 1), (1e-4, 2), (1e-3, 2),
    ]  # fmt: skip
    kept = wider.sel(sigma=first.sigma, seed=first.seed)
    xr.testing.assert_equal(kept.test_error, first.test_error)


def test_choices_have_images_of_their_own(tmp_path):
    plain = epkit.run(TINY, tmp_path / "plain" / "sweep.nc")
    chosen = epkit.run(TINY | {"validation_images": 60}, tmp_path / "chosen" / "sweep.nc")
    own = ["run", "wall_time"]
    xr.testing.assert_equal(chosen[list(plain.data_vars)].drop_vars(own), plain.drop_vars(own))
    assert "validation_error" not in plain
    # a network that was trained alike, on the images after those that it was trained on
    split = data.load("digits", train=140)
    images = ensemble.data(validated(Sweep, TINY | {"validation_images": 60}), "digits")
    assert images.validation is not None
    assert np.array_equal(images.validation[0], split.x_train[80:])
    assert chosen.validation_error.notnull().all()
    assert not (chosen.validation_error == chosen.test_error).all()


def test_a_sweep_can_ask_for_fresh_seeds_and_images(tmp_path, counted):
    wide = epkit.run(TINY | {"seeds": 3}, tmp_path / "wide.nc")
    counted.clear()
    later = epkit.run(TINY | {"first_seed": 1, "seeds": 2}, tmp_path / "later.nc")
    assert not counted  # they are the same runs
    assert later.seed.values.tolist() == [1, 2]
    xr.testing.assert_equal(later.test_error, wide.test_error.sel(seed=[1, 2]))
    fresh = {"first_test_image": 40, "validation_images": 20, "first_validation_image": 200}
    split, images = data.load("digits"), ensemble.data(validated(Sweep, TINY | fresh), "digits")
    assert images.validation is not None
    assert np.array_equal(images.train[0], split.x_train[:80])
    assert np.array_equal(images.test[0], split.x_test[40:80])
    assert np.array_equal(images.validation[0], split.x_train[200:220])
    assert np.array_equal(images.validation[1], split.y_train[200:220])


def test_another_realisation_has_another_order_and_other_noise_from_the_same_conductances(tmp_path, monkeypatch):
    streams, initial, original = [], [], ensemble.train

    def train(net, *arguments, seed, **options):
        streams.append(seed)
        initial.append([w.clone() for w in net.weights])
        return original(net, *arguments, seed=seed, **options)

    monkeypatch.setattr(ensemble, "train", train)
    stores = [epkit.run(TINY | {"seeds": 1} | more, tmp_path / f"{k}.nc")
              for k, more in enumerate(({}, {"realisation": 1}, {"realisation": 2}))]  # fmt: skip
    assert streams[0] == 0
    assert len(set(streams)) == 3
    assert all(w.equal(v) for of_run in initial[1:] for w, v in zip(initial[0], of_run, strict=True))
    assert len({float(ds.train_cost.sel(sigma=0)[..., -1].item()) for ds in stores}) == 3


def test_a_neighbouring_store_lends_its_runs(tmp_path, counted):
    epkit.run(TINY, tmp_path / "one.nc")
    counted.clear()
    epkit.run(TINY, tmp_path / "two.nc")
    assert not counted


def test_a_runs_numbers_do_not_depend_on_what_runs_beside_it(tmp_path):
    together = epkit.run(TINY, tmp_path / "together" / "sweep.nc")
    alone = epkit.run(TINY | {"sigma": [1e-3], "seeds": 1}, tmp_path / "alone" / "sweep.nc")
    xr.testing.assert_equal(alone.test_error, together.test_error.sel(sigma=[1e-3], seed=[0]))


def test_a_killed_sweep_goes_on_where_it_stopped_and_gives_the_same_numbers(tmp_path, counted):
    parameters = TINY | {"seeds": 4, "epochs": 30}
    code = f"import epkit; epkit.run({parameters!r}, {str(tmp_path / 'killed' / 'sweep.nc')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    parts = tmp_path / "killed" / "sweep.parts"
    deadline = time.monotonic() + 300
    while not list(parts.glob("*.nc")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(parts.glob("[!.]*.nc")))
    assert done >= 1, "killed before anything was finished"
    resumed = epkit.run(parameters, tmp_path / "killed" / "sweep.nc")
    assert len(counted) == 4 - done
    undisturbed = epkit.run(parameters, tmp_path / "undisturbed" / "sweep.nc")
    xr.testing.assert_equal(resumed.drop_vars("wall_time"), undisturbed.drop_vars("wall_time"))


def test_what_is_unfinished_of_a_sweep_outlives_another_sweep_at_its_place(tmp_path, counted, monkeypatch):
    path, finish = tmp_path / "sweep.nc", ensemble.trained

    def interrupted(sweep, group, *arguments, **named):
        if group[0].seed:
            raise KeyboardInterrupt
        return finish(sweep, group, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "trained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            epkit.run(TINY, path)
    assert len(counted) == 1
    epkit.run(TINY | {"epochs": 1}, path)
    del counted[:]
    epkit.run(TINY, path, replace=True)
    assert [group[0].seed for group in counted] == [1]
    assert not path.with_suffix(".parts").exists()


def test_a_nudge_that_has_no_steady_state_is_refused_whatever_the_rates(tmp_path):
    for rates in (None, [0.01] * 3):
        with pytest.raises(ParameterError, match="beta: smaller ones are allowed"):
            epkit.run(TINY | {"beta": 50.0, "rates": rates}, tmp_path / "sweep.nc")


def test_runs_that_a_replaced_store_shares_are_taken_from_it(tmp_path, counted):
    path = tmp_path / "sweep.nc"
    first = epkit.run(TINY, path)
    del counted[:]
    second = epkit.run(TINY | {"sigma": [0.0, 2e-3]}, path, replace=True)
    assert [point.sigma for group in counted for point in group] == [2e-3] * 2
    xr.testing.assert_identical(store.read(path.with_name("sweep.nc.old")), first)
    xr.testing.assert_equal(second.sel(sigma=0.0), first.sel(sigma=0.0))


def test_a_long_run_that_is_interrupted_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    """Within an epoch: what a kill takes is the time since the last checkpoint."""
    parameters = TINY | {"looks": 3}
    undisturbed = epkit.run(parameters, tmp_path / "undisturbed" / "sweep.nc")
    monkeypatch.setattr(ensemble, "KEEP_EVERY", 0.0)
    original, steps = ensemble._keep, []

    def keep_and_stop(checkpoint, net, state, spent):
        original(checkpoint, net, state, spent)
        steps.append((state.epoch, state.step))
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ensemble, "_keep", keep_and_stop)
    path = tmp_path / "interrupted" / "sweep.nc"
    with pytest.raises(KeyboardInterrupt):
        epkit.run(parameters, path)
    assert len(list(path.with_suffix(".parts").glob("*.checkpoint"))) == 1
    resumed = epkit.run(parameters, path)
    an_epoch = [(0, 3), (0, 6), (0, 10), (1, 3), (1, 6), (1, 10)]
    assert steps == an_epoch * 2, "both seeds once, no block twice"
    xr.testing.assert_equal(resumed.drop_vars("wall_time"), undisturbed.drop_vars("wall_time"))
    assert not path.with_suffix(".parts").exists()


def test_a_damaged_store_is_moved_aside_and_computed_anew(tmp_path):
    path = tmp_path / "sweep.nc"
    before = epkit.run(TINY, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"sweep\.nc: not a readable netCDF store .*moved to sweep\.nc\.damaged"):
        after = epkit.run(TINY, path)
    xr.testing.assert_equal(after.test_error, before.test_error)
    assert (tmp_path / "sweep.nc.damaged").exists()


def test_a_store_that_cannot_be_written_is_one_plain_error(tmp_path):
    (tmp_path / "folder").write_text("a file where a folder should be")
    with pytest.raises(store.StoreError, match="cannot be written"):
        store.write(xr.Dataset({"a": 1}), tmp_path / "folder" / "sweep.nc")
    with pytest.raises(store.StoreError, match="no such store"):
        store.read(tmp_path / "none.nc")


def test_equal_data_make_equal_files(tmp_path):
    ds = xr.Dataset({"a": ("x", np.arange(5.0))}, attrs={"title": "t"})
    for name in ("one.nc", "two.nc"):
        store.write(ds, tmp_path / name)
    assert (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": [-1e-5]}, "sigma.0 = -1e-05: Input should be greater than or equal to 0"),
        ({"sigma": [1e-5, 1e-5]}, "values must differ"),
        ({"sigma": [float("nan")]}, "sigma.0 = nan"),
        ({"sigma": 3}, "sigma = 3: Input should be a valid list"),
        ({"samples": [0]}, "samples.0 = 0: Input should be greater than or equal to 1"),
        ({"samples": [True]}, "samples.0 = True: Input should be a valid integer"),
        ({"dataset": ["mnits"]}, "dataset.0 = 'mnits': no such data set; did you mean mnist?"),
        ({"averaging": ["none"]}, "averaging.0 = 'none': Input should be 'shortcut' or 'explicit'"),
        ({"hidden": [12, 13]}, "hidden.1 = 13: hidden widths must be even"),
        ({"epochs": "many"}, "epochs = 'many': Input should be a valid integer"),
        ({"sgima": [0.0]}, "sgima: no such parameter; did you mean sigma?"),
        ({"train_images": 5000}, "train_images = 5000: scikit-learn digits allows 1 to 1400"),
        (
            {"train_images": 1390, "validation_images": 20},
            "validation_images = 20: scikit-learn digits allows up to 10",
        ),
        ({"test_images": 390, "first_test_image": 10}, "test_images = 390: scikit-learn digits allows 1 to 387"),
        ({"first_test_image": 397}, "first_test_image = 397: scikit-learn digits allows 0 to 396"),
        ({"first_validation_image": 100}, "first_validation_image = 100: allowed are 80 or more, beside train_images"),
        (
            {"validation_images": 20, "first_validation_image": 79},
            "first_validation_image = 79: allowed are 80 or more",
        ),
        (
            {"validation_images": 20, "first_validation_image": 1390},
            "validation_images = 20: scikit-learn digits allows up to 10, beside first_validation_image = 1390",
        ),
        ({"first_seed": -1}, "first_seed = -1: Input should be greater than or equal to 0"),
        ({"realisation": 0}, "realisation = 0: Input should be greater than or equal to 1"),
        ({"rates": [0.1]}, "3 are needed, one for each layer"),
        ({"batch_size": 100}, "batch_size = 100: allowed are 1 to train_images"),
    ],
)
def test_wrong_parameters_stop_before_any_work(tmp_path, counted, change, message):
    with pytest.raises(ParameterError) as caught:
        epkit.run(TINY | change, tmp_path / "sweep.nc")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_parameter_is_named():
    with pytest.raises(ParameterError, match=r"02\.yaml: dataset: is missing"):
        validated(Sweep, {"sigma": [0.0]}, "02.yaml")


def test_the_mechanism_is_memoised_too(tmp_path):
    shared = {k: v for k, v in TINY.items() if k not in ("sigma", "seeds")}
    parameters = shared | {"dataset": "digits", "learning_rate": 0.05, "betas": [1e-3, 1e-2], "check_iterations": 60}
    first = epkit.examine_network(parameters, tmp_path / "one.nc")
    assert float(first.cosine.sel(estimator="centered").min()) > 0.999
    before = os.stat(tmp_path / "one.nc").st_mtime_ns
    xr.testing.assert_identical(epkit.examine_network(parameters, tmp_path / "one.nc"), first)
    assert os.stat(tmp_path / "one.nc").st_mtime_ns == before
    assert Path(tmp_path / "one.nc").stat().st_size < 200_000


def test_who_looks_takes_nothing_from_who_computes(tmp_path, monkeypatch):
    """Between a look at what is finished and its own store, another process may have finished the sweep."""
    sweep, path = TINY | {"seeds": 2}, tmp_path / "sweep.nc"
    epkit.run(TINY | {"seeds": 1}, tmp_path / "part.nc")
    partial = store.read(tmp_path / "part.nc")
    parts = tmp_path / "sweep.parts"
    parts.mkdir()
    store.write(partial, parts / "first.nc")
    rates = ensemble.layer_rates

    def meanwhile(*args):
        monkeypatch.undo()
        epkit.run(sweep, path)
        return rates(*args)

    monkeypatch.setattr(ensemble, "layer_rates", meanwhile)
    assert epkit.finished_runs(sweep, path).test_error.isnull().any()
    assert store.read(path).test_error.notnull().all()


def test_what_is_finished_of_a_sweep_is_shown_and_gone_on_from(tmp_path, counted, monkeypatch):
    sweep = TINY | {"seeds": 3, "looks": 2}
    assert epkit.finished_runs(sweep, tmp_path / "sweep.nc") is None
    assert not list(tmp_path.iterdir())
    original = ensemble.trained

    def killed(wanted, group, *args, **kwargs):
        if group[0].seed == 2:
            raise KeyboardInterrupt
        return original(wanted, group, *args, **kwargs)

    monkeypatch.setattr(ensemble, "trained", killed)
    with pytest.raises(KeyboardInterrupt):
        epkit.run(sweep, tmp_path / "sweep.nc")
    known = epkit.finished_runs(sweep, tmp_path / "sweep.nc")
    assert known is not None
    assert known.test_error.sel(seed=[0, 1]).notnull().all()
    assert known.test_error.sel(seed=2).isnull().all()
    assert (known["run"] != "").squeeze().sum("sigma").values.tolist() == [2, 2, 0]
    # it is a store of its own, without parts and data
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("a partial store needs no data"))
    elsewhere = tmp_path / "elsewhere" / "sweep.nc"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes((tmp_path / "sweep.nc").read_bytes())
    xr.testing.assert_identical(epkit.finished_runs(sweep, elsewhere), known)
    with pytest.raises(epkit.StoreError, match=r"another experiment \(epochs: 2 there, 3 now\), which would be lost"):
        epkit.finished_runs(sweep | {"epochs": 3}, elsewhere)
    monkeypatch.undo()
    whole = epkit.run(sweep, elsewhere)
    monkeypatch.setattr(ensemble, "trained", lambda *_, **__: pytest.fail("nothing is missing"))
    xr.testing.assert_identical(epkit.finished_runs(sweep, elsewhere), whole)
    assert whole.test_error.notnull().all()
    xr.testing.assert_equal(whole.test_error.sel(seed=[0, 1]), known.test_error.sel(seed=[0, 1]))


def test_of_several_sweeps_those_that_are_named_are_computed(tmp_path):
    comparison = {"base": TINY, "networks": {"one": {}, "other": {"beta": 0.05}}, "compute": ["one"]}
    stores = epkit.run_several(comparison, tmp_path / "08")
    assert list(stores) == ["one"]
    assert [path.name for path in tmp_path.glob("*.nc")] == ["08.one.nc"]
    every = epkit.run_several(comparison | {"compute": None}, tmp_path / "08")
    assert list(every) == ["one", "other"]
    assert every["one"].identical(stores["one"])
    assert list(epkit.run_several(comparison | {"compute": []}, tmp_path / "08")) == ["one", "other"]
    with pytest.raises(epkit.ParameterError, match=r"compute = .*: allowed are the names in networks: one, other"):
        epkit.run_several(comparison | {"compute": ["two"]}, tmp_path / "08")


def test_a_store_is_only_ever_added_to(tmp_path, counted):
    """Fewer σ, more σ, other σ, other epochs at the place of a finished store: nothing that was computed goes."""
    path = tmp_path / "sweep.nc"
    whole = epkit.run(TINY, path)
    content, few = path.read_bytes(), {"sigma": TINY["sigma"][:1], "seeds": 1}
    counted.clear()
    part = epkit.run(TINY | few, path)
    assert path.read_bytes() == content
    assert not counted
    assert part.sizes["seed"] == part.sizes["sigma"] == 1
    xr.testing.assert_equal(part.test_error, whole.test_error.sel(sigma=part.sigma, seed=part.seed))
    assert store.parameters(part)["sigma"] == few["sigma"]
    for change in ({"sigma": [5e-3]}, {"epochs": 3}, {"seeds": 1, "sigma": [0.0, 5e-3]}):
        with pytest.raises(
            epkit.StoreError, match=r"runs of another experiment \(.*, which would be lost; name another"
        ):
            epkit.run(TINY | change, path)
        assert path.read_bytes() == content
    more = epkit.run(TINY | {"sigma": [*TINY["sigma"], 5e-3]}, path)
    assert sum(map(len, counted)) == more["run"].size - whole["run"].size
    xr.testing.assert_equal(more.test_error.sel(sigma=whole.sigma), whole.test_error)


def test_replacing_takes_a_word_and_keeps_the_old_store(tmp_path, capsys):
    path = tmp_path / "sweep.nc"
    old = epkit.run(TINY, path)
    epkit.run(TINY | {"epochs": 1}, path, replace=True)
    assert "sweep.nc: set aside as sweep.nc.old" in capsys.readouterr().err
    assert store.read(tmp_path / "sweep.nc.old").identical(old)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_text("my thesis"), lambda path: path.touch()])
def test_what_is_somebodys_is_left_as_it_is(tmp_path, make):
    path = tmp_path / "thesis"
    make(path)
    with pytest.raises(epkit.StoreError, match="it is left as it is: name another file, or move it"):
        epkit.run(TINY, path)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == ["thesis"]


def test_runs_of_neighbours_are_named_keep_their_maker_and_come_from_sealed_files(tmp_path, capsys, counted):
    first = epkit.run(TINY, tmp_path / "first.nc")
    made = first.assign_attrs(makers=json.dumps(["somebody else's machine"]))
    store.write(made, tmp_path / "first.nc")
    counted.clear()
    second = epkit.run(TINY, tmp_path / "second.nc")
    assert not counted
    assert f"second.nc: {first['run'].size} runs taken from {tmp_path.name}/first.nc" in capsys.readouterr().err
    assert store.makers(second) == ["somebody else's machine"]
    (row,) = [text for text in epkit.origin(second).index if text.endswith(f", {first['run'].size} runs")]
    assert epkit.origin(second).loc[row, ""] == "somebody else's machine"
    content = (tmp_path / "first.nc").read_bytes()
    (tmp_path / "first.nc").write_bytes(content[: -len(store._seal(b""))])  # readable, but nobody vouches for it
    (tmp_path / "second.nc").unlink()
    third = epkit.run(TINY, tmp_path / "third.nc")
    assert sum(map(len, counted)) == third["run"].size
    assert all("engine native" in maker for maker in store.makers(third))


def test_a_signal_stops_after_the_block_and_keeps_it(tmp_path):
    """A time limit shorter than the first checkpoint: what was trained is there all the same."""
    code = f"import epkit; epkit.run({TINY | {'epochs': 400}!r}, {str(tmp_path / 'sweep.nc')!r})"
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    parts = tmp_path / "sweep.parts"
    while not parts.exists():
        time.sleep(0.02)
    time.sleep(0.5)
    running.terminate()
    running.communicate(timeout=300)
    (checkpoint,) = parts.glob("*.checkpoint")
    kept = store.read(checkpoint)
    assert kept.finished_epochs + kept.finished_steps > 0


def test_a_readers_own_sweep_takes_the_runs_that_the_profile_has(tmp_path, monkeypatch, counted):
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path))
    epkit.run(TINY, epkit.results("smoke") / "02.nc")
    counted.clear()
    mine = epkit.run(TINY | {"seeds": 1}, epkit.results("mine") / "smoke" / "02.nc")
    assert not counted
    assert mine.test_error.notnull().all()


def test_the_docstring_of_run_lists_its_keys():
    text = epkit.run.__doc__.partition("parameters:")[2].partition("path:")[0]
    assert set(re.findall(r"[a-z_]+", text)) >= set(Sweep.model_fields)


def test_a_group_in_which_every_run_diverges_is_recorded_as_such(tmp_path):
    ds = epkit.run(TINY | {"learning_rate": [1e38], "looks": 2}, tmp_path / "sweep.nc")
    assert (ds.diverged == 1).isel(epoch=-1).all()
    assert ds.response.isel(epoch=-1).isnull().all()
    assert (ds.test_error.isel(epoch=-1) == 1).all()
