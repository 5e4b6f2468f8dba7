"""Files that are written whole or not at all, and set aside rather than lost."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

from .messages import ParameterError, hint

CHECKOUT = Path(__file__).resolve().parent.parent

# The environment variables of the package, its tests (COUNTS, CHROMIUM) and the script that checks a change (VENV)
FOLDERS = ("EPKIT_COUNTS", "EPKIT_DATA", "EPKIT_DATA_MIRROR", "EPKIT_PARAMS", "EPKIT_RESULTS")
VARIABLES = (*FOLDERS, "EPKIT_CHROMIUM", "EPKIT_OFFLINE", "EPKIT_TERMINAL", "EPKIT_VENV")


class StoreError(RuntimeError):
    """A store cannot be read or written; the message names the file and what to do."""


def environment(variable: str) -> str:
    """The value of one of `VARIABLES`, "" where it is not set; ParameterError if any other EPKIT_… is set."""
    for name in os.environ:
        if name.startswith("EPKIT_") and name not in VARIABLES:
            raise ParameterError(f"{name}: no such environment variable; {hint(name, VARIABLES)}")
    return os.environ.get(variable, "")


def environment_folder(variable: str) -> Path | None:
    """The folder that one of `FOLDERS` names, as an absolute path; None where the variable is not set or empty."""
    return Path(_absolute(value)) if (value := environment(variable)) else None


def _absolute(folder: str) -> str:
    return os.path.abspath(os.path.expanduser(folder))  # where nobody's home is known, ~ stays: Path would raise


# Kernels and workers, which may start in another folder, inherit the paths that this process sees.
os.environ |= {name: _absolute(os.environ[name]) for name in FOLDERS if os.environ.get(name)}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes when it doesn't.

    StoreError where the system takes no file: a full disk, a read-only folder.
    """
    # named after machine and process: a worker that is believed dead may still write the same file
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); what was finished before is kept"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Delete what `replacing` left in a folder where a process of this machine was killed."""
    for path in folder.glob(f".*.{platform.node()}.*.*"):
        process = path.stem.rpartition(".")[2]
        if path.suffix in (".tmp", ".ipynb") and process.isdecimal() and not psutil.pid_exists(int(process)):
            with contextlib.suppress(OSError):
                path.unlink()


def writable(folder: Path) -> bool:
    """Whether files can be put into a folder, which need not exist yet."""
    return os.access(next(place for place in (folder, *folder.absolute().parents) if place.exists()), os.W_OK)


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Rename a file to `<name>.<why>`, numbered where that is taken already, and return its new path."""
    names = (f"{path.name}.{why}{number}" for number in itertools.chain([""], itertools.count(2)))
    aside = next(place for place in map(path.with_name, names) if not place.exists())
    os.replace(path, aside)
    return aside


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def renewed(path: Path, marks: tuple[str, str], text: str) -> str:
    """The content of a text file with other lines, `text`, between its two marks; ValueError if a mark is missing."""
    before, rest = path.read_text(encoding="utf-8").split(marks[0])
    _, after = rest.split(marks[1])
    return f"{before}{marks[0]}\n{text}{marks[1]}{after}"
