"""From validated parameters to a store: the memoised sweep.

Only the runs that neither the store, nor an earlier, interrupted attempt, nor a sealed neighbour holds are computed. A
store is only ever added to: what other parameters computed stays, or is set aside where somebody says so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from filelock import FileLock, Timeout
from tqdm import auto, std

from .. import data as datasets
from ..ep.networks import DeepResistiveNetwork
from ..ep.readout import GaussianReadout
from ..files import StoreError, set_aside
from ..messages import ParameterError, short, shown
from ..validation import validated
from . import before, ensemble, grid, pool, store
from .ensemble import Physics
from .grid import run_ids
from .parameters import Comparison, Experiment, Point, Sweep, layer_sizes, settings

# Conductances times images: about half a minute on two cores, from which on starting more processes pays.
WORTH_PROCESSES = 1e11

IMAGES = 64  # of the pass before training
PREDICTED_IMAGES = 256  # of that which predicts the limit, for it takes a mean gradient

# In a notebook a bar is a widget; where papermill's caller watches from a terminal (`python -m epkit`), it is text.
progress_bar = std.tqdm if os.environ.get("EPKIT_TERMINAL") else auto.tqdm


class OtherExperiment(StoreError):
    """A store holds what going on would lose; `content` says what, and what the two experiments disagree on."""

    def __init__(self, content: str) -> None:
        super().__init__(
            f"{content}, which would be lost; name another file, or say that it may be replaced (replace=True)"
        )
        self.content = content


def run(
    parameters: Sweep | Mapping[str, object],
    path: str | Path,
    *,
    network: Callable[..., Any] = DeepResistiveNetwork,
    readout: Callable[..., Any] = GaussianReadout,
    replace: bool = False,
    device: str = "cpu",
    scheduler: str | None = None,
) -> xr.Dataset:
    """The runs of a sweep: read from the store where it has them, computed where it doesn't.

    With a complete store this only reads. Otherwise groups of missing runs are trained under a progress bar, here or on
    a cluster, each kept in a file of its own as soon as it is done, and merged into the store at the end; an
    interrupted call goes on where it stopped and ends with the same numbers. A store that holds more runs than these
    stays as it is; one that holds fewer is added to.

    Args:
        parameters: a `Sweep`, or values for one. Lists span the grid: dataset, sigma (V), samples, averaging,
            learning_rate. The others: seeds (how many), first_seed, hidden, input_gain (V), beta (S), iterations,
            estimator, batch_size, epochs, train_images, test_images, first_test_image, validation_images,
            first_validation_image, decay, bias_rate, dtype, looks, rates, realisation (of data order and noise),
            schedule (rule, images, bound, layers, updates: how reads follow training), readout (what a read errs by:
            kind, volts, lsb, bits, spans, mean_lsb, differential, or preset, full_scale), warm_up (images), variant,
            network (hopfield, convolutional), relaxation_noise, nudged_iterations, optimiser, cold.
        path: the netCDF store; what isn't merged yet lies beside it in `<name>.parts/`.
        network, readout: what makes what is trained and how it is read: called as DeepResistiveNetwork, and with
            (sigma of each member, samples, averaging), and its seed if it takes one. Others than epkit's own enter a
            run's hash with their source.
        replace: set another experiment's store at this path aside (`.old`) instead of refusing.
        device: where torch computes. scheduler: address of a Dask cluster's, such as "tcp://127.0.0.1:8786"; None
            trains on the cores of this machine, as many groups at once as have work for all of them.

    Returns:
        Dataset over (dataset, learning_rate, averaging, samples, sigma, seed, epoch[, layer]): test_error,
        train_error, train_cost (V^2), activity, conductance (S), diverged, wall_time (s), run (hash), maker (place in
        the attribute `makers`); rate (dataset, learning_rate, layer); chance and title (dataset); image.

    Raises:
        ParameterError: before any work. DataUnavailable: before any training.
        StoreError: when the store can't be written, or is no store, or holds runs of another experiment.
        ClusterError: when the cluster can't be used or is lost, or runs failed on it; the others are kept.
    """
    if scheduler is not None:
        pool.check_address(scheduler)
    sweep = parameters if isinstance(parameters, Sweep) else validated(Sweep, parameters)
    path, physics = Path(path).expanduser(), Physics(network, readout)
    own = {"variant": "network", "network": "network", "schedule": "readout", "readout": "readout"}
    for field, part in own.items():
        if (value := getattr(sweep, field)) is not None and part in physics.facts():
            raise ParameterError(f"parameters: {field} = {shown(value)}: is of epkit's own {part}, not of one's own")
    stored = partial(stored_runs, path, sweep, physics, replace)
    return memoised(stored, path, lambda _: _computed(sweep, physics, path, device, scheduler))


def stored_runs(path: Path, sweep: Sweep, physics: Physics, replace: bool = False) -> xr.Dataset | None:
    """The sweep as the store holds it, a part of the store where that holds more; None where runs are missing.

    StoreError where the store holds runs of another experiment, which going on would lose, unless it may be replaced.
    """
    if (ds := store.read_own(path)) is None:
        return None
    wanted = list(run_ids(sweep, physics).values())
    recorded, about = store.parameters(ds), settings(sweep) | physics.facts()
    if "run" not in ds and not replace:
        raise OtherExperiment(f"{path}: holds another kind of experiment")
    runs = _runs(ds)
    if runs >= set(wanted):
        part = ds.sel({name: grid.axis(sweep, name) for name in Point._fields})
        if part["run"].values.ravel().tolist() == wanted:
            return ds if recorded == about else part.assign_attrs(store.recorded(about))
    if (foreign := runs - set(wanted)) and not replace:
        raise _refusal(path, f"{len(foreign)} runs of another experiment", recorded, about)
    return None


def _runs(ds: xr.Dataset) -> set[str]:
    """The hashes of a store's runs; none in a store of something else."""
    return set(ds["run"].values.flat) - {""} if "run" in ds else set()


