"""Verified MNIST, FashionMNIST, KMNIST and scikit-learn's digits, as tensors.

`load` gives pixels in [0, 1] and class numbers; `INFO` holds the facts of each set. Every choice of images follows one
fixed order in which the classes take turns, so that the first n images are close to balanced and a smaller subset is
the beginning of a larger one.

Files live in the checkout's git-ignored `data/` (another folder: EPKIT_DATA). What is missing there is copied from the
folder EPKIT_DATA_MIRROR, which is only ever read, or else downloaded by torchvision (never with EPKIT_OFFLINE=1), and
used only if the *decompressed* file has the checksum listed here: compressed files differ, contents do not.
"""

import gzip
import hashlib
import itertools
import socket
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .files import CHECKOUT, StoreError, environment, environment_folder, replacing, set_aside
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
    files: Mapping[str, str] = {}  # decompressed IDX file -> "algorithm:checksum"
    own: "Split | None" = None  # arrays that somebody has added


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


def load(name: str, *, train: int | None = None, test: int | None = None, dtype: torch.dtype = torch.float32) -> Split:
    """The first `train` and `test` images of a set in its fixed order; None takes all.

    Official sets keep their split. `kmnist_t10k_split` takes its first 8,000 images from the official test
    file and tests on the other 2,000, exactly balanced; `digits` likewise 1,400 and 397 of 1,797.

    Raises:
        ValueError: before a file is read, for an unknown name or an impossible number. DataUnavailable.
    """
    info = _info(name)
    for part, number, most in (("train", train, info.n_train), ("test", test, info.n_test)):
        if number is not None and not 1 <= number <= most:
            raise ValueError(f"{name}: {part}={number} images; allowed are 1 to {most}, or None for all")
    if own := info.own:
        return Split(own.x_train[:train].to(dtype), own.y_train[:train], own.x_test[:test].to(dtype), own.y_test[:test])
    fetch(name)
    test_set = _read(info, "t10k")
    train_set = _read(info, "train") if "train-images-idx3-ubyte" in info.files else test_set
    train_order, test_order = _order(train_set[1]), _order(test_set[1])
    if train_set is test_set:  # one file for both: what is trained on is not tested on
        train_order, test_order = train_order[: info.n_train], test_order[info.n_train :]
    x_train, y_train = (values[train_order[:train]] for values in train_set)
    x_test, y_test = (values[test_order[:test]] for values in test_set)
    white = 255 if info.source else 16
    return Split(x_train.to(dtype) / white, y_train, x_test.to(dtype) / white, y_test)


def add(
    name: str,
    train: tuple[Float[Tensor, "n n_0"], Int64[Tensor, " n"]],
    test: tuple[Float[Tensor, "m n_0"], Int64[Tensor, " m"]],
    *,
    shape: tuple[int, int] | None = None,
    title: str | None = None,
) -> None:
    """Make pairs of images and class numbers from 0 to 9 a data set that `epkit.run` takes by this name.

    Images, best between 0 and 1, keep their order; their content enters the hash of each run. `shape`: rows and columns
    of an image, for figures. Lasts as long as the process; a Dask worker has no such set, and is refused.

    Raises:
        ValueError: for the name of a data set of epkit's, and for arrays that don't fit one another.
    """
    pairs = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in (train, test)]
    for part, (x, y) in zip(("train", "test"), pairs, strict=True):
        if x.ndim != 2 or y.shape != (len(x),) or not len(x) or x.shape[1] != pairs[0][0].shape[1]:
            raise ValueError(f"{part}: images {tuple(x.shape)}, classes {tuple(y.shape)}: must be (n, n_0) and (n,)")
        if y.is_floating_point() or not 0 <= int(y.min()) <= int(y.max()) <= 9 or not bool(x.isfinite().all()):
            raise ValueError(f"{part}: class numbers must be integers from 0 to 9, pixels finite numbers")
    (x, y), (x_test, y_test) = pairs
    shape = shape or (1, x.shape[1])
    if min(shape) < 1 or shape[0] * shape[1] != x.shape[1]:
        raise ValueError(f"shape = {shape}: must be rows and columns of an image's {x.shape[1]} pixels")
    own = Split(x.float(), y.long(), x_test.float(), y_test.long())
    if name in INFO and not INFO[name].own:
        raise ValueError(f"name = {name!r}: is a data set of epkit's; choose another name")
    INFO[name] = Info(title or name, shape, len(x), len(x_test), own=own)


