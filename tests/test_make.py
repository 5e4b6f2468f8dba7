"""The Makefile: what may be set, where it works, and when it renews the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(*arguments, folder=ROOT, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "VENV")}
    environment |= variables
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def venv(tmp_path):
    """A fresh environment, whose Python notes in `log` where it was called and how, and executes epkit alone."""
    folder = tmp_path / "an environment"
    (folder / "bin").mkdir(parents=True)
    (folder / ".epkit.lock").write_bytes((ROOT / "requirements.lock").read_bytes())
    python = folder / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\necho "$PWD $PYTHONPATH $*" >> "{folder}/log"\n'
        f'case "$2" in epkit) exec {sys.executable} "$@";; esac\n'
    )
    python.chmod(0o755)
    return folder


def log(venv):
    return (venv / "log").read_text().splitlines()


def test_it_works_in_the_checkout_that_it_lies_in(venv, tmp_path):
    done = make("-f", str(ROOT / "Makefile"), "lab", "lint", f"VENV={venv}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {line.split(" -m ")[0] for line in log(venv)} == {f"{ROOT} {ROOT}"}
    assert [line.split(" -m ")[1].split()[0] for line in log(venv)] == ["jupyter", "ruff", "ruff", "mypy"]
    assert "--notebook-dir=. " in log(venv)[0]


def test_an_environment_is_renewed_when_the_lock_is_another(venv):
    (venv / ".epkit.lock").touch()
    os.utime(venv / ".epkit.lock", (0, 0))
    assert make("env", f"VENV={venv}").returncode == 0
    assert not (venv / "log").exists(), "it is older than the lock, and the same"
    (venv / ".epkit.lock").write_text("numpy==1.0\n")
    assert make("env", f"VENV={venv}").returncode == 0
    assert [line.split(" -m ")[1] for line in log(venv)] == [
        "pip install -q --disable-pip-version-check -r requirements.lock"
    ], "the packages, and no checkout: others may share the environment"
    assert make("env", f"VENV={venv}").returncode == 0
    assert len(log(venv)) == 1


def test_without_a_new_enough_python_it_says_so(tmp_path):
    done = make("env", f"VENV={tmp_path / 'none'}", "PYTHON=/nonexistent")
    assert done.returncode
    assert "Python 3.11 or newer is needed, and /nonexistent is not that. Name one: make PYTHON=…" in done.stdout


def test_a_profile_of_no_name_is_refused(venv):
    done = make("figures", "PROFILE=", f"VENV={venv}")
    assert done.returncode
    assert "profile = '': no such profile; there are digits, paper, quick, smoke, study" in done.stderr


@pytest.mark.parametrize("target", ["test", "validate"])
def test_notebooks_are_compared_in_clean_kernels_of_this_environment(venv, target):
    python = venv / "bin" / "python"
    python.write_text(python.read_text() + f'echo "$IPYTHONDIR;$PYTHONSTARTUP;$*" >> "{venv}/clean"\n')
    environment = {"IPYTHONDIR": "/mine", "PYTHONSTARTUP": "/mine.py"}
    assert make(target, f"VENV={venv}", **environment).returncode == 0
    folder, startup, arguments = (venv / "clean").read_text().split(";")
    assert folder == str(ROOT / ".cache" / "ipython")
    assert not startup
    assert "--nbval-current-env" in arguments
