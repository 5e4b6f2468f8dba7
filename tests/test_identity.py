"""Networks and read-outs of one's own are named by all that they work with, so that two never share a run."""

from __future__ import annotations

import importlib

import torch

import epkit
from epkit.sweep.identity import identity


def test_classes_made_by_one_function_are_told_apart_by_all_that_they_work_with():
    def make(bits, base=object, calls=torch.exp, default=1.0):
        class Readout(base):
            span = (0, bits)

            def noise(self, shape, generator=None, dtype=torch.float32):
                return None

            def read(self, states, noise, scale=default):
                return [calls(v) for v in states]

        return Readout

    def half(v):
        return v / 2

    def forth(v, n=2):
        return forth(v, n - 1) if n else v

    variants = [make(8), make(9), make(8, make(8)), make(8, make(9)), make(8, epkit.GaussianReadout),
                make(8, calls=half), make(8, calls=forth), make(8, default=2.0)]  # fmt: skip
    names = [identity("network", made) for made in variants]
    assert len(set(names)) == len(names)
    assert names[0] == identity("network", make(8))


def test_a_function_is_told_apart_by_the_functions_that_it_calls(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for bits in (2, 12):
        name = f"mine_{bits}"
        text = "def helper(v):\n    return again(v, BITS)\n\ndef again(v, n):\n    return helper(v) if n > 99 else n\n"
        text = f"BITS = {bits}\n{text}\ndef readout(sigma, samples, averaging):\n    return helper(sigma)\n"
        (tmp_path / f"{name}.py").write_text(text)
        names.append(identity("readout", importlib.import_module(name).readout))
    assert names[0] != names[1]
