"""Values checked against a pydantic model: one plain line for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .messages import ParameterError, hint, short, shown

MOST_LINES = 20  # of faults: who mixed up two lists need not read a line for each entry
Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: object, place: str = "parameters") -> Model:
    """`values` as a `model`; ParameterError names place, field, value and what is allowed, one line a fault."""
    if not isinstance(values, Mapping):
        raise ParameterError(f"{place}: must hold names and values, is {shown(values)}")
    try:
        return model.model_validate(_plain(values))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [f"{place}: {_fault(model, fault)}" for fault in faults[:MOST_LINES]]
        if len(faults) > MOST_LINES:
            lines.append(f"{place}: and {len(faults) - MOST_LINES} more")
        raise ParameterError("\n".join(lines)) from None


def _plain(values: object) -> object:
    """numpy's arrays and numbers as Python's, wherever they are; iterators as what they are called."""
    match values:
        case np.ndarray() | np.generic():
            return values.tolist()
        case Mapping():
            return {name: _plain(value) for name, value in values.items()}
        case list() | tuple():
            return [_plain(value) for value in values]
        case Iterator():  # may never end
            return shown(values)
    return values


def _fault(model: type[BaseModel], fault: ErrorDetails) -> str:
    """`field = value: what is allowed`."""
    field = short(".".join(map(str, fault["loc"])), 60)
    if fault["type"] == "extra_forbidden":
        nested = model.model_json_schema().get("$defs", {}).values()
        inner = dict.fromkeys(name for schema in nested for name in schema["properties"])
        names = inner if fault["loc"][1:] else model.model_fields
        return f"{field}: no such parameter; {hint(fault['loc'][-1], names)}"
    if fault["type"] == "missing":
        return f"{field}: is missing"
    allowed = short(fault["msg"].removeprefix("Value error, "))
    if fault["type"] == "value_error" and isinstance(fault["input"], Mapping):  # of several fields; it says of which
        return f"{field}.{allowed}" if fault["loc"] else allowed
    return f"{field} = {shown(fault['input'])}: {allowed}"
