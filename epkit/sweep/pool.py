"""Groups of runs as jobs of a Dask cluster: sent, watched while they train, and received as they get done.

A job is one group on one thread slot of a worker. Workers share nothing but the wish of one client, which alone writes
files of results; where they see the client's folder of parts they keep checkpoints there, so that another worker goes
on where one was lost, else on their own disk, where they find them again after a restart.
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
from ..files import CHECKOUT
from ..messages import ParameterError
from . import ensemble, store
from .parameters import Point, Sweep

if TYPE_CHECKING:  # what needs no cluster need not wait for its imports
    from distributed import Client

CONNECT = 8.0  # seconds that a scheduler has to answer in
POLL = 0.1  # seconds between two looks at the jobs
TELL = 1.0  # seconds between two words from a job about its progress
TOPIC = "epkit"
SOURCE = store.source_hash()  # of the code that this process has loaded; what lies on the disk may be changed later


class ClusterError(RuntimeError):
    """A Dask cluster can't be used, or failed: the message says which part of it, why, and what to do."""


class Unfit(Exception):
    """Raised by a job on a worker that must take no part: its address, and why."""


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

    with silence_logging_cmgr("CRITICAL"):  # its tracebacks; what they come from is said once, in plain words
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # more is compared below, and refused
            try:
                client = Client(scheduler, timeout=CONNECT, set_as_default=False)
            except (OSError, ValueError) as error:
                raise ClusterError(
                    f"{scheduler}: no Dask scheduler answers there ({_first_line(error)}); `dask scheduler` starts one"
                ) from None
        with client:
            yield client


def refuse_misfits(client: Client, scheduler: str, data_sets: Sequence[str], device: str) -> None:
    """ClusterError if the scheduler or a worker there is now has other versions than this process, or lacks data."""
    wanted = versions()
    try:
        theirs = client.run_on_scheduler(versions)
        reasons = {f"the scheduler {scheduler}": _differences(wanted, theirs)}
    except Exception as error:  # whatever its Python raises for want of this package
        reasons = {f"the scheduler {scheduler}": f"can't tell its versions ({_first_line(error)})"}
    for worker, answer in client.run(_unfit_now, wanted, data_sets, device, on_error="return").items():
        told = isinstance(answer, str)
        reasons[f"the worker {worker}"] = answer if told else f"can't tell its versions ({_first_line(answer)})"
    if lines := [f"{who}: {reason}" for who, reason in reasons.items() if reason]:
        raise ClusterError("\n".join([f"{scheduler}: this cluster would not give this machine's numbers:", *lines]))


def versions() -> dict[str, str]:
    """What a run's numbers depend on besides its parameters: this process's epkit, packages and Python."""
    packages = {name: version(name) for name in store.RECORDED}
    return {"epkit": f"source {SOURCE[:12]}", "python": platform.python_version()} | packages


def trained(
    client: Client,
    scheduler: str,
    sweep: Sweep,
    physics: ensemble.Physics,
    groups: Mapping[str, Sequence[Point]],
    rates: Mapping[str, Sequence[float]],
    device: str,
    parts: Path,
    progress: Callable[[int, str], object],
) -> Iterator[tuple[str, xr.Dataset | Exception]]:
    """Train groups on a cluster's workers; yields each one's name with its history, or with what it failed of.

    A group whose worker dies is given to another one, as often as the scheduler's `allowed-failures` says. A worker
    that joins later with other versions or without the data is refused.

    Args:
        groups: by names which are those of their checkpoints.
        parts: folder where checkpoints are kept by workers that see it.
        progress: called with the number of images that were done, times runs, and with where that is.

    Raises:
        ClusterError: when the scheduler is lost.
    """
    from distributed import Future

    token = parts / f"seen-{uuid.uuid4().hex}"
    done: dict[str, int] = dict.fromkeys(groups, 0)

    def heard(event: tuple[float, dict]) -> None:
        if event[1]["token"] == token.name:  # not of another client's job
            done[event[1]["name"]] = event[1]["images"]

    def submitted(name: str) -> Future:
        group = groups[name]
        return client.submit(
            _job, versions(), token.absolute(), name, sweep, physics, group, rates[group[0].dataset], device,
            key=f"train-{name}-{uuid.uuid4().hex}", pure=False,
        )  # fmt: skip

    waiting: dict[Future, str] = {}
    told, looked, workers = 0, 0.0, -1
    try:
        token.touch()
        client.subscribe_topic(TOPIC, heard)
        waiting |= {submitted(name): name for name in groups}
        while waiting:
            time.sleep(POLL)
            if time.monotonic() - looked > TELL:
                before, workers, looked = workers, len(client.nthreads()), time.monotonic()
                now = sum(done.values())
                progress(now - told, f", {workers} worker{'s' * (workers != 1)}")
                told = now
                if not workers and before:
                    command = f"dask worker {scheduler} --nworkers 2 --nthreads 1"
                    print(f"{scheduler}: no worker there; waiting for one (`{command}`)", file=sys.stderr)
            for future in [f for f in waiting if f.status not in ("pending", "lost")]:
                if future.status == "cancelled":  # all of them are, as soon as the connection breaks
                    raise OSError
                name = waiting.pop(future)
                error = future.exception()
                if isinstance(error, Unfit):
                    worker, reason = error.args
                    print(f"the worker {worker} is refused: {reason}", file=sys.stderr)
                    client.retire_workers([worker])
                    waiting[submitted(name)] = name
                    continue
                if error is None:
                    done[name] = ensemble.images_a_run(sweep) * len(groups[name])
                yield name, future.result() if error is None else error
        progress(sum(done.values()) - told, "")
    except (OSError, TimeoutError, concurrent.futures.CancelledError):
        raise ClusterError(
            f"{scheduler}: the scheduler was lost; what was finished is kept, and the same command goes on from there"
        ) from None
    finally:
        token.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # of a scheduler that isn't there any more
            client.cancel(list(waiting))


