"""How a study of 784-1024³-10 splits into jobs, and its schedule on 1 to 1,000 workers, from measured times and memory.

`make schedule` measures on this machine, in some minutes, how fast ensembles train and test, what memory they take,
how long a worker needs to start, and what it sends back. A worker is a machine like this one. From that follows how
long every possible job takes, and a scheduler that hands the longest waiting job to the next free worker says when
the study is done. It writes a store and a figure, and the table of docs/scale-out.md.
"""

from __future__ import annotations

import heapq
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import ceil, expm1
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import click
import numpy as np
import speed
import xarray as xr
from matplotlib.figure import Figure
from seaborn import color_palette

import epkit
from epkit.ep.training import State
from epkit.figures import canvas
from epkit.files import CHECKOUT, renewed
from epkit.messages import markdown
from epkit.sweep import ensemble, store

MARKS = "<!-- schedule: written by `make schedule` -->", "<!-- end of schedule -->"
PAGE = CHECKOUT / "docs" / "scale-out.md"
STUDY = {"sigmas": 13, "seeds": 10, "data_sets": 3, "epochs": 50, "train_images": 60_000, "test_images": 10_000}
MEMBERS = (1, 2, 4, 7, 13)  # of an ensemble: how many σ of a seed and data set one job trains, at most
SHOWN = (1, 10, 100, 1000)  # workers
TURNS = 5  # of which the median counts
LOST_EVERY = 4.0  # h that a worker lives on average, where machines are lent until somebody else wants them


