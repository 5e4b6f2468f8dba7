"""Engines that take training steps, a block at a time: eager torch, torch.compile, and C++ compiled on this machine.

All agree up to rounding. `engine.cpp` says why it is fast; it needs a C++17 compiler at run time, and does what it can:
deep resistive networks on the CPU, also leaky and exponential ones, whose read-out adds noise, or is a list of
elementwise operations. The rest is trained in torch, after one message.
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
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import checks, variants
from .elementwise import KINDS, RANDOM, Operation
from .learning import Rule, step
from .networks import DeepResistiveNetwork, Network
from .readout import GaussianReadout, Readout
from .schedule import Schedule

Engine = Literal["auto", "native", "compiled", "eager"]
ENGINES: tuple[Engine, ...] = ("auto", "native", "compiled", "eager")
SOURCE = Path(__file__).with_suffix(".cpp")
NATIVE = (DeepResistiveNetwork, variants.ExponentialNetwork, variants.LeakyNetwork)  # the networks that it trains
# No -ffast-math: a diverged member must show as NaN, and nothing here needs sums to be reordered.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread")


class Block(NamedTuple):
    """What a block of steps is trained on."""

    x: Float[Tensor, "n n_0"]
    target: Float[Tensor, "n n_L"]
    rows: Int[Tensor, "stream step batch"]  # images of each step
    stream: Int[Tensor, " member"]  # which of the streams each member follows
    noise: Float[Tensor, "stream step *draws 2 batch units"] | None
    rise: Float[Tensor, " step"]  # factor to the learning rates


Outcome = tuple[Int[Tensor, " member"], Float[Tensor, " member"]]
Steps = Callable[[Any, Block, Rule], Outcome]


def choose(engine: Engine, net: Network, readout: Readout | None, only_torch: str = "") -> tuple[str, Steps]:
    """The engine that trains this network with this read-out, and its name; eager, with one message, where it can't.

    `only_torch`: what of the rule the other engines don't know.
    """
    checks.choice("engine", engine, ENGINES)
    if only_torch and engine != "eager":
        _say_once(f"the fast engines do not know {only_torch}; training uses the slower torch engine")
        engine = "eager"
    device = net.biases[0].device
    if engine == "auto":
        engine = "native" if device.type == "cpu" else "compiled"
    if engine == "native":
        if device.type != "cpu":
            raise ValueError(f"engine = 'native' runs on the CPU, the network is on {device}")
        reason = ""
        if type(net) not in NATIVE:
            reason = f"the C++ engine knows no {type(net).__name__}"
        elif readout is not None and not _adds_noise(readout) and _program(readout, net) is None:
            reason = f"the C++ engine reads each voltage by itself, and can't do {type(readout).__name__}"
        if reason:
            _say_once(f"{reason}; training uses the slower torch engine")
        if reason or library() is None:
            engine = "eager"
    functions: dict[str, Steps] = {"native": native_steps, "compiled": compiled_steps, "eager": torch_steps}
    return engine, functions[engine]


def _adds_noise(readout: Readout | None) -> bool:
    """Whether a read-out reads as the Gaussian one does, whose path is the fastest."""
    return isinstance(readout, GaussianReadout) and type(readout).read is GaussianReadout.read


def _program(readout: Readout | None, net: Network) -> list[Operation] | None:
    """The elementwise operations of a read-out; None if it isn't made of such."""
    program = getattr(readout, "program", None)
    return program(net.members, net.sizes[1:]) if callable(program) else None


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def torch_steps(net: Network, block: Block, rule: Rule, take: Callable[..., Tensor] = step) -> Outcome:
    """Training steps one after the other in torch, in place; the reference that `native_steps` equals up to rounding.

    Returns the number of wrong predictions and the summed cost (V^2) of each member, made before each update.
    """
    x, target, rows, stream, noise, rise = block
    members = len(stream)
    wrong = torch.zeros(members, dtype=torch.int64, device=x.device)
    cost = torch.zeros(members, dtype=torch.float64, device=x.device)
    shared = len(rows) == 1
    for k in range(rows.shape[1]):
        batch = rows[:, k] if shared else rows[stream, k]
        xi = None if noise is None else noise[:, k] if shared else noise[stream, k]
        output = take(net, x[batch], target[batch], xi, rule._replace(rates=rise[k] * rule.rates))
        wrong += (output.argmax(-1) != target[batch].argmax(-1)).sum(1)
        cost += 0.5 * ((output - target[batch]) ** 2).sum((1, 2))
    return wrong, cost


