"""Groups of runs as jobs of a Dask cluster: sent, watched while they train, and received when they are done.

A job is one group on one thread slot of a worker. One client alone writes files of results. Workers that see its folder
of parts keep their checkpoints there, so that another worker goes on where one was lost; others keep them on their own
disk, where they find them again after a restart.

Not used of Dask, because it does less than this needs:
- `Client.get_versions(check=True)` compares neither source, engine, data nor device, and only warns.
- A WorkerPlugin stays on the cluster after its client, and would refuse workers that suit the next one.
- `as_completed` waits for the next job without end; the progress bar and Ctrl-C need this thread all the time.
- `SubprocessCluster` gives its workers no environment of their own, and outlives a client that is killed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import platform
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import xarray as xr

from .. import data
from ..ep import engine
from ..files import CHECKOUT
from ..messages import ParameterError, short
from . import ensemble, store

if TYPE_CHECKING:  # what needs no cluster need not wait for its imports
    from distributed import Client, Future

CONNECT = 8.0  # seconds that a scheduler has to answer in
POLL = 0.1  # seconds between two looks at the jobs
TELL = 1.0  # seconds between two reports of a job's progress
TOPIC = "epkit"
SOURCE = store.source_hash()  # of the code that this process has loaded: the files may change later


class ClusterError(RuntimeError):
    """A Dask cluster can't be used, or failed: the message says which part of it, why, and what to do."""


class Unfit(Exception):
    """Raised by a job on a worker that must not train: the worker's address, and why."""


def check_address(scheduler: str) -> None:
    """ParameterError unless `scheduler` is written as the address of one."""
    with contextlib.suppress(ValueError):  # of a port that is no number
        parts = urlsplit(scheduler)
        if parts.scheme in ("tcp", "tls", "ws", "wss") and parts.hostname and parts.port:
            return
    raise ParameterError(
        f"scheduler = {scheduler!r}: must be the address of a Dask scheduler, such as tcp://127.0.0.1:8786"
    )


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of the scheduler at this address.

    Raises:
        ParameterError: for what is no address. ClusterError: when nothing answers there.
    """
    check_address(scheduler)
    from distributed import Client
    from distributed.utils import silence_logging_cmgr
    from distributed.versions import VersionMismatchWarning

    with silence_logging_cmgr("CRITICAL"):  # its tracebacks: one plain line is enough
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # more is compared below, and refused
            try:
                client = Client(scheduler, timeout=CONNECT, set_as_default=False)
            except (OSError, ValueError) as error:
                raise ClusterError(
                    f"{scheduler}: no Dask scheduler answers there ({_named(error)}); `dask scheduler` starts one"
                ) from None
        with client:
            yield client


def refuse_misfits(client: Client, scheduler: str, data_sets: Sequence[str], device: str) -> None:
    """ClusterError if the scheduler or a worker there would not give this process's numbers, or lacks data."""
    answers: dict[str, object] = {}
    try:
        answers[f"the scheduler {scheduler}"] = _differences(versions(), client.run_on_scheduler(versions))
    except Exception as error:  # whatever its Python raises for want of this package
        answers[f"the scheduler {scheduler}"] = error
    # in a thread, for workers may have to fetch data, and must answer meanwhile
    arguments = _reason_to_refuse, versions(device), data_sets, device
    replies = client.run(asyncio.to_thread, *arguments, on_error="return")
    answers |= {f"the worker {worker}": reply for worker, reply in replies.items()}
    reasons = {
        name: r if isinstance(r, str) else f"its versions are unknown ({_named(r)})" for name, r in answers.items()
    }
    if lines := [f"{name}: {reason}" for name, reason in reasons.items() if reason]:
        raise ClusterError("\n".join([f"{scheduler}: this cluster would not give this machine's numbers:", *lines]))


def versions(device: str | None = None) -> dict[str, str]:
    """What a run's numbers depend on besides its parameters: this process's epkit, packages and Python.

    With a `device`, also the engine that trains there: another one gives other last bits.
    """
    packages = {"python": platform.python_version()} | {name: version(name) for name in store.RECORDED}
    if device is not None:
        compiled = device == "cpu" and engine.library() is not None
        packages["training engine"] = "compiled C++" if compiled else "torch"
    return {"epkit": f"source {SOURCE[:12]}"} | packages


def trained(
    client: Client, scheduler: str, tasks: Mapping[str, ensemble.Task], parts: Path, progress: Callable[..., object]
) -> Iterator[tuple[str, xr.Dataset | Exception]]:
    """Train groups of runs on a cluster's workers; yields each task's name with its history, or with its exception.

    A group whose worker dies is given to another one, as often as the scheduler's `allowed-failures` says. A worker
    that joins later and would not give this process's numbers is refused.

    Args:
        tasks: by names which are those of their checkpoints.
        parts: folder where checkpoints are kept by workers that see it.
        progress: called with the images done since the last call, times runs, and the number of workers in words.

    Raises:
        ClusterError: when the scheduler is lost.
    """
    token = parts / f"seen-{uuid.uuid4().hex}"
    images: dict[str, int] = dict.fromkeys(tasks, 0)
    jobs: dict[Future, str] = {}

    def count(event: tuple[float, dict]) -> None:
        if event[1]["token"] == token.name:  # not of another client's job
            images[event[1]["name"]] = event[1]["images"]

    def submit(name: str) -> None:
        arguments = tasks[name], versions(tasks[name].device), token.absolute(), name
        jobs[client.submit(_job, *arguments, key=f"train-{name}-{uuid.uuid4().hex}", pure=False)] = name

    try:
        token.touch()
        client.subscribe_topic(TOPIC, count)
        for name in tasks:
            submit(name)
        for future in _ended(client, scheduler, jobs, images, progress):
            name, error = jobs.pop(future), future.exception()
            if isinstance(error, Unfit):
                worker, reason = error.args
                print(f"the worker {worker} is refused: {reason}", file=sys.stderr)
                client.retire_workers([worker])
                submit(name)
                continue
            if error is None:
                images[name] = tasks[name].images
            yield name, error or future.result()
    except (OSError, TimeoutError, concurrent.futures.CancelledError):
        lost = "the scheduler was lost; what was finished is kept, and the same command goes on from there"
        raise ClusterError(f"{scheduler}: {lost}") from None
    finally:
        token.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # of a scheduler that isn't there any more
            client.cancel(list(jobs))


