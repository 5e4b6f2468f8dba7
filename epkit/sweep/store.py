"""Result stores: labelled netCDF files that are written whole or not at all, and say where their numbers come from.

The last line of each, after the end of what HDF5 reads, is the SHA-256 of all before it, so that no damage goes unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import tomllib
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import xarray as xr

from ..files import CHECKOUT, StoreError, digest, environment_folder, replacing, set_aside
from ..messages import short

PAPER = "Peters and Talatchian, Harnessing uncertainty when learning through Equilibrium Propagation, arXiv:2503.22810"
RECORDED = ("torch", "numpy", "scipy", "xarray", "scikit-learn")
SEAL = b"\nsha256 "


class Damaged(StoreError):
    """A file is not the store of epkit that was written, or never was one."""


def results(profile: str) -> Path:
    """Folder of a profile's stores and figures: results/<profile> of the checkout, or under EPKIT_RESULTS."""
    return (environment_folder("EPKIT_RESULTS") or CHECKOUT / "results") / profile


def write(dataset: xr.Dataset, path: Path, *, compress: bool = True) -> None:
    """Write atomically as netCDF-4, and seal; StoreError if the folder takes no file."""
    encoding = {
        name: {"zlib": True, "complevel": 4} if compress else {}
        for name, v in dataset.variables.items()
        if v.dtype.kind in "fiu" and v.ndim
    }
    # In memory first: where a disk is full, HDF5 takes the process down with it. On a worker of a Dask cluster, xarray
    # would ask the scheduler for a lock that it doesn't know. And by h5netcdf, for netCDF4, which is ten times faster
    # and therefore reads, writes the time of day into the file: equal numbers would not be equal bytes.
    import dask

    with dask.config.set(scheduler="synchronous"):
        content = dataset.to_netcdf(engine="h5netcdf", encoding=encoding)
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join((content, _seal(content))))


def read(path: Path) -> xr.Dataset:
    """The whole store in memory, its file closed; StoreError if there is none, Damaged if its content is not its own.

    A file without a seal (another program's, or an older one) is taken as it is.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path}: no such store; `make figures` computes it") from None
    except IsADirectoryError:
        raise Damaged(f"{path}: not a netCDF store but a folder") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    seal = content[-len(_seal(b"")) :]
    if seal[: len(SEAL)] == SEAL and seal != _seal(memoryview(content)[: -len(seal)]):
        raise Damaged(f"{path}: damaged, its SHA-256 is not the one in its last line")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "WARNING: ", UserWarning)  # netCDF4's, of a variable it leaves out
            # a store holds no dates, and what decodes them stumbles over foreign ones
            dataset = xr.load_dataset(content, engine="netcdf4", decode_times=False)
    except Exception as error:  # what libraries stumble over in a damaged or a foreign file is theirs to choose
        raise Damaged(f"{path}: not a readable netCDF store ({short(error, 100)})") from error
    dataset.encoding["source"] = str(path)
    return dataset


def is_sealed(path: Path) -> bool:
    """Whether a file ends as `write` ends files; nothing is said of what it holds."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        length = len(_seal(b""))
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - length))
        return file.read().startswith(SEAL)
    return False


def read_own(path: Path) -> xr.Dataset | None:
    """The store of epkit at `path`, None if nothing is there.

    A damaged one that `write` made is moved aside, with a warning. Anything else is somebody's: StoreError, and nothing
    is moved.
    """
    if not path.exists():
        return None
    try:
        parameters(dataset := read(path))
        if not is_sealed(path):
            raise Damaged(f"{path}: not as epkit writes stores, its last line is no seal")
        return dataset
    except Damaged as error:
        if path.is_dir() or not _was_ours(path):
            raise StoreError(f"{error}; it is left as it is: name another file, or move it") from None
        _put_aside(path, error)
        return None


def _was_ours(path: Path) -> bool:
    """Whether a damaged file shows that `write` made it: HDF5's first bytes, and a seal or epkit's name after them."""
    content = path.read_bytes()
    return content.startswith(b"\x89HDF") and (is_sealed(path) or b"epkit " in content)


def read_if_sound(path: Path) -> xr.Dataset | None:
    """A file of ours, or None if there is none. A damaged one is moved aside, with a warning, never used or deleted."""
    if not path.exists():
        return None
    try:
        return read(path)
    except Damaged as error:
        _put_aside(path, error)
        return None


