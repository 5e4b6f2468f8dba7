"""The shape of the package: floors whose imports run down only, functions of a size that can be read."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "epkit"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Lowest first; a module may import from its own floor and from those below.
FLOORS = [
    ("messages", "files", "validation"),
    ("ep",),
    ("networks",),
    ("data", "readouts"),
    ("sweep",),
    ("reference", "study", "circuit"),
    ("bench",),
    ("figures",),
    ("publish", "kernels"),
    ("__init__", "__main__"),
]
MOST_LINES, MOST_PARAMETERS = 60, 12
# Public calls, whose parameters are DESIGN.md's.
PUBLIC = {"train"}


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def imports(path: Path) -> list[tuple[ast.ImportFrom, tuple[str, ...]]]:
    """Imports from within the package, with the place of what they import from."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = parts(path)[: len(parts(path)) - node.level]
            base = (*here, *((node.module or "").split(".") if node.module else ()))
            names = [base] if base and not (PACKAGE.joinpath(*base)).is_dir() else [(*base, a.name) for a in node.names]
            found += [(node, name) for name in names]
    return found


def functions():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{'.'.join(parts(path))}.{node.name}", node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(parts(path)))
def test_imports_run_down_only(path):
    upwards = [".".join(target) for _, target in imports(path) if floor(target[0]) > floor(parts(path)[0])]
    assert not upwards


def test_no_import_circle_and_none_hidden_in_a_function():
    graph = {parts(path): {target for _, target in imports(path)} for path in MODULES if path.stem != "__init__"}
    graph = {name: {t for t in targets if t in graph} for name, targets in graph.items()}
    typing_only = {(("ep", "checks"), ("ep", "networks"))}  # for annotations alone, which need no import at run time
    done: set[tuple[str, ...]] = set()

    def visit(name, above):
        assert name not in above, " -> ".join(".".join(n) for n in (*above, name))
        if name not in done:
            for target in sorted(graph[name]):
                if (name, target) not in typing_only:
                    visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    for where, function in functions():
        hidden = [n for n in ast.walk(function) if isinstance(n, ast.ImportFrom) and n.level]
        assert not hidden, where


def test_functions_can_be_read():
    long = {where: f.end_lineno - f.lineno + 1 for where, f in functions()}
    assert {where: lines for where, lines in long.items() if lines > MOST_LINES} == {}
    counts = {where: len([*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]) for where, f in functions()}
    wide = {where: n for where, n in counts.items() if n > MOST_PARAMETERS and where.rpartition(".")[2] not in PUBLIC}
    assert wide == {}