def _ended(
    client: Client,
    scheduler: str,
    jobs: Mapping[Future, str],
    images: Mapping[str, int],
    progress: Callable[..., object],
) -> Iterator[Future]:
    """Jobs as they end, until none is left in `jobs`; shows progress meanwhile. OSError if the scheduler is lost."""
    reported, last, workers = 0, 0.0, -1
    while jobs:
        time.sleep(POLL)
        if time.monotonic() - last > TELL:
            before, workers, last = workers, len(client.nthreads()), time.monotonic()
            total = sum(images.values())
            progress(total - reported, f", {workers} worker{'s' * (workers != 1)}")
            reported = total
            if not workers and before:
                command = f"dask worker {scheduler} --nworkers 2 --nthreads 1"
                print(f"{scheduler}: no worker there; waiting for one (`{command}`)", file=sys.stderr)
        for future in [job for job in jobs if job.status not in ("pending", "lost")]:
            if future.status == "cancelled":  # all of them are, as soon as the connection breaks
                raise OSError
            yield future
    progress(sum(images.values()) - reported, "")


@contextlib.contextmanager
def of_this_machine(processes: int, threads: int) -> Iterator[str]:
    """The address of a scheduler within this process that has `processes` workers of `threads` threads each.

    For a machine with more cores than one group has work for. Each worker is a command of its own, so that a script
    needs no guard against being imported, and ends by itself when this process is killed.
    """
    from distributed import LocalCluster

    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--nworkers", str(processes), "--nthreads", "1"]
    environment = {
        # the epkit that runs here, installed or not
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(threads),
        "DASK_LOGGING__DISTRIBUTED": "critical",
    }
    with LocalCluster(
        n_workers=0, host="127.0.0.1", protocol="tcp", dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
    ) as cluster:
        command += ["--no-dashboard", "--death-timeout", "60", cluster.scheduler_address]
        with subprocess.Popen(command, env=os.environ | environment, stdin=subprocess.DEVNULL) as workers:
            try:
                with contextlib.suppress(TimeoutError):  # the bar then says that no worker is there
                    cluster.wait_for_workers(1, timeout=120)
                yield cluster.scheduler_address
            finally:
                workers.kill()  # its work is done, or not wanted any more


def _named(error: object) -> str:
    return f"{type(error).__name__}: {short(error)}"


def _differences(wanted: Mapping[str, str], actual: Mapping[str, str]) -> str:
    names = [name for name, value in wanted.items() if actual.get(name) != value]
    return ", ".join(f"{name} {actual.get(name)} there, {wanted[name]} here" for name in names)


def _threads() -> int:
    """Threads of a job on this worker, from the environment that it was started with; ParameterError for no number."""
    text = os.environ.get("OMP_NUM_THREADS") or "1"
    number = text.split(",")[0].strip()  # after a comma: of parallel regions within parallel regions
    if not (number.isdecimal() and 1 <= int(number) <= 9999):
        raise ParameterError(f"OMP_NUM_THREADS = {text!r}: must be a number of threads, from 1 to 9999, or not be set")
    return int(number)


def _reason_to_refuse(wanted: Mapping[str, str], data_sets: Sequence[str], device: str) -> str:
    """On a worker: why it must not train for this client; "" if it may."""
    import torch

    try:
        _threads()
        if differences := _differences(wanted, versions(device)):
            other = "training engine" in differences
            return differences + (": another engine gives other last bits" if other else "")
        torch.empty(0, device=device)
        for name in data_sets:
            data.fetch(name)
    except (data.DataUnavailable, ParameterError, RuntimeError, AssertionError) as error:
        return str(error)
    return ""


def _job(task: ensemble.Task, wanted: Mapping[str, str], token: Path, name: str) -> xr.Dataset:
    """On a worker: one group's history, on as many threads as the worker's environment gives to each slot."""
    import torch
    from distributed import Status, get_worker

    worker = get_worker()
    if reason := _reason_to_refuse(wanted, [task.group[0].dataset], task.device):
        raise Unfit(worker.address, reason)
    torch.set_num_threads(_threads())
    local = Path(worker.local_directory).parent / "epkit" / f"{name}-{SOURCE[:12]}.checkpoint"
    checkpoint = token.with_name(f"{name}.checkpoint") if token.exists() else local
    key, total, last = worker.get_current_task(), 0, 0.0

    def progress(images: int) -> None:
        nonlocal total, last
        total += images
        if worker.state.tasks[key].state == "cancelled" or worker.status in (Status.closing, Status.closed):
            raise InterruptedError("nobody waits for this job any more")
        if time.monotonic() - last > TELL:
            worker.log_event(TOPIC, {"token": token.name, "name": name, "images": total})
            last = time.monotonic()

    history = task.trained(checkpoint, progress)
    local.unlink(missing_ok=True)
    return history