def fetch(name: str) -> dict[str, str]:
    """Puts a set's verified files into the data folder; where each came from. Raises DataUnavailable."""
    info = _info(name)
    return {file: _ensure(info, _raw_folder(info) / file) for file in info.files}


def available(name: str) -> str | None:
    """None if `load` needs no network, else which file is missing. Cheap: looks at names, not contents."""
    info = _info(name)
    for file in info.files:
        target = _raw_folder(info) / file
        if not any(path.exists() for path in (target, *_copies(info, target))):
            mirror = environment_folder("EPKIT_DATA_MIRROR") or "a mirror (EPKIT_DATA_MIRROR is not set)"
            return f"{info.source}/raw/{file} is neither in {target.parents[2]} nor in {mirror}"
    return None


def checksum(name: str) -> str:
    """One SHA-256 that stands for every image of a set, its order and its split: it goes into a run's hash.

    Of a set with files this needs no file, because `load` accepts only those with the listed checksums.
    """
    info = _info(name)
    total = hashlib.sha256(f"order {ORDER_SEED}, split {info.n_train}/{info.n_test}\n".encode())
    for file, digest in sorted(info.files.items()):
        total.update(f"{file} {digest}\n".encode())
    if info.own:
        total.update(b"".join(values.contiguous().numpy().tobytes() for values in info.own))
    elif info.source is None:
        total.update(b"".join(values.tobytes() for values in _digits()))
    return total.hexdigest()


def main(names: Sequence[str] = (), check: bool = False) -> int:
    """Fetches and verifies sets, or with `check` says which could be had without network; 0 if all can."""
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
            print(f"{name:<20}{'ready':<10}{verified:<10}{', '.join(sorted(set(origins.values()))) or 'this machine'}")
        except DataUnavailable as error:
            problems.append(f"\n{name}: {error}\n")
            print(f"{name:<20}{'missing':<10}{'-':<10}-")
    print("".join(problems), end="")
    return 1 if problems else 0


def _info(name: str) -> Info:
    """The facts of a set; ValueError for an unknown name."""
    if name not in INFO:
        raise ValueError(f"unknown data set {name!r}; {hint(name, INFO)}")
    return INFO[name]


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


def _read(info: Info, part: str) -> tuple[UInt8[Tensor, "n n_0"], Int64[Tensor, " n"]]:
    """Pixels and class numbers as stored, of the files that begin with `part`; of the digits, all."""
    if info.source is None:
        pixels, labels = _digits()
    else:  # verified files: what their headers would say is known
        labels = np.fromfile(_raw_folder(info) / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)
        pixels = np.fromfile(_raw_folder(info) / f"{part}-images-idx3-ubyte", np.uint8, offset=16)
    return torch.from_numpy(pixels).view(len(labels), -1), torch.from_numpy(labels).long()


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, n_0) from 0 to 16 and class numbers (n,) of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.uint8), labels.astype(np.uint8)


def _raw_folder(info: Info, folder: Path | None = None) -> Path:
    """Where a set's files lie in the data folder, or in another that is laid out like torchvision's."""
    return (folder or environment_folder("EPKIT_DATA") or CHECKOUT / "data") / str(info.source) / "raw"


