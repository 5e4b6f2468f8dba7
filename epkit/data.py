"""Verified MNIST, FashionMNIST, KMNIST and scikit-learn's digits, as tensors.

`load` gives pixels in [0, 1] and class numbers; `INFO` holds the facts of each set. Every choice of images follows one
fixed order in which the classes take turns, so that the first n images are close to balanced and a smaller subset is
the beginning of a larger one.

Files live in the checkout's git-ignored `data/` (another folder: EPKIT_DATA). What is missing there is copied from the
folder EPKIT_DATA_MIRROR, which is only ever read, or else downloaded by torchvision (never with EPKIT_OFFLINE=1), and
used only if the *decompressed* file has the checksum listed here: containers differ, contents do not.
"""

import gzip
import hashlib
import os
import shutil
import socket
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .files import set_aside
from .messages import hint

ORDER_SEED = 20250322  # of the fixed order of `load`
DOWNLOAD_TIMEOUT = 10.0  # seconds without a byte


class Info(NamedTuple):
    """Facts of one data set: `title` for figures, `shape` and numbers of images, and the files it needs."""

    title: str
    shape: tuple[int, int]
    n_train: int
    n_test: int
    source: str | None = None  # torchvision's class and folder; None: inside scikit-learn's wheel
    files: Mapping[str, str] = MappingProxyType({})  # decompressed IDX file -> "algorithm:checksum"


class DataUnavailable(RuntimeError):
    """A file is missing or corrupt; the message says which, what was expected, what found, how to get it."""


_MNIST = {
    "train-images-idx3-ubyte": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION = {
    "train-images-idx3-ubyte": "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_KMNIST_TEST = {
    "t10k-images-idx3-ubyte": "sha256:76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e",
    "t10k-labels-idx1-ubyte": "sha256:a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6",
}
_KMNIST = {
    # only an MD5 is on record for this one: good against damage, weaker than SHA-256 against malice
    "train-images-idx3-ubyte": "md5:92be26ec9822e900ac425d0a0aa84ced",
    "train-labels-idx1-ubyte": "sha256:2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b",
    **_KMNIST_TEST,
}

INFO: dict[str, Info] = {
    "mnist": Info("MNIST", (28, 28), 60_000, 10_000, "MNIST", _MNIST),
    "fashion_mnist": Info("FashionMNIST", (28, 28), 60_000, 10_000, "FashionMNIST", _FASHION),
    "kmnist": Info("KMNIST", (28, 28), 60_000, 10_000, "KMNIST", _KMNIST),
    "kmnist_t10k_split": Info("KMNIST (t10k split)", (28, 28), 8_000, 2_000, "KMNIST", _KMNIST_TEST),
    "digits": Info("scikit-learn digits", (8, 8), 1_400, 397),
}


class Split(NamedTuple):
    """Pixels in [0, 1], shape (n, n_0), and class numbers, shape (n,), for training and for testing."""

    x_train: Float[Tensor, "n_train n_0"]
    y_train: Int64[Tensor, " n_train"]
    x_test: Float[Tensor, "n_test n_0"]
    y_test: Int64[Tensor, " n_test"]


def load(
    name: str,
    *,
    train: int | None = None,
    test: int | None = None,
    root: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Split:
    """The first `train` and `test` images of a set in its fixed order; None takes all.

    Official sets keep their split. `kmnist_t10k_split` takes its first 8,000 images from the official test
    file and tests on the other 2,000, exactly balanced; `digits` likewise 1,400 and 397 of 1,797.

    Raises DataUnavailable, and before a file is read ValueError for an unknown name or impossible number.
    """
    info = known(name)
    for what, wanted, most in (("train", train, info.n_train), ("test", test, info.n_test)):
        if wanted is not None and not 1 <= wanted <= most:
            raise ValueError(f"{name}: {what}={wanted} images; allowed are 1 to {most}, or None for all")
    fetch(name, root)
    train_pool = test_pool = _read(info, data_folder(root), train=False)
    train_order = test_order = _order(test_pool[1])
    if "train-images-idx3-ubyte" in info.files:
        train_pool = _read(info, data_folder(root), train=True)
        train_order = _order(train_pool[1])
    else:  # one pool for both: what is trained on is not tested on
        train_order, test_order = test_order[: info.n_train], test_order[info.n_train :]
    x_train, y_train = (values[train_order[:train]] for values in train_pool)
    x_test, y_test = (values[test_order[:test]] for values in test_pool)
    white = 255 if info.source else 16
    return Split(x_train.to(dtype) / white, y_train, x_test.to(dtype) / white, y_test)


def _order(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """A fixed shuffle in which the classes take turns: any beginning has its share of each, give or take two.

    The j-th of the m images of a class, shuffled, is placed at random between j/m and (j+1)/m of the way.
    """
    # numpy promises that this old generator's stream never changes; newer ones and torch do not
    random = np.random.RandomState(ORDER_SEED)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + random.random_sample(len(members))) / len(members)
    return torch.from_numpy(np.argsort(place, kind="stable"))


def _read(info: Info, root: Path, train: bool) -> tuple[UInt8[Tensor, "n n_0"], Int64[Tensor, " n"]]:
    if info.source is None:
        pixels, labels = digits()
        return torch.from_numpy(pixels), torch.from_numpy(labels).long()

    # The files are verified: what their headers would say is known.
    part, folder = "train" if train else "t10k", raw_folder(info, root)
    pixels = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8, offset=16)
    labels = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)
    return torch.from_numpy(pixels).view(len(labels), -1), torch.from_numpy(labels).long()