def makespan(jobs: Sequence[float], workers: int, start: float = 0.0) -> float:
    """When the last job ends, if each worker, once started, takes the longest of the jobs that wait."""
    free = [start] * min(workers, len(jobs))
    for job in sorted(jobs, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def with_losses(job: float, every: float, restart: float, kept: float | None = None, keeping: float = 0.0) -> float:
    """Expected seconds of a job whose worker is lost `every` so many seconds on average, and then starts anew.

    The state is kept each `kept` seconds, which takes `keeping`; None: a lost job begins from nothing. Losses come at
    random, so a stretch of t seconds without one takes (every + restart) (exp(t / every) - 1) on average.
    """
    stretches = job / kept if kept else 1.0
    return stretches * (every + restart) * expm1((job / stretches + keeping) / every)


def sizes(members: int) -> list[int]:
    """Members of the ensembles that train the σ of one seed and data set: as few as can be, as equal as can be."""
    jobs = ceil(STUDY["sigmas"] / members)
    return [len(part) for part in np.array_split(np.arange(STUDY["sigmas"]), jobs)]


def measured_group(members: int, steps: int, tested: int) -> dict[str, float]:
    """Measured in this process: seconds of a step and of testing, of keeping the state; peak memory, sizes of files."""
    work = speed.DEEP._replace(members=members)
    x, y = speed.images(STUDY["train_images"])
    net = epkit.DeepResistiveNetwork(work.sizes, input_gain=work.gain, members=members, seed=range(members))
    train = partial(
        epkit.train, net, epochs=1, batch_size=work.batch, beta=work.beta, iterations=work.iterations,
        learning_rates=work.rates, readout=epkit.GaussianReadout(speed.SIGMA), engine="native",
    )  # fmt: skip
    train(x[: 16 * work.batch], y[: 16 * work.batch])
    count, taken = steps * work.batch, []
    for _ in range(TURNS):
        begin = perf_counter()
        history = train(x[:count], y[:count])
        taken.append(perf_counter() - begin)
    trained = perf_counter()
    epkit.evaluate(net, x[:tested], y[:tested], iterations=work.iterations)
    done = perf_counter()
    if bool(history.diverged.any()):
        raise RuntimeError("the network has diverged: its speed would mean nothing")
    with tempfile.TemporaryDirectory() as folder:
        state, part = Path(folder, "state"), Path(folder, "part.nc")
        since = perf_counter()
        ensemble._keep(state, net, State(history=[history]), 0.0)
        keeping = perf_counter() - since
        store.write(xr.concat([history] * STUDY["epochs"], "epoch"), part)
        return {
            "step": float(np.median(taken)) / steps,
            "test": (done - trained) * STUDY["test_images"] / tested,
            "keeping": keeping,
            "memory": speed.peak(),
            "state": state.stat().st_size,
            "result": part.stat().st_size,
        }


def measured(quick: bool) -> xr.Dataset:
    """`ensemble` for each number of members, each in a process of its own, and the start of a worker."""
    steps, tested = (4, 60) if quick else (60, 1000)
    found = []
    for members in MEMBERS:
        print(f"  {members} members", flush=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(measured_group, members, steps, tested).result())
    work = f"from epkit import data; data.load({'digits' if quick else 'mnist'!r})"
    begin = perf_counter()
    subprocess.run([sys.executable, "-c", work], check=True)
    start = perf_counter() - begin
    units = {"step": "s", "test": "s", "keeping": "s", "memory": "B", "state": "B", "result": "B"}
    columns = {name: ("members", [one[name] for one in found], {"units": unit}) for name, unit in units.items()}
    return xr.Dataset(columns | {"start": ((), start, {"units": "s"})}, {"members": list(MEMBERS)})


def planned(ds: xr.Dataset, every: float) -> xr.Dataset:
    """Every split of the study into jobs, and its time on any number of workers; `every`: h, see LOST_EVERY."""
    workers = np.unique([*np.geomspace(1, 1000, 61).round().astype(int), *SHOWN])
    steps = STUDY["train_images"] // speed.DEEP.batch
    start, kept, hour = float(ds.start), ensemble.KEEP_EVERY, 3600.0
    span = np.empty((3, len(MEMBERS), len(workers)))
    longest, count = np.empty((3, len(MEMBERS))), []
    for row, members in enumerate(MEMBERS):
        # sizes that were not measured lie between two that were
        each = {n: ds.interp(members=n) for n in sizes(members)}
        exact = {n: STUDY["epochs"] * float(steps * one.step + one.test) for n, one in each.items()}
        plans = (
            exact,
            {n: with_losses(t, every * hour, start, kept, float(each[n].keeping)) for n, t in exact.items()},
            {n: with_losses(t, every * hour, start) for n, t in exact.items()},
        )
        for way, seconds in enumerate(plans):
            jobs = [seconds[n] for n in sizes(members)] * (STUDY["seeds"] * STUDY["data_sets"])
            longest[way, row] = max(jobs) / hour
            span[way, row] = [makespan(jobs, int(w), start) / hour for w in workers]
        count.append(len(jobs))
    ways = ["never lost", "lost, state kept", "lost, begun anew"]
    found = {
        "jobs": ("members", count, {"units": "1"}),
        "longest": (("workers_are", "members"), longest, {"units": "h", "long_name": "the longest job"}),
        "makespan": (("workers_are", "members", "workers"), span, {"units": "h", "long_name": "the whole study"}),
    }
    return ds.assign(found).assign_coords(workers=workers, workers_are=ways)


def best(ds: xr.Dataset, way: str = "never lost") -> xr.Dataset:
    """For each number of workers the split that is done first, and the workers' share of useful time."""
    span = ds.makespan.sel(workers_are=way)
    least = float(ds.makespan.sel(workers_are="never lost", workers=1).min())
    chosen = ds[["jobs", "memory"]].assign(makespan=span).isel(members=span.argmin("members"))
    return chosen.assign(efficiency=least / (ds.workers * chosen.makespan))


def table(ds: xr.Dataset) -> str:
    """Markdown: what was measured, every split, the best one for each number of workers, and where it ends."""
    never, kept, anew = ds.workers_are.values
    study, every = store.parameters(ds)["study"], store.parameters(ds)["lost_every_hours"]
    chosen = best(ds)
    splits, bests = [], []
    for members in ds.members.values:
        split = ds.sel(members=members)
        spans = [_time(float(split.makespan.sel(workers_are=never, workers=w))) for w in SHOWN]
        rate = f"{speed.DEEP.batch * members / float(split.step):,.0f}"
        job, memory = _time(float(split.longest.sel(workers_are=never))), f"{split.memory / 1e9:.2f} GB"
        state = f"{split.state / 1e6:.0f} MB in {split.keeping:.1f} s"
        splits.append([members, int(split.jobs), rate, job, memory, state, *spans])
    for w in SHOWN:
        split = chosen.sel(workers=w)
        ways = [_time(float(best(ds, way).makespan.sel(workers=w))) for way in (kept, anew)]
        row = [f"{w:,}", int(split.members), int(split.jobs), _time(float(split.makespan))]
        bests.append([*row, f"{float(split.efficiency):.0%}", f"{split.memory / 1e9:.2f} GB", *ways])
    columns = ["runs a job", "jobs", "samples/s", "a job", "memory", "state kept"]
    columns += [f"{w:,} worker{'s' * (w > 1)}" for w in SHOWN]
    best_columns = ["workers", "runs a job", "jobs", "done after", "efficiency", "memory a worker", kept, anew]
    runs = study["sigmas"] * study["seeds"] * study["data_sets"]
    single, whole = ds.sel(members=1), ds.sel(members=study["sigmas"])
    floor = float(single.longest.sel(workers_are=never))
    half = int(chosen.workers[chosen.efficiency >= 0.5].max())
    saved = float(study["sigmas"] * single.step / whole.step)
    if saved > 1:
        advice = (
            "That pays while there are more ensembles than workers; then smaller jobs fill workers that would idle."
        )
    else:
        advice = "One network of this size keeps a worker busy; ensembles pay for smaller ones."
    slower = whole.longest / whole.longest.sel(workers_are=never)
    return f"""{markdown(columns, splits, "r" * len(columns))}
The study has {runs} runs: {study["sigmas"]} σ × {study["seeds"]} seeds × {study["data_sets"]} data sets, each of
{study["epochs"]} epochs of {study["train_images"]:,} images in batches of {speed.DEEP.batch}, and
{study["test_images"]:,} test images after each epoch. Samples/s count all runs of a job. A worker is such a
machine: {ds.attrs["machine"]}; load average before: {ds.attrs["load_before"]}.

{markdown(best_columns, bests, "r" * len(best_columns))}
Efficiency is against one worker with its best split. The last columns: workers that live {every:g} h on average.

- **Where it stops scaling.** Each step of a run needs the one before: no job is shorter than one run, {_time(floor)}.
  With {int(single.jobs)} workers, a run each, the study takes just that, and more workers have nothing to do. Up to
  {half:,} workers at least half of their time is useful.
- **Which split.** {study["sigmas"]} runs that train together, on the same images and noise, are done {saved:.2f} times
  as fast as one after the other. {advice}
- **What else costs time.** A worker starts, with its data loaded, in {float(ds.start):.0f} s, and all results together
  are {float(single.result) * runs / 1e6:.1f} MB. Neither matters beside jobs of hours.
- **Workers that are lost.** If one lives {every:g} h on average, a job of {study["sigmas"]} runs takes
  {float(slower.sel(workers_are=kept)):.2f} times as long where its state is kept every {ensemble.KEEP_EVERY:g} s, and
  {float(slower.sel(workers_are=anew)):.3g} times where it begins anew. These are expected times of each job: where
  every worker has one job, the unluckiest takes longer.
"""


def figure(ds: xr.Dataset) -> Figure:
    """The study's time over the number of workers, a line a split, and what lost workers cost each kind of job."""
    drawn, axes = canvas.blank(1, 2, (5.2, 3.8))
    over, lost = axes[0]
    never, *losing = ds.workers_are.values
    span = ds.makespan.sel(workers_are=never)
    least = float(span.sel(workers=1).min())
    colours = color_palette("viridis_r", len(MEMBERS) + 1)[1:]
    for members, colour in zip(ds.members.values, colours, strict=True):
        one, jobs = span.sel(members=members), int(ds.jobs.sel(members=members))
        over.plot(ds.workers, one, color=colour, label=f"{members}: {jobs} jobs")
    over.plot(ds.workers, least / ds.workers, "--", color="0.5", lw=1, label="ideal")
    floor = float(ds.longest.sel(workers_are=never, members=1))
    over.axhline(floor, color="C3", lw=1, ls=":")
    over.text(1.1, floor, f"one run: {_time(floor)}", color="C3", fontsize="small", va="bottom")
    chosen = best(ds).sel(workers=list(SHOWN))
    over.plot(chosen.workers, chosen.makespan, "o", color="0.2", ms=5, zorder=5, label="best split")
    over.set(xscale="log", yscale="log", xlabel="workers", ylabel="time of the study (h)", ylim=(floor / 2, None))
    canvas.plain_ticks(over.xaxis, SHOWN, [f"{w:,}" for w in SHOWN])
    low, high = over.get_ylim()
    canvas.plain_ticks(over.yaxis, [t for k in range(5) for t in (10.0**k, 3 * 10.0**k) if low <= t <= high])
    over.legend(title="runs a job", fontsize="small", loc="upper right")
    over.set_title("makespan", fontsize="medium")
    places = np.arange(len(MEMBERS))
    every = store.parameters(ds)["lost_every_hours"]
    names = {
        never: "never lost",
        losing[0]: f"every {every:g} h, state kept",
        losing[1]: f"every {every:g} h, begun anew",
    }
    for shift, way in zip((-0.27, 0, 0.27), ds.workers_are.values, strict=True):
        bars = lost.bar(places + shift, ds.longest.sel(workers_are=way), 0.26, label=names[way])
        lost.bar_label(bars, fmt="%.2g", fontsize=7)
    lost.set_xticks(places, [str(members) for members in ds.members.values])
    lost.set(xlabel="runs a job", ylabel="expected time of a job (h)", yscale="log")
    low, high = lost.get_ylim()
    canvas.plain_ticks(lost.yaxis, [t for k in range(-1, 5) for t in (10.0**k, 3 * 10.0**k) if low <= t <= high])
    lost.legend(title="workers lost", fontsize="small", loc="upper left")
    lost.set_title("jobs on workers that may be lost", fontsize="medium")
    study = store.parameters(ds)["study"]
    note = (
        f"{study['sigmas']} σ × {study['seeds']} seeds × {study['data_sets']} data sets, {study['epochs']} epochs of "
        f"{study['train_images']:,} images. Times measured on: {ds.attrs['machine']}; a worker is such a machine.\n"
        "Each free worker takes the longest waiting job. Dashed: the least computing, divided by the workers."
    )
    return canvas.captioned(drawn, f"{span.sizes['members']} ways to split the study of 784-1024³-10 into jobs", note)


def _time(hours: float) -> str:
    """Days, hours or minutes, in digits that mean something."""
    if hours >= 48:
        return f"{hours / 24:.1f} days" if hours < 240 else f"{hours / 24:.0f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


@click.command(help=__doc__.splitlines()[0])
@click.option("--quick", is_flag=True, help="A few steps to see that it works; rough numbers.")
@click.option("--lost-every", type=float, default=LOST_EVERY, show_default=True, metavar="HOURS",
              help="How long a lent worker lives on average.")  # fmt: skip
@click.option("--docs", is_flag=True, help=f"Renew the table in {PAGE.relative_to(CHECKOUT)}.")
def main(quick: bool, lost_every: float, docs: bool) -> None:
    load = os.getloadavg()[0]
    ds = planned(measured(quick), lost_every)
    settings = {"study": STUDY, "lost_every_hours": lost_every, "quick": quick}
    attributes = store.provenance("How the paper's study splits into jobs", settings, {})
    ds = ds.assign_attrs(attributes | {"machine": speed.machine(), "load_before": f"{load:.2f}"})
    folder = store.results("smoke" if quick else "bench")
    store.write(ds, folder / "schedule.nc")
    canvas.style()
    drawn, _ = canvas.save(figure(ds), folder / "figures", "schedule")
    print(table(ds))
    print(f"{folder / 'schedule.nc'}, {drawn}")
    if docs:
        PAGE.write_text(renewed(PAGE, MARKS, table(ds)), encoding="utf-8")


if __name__ == "__main__":
    main()
