"""What people hand in, read strictly: parameter files, and what notebooks or papermill set; refused in one line.

Parameter files are YAML 1.2's core schema: `1e-5` is a number, `no` a text, and `010`, `1:30` or `2024-01-01` are no
numbers, all of which YAML 1.1, PyYAML's own dialect, reads otherwise.
"""

from __future__ import annotations

import ast
import glob
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from pydantic import BaseModel

from ..files import CHECKOUT, environment_folder
from ..messages import ParameterError, hint, short, shown
from ..validation import validated
from .parameters import Bench, Checked, Comparison, Mechanism, Oracles, Published, Summary, Sweep
from .store import results

LARGEST = 1 << 20  # bytes of a parameter file: a thousand times those of the study
NOTEBOOKS = CHECKOUT / "notebooks"
# What a notebook is, by the tag that its parameters cell carries beside `parameters`.
EXPERIMENTS: dict[str, type[BaseModel]] = {
    model.__name__: model for model in (Sweep, Checked, Comparison, Published, Mechanism, Oracles, Bench, Summary)
}
BASE = "base.yaml"  # what the notebooks of a profile share
HOW = ("profile", "scheduler")  # a parameters cell's names that say how to compute, not what
MERGED = ("base", "check")  # settings whose entries replace those of the file one by one


def study_notebooks() -> list[Path]:
    """The study's notebooks in order: those of which a profile has parameters, and no copies that a reader has made."""
    return sorted(p for p in NOTEBOOKS.glob("*.ipynb") if any(CHECKOUT.glob(f"params/*/{glob.escape(p.stem)}.yaml")))


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
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):  # SafeLoader refuses what can't be a key
                if key.value in names:
                    problem = f"{shown(key.value)} is given more than once"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)


_NUMBER = r"[-+]?((0|[1-9][0-9]{,99})(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"  # of more digits Python may make none
for _tag, _pattern in {
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?(0|[1-9][0-9]{,99})",
    "float": rf"{_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "null": "~|null|Null|NULL|",
}.items():
    _Strict.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), None)


