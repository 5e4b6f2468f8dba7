"""What names a network or a read-out that isn't epkit's: its source, and the values that its source doesn't tell."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import digest
from ..messages import short

PLAIN = (
    str, int, float, Path, np.generic, tuple, list, dict, Tensor, np.ndarray, torch.dtype, torch.device
)  # fmt: skip


def identity(part: str, made_by: Callable[..., Any]) -> str:
    """Name and hashes of what makes a network or a read-out, as they go into a run's hash.

    They are of its source, of the values that it works with beside its arguments, and likewise of the functions and
    classes that it calls by name or inherits from; those of epkit and of installed packages stand by their names. What
    it calls as an attribute of a module is not seen.

    Raises:
        ValueError: where its source can't be read, or a value that it was made with can't be told in full.
    """
    return _identity(part, made_by, ())


def _identity(part: str, made_by: Any, within: tuple[Any, ...]) -> str:
    """`within`: what is being told already, for functions may call each other."""
    if made_by in within:
        return str(made_by.__qualname__)
    try:
        source = inspect.getsource(made_by)
    except (OSError, TypeError):
        raise ValueError(
            f"{part} = {made_by!r}: its source can't be read, and a run is named by it: define it in a file or a cell"
        ) from None
    values = _values(made_by)
    more = f", values sha256 {digest(_told(part, values, (*within, made_by)))[:12]}" if values else ""
    return f"{made_by.__qualname__}, source sha256 {digest(source)[:12]}{more}"


def _values(made_by: Any) -> dict[str, Any]:
    """What a function or a class works with beside its arguments: two made in one place differ in nothing else."""
    if isinstance(made_by, type):
        known: dict[str, Any] = {f"base {k}": b for k, b in enumerate(made_by.__bases__) if b is not object}
        for name, value in vars(made_by).items():
            function = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "__func__", value))
            if _of_ones_own(function):  # not what a dataclass makes
                known |= {f"{name}: {key}": v for key, v in _values(function).items()}
            elif not name.startswith("__") and (isinstance(value, PLAIN) or _is_record(value) or callable(value)):
                known[name] = value
        return known
    if not inspect.isroutine(made_by):
        return {}
    function = getattr(made_by, "__func__", made_by)
    seen = inspect.getclosurevars(function)
    used = {name: v for name, v in seen.globals.items() if isinstance(v, PLAIN) or _is_record(v) or _of_ones_own(v)}
    own = {"self": getattr(made_by, "__self__", None), "defaults": function.__defaults__}
    known = {**used, **own, "keywords": function.__kwdefaults__, **seen.nonlocals}
    return {name: v for name, v in known.items() if v is not None}


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _of_ones_own(value: Any) -> bool:
    """Whether this function or class may change under its name: it is neither epkit's nor an installed package's."""
    value = getattr(value, "__func__", value)
    if inspect.isfunction(value):
        file = value.__code__.co_filename
    elif isinstance(value, type):
        file = getattr(sys.modules.get(value.__module__), "__file__", None) or ""
    else:
        return False
    root, installed = value.__module__.partition(".")[0], map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))
    known = root == "epkit" or root in sys.stdlib_module_names or file == "<string>"
    return not known and not any(Path(file).is_relative_to(folder) for folder in installed)


def _told(part: str, value: Any, within: tuple[Any, ...]) -> str:
    """A value in full and the same in every process: arrays by their content, functions by their source."""
    if isinstance(value, Tensor | np.ndarray):
        array = np.ascontiguousarray(value.cpu().numpy() if isinstance(value, Tensor) else value)
        return f"{array.dtype} {array.shape} {digest(array.tobytes().hex())}"
    if isinstance(value, tuple | list):
        return f"({', '.join(_told(part, v, within) for v in value)})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_told(part, v, within) for v in value))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_told(part, value[k], within)}' for k in sorted(value, key=str))}}}"
    if isinstance(value, type) or inspect.isroutine(value):
        return _identity(part, value, within) if _of_ones_own(value) else f"{value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{type(value).__qualname__}{_told(part, held, within)}"
    if value is None or isinstance(value, PLAIN):
        return repr(value)
    what = short(type(value).__name__)
    raise ValueError(
        f"{part}: it is made with a {what}, and a run is named by all that it is made with: use plain values"
    )
