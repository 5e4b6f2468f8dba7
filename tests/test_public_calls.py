"""Every public call of the core, of read-outs, networks and circuits, given what makes no sense.

Each is one ValueError that names the argument, before any work.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TABLE = "bad_input"  # where these are counted
# What else may be named where two arguments don't fit each other, or a read-out's own is wrong.
ALSO = {
    "readout": ("sigma", ".noise returned"), "x": ("y has the shape",), "network": ("hidden",), "data": ("dataset",),
}  # fmt: skip
KINDS = "ValueError", "ParameterError"  # which is one


@pytest.fixture(scope="module")
def probed():
    command = [sys.executable, str(Path(__file__).with_name("probes.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]  # a crash would be a negative one
    return json.loads(done.stdout)


def test_what_makes_no_sense_is_refused_by_its_name(probed, counted):
    wrong = []
    for probe, (kind, message) in probed["refused"].items():
        argument = re.match(r"[\w.]+\.(\w+)\[", probe)[1]
        names = (argument.rstrip("s"), *ALSO.get(argument, ()))
        clear = kind in KINDS and "\n" not in message and any(map(message.__contains__, names))
        outcome = "refused by name" if clear else f"NOT WELL: {kind or 'accepted'}"
        counted(f"public calls: {probe.partition('[')[0].rpartition('.')[0]}", outcome)
        if not clear:
            wrong.append(f"{probe}: {kind}: {message[:150]}")
    assert not wrong, "\n".join(wrong)
    assert len(probed["refused"]) > 900


def test_what_means_the_same_is_taken(probed):
    assert {name: error for name, error in probed["accepted"].items() if error[0]} == {}