def compiled_steps(net: Network, block: Block, rule: Rule) -> Outcome:
    """`torch_steps` with a step that torch.compile has compiled."""
    return torch_steps(net, block, rule, _compiled_step())


@cache
def _compiled_step() -> Callable[..., Tensor]:
    """`step` under torch.compile; eager, with one warning, where it can't be compiled."""
    takes = [torch.compile(step, dynamic=False), step]

    def take(*arguments: Any) -> Tensor:
        try:
            return takes[0](*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:  # while compiling, so before anything was updated
            warnings.warn(f"torch.compile failed, training goes on uncompiled and slower: {error}", stacklevel=2)
            takes.pop(0)
            return step(*arguments)

    return take


class _NativeOperation(ctypes.Structure):
    """Mirrors `Operation` in engine.cpp."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("kind", "side", "draw")), ("values", ctypes.c_void_p))


class _NativeBlock(ctypes.Structure):
    """Mirrors `Block` in engine.cpp."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("sizes", "rows", "stream", "noisy", "weights", "biases")]
        + [(name, ctypes.c_void_p) for name in ("x", "target", "noise", "scale", "rates", "rise", "nudge")]
        + [(name, ctypes.c_void_p) for name in ("wrong", "cost", "operations")]
        + [(name, ctypes.c_double) for name in ("bias_rate", "gain", "leak")]
        + [(name, ctypes.c_int64) for name in ("exponential", "operation_count", "draws", "reads", "layers", "members")]
        + [(name, ctypes.c_int64) for name in ("steps", "batch", "iterations", "threads", "sharing")]
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled `engine.cpp`; None, with one warning, where it can't be compiled."""
    compilers = [os.environ.get("CXX"), "g++", "c++", "clang++"]
    compiler = next((path for name in compilers if name and (path := shutil.which(name))), None)
    try:
        if compiler is None:
            raise OSError("none of $CXX, g++, c++ and clang++ is installed")
        try:
            file = _compiled(compiler, FLAGS)
        except subprocess.CalledProcessError:  # some compilers know no -march=native
            file = _compiled(compiler, tuple(flag for flag in FLAGS if flag != "-march=native"))
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        warnings.warn(
            f"The fast engine can't be compiled, so training uses the slower torch engine: {reason}\n"
            "A C++ compiler comes with `conda install cxx-compiler`, `apt install g++` or `xcode-select --install`.",
            stacklevel=2,
        )
        return None


def _compiled(compiler: str, flags: tuple[str, ...]) -> Path:
    """Path of the shared library, compiled unless the cache has it whole.

    Its name tells what it depends on, and its content's hash: loading one that was cut short would end the process.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    depends = "\n".join([SOURCE.read_text(), version, *flags, _processor()])
    stem = f"engine-{hashlib.sha256(depends.encode()).hexdigest()[:32]}"
    home = _cache_folder()

    def whole(file: Path) -> Path:
        return home / f"{stem}-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}.so"

    for file in home.glob(f"{stem}-*.so"):
        if whole(file) == file:
            return file
        file.unlink(missing_ok=True)
    # Under another name first, so that no other process ever loads half a library.
    with tempfile.TemporaryDirectory(dir=home) as folder:
        draft = Path(folder) / "draft.so"
        command = [compiler, *flags, str(SOURCE), "-o", str(draft)]
        subprocess.run(command, capture_output=True, text=True, check=True)
        return draft.replace(whole(draft))


def _cache_folder() -> Path:
    """Where compiled files are kept; one for this process alone where a home can't be written, or there is none."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "epkit"
    try:
        if not home.is_absolute():
            raise OSError("no home folder")
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
        return home
    except OSError:
        return Path(tempfile.mkdtemp(prefix="epkit-"))


def _processor() -> str:
    """What -march=native depends on, as far as it can be told: home folders are shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({s for s in lines if s.startswith(("model name", "flags", "Features", "CPU part"))}))


class _Pace:
    """Chooses which members several threads share (0 none, 1 the last few, 2 all), by the clock, equal to the bit.

    Sharing is faster while each thread has a core to itself, and many times slower on a busy machine, where all wait
    for the one that has lost its core; sharing all, where a member's conductances fill the cache. The other ways are
    tried again in turn, the later the worse the last was.
    """

    def __init__(self) -> None:
        self.sharing, self.seconds, self.trial, self.left = 0, float("inf"), 1, 1

    def choose(self) -> int:
        """How the next block is to be shared."""
        return self.sharing if self.left else self.trial

    def record(self, seconds: float) -> None:
        """Takes what a step of that block took."""
        if self.left:
            self.seconds, self.left = seconds, self.left - 1
            return
        self.left = 4 + int(32 * max(0.0, seconds / self.seconds - 1))  # so that trials cost a thirtieth at most
        if seconds < self.seconds:
            self.sharing, self.seconds = self.trial, seconds
        self.trial = next(way for way in ((self.trial + 1) % 3, (self.trial + 2) % 3) if way != self.sharing)


_paces: defaultdict[tuple[object, ...], _Pace] = defaultdict(_Pace)


def native_steps(net: DeepResistiveNetwork, block: Block, rule: Rule) -> Outcome:
    """`torch_steps` on torch.get_num_threads() threads of the CPU, in place, equal up to rounding.

    A member's result is the same to the bit whatever the threads and the other members are.

    Raises:
        ValueError: for parameters that aren't contiguous CPU tensors of one type, float32 or float64, or noise, rows,
            images or operations of other shapes than the network's.
    """
    compiled = library()
    if compiled is None:
        raise RuntimeError("native_steps was called although library() is None")
    members, layers, like = len(block.stream), len(net.weights), net.biases[0]
    sizes, (steps, batch) = torch.tensor(net.sizes), block.rows.shape[1:]
    operations = [] if _adds_noise(rule.readout) else _program(rule.readout, net) or []
    _check_memory(net, block)
    reads, draws = _check_operations(net, block, rule.readout, operations)
    noisy = isinstance(rule.readout, GaussianReadout) and block.noise is not None
    scale = rule.readout.scale(members) if noisy else None  # type: ignore[union-attr]
    noise = (block.noise if noisy or operations else None, scale)
    tensors = (block.x, block.target, *noise, rule.rates, block.rise, rule.nudges)
    reals = [None if t is None else t.to(like).contiguous() for t in tensors]
    from_reads = rule.readout.noisy(layers) if isinstance(rule.readout, Schedule) else [True] * (layers + 1)
    whole = [t.to(torch.int64).contiguous() for t in (sizes, block.rows, block.stream, torch.tensor(from_reads))]
    pointers = [(ctypes.c_void_p * layers)(*(p.data_ptr() for p in ps)) for ps in (net.weights, net.biases)]
    wrong, cost = torch.zeros(members, dtype=torch.int64), torch.zeros(members, dtype=torch.float64)
    values = [o.values.to(like if o.kind == "affine" else torch.float64).contiguous() for o in operations]
    each = zip(operations, values, strict=True)
    natives = [_NativeOperation(KINDS.index(o.kind), o.side, o.draw, v.data_ptr()) for o, v in each]
    listed = (_NativeOperation * len(natives))(*natives)
    threads = torch.get_num_threads()
    pace = _paces[like.dtype, members, batch, threads, net.sizes]
    native = _NativeBlock(
        *(t.data_ptr() for t in whole),
        *(ctypes.cast(p, ctypes.c_void_p) for p in pointers),
        *(None if t is None else t.data_ptr() for t in reals),
        wrong.data_ptr(), cost.data_ptr(), ctypes.cast(listed, ctypes.c_void_p) if operations else None,
        rule.bias_rate, net.input_gain, variants.LEAK if isinstance(net, variants.LeakyNetwork) else 0.0,
        isinstance(net, variants.ExponentialNetwork), len(natives), max(1, draws), reads,
        layers, members, steps, batch, rule.iterations, threads, pace.choose(),
    )  # fmt: skip
    begin = perf_counter()
    if compiled.epkit_steps(ctypes.byref(native), like.element_size()):
        raise MemoryError("the native engine has run out of memory within a block of steps")
    pace.record((perf_counter() - begin) / max(1, steps))
    return wrong, cost


def _check_memory(net: DeepResistiveNetwork, block: Block) -> None:
    """ValueError unless all that the C++ code reads and writes is as long as it takes it to be."""
    like, (n_0, *after), members = net.biases[0], net.sizes, len(block.stream)
    shapes = [(members, pre, post) for pre, post in zip((2 * n_0, *after), after, strict=False)]
    for p, shape in zip((*net.weights, *net.biases), (*shapes, *((members, n) for n in after)), strict=True):
        if p.dtype not in (torch.float32, torch.float64) or p.dtype != like.dtype or p.device.type != "cpu":
            raise ValueError(f"parameters are {p.dtype} on {p.device}: float32 or float64, all alike, on the CPU only")
        if p.shape != shape:
            raise ValueError(f"a parameter has the shape {tuple(p.shape)}, the network's sizes ask for {shape}")
        if not p.is_contiguous():
            raise ValueError(f"a parameter of shape {shape} is not contiguous in memory")
    streams, steps, batch = block.rows.shape
    images, draws = len(block.x), () if block.noise is None else block.noise.shape[2:-3]
    noise = (streams, steps, *draws, 2, batch, sum(after))
    allowed = {"x": (images, n_0), "target": (images, after[-1]), "noise": noise, "rise": (steps,)}
    for name, shape in allowed.items():
        if (values := getattr(block, name)) is not None and values.shape != shape:
            raise ValueError(f"{name} has the shape {tuple(values.shape)}: must be {shape}")
    for name, numbers, most in (("rows", block.rows, images), ("stream", block.stream, streams)):
        checks.within(name, numbers, most)


def _check_operations(
    net: DeepResistiveNetwork, block: Block, readout: Readout | None, operations: Sequence[Operation]
) -> tuple[int, int]:
    """Reads and random numbers of a voltage; ValueError unless the C++ code finds there what the operations need."""
    members, layers, units = net.members, len(net.weights), sum(net.sizes[1:])
    reads = checks.count("reads", getattr(readout, "reads", 1) if operations else 1)
    draws = 0 if block.noise is None else prod(block.noise.shape[2:-3])
    if draws != 1 and block.noise is not None and not operations:
        raise ValueError(f"noise has {draws} random numbers a voltage: {type(readout).__name__} takes one")
    shapes = dict.fromkeys(RANDOM, (members,)) | {
        "affine": (2, members, units), "round": (layers, 4), "sign": (layers, 2), "split": (0,), "join": (0,),
    }  # fmt: skip
    for k, operation in enumerate(operations):
        checks.choice(f"operations[{k}].kind", operation.kind, KINDS)
        checks.count(f"operations[{k}].side", operation.side, 0, 2)
        if operation.values.shape != shapes[operation.kind]:
            found, wanted = tuple(operation.values.shape), shapes[operation.kind]
            raise ValueError(f"operations[{k}].values has the shape {found}: a {operation.kind!r} takes {wanted}")
        if operation.kind in RANDOM and not 0 <= operation.draw <= draws - reads:
            drawn = f"of {draws} random numbers a voltage"
            raise ValueError(f"operations[{k}].draw = {operation.draw}: must leave room for {reads} reads {drawn}")
    return reads, draws
