"""What people hand in, read strictly: parameter files, notebooks' parameters and command lines, refused in one line.

Parameter files are YAML 1.2's core schema: `1e-5` is a number, `no` a text, and `010`, `1:30` or `2024-01-01` are no
numbers, all of which YAML 1.1, PyYAML's own dialect, reads otherwise.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import yaml

from ..messages import ParameterError, hint, short, shown

LARGEST = 1 << 20  # bytes of a parameter file: a thousand times those of the study


class _Strict(yaml.SafeLoader):
    """Refuses what a parameter file has no use for: names given twice, anchors, aliases and tags."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  # filled below, and not from SafeLoader's

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="anchors, aliases and tags (&, *, !) are not allowed", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        given: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):  # SafeLoader refuses what can't be a key
                if key.value in given:
                    problem = f"{shown(key.value)} is given more than once"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                given.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern in {
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?(0|[1-9][0-9]{,99})",  # of more digits Python may refuse to make one
    "float": r"[-+]?((0|[1-9][0-9]{,99})(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "null": "~|null|Null|NULL|",
}.items():
    _Strict.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), None)


def parameter_file(path: Path, place: str) -> dict[str, object]:
    """The `name: value` lines of a YAML file; ParameterError names `place`, what is wrong with it, and the line."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ParameterError(f"{place}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise ParameterError(f"{place}: is larger than {LARGEST:,} bytes, which no parameter file needs")
    try:
        given = yaml.load(content.decode("utf-8-sig"), _Strict)
    except UnicodeDecodeError as error:
        raise ParameterError(f"{place}: not UTF-8 text (byte {error.start + 1})") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParameterError(f"{place}: not valid YAML{line}: {short(error.problem)}") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"{place}: not valid YAML: {short(error)}") from None
    except RecursionError:
        raise ParameterError(f"{place}: not valid YAML: nested too deeply") from None
    if not isinstance(given, dict):
        raise ParameterError(f"{place}: must hold `name: value` lines, holds {type(given).__name__}")
    return given


def parameters_cell(path: Path) -> dict[str, object]:
    """The names and literals of a notebook's parameters cell; ParameterError if it has not exactly one such cell."""
    import nbformat  # slow, and a notebook that draws comes here for the rest

    place = f"{path.parent.name}/{path.name}"
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    except Exception as error:  # nbformat raises what its own reading of the file stumbles over
        raise ParameterError(f"{place}: not a readable notebook ({short(error)})") from None
    if len(cells) != 1:
        raise ParameterError(f"{place}: has {len(cells)} cells tagged `parameters`, must have one")
    try:
        return _literals(cells[0].source)
    except (SyntaxError, ValueError) as error:
        raise ParameterError(f"{place}: its parameters cell must hold `name = literal` lines ({error})") from None


def _literals(source: str) -> dict[str, object]:
    """What a cell of `name = literal` lines assigns; SyntaxError or ValueError if it is anything else."""
    assigned = {}
    for line in ast.parse(source).body:
        match line:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                assigned[name] = ast.literal_eval(value)
            case _:
                raise ValueError(f"not one: {short(ast.unparse(line))}")
    return assigned


def refuse_misspelt(cells: Sequence[str]) -> None:
    """Refuse parameters that papermill sets and a notebook doesn't have, of which papermill itself only warns.

    Args:
        cells: what the kernel has executed so far, IPython's `In`. papermill puts the parameters that it was given
            into a cell of their own, after that of the notebook's parameters.

    Raises:
        ParameterError: a line for each unknown name, with the nearest right one.
    """
    for own, injected in pairwise(cells):
        if injected.startswith("# Parameters\n"):
            known = _assigned(own)
            unknown = [name for name in _assigned(injected) if name not in known]
            if unknown:
                lines = [f"parameters: {name}: no such parameter; {hint(name, known)}" for name in unknown]
                raise ParameterError("\n".join(lines))


def _assigned(cell: str) -> list[str]:
    names = [node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)]
    return [name.id for name in names if isinstance(name.ctx, ast.Store)]


class Parser(argparse.ArgumentParser):
    """Names the nearest right option or choice, as argparse itself does from Python 3.14 on."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = re.findall(r"--[\w-]+", self.format_help())
            self.error(f"{shown(unknown[0])}: no such option; {hint(unknown[0], dict.fromkeys(known))}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        if wrong := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            message += "; " + hint(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        super().error(message)
