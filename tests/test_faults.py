"""Faults, each tried and counted: what was finished is kept, the rest is computed again, and the numbers are the same.

`make test` tries each of those that strike at random moments five times, `make faults` fifty times.
"""

import gzip
import hashlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections import Counter
from pathlib import Path

import faulty
import numpy as np
import pytest
import torch
from counts import FAILED, KEPT, ROOT, page
from jupyter_client.manager import start_new_kernel
from matplotlib.figure import Figure
from test_datasets import TRAIN, fake_set

import epkit
from epkit import data, figures, study
from epkit.data import INFO, Info
from epkit.ep.networks import DeepResistiveNetwork
from epkit.ep.training import train
from epkit.sweep import ensemble, store
from epkit.sweep.parameters import Sweep
from epkit.validation import validated

PARAMETERS, BLOCKS = faulty.PARAMETERS, 8
SMALL = PARAMETERS | {"seeds": 1, "epochs": 1}

# Processes that have imported everything before they are born, so that a kill costs no start of torch.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["faulty", "dask.array", "sklearn.datasets"])


@pytest.fixture
def tries(request):
    return request.config.getoption("--kills")


def started(target, *arguments):
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    return process


def ended(process, seconds=600.0):
    """The exit code, negative for a signal; a process that hangs is killed, and fails the test."""
    process.join(seconds)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs, f"still running after {seconds} s"
    return process.exitcode