def _refusal(path: Path, content: str, recorded: Mapping[str, object], wanted: Mapping[str, object]) -> OtherExperiment:
    """What a store holds that would be lost, and what the two experiments disagree on."""
    names = [name for name in {**recorded, **wanted} if recorded.get(name) != wanted.get(name) and name != "sizes"]
    differences = (f"{n}: {short(recorded.get(n), 60)} there, {short(wanted.get(n), 60)} now" for n in names)
    return OtherExperiment(f"{path}: holds {content} ({', '.join(differences)})")


def _computed(sweep: Sweep, physics: Physics, path: Path, device: str, scheduler: str | None) -> xr.Dataset:
    """The whole store, of what is at hand and what is trained now."""
    ids = run_ids(sweep, physics)
    wanted, parts = set(ids.values()), path.with_suffix(".parts")
    for unfinished in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed while it wrote
        unfinished.unlink()
    finished = _at_hand(path, wanted)
    finished |= _of_neighbours(path, wanted - set(finished))
    # Here, not by each ensemble: another machine's might differ in the last bit.
    with ensemble.nudge_too_strong():
        rates = {name: ensemble.layer_rates(sweep, name, device, physics.network) for name in sweep.dataset}
    parts.mkdir(parents=True, exist_ok=True)
    groups = grid.groups(sweep, [p for p in ids if ids[p] not in finished], ids)
    tasks = {n: ensemble.Task(sweep, g, rates[g[0].dataset], physics, device) for n, g in groups.items()}
    waiting, failed = dict(tasks), dict[str, Exception]()
    images = sum(task.images for task in tasks.values())
    with progress_bar(total=images, unit="image", unit_scale=True, desc=path.stem) as bar:

        def show(images: int, where: str = "") -> None:
            lost, left = (sum(len(groups[name]) for name in names) for names in (failed, waiting))
            bar.set_postfix_str(f"{len(ids) - lost - left} runs done, {lost} failed, {left} waiting{where}", False)
            bar.update(images)

        with contextlib.closing(_trained(tasks, scheduler, parts, show)) as histories:
            for name, part in histories:
                del waiting[name]
                if isinstance(part, Exception):
                    failed[name] = part
                    continue
                part["run"] = "member", [ids[p] for p in groups[name]]
                store.write(part, parts / f"{name}.nc")
                (parts / f"{name}.checkpoint").unlink(missing_ok=True)
                finished |= grid.split(part)
        show(0)
    if failed:
        raise _failure(path, groups, failed) from next(iter(failed.values()))
    if (old := store.read_own(path)) is not None and ("run" not in old or _runs(old) - wanted):
        print(f"{path.name}: set aside as {set_aside(path, 'old').name}", file=sys.stderr)
    return grid.merge(sweep, physics, finished, rates)