def parameter_file(path: Path, place: str) -> dict[str, Any]:
    """The `name: value` lines of a YAML file; ParameterError names `place`, what is wrong with it, and the line."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ParameterError(f"{place}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise ParameterError(f"{place}: is larger than {LARGEST:,} bytes, which no parameter file needs")
    try:
        settings = _yaml(content.decode("utf-8-sig"), place)
    except UnicodeDecodeError as error:
        raise ParameterError(f"{place}: not UTF-8 text (byte {error.start + 1})") from None
    if not isinstance(settings, dict):
        raise ParameterError(f"{place}: must hold `name: value` lines, holds {type(settings).__name__}")
    return settings


def _yaml(text: str, place: str) -> Any:
    """What a YAML text means; ParameterError names `place`, the line and what is wrong."""
    try:
        return yaml.load(text, _Strict)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParameterError(f"{place}: not valid YAML{line}: {short(error.problem)}") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"{place}: not valid YAML: {short(error)}") from None
    except RecursionError:
        raise ParameterError(f"{place}: not valid YAML: nested too deeply") from None


def all_profiles() -> Path:
    """The folder params of the checkout, or EPKIT_PARAMS."""
    return environment_folder("EPKIT_PARAMS") or CHECKOUT / "params"


def profile_folder(profile: str) -> Path:
    """The folder of a profile; ParameterError if there is no such profile."""
    folder = all_profiles()
    profiles = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if profile not in profiles:
        raise ParameterError(f"profile = {shown(profile)}: no such profile; {hint(profile, profiles)}")
    return folder / profile


def profile_settings(profile: str, name: str, model: type[BaseModel]) -> tuple[dict[str, Any], str]:
    """What a profile sets for a notebook, and the name of the file or files it comes from, for messages.

    That is params/<profile>/<name>.yaml upon those entries of the profile's base.yaml that `model` has a field for.
    ParameterError if the notebook's file is missing, or a file isn't readable or has a name that no parameter has.
    """
    folder = profile_folder(profile)
    path, place, base_place = folder / f"{name}.yaml", f"params/{profile}/{name}.yaml", f"params/{profile}/{BASE}"
    if not path.exists():
        names = sorted(file.stem for file in folder.glob("*.yaml") if file.name != BASE)
        raise ParameterError(f"{place}: no such file; {hint(name, names)}")
    own = parameter_file(path, place)
    _refuse_unknown(own, list(model.model_fields), place)
    if not (folder / BASE).exists():
        return own, place
    base = parameter_file(folder / BASE, base_place)
    fields = dict.fromkeys(field for experiment in EXPERIMENTS.values() for field in experiment.model_fields)
    _refuse_unknown(base, list(fields), base_place)
    return {key: value for key, value in base.items() if key in model.model_fields} | own, f"{place} on {BASE}"


def experiment(path: Path) -> type[BaseModel]:
    """The model of a notebook's parameters, which its parameters cell names by a tag.

    ParameterError if the file is no notebook, or has not exactly one such cell of `name = literal` lines, or if that
    cell names no experiment.
    """
    import nbformat  # takes as long to import as some notebooks to draw

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
        names = _literals(cells[0].source)
    except (SyntaxError, ValueError) as error:
        raise ParameterError(f"{place}: its parameters cell must hold `name = literal` lines ({error})") from None
    tags = [tag for tag in cells[0].metadata.tags if tag != "parameters"]
    if len(tags) != 1 or tags[0] not in EXPERIMENTS:
        allowed = ", ".join(EXPERIMENTS)
        raise ParameterError(
            f"{place}: its parameters cell must have one tag beside `parameters`, has {shown(tags)}; allowed: {allowed}"
        )
    model = EXPERIMENTS[tags[0]]
    _refuse_unknown(names, [*model.model_fields, *HOW], place)
    return model


def _literals(source: str) -> list[str]:
    """The names of a cell of `name = literal` lines; SyntaxError or ValueError if it is anything else."""
    names = []
    for line in ast.parse(source).body:
        match line:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                ast.literal_eval(value)
                names.append(name)
            case _:
                raise ValueError(f"not one: {short(ast.unparse(line))}")
    return names


def notebook(name: str, variables: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The parameters of a notebook, and the folder of its stores and figures.

    Args:
        name: the notebook's, without `.ipynb`. Its profile's file, params/<profile>/<name>.yaml, holds the parameters.
        variables: the notebook's `globals()`. What its parameters cell or papermill has set to anything but None is
            taken instead of the profile's value; a text where no text belongs is read as YAML, for papermill's command
            line gives lists as texts. `base` and `check` hold parameters in turn, of which those given are taken.

    Returns:
        All parameters, defaults included, as `epkit.run` takes them; and `epkit.results(profile)`, or if any parameter
        differs from the profile's, results/mine/<profile>, so that no such change touches the profile's stores. A line
        on stderr then says so.

    Raises:
        ParameterError: a line for each name that the notebook doesn't have, with the nearest right one, or for each
            value that isn't allowed; or there is no such profile, notebook or file.
    """
    model = experiment(NOTEBOOKS / f"{name}.ipynb")
    names = _assigned(variables["In"]) if "In" in variables else list(variables)
    _refuse_unknown(names, [*model.model_fields, *HOW], "parameters")
    profile = variables.get("profile")
    if not isinstance(profile, str):
        raise ParameterError(f"profile = {shown(profile)}: must be the name of a folder of params/")
    settings, place = profile_settings(profile, name, model)
    parameters = validated(model, settings, place)
    changes = {
        key: _value(variables[key], model, key) for key in names if key not in HOW and variables.get(key) is not None
    }
    for key in MERGED:
        if isinstance(changes.get(key), Mapping) and isinstance(settings.get(key), dict):
            changes[key] = settings[key] | dict(changes[key])
    changed = validated(model, settings | changes)
    if changed == parameters:
        return parameters.model_dump(), results(profile)
    folder = results(f"mine/{profile}")
    different = [key for key in model.model_fields if getattr(changed, key) != getattr(parameters, key)]
    print(f"Not as in params/{profile}: {', '.join(different)}. Stores and figures go to {folder}", file=sys.stderr)
    return changed.model_dump(), folder


def _assigned(cells: Sequence[str]) -> list[str]:
    """Names that the parameters cell assigns, as it was last executed, and the cell that papermill puts after it.

    `cells` is IPython's `In`, all that the kernel has executed so far. The parameters cell is the one with `profile`.
    """
    names: list[str] = []
    for cell in cells:
        try:
            lines = ast.parse(cell).body
        except SyntaxError:
            continue
        targets = [target for line in lines if isinstance(line, ast.Assign) for target in line.targets]
        targets += [line.target for line in lines if isinstance(line, ast.AnnAssign)]
        here = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        if cell.startswith("# Parameters\n"):
            names += here
        elif "profile" in here:
            names = here
    return list(dict.fromkeys(names))


def _value(value: Any, model: type[BaseModel], field: str) -> Any:
    """A parameter as a notebook has it, with texts that stand for something else read as YAML."""
    annotation = model.model_fields[field].annotation
    if isinstance(value, str) and annotation is not str and get_origin(annotation) is not Literal:
        value = _yaml(value, f"parameters: {field} = {shown(value)}")
    return _with_numbers(value)


def _with_numbers(value: Any) -> Any:
    """Lists and mappings with texts like 1e-3, which papermill's own YAML takes for no numbers, as numbers."""
    match value:
        case str() if re.fullmatch(_NUMBER, value):
            return yaml.load(value, _Strict)
        case list() | tuple():
            return [_with_numbers(entry) for entry in value]
        case Mapping():
            return {key: _with_numbers(entry) for key, entry in value.items()}
    return value


def _refuse_unknown(names: Iterable[str], allowed: list[str], place: str) -> None:
    """ParameterError with a line for each name that is none of those allowed."""
    if unknown := [name for name in names if name not in allowed]:
        lines = [f"{place}: {short(name, 60)}: no such parameter; {hint(name, allowed)}" for name in unknown]
        raise ParameterError("\n".join(lines))