def fetch(name: str, root: str | Path | None = None) -> dict[str, str]:
    """Puts a set's verified files into `root` and says where each came from. Raises DataUnavailable."""
    info = known(name)
    return {file: _ensure(info, raw_folder(info, data_folder(root)) / file) for file in info.files}


def available(name: str, root: str | Path | None = None) -> str | None:
    """None if `load` needs no network, else which file is missing. Cheap: looks at names, not contents."""
    info = known(name)
    for file in info.files:
        target = raw_folder(info, data_folder(root)) / file
        if not any(path.exists() for path in (target, *_copies(info, target))):
            where = f"the mirror {_mirror()}" if _mirror() else "a mirror (EPKIT_DATA_MIRROR is not set)"
            return f"{info.source}/raw/{file} is neither in {data_folder(root)} nor in {where}"
    return None


def checksum(name: str) -> str:
    """One SHA-256 that stands for every image of a set, its order and its split: it goes into a run's hash.

    Of a set with files this needs no file, because `load` accepts only those with the listed checksums.
    """
    info = known(name)
    total = hashlib.sha256(f"order {ORDER_SEED}, split {info.n_train}/{info.n_test}\n".encode())
    for file, digest in sorted(info.files.items()):
        total.update(f"{file} {digest}\n".encode())
    if info.source is None:
        for values in digits():
            total.update(values.tobytes())
    return total.hexdigest()


def known(name: str) -> Info:
    """The facts of a set; ValueError for an unknown name."""
    if name not in INFO:
        raise ValueError(f"unknown data set {name!r}; {hint(name, INFO)}")
    return INFO[name]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, n_0) from 0 to 16 and class numbers of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.uint8), labels.astype(np.uint8)


def data_folder(root: str | Path | None) -> Path:
    """Where verified files live."""
    return Path(root or os.environ.get("EPKIT_DATA") or Path(__file__).resolve().parents[1] / "data")


def _mirror() -> Path | None:
    folder = os.environ.get("EPKIT_DATA_MIRROR")
    return Path(folder) if folder else None


def raw_folder(info: Info, root: Path) -> Path:
    """Where a set's files lie in a folder laid out like torchvision's."""
    return root / str(info.source) / "raw"


def _copies(info: Info, target: Path) -> dict[Path, str]:
    """Where a copy of a file may lie on this machine, best first, and how to call that place."""
    copies = {target.with_name(f"{target.name}.gz"): "data folder"}
    if mirror := _mirror():
        copies |= {raw_folder(info, mirror) / f"{target.name}{suffix}": "mirror" for suffix in ("", ".gz")}
    return copies


