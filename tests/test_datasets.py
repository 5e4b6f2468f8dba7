"""The data sets: what is loaded is what was published, and every way of not getting it says what to do."""

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import epkit
from epkit import data
from epkit.__main__ import main
from epkit.data import INFO, DataUnavailable, Info, available, checksum, fetch, load
from epkit.files import VARIABLES, environment_folder
from epkit.messages import ParameterError

TRAIN, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
FILES = (TRAIN, LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Fake(NamedTuple):
    """A tiny MNIST: `raw` is its folder in the mirror, `data` the one that epkit fills."""

    raw: Path
    data: Path


def idx(values: np.ndarray) -> bytes:
    """The bytes of an IDX file of unsigned bytes: magic number, sizes, values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def fake_set(folder: Path, n_train: int, n_test: int) -> dict[str, str]:
    """Writes the four gzip files of 2×2 images whose first pixels count up; returns their checksums."""
    folder.mkdir(parents=True)
    known = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        images = np.stack([np.arange(n) % 256, np.arange(n) // 256, np.zeros(n), np.full(n, 255)], axis=1)
        for file, values in (
            (f"{part}-images-idx3-ubyte", images.reshape(n, 2, 2)),
            (f"{part}-labels-idx1-ubyte", np.arange(n) % 10),
        ):
            known[file] = f"sha256:{hashlib.sha256(idx(values)).hexdigest()}"
            (folder / f"{file}.gz").write_bytes(gzip.compress(idx(values)))
    return known


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    raw = tmp_path / "mirror/MNIST/raw"
    known = fake_set(raw, 60, 20)
    monkeypatch.setitem(INFO, "mnist", Info("fake", (2, 2), 60, 20, "MNIST", known))
    monkeypatch.setenv("EPKIT_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("EPKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EPKIT_OFFLINE", "1")
    return Fake(raw, tmp_path / "data/MNIST/raw")


def test_digits_need_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("EPKIT_DATA", str(tmp_path / "never"))
    split = load("digits", dtype=torch.float64)
    assert available("digits") is None
    assert split.x_train.shape == (1400, 64)
    assert split.x_test.shape == (397, 64)
    assert split.x_train.dtype == torch.float64
    assert split.y_train.dtype == torch.int64
    assert (split.x_train.min(), split.x_train.max()) == (0, 1)
    assert not (tmp_path / "never").exists()


def test_digits_train_and_test_are_all_images_once():
    split = load("digits")
    rows = torch.cat([split.x_train, split.x_test])
    assert len(rows.unique(dim=0)) == len(rows) == 1797  # no two digits are alike


def test_the_order_never_changes():
    """Stores written last year must stay comparable: these numbers are not to be updated."""
    order = data._order(torch.arange(1000) % 10)
    assert order[:8].tolist() == [963, 465, 820, 732, 524, 86, 47, 591]
    assert checksum("digits") == "a9f8f920d8567ad4a24bfd222305789e95470badba670c4c444e34d1e2f1206c"
    assert checksum("kmnist_t10k_split") == "e6c6da9f2a0880a19376ce2ee696a5e84b027223698771259a9303982848588c"


@pytest.mark.parametrize("n", [1, 10, 137, 1400])
def test_a_subset_begins_the_larger_one_and_is_balanced(n: int):
    whole, part = load("digits"), load("digits", train=n, test=7)
    assert torch.equal(part.x_train, whole.x_train[:n])
    assert torch.equal(part.y_test, whole.y_test[:7])
    share = torch.bincount(whole.y_train, minlength=10) * n / 1400
    assert (torch.bincount(part.y_train, minlength=10) - share).abs().max() <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nist"}, r"unknown data set 'nist'; did you mean mnist\?"),
        ({"name": "digits", "train": 1401}, "digits: train=1401 images; allowed are 1 to 1400"),
        ({"name": "digits", "test": 0}, "digits: test=0 images; allowed are 1 to 397"),
        ({"name": "mnist", "train": -1}, "mnist: train=-1 images; allowed are 1 to 60000"),
    ],
)
def test_impossible_wishes(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_files_come_from_the_mirror_once_and_it_stays_as_it_was(fake: Fake):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in fake.raw.iterdir()}
    fake.raw.chmod(0o555)
    assert set(fetch("mnist").values()) == {"mirror"}
    assert set(fetch("mnist").values()) == {"data folder"}
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in fake.raw.iterdir()} == before
    assert {path.name for path in fake.data.iterdir()} == {*FILES, ".lock"}
    split = load("mnist", train=30)
    assert split.x_train.shape == (30, 4)
    assert split.x_train[:, 3].eq(1).all()
    assert torch.equal(split.y_train, (split.x_train[:, 0] * 255).round().long() % 10)  # still its own label
    assert torch.bincount(split.y_train).tolist() == [3] * 10


def test_a_decompressed_mirror_and_a_file_put_by_hand_are_used(fake: Fake):
    for file in FILES:
        (fake.raw / file).write_bytes(gzip.decompress((fake.raw / f"{file}.gz").read_bytes()))
        (fake.raw / f"{file}.gz").unlink()
    assert set(fetch("mnist").values()) == {"mirror"}
    (fake.data / TRAIN).unlink()
    (fake.data / f"{TRAIN}.gz").write_bytes(gzip.compress((fake.raw / TRAIN).read_bytes()))
    shutil.rmtree(fake.raw)
    assert fetch("mnist")[TRAIN] == "data folder"


def test_old_torchvision_folder_is_not_trusted(fake: Fake):
    fetch("mnist")
    (fake.data.parent / "processed").mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 2, 2), torch.zeros(1)), fake.data.parent / "processed" / file)
    assert load("mnist").x_train.shape == (60, 4)


def test_a_missing_file_names_itself_its_checksum_and_three_ways(fake: Fake):
    (fake.raw / f"{LABELS}.gz").unlink()
    assert "MNIST/raw/train-labels-idx1-ubyte is neither in" in str(available("mnist"))
    with pytest.raises(DataUnavailable) as failure:
        load("mnist")
    message = str(failure.value)
    for part in (
        f"The data file MNIST/raw/{LABELS} can't be had",
        INFO["mnist"].files[LABELS],
        f"{fake.raw / LABELS}.gz: not there",
        "EPKIT_OFFLINE is set",
        "1. With internet, run `make data`",
        "2. Set EPKIT_DATA_MIRROR to a folder that holds",
        f"3. Put the file, or that name with .gz, into {fake.data} by hand",
    ):
        assert part in message


@pytest.mark.parametrize("damage", ["other content", "truncated", "not gzip"])
def test_a_corrupt_mirror_file_is_not_used(fake: Fake, damage: str):
    copy = fake.raw / f"{TRAIN}.gz"
    whole = copy.read_bytes()
    other = gzip.compress(b"something else")
    copy.write_bytes({"other content": other, "truncated": whole[:-20], "not gzip": b"<html>"}[damage])
    said = "so it is corrupt and not used" if damage == "other content" else "can't be read to its end"
    with pytest.raises(DataUnavailable, match=said):
        load("mnist")
    assert copy.exists()
    assert [path.name for path in fake.data.iterdir()] == [".lock"]


def test_a_corrupt_data_file_is_moved_aside_and_had_anew(fake: Fake):
    fetch("mnist")
    for number in ("", "2"):
        (fake.data / TRAIN).write_bytes(b"damaged" + number.encode())
        with pytest.warns(UserWarning, match=rf"{TRAIN}: sha256:.* corrupt; moved to {TRAIN}\.damaged{number}$"):
            assert fetch("mnist")[TRAIN] == "mirror"
        assert (fake.data / f"{TRAIN}.damaged{number}").read_bytes() == b"damaged" + number.encode()
    shutil.rmtree(fake.raw)
    (fake.data / TRAIN).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="moved to"), pytest.raises(DataUnavailable, match="moved to") as failure:
        load("mnist")
    assert hashlib.sha256(b"damaged").hexdigest() in str(failure.value)


def test_the_mirror_as_data_folder_is_refused(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    before = sorted(fake.raw.iterdir())
    monkeypatch.setenv("EPKIT_DATA", str(fake.raw.parents[1]))
    with pytest.raises(DataUnavailable, match="never written to"):
        load("mnist")
    assert sorted(fake.raw.iterdir()) == before


def test_download_goes_on_to_the_next_server(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    """The first server has nothing, the second a wrong file, the third the right one."""
    from torchvision.datasets import MNIST

    def download_url(url: str, root: str, filename: str) -> None:
        if url.startswith("gone:"):
            raise OSError("no such host")
        content = gzip.compress(b"a login page") if url.startswith("wrong:") else (fake.raw / filename).read_bytes()
        Path(root, filename).write_bytes(content)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    monkeypatch.setattr(MNIST, "mirrors", ["gone:", "wrong:", "right:"])
    monkeypatch.delenv("EPKIT_DATA_MIRROR")
    monkeypatch.setenv("EPKIT_OFFLINE", "0")
    assert set(fetch("mnist").values()) == {"download"}
    monkeypatch.setattr(MNIST, "mirrors", ["gone:", "wrong:"])
    (fake.data / TRAIN).unlink()
    with pytest.raises(DataUnavailable, match=r"gone:.*no such host\n.*so it is corrupt and not used"):
        fetch("mnist")


@pytest.mark.parametrize(
    ("value", "offline"), [("", False), ("0", False), ("false", False), ("No", False), ("1", True), ("yes", True)]
)
def test_offline_means_no_download(fake: Fake, monkeypatch: pytest.MonkeyPatch, value: str, offline: bool):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.setenv("EPKIT_DATA_MIRROR", "")
    monkeypatch.setenv("EPKIT_OFFLINE", value)
    with pytest.raises(DataUnavailable) as failure:
        fetch("mnist")
    assert ("download: not tried, because EPKIT_OFFLINE is set" in str(failure.value)) == offline


def test_a_misspelt_variable_is_refused_with_the_right_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPKIT_DATA_MIROR", "/data")
    with pytest.raises(ParameterError, match=r"^EPKIT_DATA_MIROR: no such environment .* mean EPKIT_DATA_MIRROR\?$"):
        fetch("mnist")


def test_every_variable_of_the_code_is_known():
    """What the code base reads, and nothing else, is what `environment` lets pass."""
    root = Path(__file__).parents[1]
    sources = [root / "Makefile", root / "README.md", *(root / ".ci").iterdir()]
    sources += [p for folder in ("epkit", "tests", "benchmarks") for p in (root / folder).rglob("*.py")]
    names = {name for p in sources for name in re.findall(r"EPKIT_[A-Z_]*[A-Z]\b", p.read_text(encoding="utf-8"))}
    assert names - {"EPKIT_DATA_MIROR"} == set(VARIABLES)


def test_relative_folders_are_the_same_for_a_process_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kernels start in another folder than the command that starts them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in {"EPKIT_DATA": "data", "EPKIT_DATA_MIRROR": "~/mirror", "EPKIT_RESULTS": ""}.items():
        monkeypatch.setenv(name, value)
    expected = [tmp_path / "data", tmp_path / "home" / "mirror", None]
    assert [environment_folder(name) for name in ("EPKIT_DATA", "EPKIT_DATA_MIRROR", "EPKIT_RESULTS")] == expected
    code = """
import os, subprocess, sys
import epkit.files
os.chdir("/")
names = "import os; print(os.environ['EPKIT_DATA'], os.environ['EPKIT_DATA_MIRROR'], os.environ['EPKIT_RESULTS'])"
subprocess.run([sys.executable, "-c", names])
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == f"{expected[0]} {expected[1]} \n"


def test_one_file_split_into_two_needs_only_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`kmnist_t10k_split` on 10,000 distinct fake images: 800 and 200 a class, none twice."""
    known = fake_set(tmp_path / "mirror/KMNIST/raw", 10, 10_000)
    info = INFO["kmnist_t10k_split"]
    monkeypatch.setitem(INFO, "kmnist_t10k_split", info._replace(files={file: known[file] for file in info.files}))
    monkeypatch.setenv("EPKIT_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("EPKIT_DATA", str(tmp_path / "data"))
    split = load("kmnist_t10k_split")
    assert not (tmp_path / "data/KMNIST/raw" / TRAIN).exists()
    assert torch.bincount(split.y_train).tolist() == [800] * 10
    assert torch.bincount(split.y_test).tolist() == [200] * 10
    assert len(torch.cat([split.x_train, split.x_test]).unique(dim=0)) == 10_000


def test_two_processes_at_once(fake: Fake, tmp_path: Path):
    """Both wait for one signal, then fetch the same files; each must end with all of them verified."""
    script = f"""
import time, pathlib
from epkit import data
data.INFO["mnist"] = data.INFO["mnist"]._replace(files={dict(INFO["mnist"].files)!r})
pathlib.Path({str(tmp_path)!r}, "ready-" + str(time.time_ns())).touch()
while not pathlib.Path({str(tmp_path)!r}, "go").exists():
    time.sleep(0.001)
print(*sorted(data.fetch("mnist").values()))
"""
    racers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    for racer in racers:
        _, errors = racer.communicate(timeout=300)
        assert racer.returncode == 0, errors.decode()
    assert {path.name for path in fake.data.iterdir()} == {*FILES, ".lock"}
    assert set(fetch("mnist").values()) == {"data folder"}


def test_checksum_follows_the_files_without_reading_them(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    before = checksum("mnist")
    shutil.rmtree(fake.raw)
    assert checksum("mnist") == before
    changed = {**INFO["mnist"].files, TRAIN: "sha256:0"}
    monkeypatch.setitem(INFO, "mnist", INFO["mnist"]._replace(files=changed))
    assert checksum("mnist") != before
    assert len({checksum(name) for name in INFO}) == len(INFO)


def test_command_line(fake: Fake, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "--check", "mnist", "digits"]) == 0
    assert not fake.data.exists()
    assert main(["data", "mnist", "digits"]) == 0
    assert "4 files   mirror" in capsys.readouterr().out
    (fake.data / TRAIN).unlink()
    shutil.rmtree(fake.raw)
    assert main(["data", "--check", "mnist", "digits"]) == 1
    assert f"mnist: MNIST/raw/{TRAIN} is neither in" in capsys.readouterr().out
    assert main(["data", "mnist"]) == 1
    assert "Three ways to get it" in capsys.readouterr().out
    assert main(["data", "nist"]) == 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mnist", marks=pytest.mark.full_data("mnist")),
        pytest.param("fashion_mnist", marks=pytest.mark.full_data("fashion_mnist")),
        pytest.param("kmnist", marks=pytest.mark.full_data("kmnist")),
        pytest.param("kmnist_t10k_split", marks=pytest.mark.full_data("kmnist_t10k_split")),
    ],
)
def test_the_real_sets(name: str):
    info, split = INFO[name], load(name)
    assert split.x_train.shape == (info.n_train, 784)
    assert split.x_test.shape == (info.n_test, 784)
    assert (split.x_train.min(), split.x_train.max()) == (0, 1)
    assert split.y_train.unique().tolist() == list(range(10))
    if name != "mnist":  # the only one that isn't exactly balanced
        assert torch.bincount(split.y_train).tolist() == [info.n_train // 10] * 10
        assert torch.bincount(split.y_test).tolist() == [info.n_test // 10] * 10


@pytest.fixture
def own():
    generator = np.random.default_rng(0)
    x, y = generator.random((60, 12)), np.arange(60) % 3
    yield x, y
    INFO.pop("mine", None)


def test_images_of_ones_own_are_run_by_name_and_named_by_their_content(own, tmp_path):
    x, y = own
    data.add("mine", (x[:40], y[:40]), (x[40:], y[40:]), shape=(3, 4), title="my images")
    sweep = {
        "dataset": ["mine"], "sigma": [0.0], "seeds": 1, "hidden": [8], "input_gain": 20.0, "beta": 0.01,
        "iterations": 3, "epochs": 1, "train_images": 40, "test_images": 20,
    }  # fmt: skip
    ds = epkit.run(sweep, tmp_path / "mine.nc")
    assert ds.title.item() == "my images"
    assert ds.image.shape == (1, 3, 3, 4)
    first = checksum("mine")
    data.add("mine", (x[:40] + 0.1, y[:40]), (x[40:], y[40:]))
    assert checksum("mine") != first
    with pytest.raises(epkit.StoreError, match="another experiment"):
        epkit.run(sweep, tmp_path / "mine.nc")
    images = epkit.run(sweep, tmp_path / "others.nc").image  # the new ones, whatever was loaded before
    np.testing.assert_allclose(images.values.reshape(3, 12), ds.image.values.reshape(3, 12) + 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "mnist"}, "name = 'mnist': is a data set of epkit's"),
        ({"train": (np.ones((4, 3)), np.zeros(3, int))}, r"train: images \(4, 3\), classes \(3,\)"),
        ({"test": (np.ones((4, 2)), np.zeros(4, int))}, r"test: images \(4, 2\)"),
        ({"train": (np.ones((4, 3)), np.full(4, 10))}, "class numbers must be integers from 0 to 9"),
        ({"train": (np.full((4, 3), np.nan), np.zeros(4, int))}, "pixels finite numbers"),
        ({"shape": (2, 2)}, r"shape = \(2, 2\): must be rows and columns of an image's 3 pixels"),
        ({"shape": (-1, -3)}, r"shape = \(-1, -3\): must be rows and columns"),
    ],
)
def test_impossible_images_of_ones_own_are_refused(change, message):
    pair = np.ones((4, 3)), np.zeros(4, int)
    arguments = {"name": "mine", "train": pair, "test": pair} | change
    with pytest.raises(ValueError, match=message):
        data.add(**arguments)
    assert "mine" not in INFO