def _at_hand(path: Path, wanted: Set[str]) -> dict[str, xr.Dataset]:
    """Every wanted run of the store itself and of its parts, by its hash."""
    runs: dict[str, xr.Dataset] = {}
    for ds in (store.read_own(path), *map(store.read_if_sound, path.with_suffix(".parts").glob("*.nc"))):
        if ds is not None:
            runs = {name: run for name, run in grid.split(ds).items() if name in wanted} | runs
    return runs


def _of_neighbours(path: Path, wanted: Set[str]) -> dict[str, xr.Dataset]:
    """Wanted runs that sealed stores beside this one hold.

    Neighbouring stores of a profile may hold the same runs for another figure; they may be anybody's and stay as they
    are. What is taken from them is said, and keeps the maker that they name.
    """
    runs: dict[str, xr.Dataset] = {}
    folders = [path.parent]
    if path.parent.parent == store.results("mine"):  # a reader's own, changed from a profile's: that profile's, too
        folders.append(store.results(path.parent.name))
    for neighbour in [file for folder in folders for file in sorted(folder.glob("*.nc"))]:
        if wanted - set(runs) and neighbour != path and store.is_sealed(neighbour):
            with contextlib.suppress(StoreError):
                split = grid.split(store.read(neighbour))
                new = {name: split[name] for name in split if name in wanted and name not in runs}
                if new:
                    print(
                        f"{path.name}: {len(new)} runs taken from {neighbour.parent.name}/{neighbour.name}",
                        file=sys.stderr,
                    )
                runs |= new
    return runs