def _put_aside(path: Path, error: Damaged) -> None:
    try:
        fate = f"moved to {set_aside(path).name}"
    except OSError as reason:
        fate = f"it can't be moved aside ({reason.strerror})"
    warnings.warn(f"{error}; {fate}, its runs are computed anew", stacklevel=3)


def parameters(dataset: xr.Dataset, *needed: str) -> dict:
    """The parameters that made a store; Damaged if it records none, or lacks one that is needed."""
    try:
        recorded = json.loads(dataset.attrs["parameters"])
    except (KeyError, TypeError, ValueError, RecursionError):
        recorded = None
    if not isinstance(recorded, dict):
        raise Damaged(f"{place(dataset)}: not a store of epkit, lacks the attribute `parameters`, a JSON object")
    if missing := [name for name in needed if name not in recorded]:
        raise Damaged(f"{place(dataset)}: its attribute `parameters` lacks {', '.join(missing)}")
    return recorded


def place(dataset: xr.Dataset) -> str:
    """The file that a Dataset was read from."""
    return str(dataset.encoding.get("source", "this Dataset"))


def provenance(title: str, settings: Mapping[str, object], checksums: Mapping[str, str]) -> dict[str, str]:
    """Attributes that say what made a store: parameters and their hash, code, packages, data, machine."""
    return recorded(settings) | {
        "title": title,
        "source": f"epkit {_version()}, {code_version()}",
        "references": PAPER,
        "packages": json.dumps({name: version(name) for name in RECORDED} | {"python": platform.python_version()}),
        "data_sha256": json.dumps(checksums, sort_keys=True),
        "machine": _machine(),
    }


def recorded(settings: Mapping[str, object]) -> dict[str, str]:
    """The attributes that hold an experiment's parameters."""
    text = json.dumps(settings, sort_keys=True)
    return {"parameters": text, "parameters_sha256": digest(text)}


def maker(engine: str) -> str:
    """What this process is as the maker of a run: code, machine and engine."""
    return f"epkit {_version()}, {code_version()}; {_machine()}; engine {engine}"


def makers(dataset: xr.Dataset) -> list[str]:
    """What made the runs of a store, which its variable `maker` numbers, or of an ensemble."""
    if "makers" in dataset.attrs:
        return list(json.loads(dataset.attrs["makers"]))
    alone = f"{dataset.attrs.get('source', 'not recorded')}; {dataset.attrs.get('machine', 'not recorded')}"
    return [dataset.attrs.get("maker", alone)]


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def origin(dataset: xr.Dataset) -> pd.DataFrame:
    """Where a store's numbers come from, as a table to show in a notebook."""
    names = ("source", "packages", "machine", "data_sha256", "parameters_sha256")
    facts = {name: dataset.attrs.get(name, "not recorded") for name in names}
    if "run" in dataset:
        minutes, done = float(dataset.wall_time.sum()) / 60, int((dataset.run != "").sum())
        planned = f" of {dataset.run.size}" if done < dataset.run.size else ""
        facts["runs"] = f"{done}{planned}, {minutes:.1f} minutes of computing in all"
    if "makers" in dataset.attrs:  # run by run, for some may come from another store
        counts = dataset["maker"].where(dataset["run"] != "").to_series().value_counts()
        facts |= {f"maker {k + 1}, {counts.get(k, 0)} runs": maker for k, maker in enumerate(makers(dataset))}
    return pd.DataFrame({"": facts})


def _version() -> str:
    """Of the checkout, which need not be installed, or of the package."""
    project = CHECKOUT / "pyproject.toml"
    return tomllib.loads(project.read_text("utf-8"))["project"]["version"] if project.exists() else version("epkit")


def code_version() -> str:
    """Commit of the checkout, marked when epkit's files differ from it, and the hash of epkit's own source.

    A repository around an unpacked archive or an environment, or one whose hook set GIT_DIR, is not the checkout's.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    commit = "no commit known"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if Path(git("rev-parse", "--show-toplevel")) == CHECKOUT:
            changed = "+changes" if git("status", "--porcelain", "--", "epkit") else ""
            commit = f"commit {git('rev-parse', '--short=12', 'HEAD')}{changed}"
    return f"{commit}, source sha256 {source_hash()[:12]}"


def source_hash() -> str:
    """SHA-256 of epkit's own source."""
    sources = [p for p in sorted((CHECKOUT / "epkit").rglob("*")) if p.suffix in (".py", ".cpp")]
    return digest("".join(p.read_text(encoding="utf-8") for p in sources))


def _seal(content: bytes | memoryview) -> bytes:
    """The last line of a file of this content."""
    return SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"
