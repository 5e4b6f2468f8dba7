"""A fresh machine installs what the project says, and nothing committed knows the machine it was made on."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from epkit import data
from epkit.ep import engine
from epkit.sweep import store

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [Requirement(text) for text in [*PROJECT["dependencies"], *chain(*EXTRAS.values())]]
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]


def test_conda_and_pip_get_the_same_packages():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    tools = {"pip", "make", "cxx-compiler"}  # not Python packages: what pip's users have from elsewhere
    packages = [Requirement(entry) for entry in conda if isinstance(entry, str) and entry not in tools]
    versions = {{"pytorch": "torch"}.get(entry.name, entry.name): entry.specifier for entry in packages}
    assert versions.pop("python") == PROJECT["requires-python"]
    assert versions == {entry.name: entry.specifier for entry in DECLARED}


@pytest.mark.parametrize("declared", DECLARED, ids=lambda entry: entry.name)
def test_the_lock_satisfies_the_project(declared: Requirement):
    pins = [entry for entry in LOCKED if canonicalize_name(entry.name) == canonicalize_name(declared.name)]
    assert pins, f"{declared} is not in requirements.lock: run `make lock`"
    for pin in pins:
        (version,) = pin.specifier
        assert version.operator == "=="
        assert declared.specifier.contains(version.version, prereleases=True), f"{pin}: run `make lock`"


def test_the_citation_file_has_what_the_format_requires():
    """The schema of version 1.2.0; the code host's own check runs in its workflow."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    (article,) = citation["references"]
    for work in (citation, article):
        assert work["authors"]
        assert all("name" in author or "family-names" in author for author in work["authors"])
    assert {"type", "title", "authors"} <= article.keys()
    assert article["identifiers"][0]["value"] == "arXiv:2503.22810"


def test_nothing_committed_names_a_machine():
    """No home, scratch or mount folder of somebody's machine, and no address of a package registry."""
    folders = "|".join(["home", "root", "Users", "work", "mnt", "opt", "tmp", "srv", "scratch"])
    machine = re.compile(rf"(?<![\w.:/~{{}}$*+=-])/(?:{folders})/\w")
    registry = re.compile(r"py[p]i\.org|pythonhosted\.[o]rg|--(?:extra-)?index-url|download\.pytorch\.[o]rg")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in listed.stdout.splitlines():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # figures and stores; deleted, not yet committed
            continue
        found += [f"{name}: {match[0]}" for expression in (machine, registry) for match in expression.finditer(text)]
    assert not found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` installs, built from a copy: setuptools leaves its scraps beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "epkit", folder / "source" / "epkit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source")
    (path,) = folder.glob("*.whl")
    return path


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_source_file(wheel: Path):
    files = [p for p in (ROOT / "epkit").rglob("*") if p.is_file() and p.parent.name != "__pycache__"]
    sources = {p.relative_to(ROOT).as_posix() for p in files}
    assert "epkit/ep/engine.cpp" in sources
    assert {name for name in ZipFile(wheel).namelist() if name.startswith("epkit/")} == sources


def test_an_installed_wheel_trains_on_the_compiled_engine(wheel: Path, tmp_path: Path):
    """Elsewhere than in a checkout; its source has the checkout's hash, so both may work in one Dask cluster."""
    pip("install", "--no-deps", "--no-index", "--target", tmp_path / "installed", wheel)
    settings = {
        "dataset": ["digits"], "sigma": [1e-3], "learning_rate": [0.05], "seeds": 1, "hidden": [12],
        "input_gain": 50.0, "beta": 0.1, "iterations": 3, "epochs": 1, "train_images": 80, "test_images": 40,
    }  # fmt: skip
    code = f"""
import json, epkit
from epkit.ep import engine
from epkit.sweep import store
result = epkit.run({settings!r}, "sweep.nc")
facts = [epkit.__file__, engine.library() is not None, store.source_hash(), result.attrs["source"]]
print(json.dumps([*facts, float(result.test_error.isel(epoch=-1).squeeze())]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place, compiled, source, origin, error = json.loads(done.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(tmp_path)
    assert compiled == (engine.library() is not None)
    assert source == store.source_hash()
    assert origin == f"epkit {PROJECT['version']}, no commit known, source sha256 {source[:12]}"
    assert 0 <= error <= 1


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_commit_named_is_that_of_this_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not that of a repository around it, nor of the one whose hook runs Python."""
    checkout = tmp_path / "outer" / "checkout"
    (checkout / "epkit").mkdir(parents=True)
    (checkout / "epkit" / "module.py").touch()
    monkeypatch.setattr(store, "CHECKOUT", checkout)
    for folder in (checkout.parent, checkout):
        git(folder, "init", "--quiet")
        monkeypatch.setenv("GIT_DIR", str(checkout.parent / ".git"))
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", folder.name)
        commit = git(folder, "rev-parse", "--short=12", "HEAD")
        expected = "no commit known" if folder != checkout else f"commit {commit}"
        assert store.code_version() == f"{expected}, source sha256 {store.source_hash()[:12]}"
    (checkout / "epkit" / "module.py").write_text("changed = True")
    assert store.code_version().startswith(f"commit {commit}+changes, ")


def test_line_ends_are_the_same_on_every_machine():
    """`core.autocrlf` must not change what make, sh and checksums read."""
    expected = {
        "Makefile": {"text": "auto", "eol": "lf"},
        ".ci/run": {"text": "auto", "eol": "lf"},
        "epkit/ep/engine.cpp": {"text": "auto", "eol": "lf"},
        "results/SHA256SUMS": {"text": "auto", "eol": "lf"},
        "results/quick/store.nc": {"text": "unset", "eol": "lf"},
        "results/quick/figures/figure.png": {"text": "unset", "eol": "lf"},
        "tests/corpus/parameters/windows.yaml": {"text": "unset", "eol": "lf"},
    }
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed: dict[str, dict[str, str]] = {name: {} for name in expected}
    for line in git(ROOT, "check-attr", "text", "eol", "--", *expected).splitlines():
        name, attribute, value = line.split(": ")
        listed[name][attribute] = value
    assert listed == expected


def test_the_data_cache_of_ci_follows_the_file_of_checksums():
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    (cache,) = (step["with"] for step in steps if step.get("uses", "").startswith("actions/cache@"))
    assert cache["path"] == "data"
    (file,) = re.findall(r"hashFiles\('(.*)'\)", cache["key"])
    checksum = data.INFO["mnist"].files["train-images-idx3-ubyte"].removeprefix("sha256:")
    assert checksum in (ROOT / file).read_text()