def until(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def numbers(ds):
    """All bits of a store but the time that it took."""
    return bytes(ds.drop_vars("wall_time", errors="ignore").to_netcdf(engine="h5netcdf"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The sweep's numbers, and how long a process takes for them once it has begun; the first one is slower."""
    for attempt in ("first", "second"):
        path = tmp_path_factory.mktemp(attempt) / "sweep.nc"
        process = started(faulty.quiet_sweep, PARAMETERS, path)
        until(path.with_suffix(".lock").exists)
        begun = time.monotonic()
        assert ended(process) == 0
        seconds = time.monotonic() - begun
    return numbers(store.read(path)), seconds


def test_kill_9_at_random_moments_of_a_sweep(tmp_path, tries, undisturbed, counted):
    same, seconds = undisturbed
    moments, k = np.random.default_rng(9), 0
    while k < tries:
        path = tmp_path / str(k) / "sweep.nc"
        process = started(faulty.quiet_sweep, PARAMETERS, path)
        until(path.with_suffix(".lock").exists)
        time.sleep(moments.uniform(0, seconds))
        process.kill()
        process.join()
        if path.exists():  # the sweep was sooner
            shutil.rmtree(path.parent)
            continue
        k += 1
        writing = [file for file in path.parent.rglob("*.tmp") if not file.name.startswith(".tmp")]
        when = "while a file was written" if writing else "between two writes"
        assert ended(started(faulty.quiet_sweep, PARAMETERS, path)) == 0
        identical = numbers(store.read(path)) == same
        counted("kill -9 of a sweep at a random moment", f"{'' if identical else FAILED}bit-identical, killed {when}")
        assert identical
        blocks = Counter(path.with_suffix(".log").read_text().splitlines())
        assert len(blocks) == BLOCKS
        again = blocks.total() - BLOCKS
        # a block is said before its checkpoint is made
        counted("blocks of training, with a kill in each sweep", "computed twice", again)
        counted("blocks of training, with a kill in each sweep", "computed once", BLOCKS - again)
        assert again <= 1
        left = {file.name for file in path.parent.iterdir()} - {"sweep.nc", "sweep.log", "sweep.said", "sweep.lock"}
        assert left <= {"sweep.parts"}, "what a killed process was writing is gone"


def test_kill_9_while_a_file_is_written(tmp_path, tries, undisturbed, counted):
    """Of checkpoints, parts and the store in turn, with nothing, some or all of its content on the disk."""
    same, _ = undisturbed
    files = BLOCKS + PARAMETERS["seeds"] + 1
    moments = itertools.product(range(files, 0, -1), (0.5, 1.0, 0.0))
    for k, (number, share) in enumerate(itertools.islice(moments, tries)):
        path = tmp_path / str(k) / "sweep.nc"
        assert ended(started(faulty.sweep_that_dies_writing, PARAMETERS, path, number, share)) == -signal.SIGKILL
        (half,) = (file for file in path.parent.rglob(".*.tmp"))
        assert not path.exists()
        assert ended(started(faulty.quiet_sweep, PARAMETERS, path)) == 0
        identical = numbers(store.read(path)) == same
        left = half.exists() and half.parent == path.parent
        what = (
            "the store" if half.parent == path.parent else "a checkpoint" if ".checkpoint." in half.name else "a part"
        )
        well = identical and not left
        counted("kill -9 while a file is written", f"{'' if well else FAILED}bit-identical after {what}")
        assert identical
        assert not left


def test_at_most_a_minute_of_training_is_not_yet_kept(tmp_path, monkeypatch, counted):
    """With a clock that each block moves on by ten seconds."""
    now, kept = [0.0], [0.0]
    monkeypatch.setattr(ensemble.time, "perf_counter", lambda: now[0])
    original = ensemble._keep

    def keep(*arguments):
        original(*arguments)
        kept.append(now[0])

    monkeypatch.setattr(ensemble, "_keep", keep)

    def tick(images):
        now[0] += 10.0

    sweep = validated(Sweep, SMALL | {"epochs": 2, "looks": 20})
    group = [ensemble.Point("digits", 0.05, "shortcut", 1, 0.0, 0)]
    ensemble.trained(sweep, group, [1.0] * 3, checkpoint=tmp_path / "a.checkpoint", progress=tick)
    assert now[0] >= 400
    longest = max(np.diff([*kept, now[0]]))
    counted("checkpoints within a run", f"made, at most {longest:.0f} s apart", len(kept) - 1)
    assert longest <= 60


@pytest.mark.parametrize("killed", [False, True])
def test_two_sweeps_at_once_on_one_store(tmp_path, tries, undisturbed, counted, killed):
    same, seconds = undisturbed
    moments = np.random.default_rng(2).uniform(0, seconds, -(-tries // 5))
    for k, moment in enumerate(moments):
        path = tmp_path / str(k) / "sweep.nc"
        both = [started(faulty.quiet_sweep, PARAMETERS, path) for _ in range(2)]
        if killed:
            until(path.with_suffix(".lock").exists)
            time.sleep(moment)
            both[0].kill()
            both[0].join()
        codes = [ended(process) for process in both]
        assert codes[killed:] == [0] * (2 - killed)
        blocks = Counter(path.with_suffix(".log").read_text().splitlines())
        identical = numbers(store.read(path)) == same
        well = identical and blocks.total() - len(blocks) <= killed
        what = "the other took over" if killed else "each run computed once"
        kind = "two processes on one store" + ", one killed" * killed
        counted(kind, f"{'' if well else FAILED}bit-identical, {what}")
        assert well


def damaged_copies(content, number, random):
    """Copies with one bit flipped, and beginnings."""
    for place in random.integers(0, 8 * len(content), number):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield "bit flipped", bytes(flipped)
    for length in random.integers(0, len(content), number // 2):
        yield "truncated", content[:length]


def test_damaged_stores_parts_and_checkpoints_are_found(tmp_path, tries, counted, monkeypatch):
    """Whatever bit, whatever length: refused, or read as what was written; never other numbers, never a crash."""
    monkeypatch.setattr(ensemble, "KEEP_EVERY", 0.0)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    epkit.run(SMALL, tmp_path / "sweep.nc")
    monkeypatch.undo()
    files = {"store": "*.nc", "part": "*.parts/[!.]*.nc", "checkpoint": "*.parts/*.checkpoint"}
    random = np.random.default_rng(1)
    for what, pattern in files.items():
        (file,) = tmp_path.glob(pattern)
        content = file.read_bytes()
        whole = store.read(file)
        copy = tmp_path / "copies" / "copy.nc"
        copy.parent.mkdir(exist_ok=True)
        for kind, damaged in damaged_copies(content, 10 * tries, random):
            copy.write_bytes(damaged)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = store.read_if_sound(copy)
            if found is None:
                assert len(said) == 1
                assert "copy.nc" in str(said[0].message)
                assert copy.with_name("copy.nc.damaged").read_bytes() == damaged
                copy.with_name("copy.nc.damaged").unlink()
                outcome = "found, named, moved aside"
            else:
                harmless = numbers(found) == numbers(whole)
                outcome = "in the seal alone: read as written" if harmless else f"{FAILED}read as other numbers"
            counted(f"{what}: {kind}", outcome)
            assert FAILED not in outcome
        assert not any(copy.parent.glob("*.damaged*"))


def test_what_is_damaged_is_computed_again(tmp_path, counted):
    """A store twice; then an interrupted sweep's part and checkpoint."""
    path = tmp_path / "sweep.nc"
    same = numbers(faulty.sweep(PARAMETERS, path))

    def flip(file):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    for number in ("", "2"):
        flip(path)
        with pytest.warns(UserWarning, match=rf"sweep\.nc: damaged.*moved to sweep\.nc\.damaged{number}, its runs"):
            again = numbers(epkit.run(PARAMETERS, path))
        counted("a damaged store, part or checkpoint", "computed again, bit-identical")
        assert again == same
    path = tmp_path / "killed" / "sweep.nc"
    process = started(faulty.quiet_sweep, PARAMETERS, path)
    parts = path.with_suffix(".parts")
    until(lambda: any(parts.glob("[!.]*.nc")) and len([*parts.glob("[!.]*.checkpoint")]) == 1)
    process.kill()
    process.join()
    damaged = [next(parts.glob("[!.]*.nc")), *parts.glob("[!.]*.checkpoint")]
    for file in damaged:
        flip(file)
    with pytest.warns(UserWarning, match=r"\.damaged, its runs are computed anew") as said:
        again = numbers(epkit.run(PARAMETERS, path))
    assert len(said) == len(damaged)
    counted("a damaged store, part or checkpoint", "computed again, bit-identical", len(damaged))
    assert again == same


def test_damaged_data_files_are_found_and_had_anew(tmp_path, tries, counted, monkeypatch):
    known = fake_set(tmp_path / "mirror/MNIST/raw", 60, 20)
    monkeypatch.setitem(INFO, "mnist", Info("fake", (2, 2), 60, 20, "MNIST", known))
    for name, folder in {"EPKIT_DATA_MIRROR": "mirror", "EPKIT_DATA": "data"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    data.fetch("mnist")
    file = tmp_path / "data/MNIST/raw" / TRAIN
    content = file.read_bytes()
    for kind, damaged in damaged_copies(content, 4 * tries, np.random.default_rng(3)):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"{TRAIN}: sha256.* moved to {TRAIN}.damaged"):
            data.fetch("mnist")
        well = file.read_bytes() == content
        counted(f"data file: {kind}", f"{'' if well else FAILED}found, named, moved aside, had anew")
        assert well
    copy = tmp_path / "mirror/MNIST/raw" / f"{TRAIN}.gz"
    content = copy.read_bytes()
    for kind, damaged in damaged_copies(content, 4 * tries, np.random.default_rng(4)):
        file.unlink()
        copy.write_bytes(damaged)
        try:
            data.fetch("mnist")
            unpacked = hashlib.sha256(file.read_bytes()).hexdigest()
            well, outcome = f"sha256:{unpacked}" == known[TRAIN], "not in the content: used"
        except data.DataUnavailable as error:
            well, outcome = f"{TRAIN}.gz" in str(error), "named, not used, not moved"
            file.write_bytes(gzip.decompress(content))
        counted(f"mirror's data file: {kind}", f"{'' if well else FAILED}{outcome}")
        assert well


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes, and a way to leave only so many bytes of it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can't be mounted here: that takes root")

    def leave(free):
        ballast = folder / "ballast"
        ballast.unlink(missing_ok=True)
        if free is not None:
            ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - free)))

    yield folder, leave
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up_during_a_sweep(small_disk, tmp_path, tries, counted, monkeypatch):
    monkeypatch.setattr(ensemble, "KEEP_EVERY", 0.0)
    same = numbers(epkit.run(SMALL, tmp_path / "sweep.nc"))
    disk, leave = small_disk
    for k, free in enumerate(np.random.default_rng(5).integers(0, 120_000, tries)):
        path = disk / str(k) / "sweep.nc"
        path.parent.mkdir()
        leave(int(free))
        full, outcome = "No space left on device", "had room enough"
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                epkit.run(SMALL, path)
            except store.StoreError as error:
                named = full in str(error) and "sweep" in str(error)
                outcome = "stopped with one message" if named else f"{FAILED}{error}"
        assert all(full in str(warning.message) for warning in said)
        assert not [*path.parent.rglob("*.tmp")]
        leave(None)
        identical = numbers(epkit.run(SMALL, path)) == same
        if said:
            counted("checkpoints that find no room", "one warning, training goes on", len(said))
        counted("a disk that fills up during a sweep", f"{'' if identical else FAILED}{outcome}, then bit-identical")
        assert identical
        assert FAILED not in outcome
        shutil.rmtree(path.parent)


def test_a_disk_that_is_full_under_make_figures(small_disk, tmp_path, tries, counted):
    """During the sweep, when a figure is saved, when the notebook is written: one message, and then it goes on."""
    disk, _ = small_disk
    fill = "import shutil; folder.mkdir(parents=True, exist_ok=True); "
    fill += "(folder / 'ballast').write_bytes(bytes(shutil.disk_usage(folder).free))"
    places = {
        "sweep": ({"before": fill}, "11_faults.nc"),
        "figure": ({"after": fill}, "figures/11_faults.png"),
        "notebook": ({"after": f"figures.save = lambda *_: None; {fill}"}, "11_faults.ipynb"),
    }
    for place, (cells, file) in itertools.islice(places.items(), -(-tries // 5)):  # the first alone, or at length all
        faulty.study(tmp_path / place, **cells)
        results, said = disk / place, tmp_path / f"{place}.said"
        assert ended(started(faulty.make_figures, tmp_path / place, results, said)) == 1
        words = said.read_text()
        assert f"{results / 'mine'}" in words
        assert "No space left on device" in words
        assert "Traceback" not in words
        finished = (results / "mine" / "11_faults.nc").exists()
        assert finished == (place != "sweep")
        (results / "mine" / "ballast").unlink()
        shutil.rmtree(tmp_path / place)
        faulty.study(tmp_path / place)
        code = ended(started(faulty.make_figures, tmp_path / place, results, said))
        well = code == 0 and (results / "mine" / "figures" / "11_faults.svg").exists()
        counted(f"full disk under make figures: {file}", f"{'' if well else FAILED}one message, exit 1; then goes on")
        assert well
        shutil.rmtree(results)


def test_read_only_results(small_disk, tmp_path, counted):
    disk, _ = small_disk
    results, said = disk / "results", tmp_path / "said"
    faulty.study(tmp_path / "study")
    assert ended(started(faulty.make_figures, tmp_path / "study", results, said)) == 0
    path = results / "mine" / "11_faults.nc"
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    said.write_text("")
    assert ended(started(faulty.make_figures, tmp_path / "study", results, said)) == 0
    assert "up to date" in said.read_text()
    counted("read-only results, all there", "up to date, exit 0")
    assert epkit.run(PARAMETERS, path).test_error.notnull().all()
    with pytest.warns(UserWarning, match=r"11_faults\.png: not saved, the folder is read-only"):
        figures.save(Figure(), results / "mine" / "figures", "11_faults")
    counted("read-only results, a notebook opened by hand", "draws, and warns that it saves nothing")
    started_at = time.monotonic()
    with pytest.raises(store.StoreError, match=r"cannot be written \(Read-only file system\)"):
        epkit.run(PARAMETERS | {"seeds": 3}, path)
    assert ended(started(faulty.make_figures, tmp_path / "study", disk / "others", said)) == 1
    assert f"{disk / 'others' / 'mine'} is read-only" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert time.monotonic() - started_at < 300
    counted("read-only results, something to compute", "one message before any training, exit 1", 2)


def test_two_make_figures_at_once(tmp_path, counted):
    faulty.study(tmp_path / "study")
    both = [
        started(faulty.make_figures, tmp_path / "study", tmp_path / "results", tmp_path / f"said{k}") for k in range(2)
    ]
    assert [ended(process) for process in both] == [0, 0]
    blocks = (tmp_path / "results" / "mine" / "11_faults.log").read_text().splitlines()
    well = len(blocks) == len(set(blocks)) == BLOCKS
    counted("two make figures at once", f"{'' if well else FAILED}both exit 0, no run computed twice")
    assert well
    assert {file.suffix for file in (tmp_path / "results").rglob("*") if file.is_file()} == {
        ".nc", ".log", ".lock", ".ipynb", ".png", ".svg",
    }  # fmt: skip
    assert not [*(tmp_path / "results").rglob("*.tmp*")]


DIES = """
from epkit.sweep import ensemble, store
import os
def dying(original=store.write):
    def write(ds, path, **options):
        original(ds, path, **options)
        if path.suffix == ".nc" and path.parent.suffix == ".parts" and ({condition}):
            os.kill(os.getpid(), 9)
    return write
store.write = dying()
"""


@pytest.mark.parametrize("again", [False, True])
def test_a_kernel_that_dies_under_papermill(tmp_path, counted, again):
    """After its first part; if `again`, its successor too, after the second and last."""
    condition = "True" if again else "len([*path.parent.glob('*.nc')]) == 1"
    faulty.study(tmp_path / "study", before=DIES.format(condition=condition))
    results, said = tmp_path / "results", tmp_path / "said"
    code = ended(started(faulty.make_figures, tmp_path / "study", results, said))
    words = said.read_text()
    assert words.count("11_faults: Kernel died (killed, or too little memory?)") == 1 + again
    assert "Traceback" not in words
    assert code == again
    blocks = (results / "mine" / "11_faults.log").read_text().splitlines()
    assert len(blocks) == len(set(blocks)) == BLOCKS, "what was finished is not computed again"
    outcome = "again: one message, exit 1" if again else "once: a new one goes on from the last finished run"
    counted("a kernel that dies under papermill", outcome)
    assert not [*results.rglob("*.tmp*")]


def test_interrupting_make_figures(tmp_path, counted):
    """Ctrl-C reaches the whole process group: exit 130, one message, no kernel left, and it goes on."""
    faulty.study(
        tmp_path / "study",
        before="import os, time; print('kernel', os.getpid(), file=open(folder / 'pid', 'w'), flush=True)",
        after="time.sleep(0 if (folder / 'again').exists() else 60)",  # so that it can't be too late on a busy machine
    )
    results, said = tmp_path / "results", tmp_path / "said"
    (results / "mine").mkdir(parents=True)
    process = started(faulty.make_figures, tmp_path / "study", results, said)
    log = results / "mine" / "11_faults.log"
    until(lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
    kernel = int((results / "mine" / "pid").read_text().split()[1])
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process) == 130
    words = said.read_text()
    assert words.count("Interrupted. What was finished is kept; the same command goes on from there.") == 1
    assert "Traceback" not in words
    with pytest.raises(ProcessLookupError):
        until(lambda: os.kill(kernel, 0))
    (results / "mine" / "again").touch()
    assert ended(started(faulty.make_figures, tmp_path / "study", results, said)) == 0
    blocks = Counter(log.read_text().splitlines())
    assert len(blocks) == BLOCKS
    assert blocks.total() <= BLOCKS + 1
    counted("SIGINT to make figures", "exit 130, one message, no kernel left; then goes on")


def test_interrupting_a_cell(tmp_path, undisturbed, counted):
    """What Jupyter's stop button does; the cell executed once more goes on."""
    path, same = tmp_path / "sweep.nc", undisturbed[0]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    manager, client = start_new_kernel(
        env=environment, extra_arguments=["--IPKernelApp.log_level=CRITICAL"], stderr=subprocess.DEVNULL
    )
    try:
        cell = f"import faulty, pathlib; ds = faulty.sweep(faulty.PARAMETERS, pathlib.Path({str(path)!r}))"
        # Or the kernel may drop what follows the interrupted cell at once, faster than a hand is.
        request = client.execute(cell, stop_on_error=False)
        log = path.with_suffix(".log")
        until(lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
        manager.interrupt_kernel()
        reply = client._recv_reply(request, timeout=300)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert client.execute_interactive(cell, timeout=300, output_hook=lambda _: None)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    blocks = Counter(log.read_text().splitlines())
    well = numbers(store.read(path)) == same and blocks.total() <= BLOCKS + 1
    counted("SIGINT in a notebook", f"{'' if well else FAILED}what was finished is kept, the cell goes on")
    assert well


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps(tmp_path, undisturbed, monkeypatch, counted, jump):
    """The wall clock either way at every look at it; the monotonic one forward, as after a suspended night."""
    jumps = {"time": 0.0, "perf_counter": 0.0, "monotonic": 0.0}

    def jumping(name, original):
        def clock():
            jumps[name] += jump if name == "time" else abs(jump)
            return original() + jumps[name]

        return clock

    for name in jumps:
        monkeypatch.setattr(time, name, jumping(name, getattr(time, name)))
    ds = epkit.run(PARAMETERS, tmp_path / "sweep.nc")
    monkeypatch.undo()
    os.utime(tmp_path / "sweep.nc", (0, 0))
    well = numbers(epkit.run(PARAMETERS, tmp_path / "sweep.nc")) == numbers(ds) == undisturbed[0]
    counted(f"a clock that jumps {'back' if jump < 0 else 'forward'}", f"{'' if well else FAILED}bit-identical")
    assert well
    assert np.isfinite(ds.wall_time).all()
    assert (ds.wall_time >= 0).all()


def test_runs_that_diverge_are_marked_and_the_sweep_goes_on(tmp_path, counted):
    """A rate that no network survives beside one that learns: marked, at chance, and nobody else's numbers change."""
    rates = {"learning_rate": [0.05, 1e38]}
    both = epkit.run(PARAMETERS | rates, tmp_path / "both" / "sweep.nc")
    alone = epkit.run(PARAMETERS, tmp_path / "alone" / "sweep.nc")
    sane, lost = (both.sel(learning_rate=[rate]) for rate in rates["learning_rate"])
    assert lost.diverged.isel(epoch=-1).all()
    assert not sane.diverged.any()
    runs = [name for name in alone.data_vars if "seed" in alone[name].dims and name != "wall_time"]
    well = numbers(sane[runs].drop_attrs()) == numbers(alone[runs].drop_attrs())
    counted("NaN in training", f"{'' if well else FAILED}marked diverged, the others bit-identical", lost.run.size)
    assert well
    error = study.final_error(both).sel(learning_rate=1e38)
    assert (error >= 0.85).all(), "no better than chance"
    limits = study.critical_limit(study.final_error(both), both.chance)
    for figure in (figures.error_over_sigma(both, limits), figures.training_curves(both), figures.unit_activity(both)):
        figures.save(figure, tmp_path, "figure")
    assert len(study.claim_limit(both))


@pytest.mark.parametrize("engine", ["native", "eager"])
def test_every_engine_marks_what_diverges(engine, counted):
    net = DeepResistiveNetwork([64, 16, 10], members=2, seed=0, input_gain=20.0)
    x, y = torch.rand(40, 64), torch.arange(40) % 10
    history = train(
        net, x, y, epochs=2, batch_size=4, beta=0.1, iterations=3, learning_rates=[torch.tensor([0.0, 1e38])] * 2,
        test=(x, y), looks=2, engine=engine,
    )  # fmt: skip
    assert history.diverged.isel(epoch=-1).values.tolist() == [False, True]
    assert float(history.test_error.isel(epoch=-1, member=1)) == 1.0
    assert float(history.train_error.isel(epoch=-1, member=1)) >= 0.8
    counted("NaN in training", f"marked by the {engine} engine")


@pytest.mark.parametrize("name", ["faults", "bad_input"])
def test_the_page_shows_what_was_counted(name):
    counts = KEPT / f"{name}.json"
    assert page(counts) == (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
