"""Training steps in C++, compiled once on the user's machine: a whole block of steps in one call.

`steps` has the signature and meaning of `training.torch_steps`; `native.cpp` says why it is fast. It needs
a C++17 compiler at run time; without one `library` warns once and training goes on in torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path
from time import perf_counter

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .networks import Biases, Weights

SOURCE = Path(__file__).with_suffix(".cpp")
# No -ffast-math: a diverged member must show as NaN, and nothing here needs sums to be reordered.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread")


class _Block(ctypes.Structure):
    """Mirrors `Block` in native.cpp."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("sizes", "rows", "stream", "weights", "biases", "x", "target")]
        + [(name, ctypes.c_void_p) for name in ("noise", "scale", "rates", "nudge", "wrong", "cost")]
        + [(name, ctypes.c_double) for name in ("bias_rate", "gain")]
        + [(name, ctypes.c_int64) for name in ("layers", "members", "steps", "batch", "iterations", "threads", "team")]
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled `native.cpp`; None, with one warning, where it can't be compiled."""
    compilers = [os.environ.get("CXX"), "g++", "c++", "clang++"]
    compiler = next((found for c in compilers if c and (found := shutil.which(c))), None)
    try:
        if compiler is None:
            raise OSError("none of $CXX, g++, c++ and clang++ was found")
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        warnings.warn(
            f"The fast engine can't be compiled, so training uses the slower torch engine: {reason}\n"
            "A C++ compiler comes with `conda install cxx-compiler`, `apt install g++` or "
            "`xcode-select --install`.",
            stacklevel=2,
        )
        return None


def _compiled(compiler: str) -> Path:
    """Path of the shared library, compiled unless the cache has it: its name tells what it depends on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    content = "\n".join([SOURCE.read_text(), version, *FLAGS, _processor()])
    name = f"native-{hashlib.sha256(content.encode()).hexdigest()}.so"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "epkit"
    try:
        home.mkdir(parents=True, exist_ok=True)
        usable = os.access(home, os.W_OK)
    except OSError:
        usable = False
    if (home / name).exists():
        return home / name
    folder = home if usable else Path(tempfile.mkdtemp(prefix="epkit-"))
    # Under another name first, so that no other process ever loads half a library.
    with tempfile.TemporaryDirectory(dir=folder) as half:
        draft = Path(half) / name
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(draft)]
        subprocess.run(command, capture_output=True, text=True, check=True)
        os.replace(draft, folder / name)
    return folder / name


def _processor() -> str:
    """What -march=native depends on, as far as it can be told: home folders are shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )


class _Pace:
    """Chooses whether threads share a member, by the clock: the result is the same to the bit.

    Sharing is faster while each thread has a core to itself, and many times slower on a busy machine, where
    all wait for the one that has lost its core. The other way is tried again, the later the worse it was.
    """

    def __init__(self) -> None:
        self.shared, self.seconds, self.left = False, float("inf"), 1

    def choose(self) -> bool:
        """Whether the next block is to be shared."""
        return self.shared if self.left else not self.shared

    def record(self, seconds: float) -> None:
        """Takes what a step of that block took."""
        if self.left:
            self.seconds, self.left = seconds, self.left - 1
            return
        self.left = 1 + int(8 * max(1.0, seconds / self.seconds))
        if seconds < self.seconds:
            self.shared, self.seconds = not self.shared, seconds


_paces: defaultdict[tuple[object, ...], _Pace] = defaultdict(_Pace)


def steps(
    weights: Weights,
    biases: Biases,
    x: Float[Tensor, "n n_0"],
    target: Float[Tensor, "n n_L"],
    rows: Int[Tensor, "stream step batch"],
    stream: Int[Tensor, " member"],
    noise: Float[Tensor, "stream step 2 batch units"] | None,
    scale: Float[Tensor, " member"] | None,
    rates: Float[Tensor, "layer member"],
    bias_rate: float,
    gain: float,
    nudge: Float[Tensor, " 2"],
    iterations: int,
) -> tuple[Int[Tensor, " member"], Float[Tensor, " member"]]:
    """`training.torch_steps` on torch.get_num_threads() threads of the CPU, in place, equal up to rounding.

    A member's result is the same to the bit whatever the threads and the other members are.

    Raises:
        ValueError: for parameters that aren't contiguous CPU tensors of one type, float32 or float64.
    """
    compiled = library()
    if compiled is None:
        raise RuntimeError("native.steps was called although native.library() is None")
    like = biases[0]
    for p in (*weights, *biases):
        if p.dtype not in (torch.float32, torch.float64) or p.dtype != like.dtype or p.device.type != "cpu":
            raise ValueError(f"parameters are {p.dtype} on {p.device}: float32 or float64, all alike, on the CPU only")
        if not p.is_contiguous():
            raise ValueError(f"a parameter of shape {tuple(p.shape)} is not contiguous in memory")
    members, layers = len(stream), len(weights)
    sizes = torch.tensor([weights[0].shape[1] // 2, *(b.shape[1] for b in biases)])
    wrong, cost = torch.zeros(members, dtype=torch.int64), torch.zeros(members, dtype=torch.float64)
    reals = [None if t is None else t.to(like).contiguous() for t in (x, target, noise, scale, rates, nudge)]
    whole = [t.to(torch.int64).contiguous() for t in (sizes, rows, stream)]
    pointers = [(ctypes.c_void_p * layers)(*(p.data_ptr() for p in ps)) for ps in (weights, biases)]
    threads = torch.get_num_threads()
    pace = _paces[like.dtype, members, rows.shape[2], threads, tuple(sizes.tolist())]
    block = _Block(
        *(t.data_ptr() for t in whole),
        *(ctypes.cast(p, ctypes.c_void_p) for p in pointers),
        *(None if t is None else t.data_ptr() for t in reals),
        wrong.data_ptr(), cost.data_ptr(), bias_rate, gain,
        layers, members, rows.shape[1], rows.shape[2], iterations, threads, threads if pace.choose() else 1,
    )  # fmt: skip
    begin = perf_counter()
    if compiled.epkit_steps(ctypes.byref(block), like.element_size()):
        raise MemoryError("the native engine has run out of memory within a block of steps")
    pace.record((perf_counter() - begin) / max(1, rows.shape[1]))
    return wrong, cost