def _trained(
    tasks: Mapping[str, ensemble.Task], scheduler: str | None, parts: Path, progress: Callable[..., object]
) -> Generator[tuple[str, xr.Dataset | Exception], None, None]:
    """Each task's name with its history, or with what it failed of on a cluster; what fails here is raised."""
    if not tasks:
        return
    sweep, device = next(iter(tasks.values())).sweep, next(iter(tasks.values())).device
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            from dask.system import CPU_COUNT  # knows the share of the cores that a container has

            torch.set_num_threads(cores := min(torch.get_num_threads(), CPU_COUNT))
            # No more threads than members are of use to a group: what a large machine has beyond that trains others.
            at_once = min(len(tasks), cores // max(len(task.group) for task in tasks.values()))
            sizes = {name: layer_sizes(sweep, name) for name in sweep.dataset}
            conductances = {name: sum(a * b for a, b in itertools.pairwise(sizes[name])) for name in sizes}
            work = sum(task.images * conductances[task.group[0].dataset] for task in tasks.values())
            if device != "cpu" or work < WORTH_PROCESSES or at_once < 2:
                for name, task in tasks.items():
                    yield name, task.trained(parts / f"{name}.checkpoint", progress)
                return
            scheduler = stack.enter_context(pool.of_this_machine(at_once, cores // at_once))
        client = stack.enter_context(pool.connected(scheduler))
        pool.refuse_misfits(client, scheduler, sweep.dataset, device)
        yield from pool.trained(client, scheduler, tasks, parts, progress)


def _failure(path: Path, groups: Mapping[str, Sequence[Point]], failed: Mapping[str, Exception]) -> pool.ClusterError:
    count = sum(len(groups[name]) for name in failed)
    lines = [f"{path.name}: {count} runs failed; the others are kept, the same call tries these again"]
    for name, error in failed.items():
        first, runs = groups[name][0], len(groups[name])
        which = f"{first.dataset}, {first.averaging} averaging, N = {first.samples}, seed {first.seed}"
        lines.append(f"  {which} ({runs} runs): {type(error).__name__}: {error}")
    return pool.ClusterError("\n".join(lines))


def complete_store(
    path: Path, parameters: Experiment, complete: Callable[[xr.Dataset], object] = bool
) -> xr.Dataset | None:
    """The experiment's store, if it lacks nothing that could now be computed; StoreError if it is another's."""
    if isinstance(parameters, Sweep):
        return stored_runs(path, parameters, Physics())
    return stored_facts(path, settings(parameters), complete)


def stored_facts(
    path: Path, facts: Mapping[str, object], complete: Callable[[xr.Dataset], object] = bool, replace: bool = False
) -> xr.Dataset | None:
    """The store at `path` if it records just these facts and is complete; StoreError if it records others."""
    if (ds := store.read_own(path)) is None:
        return None
    if (recorded := store.parameters(ds)) == facts:
        return ds if complete(ds) else None
    if replace and recorded.keys() == facts.keys():
        return None
    if replace:  # it may be a sweep's runs, for which nobody has asked
        raise StoreError(f"{path}: holds another kind of experiment, which would be lost; name another file")
    raise _refusal(path, "another experiment", recorded, facts)


def memoised(stored: Callable[[], xr.Dataset | None], path: Path, compute: Callable[[str], xr.Dataset]) -> xr.Dataset:
    """What `stored` reads from the store at `path`, else what `compute` makes under a bar of the store's name."""
    if (ds := stored()) is not None:
        return ds
    with store_lock(path):
        if (ds := stored()) is not None:
            return ds
        ds = compute(path.stem)
        store.write(ds, path)
        _clear(path.with_suffix(".parts"), _runs(ds))
    return store.read(path)


def _clear(parts: Path, merged: Set[str]) -> None:
    """Removes what a sweep kept before its store was whole; what another sweep has left here stays until it goes on."""
    for file in parts.glob("*"):
        part = store.read_if_sound(file) if file.suffix == ".nc" else None
        if file.suffix != ".checkpoint" and (part is None or _runs(part) <= merged):
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or never there
        parts.rmdir()


def run_several(
    comparison: Mapping[str, object], stem: str | Path, scheduler: str | None = None
) -> dict[str, xr.Dataset]:
    """`run` of each network of a `parameters.Comparison` that it computes, `finished_runs` of the others, in its order.

    Each has a store `<stem>.<network>.nc`; a network of which nothing is finished is left out.
    """
    several, stores = validated(Comparison, comparison), dict[str, xr.Dataset]()
    for name, sweep in several.networks.items():
        path = Path(f"{stem}.{name}.nc").expanduser()
        ds = run(sweep, path, scheduler=scheduler) if name in several.wanted() else finished_runs(sweep, path)
        if ds is not None:
            stores[name] = ds
    return stores


def finished_runs(parameters: Sweep | Mapping[str, object], path: str | Path) -> xr.Dataset | None:
    """What is finished of a sweep, as `run` returns it, NaN in place of the rest; None if nothing is.

    Nothing is computed. Runs that lie in `<name>.parts/` are put into the store, from which `run` goes on, unless
    another process is computing it.
    """
    sweep = parameters if isinstance(parameters, Sweep) else validated(Sweep, parameters)
    path, physics = Path(path).expanduser(), Physics()
    if (whole := stored_runs(path, sweep, physics)) is not None:
        return whole
    wanted = set(run_ids(sweep).values())
    if not (runs := _at_hand(path, wanted)):
        return None
    ds = store.read_own(path)
    if ds is not None and set(runs) == set(grid.split(ds)) and store.parameters(ds) == settings(sweep):
        return ds
    rates = {name: ensemble.layer_rates(sweep, name, "cpu") for name in sweep.dataset}
    merged = grid.merge(sweep, physics, runs, rates)
    with contextlib.suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=0):
        if set(_at_hand(path, wanted)) == set(runs):  # else another process has finished more of it meanwhile
            store.write(merged, path)
    return merged


def untrained(networks: Mapping[str, Sweep | Mapping[str, object]], path: str | Path) -> xr.Dataset:
    """Voltages, and what the nudge moves, in the networks of several sweeps before their training.

    Read from the store at `path` where it holds these sweeps, else computed in seconds from the first training images
    of the first data set of each, with the initial conductances of its seeds.

    Returns:
        Dataset over (network, seed, layer), NaN where a network has no such seed or layer: `voltage` (V), rms of the
        free state; `response` (V), rms of the upper nudged phase minus the lower; `largest_voltage` and
        `largest_response` (V) of a unit; `offset_limit` (V), the offset of the reads that errs by as much as the
        gradient of the layer of conductances, and by formula `expected_offset_limit`.

    Raises:
        ParameterError: for another network than the resistive one, phases of its own, or backpropagation.
        StoreError: when the store can't be written, or holds something else, such as runs.
    """
    return _before_training(networks, path, before.untrained, IMAGES, "Networks before training")


def predicted(networks: Mapping[str, Sweep | Mapping[str, object]], path: str | Path) -> xr.Dataset:
    """The critical limits of several sweeps as `predict_critical_limit` tells them before training, memoised likewise.

    Returns:
        Dataset over (network, seed, layer), NaN where a network has no such seed or layer: `limit_over_c` (V) of each
        layer of conductances, that of layer 2 times c being the prediction; its signals, `conductance` (S),
        `mean_gradient`, `batch_gradient` and `noise`; `voltage_drop` (V), rms of what lies across a conductance; `walk`
        and `expected_walk` (S), how far such noise carries a conductance in 1/eta steps, trained and by formula.
    """
    return _before_training(networks, path, before.predicted, PREDICTED_IMAGES, "Limits predicted before training")


def _before_training(
    networks: Mapping[str, Sweep | Mapping[str, object]], path: str | Path,
    look: Callable[[Sweep, int], xr.Dataset], images: int, title: str,
) -> xr.Dataset:  # fmt: skip
    """`look` at the networks of each sweep and as many training images, over `network`; read where it is stored."""
    sweeps = validated(Comparison, {"networks": dict(networks)}).networks
    for name, sweep in sweeps.items():
        told = {field: getattr(sweep, field) for field in ("network", "variant", "cold", "nudged_iterations")}
        told["estimator"] = sweep.estimator if sweep.estimator == "backpropagation" else None
        if what := ", ".join(f"{field} = {shown(value)}" for field, value in told.items() if value is not None):
            raise ParameterError(f"parameters: networks.{name}: {what}: only EP in the resistive network is looked at")
    path = Path(path).expanduser()
    facts: dict[str, object] = {"images": images} | {
        "networks": {name: sweep.model_dump(mode="json", exclude_none=True) for name, sweep in sweeps.items()}
    }

    def compute(name: str) -> xr.Dataset:
        with progress_bar(sweeps.values(), desc=name) as bar:
            passes = [look(sweep, images) for sweep in bar]
        merged = xr.concat(passes, xr.Variable("network", list(sweeps)), join="outer")
        checksums = {name: datasets.checksum(name) for sweep in sweeps.values() for name in sweep.dataset[:1]}
        return merged.assign_attrs(store.provenance(title, facts, checksums))

    # computed in seconds from what it records, so another set of networks takes its place
    return memoised(partial(stored_facts, path, facts, replace=True), path, compute)


@contextlib.contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """Wait until no other process computes this store; StoreError if nothing can be written beside it.

    The system lifts the lock of a process that ends, however it ends: the file that stays says nothing.
    """
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        if reason := _no_locks(path.parent):  # filelock takes any refusal for somebody else's lock
            raise StoreError(f"{path.parent}: its file system takes no locks ({reason}); name another folder") from None
        print(f"{path.name} is being computed by another process; waiting for it", file=sys.stderr)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{path}: cannot be written ({reason}), and is not complete") from error
    try:
        yield
    finally:
        lock.release()


def _no_locks(folder: Path) -> str:
    """Why files in a folder can't be locked; nothing if they can."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-") as file, contextlib.suppress(ImportError):
        import fcntl  # not on Windows, where locks always work

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return str(error.strerror)
    return ""
