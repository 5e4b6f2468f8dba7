"""Runs as jobs of a real Dask cluster: one scheduler and workers of this machine, each a process of its own.

The tests share one cluster and go in order: the workers get fewer, the last test kills the scheduler.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
import torch
import xarray as xr

import epkit
from epkit import __main__ as execute
from epkit.ep import engine
from epkit.messages import ParameterError
from epkit.sweep import ensemble, grid, pool, runs

ROOT = Path(__file__).parents[1]
TINY = {
    "dataset": ["digits"], "sigma": [0.0, 1e-3], "learning_rate": [0.05], "seeds": 2, "hidden": [12, 12],
    "input_gain": 50.0, "beta": 0.1, "iterations": 3, "epochs": 2, "train_images": 80, "test_images": 40,
}  # fmt: skip
LONG = TINY | {"epochs": 2000, "train_images": 1400}  # never ended


def wait_until(true, seconds=300):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Cluster:
    """A scheduler and its workers, as two commands start them."""

    def __init__(self, folder):
        self.folder, self.workers = folder, []
        self.scheduler = self.start("scheduler", "--port", "0", "--scheduler-file", folder / "scheduler.json")

    def start(self, what, *options, **environment):
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{what}",
            "--preload",
            "epkit.sweep.ensemble",
            "--no-dashboard",
        ]
        with open(self.folder / f"{what}.log", "ab") as log:
            return subprocess.Popen(
                [*command, "--host", "127.0.0.1", *map(str, options)],
                env=os.environ | {"PYTHONPATH": str(ROOT), "EPKIT_OFFLINE": "1"} | environment,
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def add_worker(self, **environment):
        scratch = ("--local-directory", self.folder / "scratch")
        options = ("--scheduler-file", self.folder / "scheduler.json", "--no-nanny", "--nthreads", "1", *scratch)
        self.workers.append(self.start("worker", *options, **environment))
        return self.workers[-1]

    @property
    def address(self):
        file = self.folder / "scheduler.json"
        wait_until(lambda: file.exists() and file.read_text().rstrip().endswith("}"))  # written to its end
        return json.loads(file.read_text())["address"]

    def wait_for(self, workers):
        with pool.connected(self.address) as client:
            wait_until(lambda: len(client.nthreads()) == workers)

    def stop(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        started.add_worker()
        started.add_worker()
        started.wait_for(2)
        yield started
    finally:
        started.stop()


def same_numbers(one, other):
    xr.testing.assert_identical(one.drop_vars("wall_time"), other.drop_vars("wall_time"))


def test_a_cluster_gives_the_numbers_of_this_machine(dask, tmp_path, capfd):
    there = epkit.run(TINY, tmp_path / "there" / "sweep.nc", scheduler=dask.address)
    shown = capfd.readouterr().err
    assert "0 runs done, 0 failed, 4 waiting, 2 workers" in shown
    assert "4 runs done, 0 failed, 0 waiting" in shown
    here = epkit.run(TINY, tmp_path / "here" / "sweep.nc")
    same_numbers(there, here)
    assert not list((tmp_path / "there").glob("*.parts"))
    # a complete store needs no cluster
    same_numbers(epkit.run(TINY, tmp_path / "there" / "sweep.nc", scheduler="tcp://127.0.0.1:1"), here)


def test_make_figures_trains_on_the_cluster_that_it_is_given(dask, tmp_path, monkeypatch, capfd):
    (tmp_path / "params" / "smoke").mkdir(parents=True)
    for name in ("base.yaml", "02_critical_limit.yaml"):
        shutil.copy(ROOT / "params" / "smoke" / name, tmp_path / "params" / "smoke")
    monkeypatch.setenv("EPKIT_PARAMS", str(tmp_path / "params"))
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path / "results"))
    assert execute.main(["figures", "--profile", "smoke", "--scheduler", dask.address]) == 0
    shown = capfd.readouterr()
    assert "What its sweeps, which are exploratory, say of the claims" in shown.out
    assert "2 workers" in shown.err
    with pool.connected(dask.address) as client:
        assert not client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)), "nothing is left behind"


def test_a_killed_worker_costs_one_retry_from_its_checkpoint(dask, tmp_path):
    """The other worker goes on where the lost one had got to, and ends with the same numbers."""
    log, parameters = tmp_path / "log", TINY | {"seeds": 1, "epochs": 60, "train_images": 800}

    def slow_and_watched():
        original = ensemble.trained

        def trained(sweep, group, rates, *, progress, **options):
            def slower(images):
                with open(log, "a") as lines:
                    lines.write(f"{os.getpid()} {images}\n")
                time.sleep(0.05)
                progress(images)

            return original(sweep, group, rates, progress=slower, **options)

        ensemble.trained, ensemble.KEEP_EVERY = trained, 0.1

    def kill_one():
        wait_until(lambda: list((tmp_path / "there" / "sweep.parts").glob("*.checkpoint")))
        time.sleep(0.5)
        os.kill(int(log.read_text().split()[0]), signal.SIGKILL)

    with pool.connected(dask.address) as client:
        client.run(slow_and_watched)
    killer = Thread(target=kill_one)
    killer.start()
    there = epkit.run(parameters, tmp_path / "there" / "sweep.nc", scheduler=dask.address)
    killer.join()
    calls = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    first, second = dict.fromkeys(pid for pid, _ in calls)
    assert next(images for pid, images in calls if pid == first) == 0
    assert next(images for pid, images in calls if pid == second) > 0, "from the checkpoint"
    same_numbers(there, epkit.run(parameters, tmp_path / "here" / "sweep.nc"))


def test_a_run_that_fails_leaves_the_others_done(dask, tmp_path, monkeypatch):
    path = tmp_path / "sweep.nc"
    axis = grid.axis
    with monkeypatch.context() as patched:
        patched.setattr(grid, "axis", lambda sweep, name: [0, -1] if name == "seed" else axis(sweep, name))
        with pytest.raises(pool.ClusterError) as caught:
            epkit.run(TINY, path, scheduler=dask.address)
    assert "sweep.nc: 2 runs failed; the others are kept" in str(caught.value)
    assert "digits, shortcut averaging, N = 1, seed -1 (2 runs): ValueError" in str(caught.value)
    monkeypatch.setattr(ensemble, "trained", lambda *_, **__: pytest.fail("seed 0 is kept"))
    assert epkit.run(TINY | {"seeds": 1}, path).run.size == 2


def test_other_versions_are_refused(dask, tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "epkit", tmp_path / "other" / "epkit")
    with open(tmp_path / "other" / "epkit" / "learning.py", "a") as source:
        source.write("# changed\n")
    worker = dask.add_worker(PYTHONPATH=str(tmp_path / "other"))
    dask.wait_for(2)
    with pytest.raises(pool.ClusterError) as caught:
        epkit.run(TINY, tmp_path / "sweep.nc", scheduler=dask.address)
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("the worker tcp://127.0.0.1:")
    assert "epkit source " in line
    assert f"there, source {pool.SOURCE[:12]} here" in line
    # one that joins later takes no part, and is no obstacle
    monkeypatch.setattr(pool, "refuse_misfits", lambda *_: None)
    assert epkit.run(TINY | {"seeds": 6}, tmp_path / "sweep.nc", scheduler=dask.address).test_error.notnull().all()
    assert "is refused: epkit source" in capsys.readouterr().err
    worker.wait(timeout=300)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"OMP_NUM_THREADS": "abc"}, "OMP_NUM_THREADS = 'abc': must be a number of threads, from 1 to 9999, or not be"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS = '0': must be a number of threads, from 1 to 9999, or not be set"),
        pytest.param(
            {"PATH": "nowhere", "CXX": ""},
            "training engine torch there, compiled C++ here: another engine gives other last bits",
            marks=pytest.mark.skipif(engine.library() is None, reason="this machine compiles nothing itself"),
        ),
    ],
)
def test_a_worker_with_an_unfit_environment_is_refused_by_name(
    dask, tmp_path, monkeypatch, capsys, environment, reason
):
    """Before any work where it is there already; where it joins later, the others do its work."""
    dask.wait_for(1)
    worker = dask.add_worker(**environment)
    dask.wait_for(2)
    parameters = TINY | {"seeds": 6}
    with pytest.raises(pool.ClusterError) as caught:
        epkit.run(parameters, tmp_path / "sweep.nc", scheduler=dask.address)
    (line,) = str(caught.value).splitlines()[1:]
    assert re.match(r"the worker tcp://127\.0\.0\.1:\d+: ", line)
    assert reason in line
    monkeypatch.setattr(pool, "refuse_misfits", lambda *_: None)
    result = epkit.run(parameters, tmp_path / "sweep.nc", scheduler=dask.address)
    assert result.test_error.notnull().all()
    assert re.search(rf"the worker tcp://\S+ is refused: {re.escape(reason)}", capsys.readouterr().err)
    worker.wait(timeout=300)


def test_a_misspelt_variable_of_a_worker_is_a_reason_to_refuse_it(monkeypatch):
    monkeypatch.setenv("EPKIT_DATA_MIROR", "mirror")
    reason = pool._reason_to_refuse(pool.versions("cpu"), ["mnist"], "cpu")
    assert reason == "EPKIT_DATA_MIROR: no such environment variable; did you mean EPKIT_DATA_MIRROR?"


def test_a_worker_without_the_data_is_named_before_training(dask, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "layer_rates", lambda *_: [0.1, 0.1, 0.1])  # this machine may lack them too
    worker = dask.add_worker(EPKIT_DATA=str(tmp_path / "data"), EPKIT_DATA_MIRROR="")
    dask.wait_for(2)
    with pytest.raises(pool.ClusterError, match=r"the worker tcp://\S+: .*train-images-idx3-ubyte can't be had"):
        epkit.run(TINY | {"dataset": ["mnist"]}, tmp_path / "sweep.nc", scheduler=dask.address)
    worker.kill()
    worker.wait()
    dask.wait_for(1)


def test_what_is_interrupted_leaves_the_worker(dask, tmp_path, monkeypatch):
    def interrupt(*_):
        if list((tmp_path / "sweep.parts").glob("seen-*")) and time.monotonic() > started + 3:
            raise KeyboardInterrupt

    started = time.monotonic()
    monkeypatch.setattr(runs.progress_bar, "set_postfix_str", lambda *_, **__: interrupt())
    with pytest.raises(KeyboardInterrupt):
        epkit.run(LONG, tmp_path / "sweep.nc", scheduler=dask.address)
    with pool.connected(dask.address) as client:
        wait_until(lambda: not any(client.run(lambda dask_worker: len(dask_worker.active_threads)).values()))


def test_a_lost_scheduler_is_one_error_and_keeps_what_is_done(dask, tmp_path, monkeypatch):
    path, parameters = tmp_path / "sweep.nc", TINY | {"seeds": 8, "epochs": 30}
    code = (
        "import sys, epkit; from epkit.sweep import pool\n"
        f"try: epkit.run({parameters!r}, {str(path)!r}, scheduler={dask.address!r})\n"
        "except pool.ClusterError as error: sys.exit(str(error))"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(path.with_suffix(".parts").glob("[!.]*.nc")))
    dask.scheduler.kill()
    _, shown = client.communicate(timeout=300)
    assert client.returncode == 1
    assert f"{dask.address}: the scheduler was lost; what was finished is kept" in shown.splitlines()[-1]
    assert "Traceback" not in shown
    done, groups, original = len(list(path.with_suffix(".parts").glob("*.nc"))), [], ensemble.trained
    monkeypatch.setattr(ensemble, "trained", lambda *a, **k: groups.append(a) or original(*a, **k))
    epkit.run(parameters, path)
    assert 1 <= done == 8 - len(groups)
    for worker in dask.workers:
        assert worker.wait(timeout=300) != -signal.SIGABRT, "killed within a block of steps"


def test_a_scheduler_that_is_not_there_is_said_so_before_any_work(tmp_path, capsys):
    started = time.monotonic()
    with pytest.raises(pool.ClusterError, match=r"tcp://127\.0\.0\.1:1: no Dask scheduler answers there"):
        epkit.run(TINY, tmp_path / "sweep.nc", scheduler="tcp://127.0.0.1:1")
    assert time.monotonic() - started < 100
    assert execute.main(["figures", "--profile", "smoke", "--scheduler", "foo"]) == 1
    assert "scheduler = 'foo': must be the address of a Dask scheduler" in capsys.readouterr().err
    with pytest.raises(ParameterError):
        epkit.run(TINY, tmp_path / "sweep.nc", scheduler="tcp://127.0.0.1")


def test_a_large_machine_trains_several_groups_at_once(tmp_path, monkeypatch):
    """Runs that have work for one core each, on a machine with two or more."""
    parameters, before = TINY | {"sigma": [1e-3]}, torch.get_num_threads()
    alone = epkit.run(parameters, tmp_path / "alone" / "sweep.nc")
    asked, start = [], pool.of_this_machine
    monkeypatch.setattr(pool, "of_this_machine", lambda *numbers: asked.append(numbers) or start(*numbers))
    monkeypatch.setattr(runs, "WORTH_PROCESSES", 0.0)
    monkeypatch.setattr("dask.system.CPU_COUNT", 5)
    try:
        torch.set_num_threads(64)
        several = epkit.run(parameters, tmp_path / "several" / "sweep.nc")
    finally:
        torch.set_num_threads(before)
    assert asked == [(2, 2)]
    same_numbers(several, alone)
