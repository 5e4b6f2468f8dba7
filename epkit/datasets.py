"""Verified MNIST, FashionMNIST, KMNIST and scikit-learn's digits, as tensors.

`load` gives pixels in [0, 1] and class numbers; `INFO` holds the facts of each set, `files` knows where they lie.

Every choice of images follows one fixed order in which the classes take turns, so that the first n images are
close to balanced and a smaller subset is the beginning of a larger one.

    python -m epkit.datasets [--check] [names…]
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .files import (
    INFO,
    ORDER_SEED,
    DataUnavailable,
    Info,
    available,
    checksum,
    data_folder,
    digits,
    fetch,
    known,
    raw_folder,
)
from .inputs import Parser, hint

__all__ = ["INFO", "DataUnavailable", "Info", "Split", "available", "checksum", "fetch", "load"]


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


def main(arguments: list[str] | None = None) -> int:
    """Fetches and verifies sets, or with --check says what could be had without network; 0 if all can."""
    parser = Parser(prog="python -m epkit.datasets", description="Fetch and verify data sets.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(INFO)}; default: all but kmnist")
    parser.add_argument("--check", action="store_true", help="only look what is there: nothing is fetched")
    options = parser.parse_args(arguments)
    # the official KMNIST on request only: no profile that must run without internet can rely on it
    names = options.names or [name for name in INFO if name != "kmnist"]
    if unknown := [name for name in names if name not in INFO]:
        parser.error(f"unknown data set {unknown[0]!r}; {hint(unknown[0], INFO)}")

    problems = []
    print(f"{'set':<20}{'state':<10}{'verified':<10}from")
    for name in names:
        try:
            if options.check and (problem := available(name)):
                raise DataUnavailable(problem)
            origins = {} if options.check else fetch(name)
            verified = f"{len(origins)} files" if origins else "-"
            at_hand = "data folder or mirror" if INFO[name].files else "scikit-learn's wheel"
            print(f"{name:<20}{'ready':<10}{verified:<10}{', '.join(sorted(set(origins.values()))) or at_hand}")
        except DataUnavailable as error:
            problems.append(f"\n{name}: {error}")
            print(f"{name:<20}{'missing':<10}{'-':<10}-")
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