@contextlib.contextmanager
def of_this_machine(processes: int, threads: int) -> Iterator[str]:
    """The address of a scheduler within this process, with `processes` workers of `threads` threads beside it.

    For a machine with more cores than one group has work for. The workers are commands of their own, so that a script
    need not be importable, and end by themselves when this process is killed.
    """
    from distributed import LocalCluster

    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--nworkers", str(processes), "--nthreads", "1"]
    places = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "PYTHONPATH": os.pathsep.join(places),  # this very epkit, installed or not
        "OMP_NUM_THREADS": str(threads),
        "DASK_LOGGING__DISTRIBUTED": "critical",
    }
    with LocalCluster(
        n_workers=0, host="127.0.0.1", protocol="tcp", dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
    ) as cluster:
        command += ["--no-dashboard", "--death-timeout", "60", cluster.scheduler_address]
        with subprocess.Popen(command, env=os.environ | environment, stdin=subprocess.DEVNULL) as workers:
            try:
                with contextlib.suppress(TimeoutError):  # then the bar says that there is none, and how to start one
                    cluster.wait_for_workers(1, timeout=120)
                yield cluster.scheduler_address
            finally:
                workers.kill()  # all that it had to do is done, or not wanted any more


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    return ", ".join(
        f"{name} {found.get(name)} there, {version} here"
        for name, version in wanted.items()
        if found.get(name) != version
    )


def _unfit(wanted: Mapping[str, str], data_sets: Sequence[str], device: str) -> str:
    """On a worker: why it must take no part; nothing if it may."""
    if wrong := _differences(wanted, versions()):
        return wrong
    import torch

    try:
        torch.empty(0, device=device)
        for name in data_sets:
            data.fetch(name)
    except (data.DataUnavailable, RuntimeError, AssertionError) as error:
        return str(error)
    return ""


async def _unfit_now(wanted: Mapping[str, str], data_sets: Sequence[str], device: str) -> str:
    """`_unfit` of a worker that may be at work: beside its event loop, for data may have to be fetched."""
    return await asyncio.to_thread(_unfit, wanted, data_sets, device)


def _job(
    wanted: Mapping[str, str],
    token: Path,
    name: str,
    sweep: Sweep,
    physics: ensemble.Physics,
    group: Sequence[Point],
    rates: Sequence[float],
    device: str,
) -> xr.Dataset:
    """On a worker: one group's history, on as many threads as the worker's environment gives to each slot."""
    import torch
    from distributed import Status, get_worker

    worker = get_worker()
    if reason := _unfit(wanted, [group[0].dataset], device):
        raise Unfit(worker.address, reason)
    torch.set_num_threads(int((os.environ.get("OMP_NUM_THREADS") or "1").split(",")[0]))
    here = Path(worker.local_directory).parent / "epkit" / f"{name}-{SOURCE[:12]}.checkpoint"
    checkpoint = token.with_name(f"{name}.checkpoint") if token.exists() else here
    key, done, told = worker.get_current_task(), 0, 0.0

    def progress(images: int) -> None:
        nonlocal done, told
        done += images
        if worker.state.tasks[key].state == "cancelled" or worker.status in (Status.closing, Status.closed):
            raise InterruptedError("nobody waits for this job any more")
        if time.monotonic() - told > TELL:
            worker.log_event(TOPIC, {"token": token.name, "name": name, "images": done})
            told = time.monotonic()

    part = ensemble.trained(
        sweep, group, rates, device=device, checkpoint=checkpoint, progress=progress, physics=physics
    )
    here.unlink(missing_ok=True)
    return part