def _copies(info: Info, target: Path) -> dict[Path, str]:
    """Where a copy of a file may lie on this machine, best first, and what to call that place."""
    copies = {target.with_name(f"{target.name}.gz"): "data folder"}
    if mirror := environment_folder("EPKIT_DATA_MIRROR"):
        copies |= {_raw_folder(info, mirror) / f"{target.name}{suffix}": "mirror" for suffix in ("", ".gz")}
    return copies


def _ensure(info: Info, target: Path) -> str:
    """Makes sure that the verified file is there; returns where it came from. Raises DataUnavailable."""
    reasons: list[str] = []
    expected, mirror = info.files[target.name], environment_folder("EPKIT_DATA_MIRROR")
    try:
        if target.exists() and _digest(target.read_bytes(), expected) == expected:
            return "data folder"
        if mirror and target.parent.resolve() == _raw_folder(info, mirror).resolve():
            raise OSError(f"{mirror} is the mirror, never written to: EPKIT_DATA must be another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if target.exists():
                if (actual := _digest(target.read_bytes(), expected)) == expected:  # another process was faster
                    return "data folder"
                reasons.append(f"{target}: {actual}, so it is corrupt; moved to {set_aside(target).name}")
                warnings.warn(reasons[-1], stacklevel=2)
            for copy, origin in itertools.chain(_copies(info, target).items(), _downloads(info, target.name, reasons)):
                if not copy.exists():
                    reasons.append(f"{copy}: not there")
                elif problem := _install(copy, target, expected):
                    reasons.append(problem)
                else:
                    return origin
    except (OSError, StoreError) as error:
        reasons.append(str(error))
    raise DataUnavailable(_message(info, target, reasons))


def _install(copy: Path, target: Path, expected: str) -> str:
    """Puts the content of a copy into its place; "" if it is the right content, else why it is not used."""
    try:
        content = gzip.decompress(copy.read_bytes()) if copy.suffix == ".gz" else copy.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        return f"{copy}: can't be read to its end ({error})"
    if (actual := _digest(content, expected)) != expected:
        return f"{copy}: {actual}, so it is corrupt and not used"
    with replacing(target) as part:
        part.write_bytes(content)
    return ""


def _digest(content: bytes, expected: str) -> str:
    """A content's "algorithm:checksum", by the algorithm of the one that is expected."""
    algorithm = expected.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _downloads(info: Info, file: str, reasons: list[str]) -> Iterator[tuple[Path, str]]:
    """Compressed copies from torchvision's servers, one after the other; adds the reason of each failure."""
    if environment("EPKIT_OFFLINE").lower() not in ("", "0", "false", "no", "off"):
        reasons.append("download: not tried, because EPKIT_OFFLINE is set")
        return
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    for server in getattr(datasets, str(info.source)).mirrors:
        # a folder for each, or torchvision takes one server's bad file for the next one's
        with tempfile.TemporaryDirectory() as folder:
            before = socket.getdefaulttimeout()
            socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torchvision itself would wait for ever
            try:
                download_url(f"{server}{file}.gz", folder, f"{file}.gz")
            except (OSError, RuntimeError, HTTPException) as error:
                reasons.append(f"{server}{file}.gz: {error}")
                continue
            finally:
                socket.setdefaulttimeout(before)
            yield Path(folder, f"{file}.gz"), "download"


def _message(info: Info, target: Path, reasons: list[str]) -> str:
    file, lines = f"{info.source}/raw/{target.name}", "\n    ".join(reasons)
    return f"""The data file {file} can't be had.
  Expected, decompressed: {info.files[target.name]}
  Found (EPKIT_DATA_MIRROR: {environment_folder("EPKIT_DATA_MIRROR") or "not set"}):
    {lines}
  Three ways to get it:
    1. With internet, run `make data`: torchvision downloads it (unless EPKIT_OFFLINE is set).
    2. Set EPKIT_DATA_MIRROR to a folder that holds {file}, or that name with .gz.
    3. Put the file, or that name with .gz, into {target.parent} by hand."""
