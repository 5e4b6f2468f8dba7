"""A fresh machine installs what the project says, and nothing committed knows the machine it was made on."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [Requirement(text) for text in [*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["dev"]]]
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