def _ensure(info: Info, target: Path) -> str:
    """Makes sure that the verified file is there; returns where it came from."""
    reasons: list[str] = []
    if _verified(info, target):
        return "data folder"
    try:
        if (mirror := _mirror()) and target.parent.resolve() == raw_folder(info, mirror).resolve():
            raise OSError(f"{mirror} is the mirror, never written to: EPKIT_DATA must be another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / ".lock")
        with lock, tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as temporary:
            if _verified(info, target):  # another process was faster
                return "data folder"
            if target.exists():
                found = _digest(target, info.files[target.name])
                reasons.append(f"{target}: {found}, so it is corrupt; moved to {set_aside(target).name}")
                warnings.warn(reasons[-1], stacklevel=2)
            for copy, origin in _copies(info, target).items():
                if not copy.exists():
                    reasons.append(f"{copy}: not there")
                elif _install(copy, target, info.files[target.name], temporary, reasons):
                    return origin
            for copy in _downloads(info, target.name, temporary, reasons):
                if _install(copy, target, info.files[target.name], temporary, reasons):
                    return "download"
    except OSError as error:
        reasons.append(str(error))
    raise DataUnavailable(_message(info, target, reasons))


def _verified(info: Info, target: Path) -> bool:
    """Whether the file is there and is what it should be."""
    expected = info.files[target.name]
    return target.exists() and _digest(target, expected) == expected


def _install(copy: Path, target: Path, expected: str, temporary: str, reasons: list[str]) -> bool:
    """Decompresses and verifies a copy, and only then gives it its name; else adds the reason why not."""
    part = Path(temporary, target.name)
    try:
        opener = gzip.open if copy.suffix == ".gz" else open
        with opener(copy, "rb") as source, open(part, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
            sink.flush()
            os.fsync(sink.fileno())
    except (OSError, EOFError, zlib.error) as error:
        reasons.append(f"{copy}: can't be copied to its end ({error})")
        return False
    if (found := _digest(part, expected)) != expected:
        reasons.append(f"{copy}: {found}, so it is corrupt and not used")
        return False
    os.replace(part, target)
    return True


def _digest(path: Path, like: str) -> str:
    """A file's "algorithm:checksum", by the algorithm of the one given."""
    algorithm = like.partition(":")[0]
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _downloads(info: Info, file: str, folder: str, reasons: list[str]) -> Iterator[Path]:
    """Compressed copies from torchvision's servers, one after the other; adds the reason of each failure."""
    if os.environ.get("EPKIT_OFFLINE", "0") not in ("", "0"):
        reasons.append("download: not tried, because EPKIT_OFFLINE is set")
        return
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    archive = Path(folder, f"{file}.gz")
    for server in getattr(datasets, str(info.source)).mirrors:
        archive.unlink(missing_ok=True)  # or torchvision takes one server's bad file for the next one's
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torchvision itself would wait for ever
        try:
            download_url(server + archive.name, folder, archive.name)
        except (OSError, RuntimeError, HTTPException) as error:
            reasons.append(f"{server}{archive.name}: {error}")
            continue
        finally:
            socket.setdefaulttimeout(before)
        yield archive


def _message(info: Info, target: Path, reasons: list[str]) -> str:
    file, mirror = f"{info.source}/raw/{target.name}", _mirror() or "not set"
    return "\n".join(
        (
            f"The data file {file} can't be had.",
            f"  Expected, decompressed: {info.files[target.name]}",
            f"  Found (EPKIT_DATA_MIRROR: {mirror}):",
            *(f"    {reason}" for reason in reasons),
            "  Three ways to get it:",
            "    1. With internet, run `make data`: torchvision downloads it (unless EPKIT_OFFLINE is set).",
            f"    2. Set EPKIT_DATA_MIRROR to a folder that holds {file}, or that name with .gz.",
            f"    3. Put the file, or that name with .gz, into {target.parent} by hand.",
        )
    )


def main(names: Sequence[str] = (), check: bool = False) -> int:
    """Fetches and verifies sets, or with `check` says what could be had without network; 0 if all can."""
    # the official KMNIST on request only: no profile that must run without internet can rely on it
    names = names or [name for name in INFO if name != "kmnist"]
    problems = []
    print(f"{'set':<20}{'state':<10}{'verified':<10}from")
    for name in names:
        try:
            if check and (problem := available(name)):
                raise DataUnavailable(problem)
            origins = {} if check else fetch(name)
            verified = f"{len(origins)} files" if origins else "-"
            at_hand = "data folder or mirror" if INFO[name].files else "scikit-learn's wheel"
            print(f"{name:<20}{'ready':<10}{verified:<10}{', '.join(sorted(set(origins.values()))) or at_hand}")
        except DataUnavailable as error:
            problems.append(f"\n{name}: {error}")
            print(f"{name:<20}{'missing':<10}{'-':<10}-")
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0
