"""Bad input: always one line naming place, field, value and what is allowed; no traceback, nothing written.

The corpus holds files broken in one way each; hypothesis breaks valid ones in many.
"""

import itertools
import json
import re
from decimal import Decimal
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_experiments import TINY
from test_make import make

import epkit
from epkit import __main__ as execute
from epkit.messages import ParameterError
from epkit.sweep import ensemble, inputs
from epkit.sweep.parameters import Comparison, Mechanism, Oracles, Published, Sweep
from epkit.validation import validated

ROOT = Path(__file__).parents[1]
CORPUS = Path(__file__).parent / "corpus"
MODELS = {
    "00_published_networks": Published,
    "01_equilibrium_propagation": Mechanism,
    "02_critical_limit": Sweep,
    "06_oracles": Oracles,
    "12_why_noise_helps": Comparison,
    "13_harnessing_noise": Comparison,
    "14_hardware_readouts": Comparison,
}
SMOKE = {name: inputs.profile_settings("smoke", name, model)[0] for name, model in MODELS.items()}
fuzzed = settings(
    deadline=None, derandomize=True, database=None, max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def check_lines(message, place):
    """Each line begins with the place and is short, and there are not too many."""
    lines = message.splitlines()
    assert 1 <= len(lines) <= 21
    for line in lines:
        assert re.match(rf"{re.escape(place)}(: .|, )", line), line
        assert len(line) <= 300, line
        assert line.isprintable(), line
        assert "Traceback" not in line


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder of a profile `mine` without any file yet; results would go beside it."""
    folder = tmp_path / "params" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EPKIT_PARAMS", str(folder.parent))
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path / "results"))
    return folder


def refused(mine, capsys):
    """What `make figures PROFILE=mine` says; that it fails, and writes nothing."""
    before = sorted(mine.parents[1].rglob("*"))
    assert execute.main(["figures", "--profile", "mine"]) == 1
    assert sorted(mine.parents[1].rglob("*")) == before
    printed = capsys.readouterr()
    assert not printed.out
    return printed.err


ACCEPTED = {
    "bom": {"dataset": ["mnist"], "sigma": [0.0, 0.001]},
    "exponent_without_dot": {"dataset": ["mnist"], "sigma": [0, 1e-5, 1e-3]},
    "json": {"dataset": ["mnist"], "sigma": [0.0, 0.001]},
    "windows": {"dataset": ["mnist"], "sigma": [0.0, 0.001]},
}
REFUSED = {
    "alias": "not valid YAML, line 1: anchors, aliases and tags (&, *, !) are not allowed",
    "alias_bomb": "not valid YAML, line 1: anchors, aliases and tags",
    "boolean_for_count": "seeds = 'yes': Input should be a valid integer",
    "boolean_for_number": "beta = True: Input should be a valid number",
    "comment_only": "must hold `name: value` lines, holds NoneType",
    "control": "not valid YAML: unacceptable character #x001b",
    "date_for_number": "beta = '2024-01-01': Input should be a valid number",
    "duplicate_key": "not valid YAML, line 3: 'sigma' is given more than once",
    "duplicate_quoted_key": "not valid YAML, line 3: 'sigma' is given more than once",
    "empty": "must hold `name: value` lines, holds NoneType",
    "giant_integer": "seeds = ",
    "html": "not valid YAML, line 2: mapping values are not allowed here",
    "infinity": "sigma.1 = inf: Input should be a finite number",
    "key_is_list": "not valid YAML, line 3: found unhashable key",
    "key_is_number": "1: no such parameter; there are hidden",
    "latin1": "not UTF-8 text (byte 5)",
    "list": "must hold `name: value` lines, holds list",
    "mapping_for_list": "sigma = {'a': 0.1}: Input should be a valid list",
    "merge_conflict": "not valid YAML, line 3: could not find expected ':'",
    "merge_key": "<<: no such parameter; there are hidden",
    "misspelt": "sgima: no such parameter; did you mean sigma?",
    "nan": "sigma.0 = nan: Input should be a finite number",
    "negative": "sigma.0 = -0.1: Input should be greater than or equal to 0",
    "nested": "not valid YAML: nested too deeply",
    "norway": "dataset.0 = 'no': no such data set; there are mnist",
    "nul": "not valid YAML: unacceptable character #x0000",
    "null": "beta = None: Input should be a valid number",
    "octal": "seeds = '010': Input should be a valid integer",
    "out_of_range": "batch_size = 0: Input should be greater than or equal to 1",
    "profile_inside": "profile: no such parameter; there are hidden",
    "python_object": "not valid YAML, line 1: anchors, aliases and tags",
    "python_tuple": "not valid YAML, line 2: anchors, aliases and tags",
    "scalar": "must hold `name: value` lines, holds str",
    "sexagesimal": "seeds = '1:30': Input should be a valid integer",
    "tab": "not valid YAML, line 3: found character '\\t' that cannot start any token",
    "text_for_list": "dataset = 'mnist': Input should be a valid list",
    "text_for_number": "beta = 'much': Input should be a valid number",
    "too_large_network": "hidden = [1000000, 1000000]: the conductances alone take",
    "too_many_images": "train_images = 60001: MNIST allows 1 to 60000",
    "two_documents": "not valid YAML, line 3: but found another document",
    "unclosed": "not valid YAML, line 3: expected ',' or ']', but got '<stream end>'",
    "underscores": "train_images = '1_000': Input should be a valid integer",
    "unknown_data_set": "dataset.0 = 'mnits': no such data set; did you mean mnist?",
    "utf16": "not UTF-8 text (byte 1)",
}
PLACE = "params/mine/02_critical_limit.yaml"


def test_the_whole_corpus_is_tried():
    assert {path.stem for path in (CORPUS / "parameters").iterdir()} == set(ACCEPTED) | set(REFUSED)
    assert {path.stem for path in (CORPUS / "notebooks").iterdir()} == set(NOTEBOOKS)


@pytest.mark.parametrize(("name", "message"), REFUSED.items(), ids=REFUSED)
def test_a_broken_parameter_file_is_refused(mine, capsys, counted, name, message):
    (mine / "02_critical_limit.yaml").write_bytes((CORPUS / "parameters" / f"{name}.yaml").read_bytes())
    said = refused(mine, capsys)
    check_lines(said, PLACE)
    assert said.startswith(f"{PLACE}: {message}")
    assert not Path("owned").exists()
    counted("corpus: parameter files", "refused")


@pytest.mark.parametrize(("name", "values"), ACCEPTED.items(), ids=ACCEPTED)
def test_an_unusual_parameter_file_means_what_it_says(mine, counted, name, values):
    (mine / "02_critical_limit.yaml").write_bytes((CORPUS / "parameters" / f"{name}.yaml").read_bytes())
    assert execute.planned("mine")["02_critical_limit"] == validated(Sweep, values)
    counted("corpus: parameter files", "accepted")


def test_files_that_no_notebook_reads_are_refused(mine, capsys):
    assert refused(mine, capsys) == "params/mine: holds no parameter file, must hold <notebook>.yaml\n"
    for name in ("02_critical_limt.yaml", "02_critical_limit.yml"):
        (mine / name).write_text("dataset: [digits]")
        said = refused(mine, capsys)
        check_lines(said, f"params/mine/{name}")
        assert "did you mean 02_critical_limit.yaml?" in said
        (mine / name).unlink()
    (mine / "02_critical_limit.yaml").mkdir()
    assert refused(mine, capsys) == f"{PLACE}: cannot be read (Is a directory)\n"
    (mine / "02_critical_limit.yaml").rmdir()
    (mine / "02_critical_limit.yaml").write_bytes(b"#" * (inputs.LARGEST + 1))
    assert "is larger than 1,048,576 bytes" in refused(mine, capsys)


@pytest.mark.parametrize("name", ["", ".", "..", "mine/", "/", "min", "x" * 5000, "mine\0"])
def test_a_profile_is_one_of_those_there_are(mine, capsys, counted, name):
    (mine / "02_critical_limit.yaml").write_text("dataset: [mnist]\nsigma: [0.0]\n")
    for arguments in (["--profile", name], ["--profile", "mine", "--fallback", name or "none"]):
        assert execute.main(["figures", *arguments]) == 1
        said = capsys.readouterr().err
        assert re.fullmatch(r"profile = '.*': no such profile; (did you mean|there are) mine\??\n", said), said
        counted("command line: profiles", "refused")


NOTEBOOKS = {
    "call": "its parameters cell must hold `name = literal` lines (not one: import os)",
    "cells_are_text": "not a readable notebook",
    "derived": "its parameters cell must hold `name = literal` lines (",
    "empty": "not a readable notebook (Notebook does not appear to be JSON",
    "list": "not a readable notebook",
    "magic": "its parameters cell must hold `name = literal` lines (invalid syntax",
    "no_experiment": "its parameters cell must have one tag beside `parameters`, has []; allowed: Sweep, Checked, Comp",
    "no_cells": "not a readable notebook (The notebook is invalid and is missing an expected key: cells",
    "no_parameters": "has 0 cells tagged `parameters`, must have one",
    "not_json": "not a readable notebook (Notebook does not appear to be JSON",
    "syntax": "its parameters cell must hold `name = literal` lines (invalid syntax",
    "truncated": "not a readable notebook (Notebook does not appear to be JSON",
    "two_experiments": "its parameters cell must have one tag beside `parameters`, has ['Sweep', 'Checked']; allowed: ",
    "two_parameters": "has 2 cells tagged `parameters`, must have one",
    "unknown_experiment": "its parameters cell must have one tag beside `parameters`, has ['Swep']; allowed: Sweep, ",
    "unknown_parameter": "sgima: no such parameter; did you mean sigma?",
    "wrong_format": "not a readable notebook (",
}


@pytest.mark.parametrize(("name", "message"), NOTEBOOKS.items(), ids=NOTEBOOKS)
def test_a_broken_notebook_is_refused(mine, monkeypatch, capsys, counted, name, message):
    folder = mine.parents[1] / "notebooks"
    folder.mkdir()
    (folder / "02_critical_limit.ipynb").write_bytes((CORPUS / "notebooks" / f"{name}.ipynb").read_bytes())
    monkeypatch.setattr(execute, "NOTEBOOKS", folder)
    (mine / "02_critical_limit.yaml").write_text("dataset: [mnist]\nsigma: [0.0]\n")
    said = refused(mine, capsys)
    check_lines(said, "notebooks/02_critical_limit.ipynb")
    assert said.startswith(f"notebooks/02_critical_limit.ipynb: {message}")
    assert not Path("owned").exists()
    counted("corpus: notebooks", "refused")


VALID = b"dataset: [mnist]\nsigma: [0.0, 1.0e-3]\nhidden: [12, 12]\nseeds: 2\nbeta: 0.1\naveraging: [shortcut]\n"


@fuzzed
@given(data=st.data())
def test_parameter_files_with_some_bytes_changed(mine, counted, data):
    text = bytearray(VALID)
    special = st.sampled_from([*b"\t\n :[]{}&*!|>'\"#%@`,?-.~0\x00\xff"])
    for _ in range(data.draw(st.integers(1, 6))):
        begin = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 8))
        text[begin : begin + length] = bytes(data.draw(st.lists(special | st.integers(0, 255), max_size=4)))
    (mine / "02_critical_limit.yaml").write_bytes(text)
    try:
        execute.planned("mine")
        counted("fuzzed: parameter files", "accepted")
    except ParameterError as error:
        check_lines(str(error), PLACE)
        counted("fuzzed: parameter files", "refused")


numbers = st.one_of(
    st.integers(), st.floats(), st.integers(-2, 5), st.sampled_from([10**9, 10**400, -0.0, 5e-324, 1e308])
)
scalars = st.one_of(
    st.none(), st.booleans(), numbers, st.text(max_size=50), st.binary(max_size=5), st.complex_numbers(), st.decimals(),
    st.fractions(), st.dates(), st.sampled_from(["1e-5", "digits", "mnits", "x" * 10**5, "a\nb", "\x1b[31m"]),
    numbers.filter(lambda n: abs(n) < 1e18).map(np.float32), st.integers(-5, 5).map(np.int64),
    st.sampled_from([torch.tensor(2), torch.tensor([1.0, 2.0]), torch.empty(3, device="meta"), object, len, ...]),
    st.builds(np.arange, st.integers(0, 5)), st.builds(np.linspace, st.just(0), st.floats(0, 1), st.integers(0, 5)),
    st.builds(itertools.count), st.builds(np.array, st.just(["a", None, 1.0]), st.just(object)),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)


def mutated(data, whole):
    """`whole` with one entry of it, however deep, dropped, renamed by a letter, added, doubled or replaced."""
    if isinstance(whole, dict) and whole and not data.draw(st.sampled_from([False, True])):
        key = data.draw(st.sampled_from(sorted(whole)))
        rest = {k: v for k, v in whole.items() if k != key}
        match data.draw(st.sampled_from(["drop", "rename", "add", "inside", "replace"])):
            case "drop":
                return rest
            case "rename":
                at = data.draw(st.integers(0, len(key) - 1))
                return rest | {key[:at] + data.draw(st.characters()) + key[at + 1 :]: whole[key]}
            case "add":
                return whole | {data.draw(st.text(max_size=200) | st.integers() | st.none()): data.draw(values)}
            case "replace":
                return rest | {key: data.draw(values)}
        return rest | {key: mutated(data, whole[key])}
    if isinstance(whole, list) and whole:
        at = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            return [*whole[: at + 1], *whole[at:]]
        return [*whole[:at], mutated(data, whole[at]), *whole[at + 1 :]]
    return data.draw(values)


@pytest.mark.parametrize("name", MODELS)
@fuzzed
@given(data=st.data())
def test_fuzzed_parameters_are_valid_or_refused(counted, name, data):
    model = MODELS[name]
    changed = mutated(data, SMOKE[name])
    try:
        found = validated(model, changed, PLACE)
    except ParameterError as error:
        check_lines(str(error), PLACE)
        for line in str(error).splitlines():
            assert re.match(rf"{PLACE}: (\S.*( = .+)?: .+|must hold names and values, is .+|and \d+ more)", line), line
        counted(f"fuzzed: {model.__name__}", "refused")
    else:
        json.dumps(found.model_dump(mode="json"))
        counted(f"fuzzed: {model.__name__}", "accepted")


def test_a_refused_call_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "trained", lambda *_: pytest.fail("trained"))
    sweep, mechanism, study = TINY, SMOKE["01_equilibrium_propagation"], SMOKE["06_oracles"]
    for function, good in ((epkit.run, sweep), (epkit.examine_network, mechanism), (epkit.measure_exactness, study)):
        for change in ({"dataset": None}, {"sgima": 1}, {"hidden": [10**9]}, {"hidden": [10**6] * 3}, {"beta": object}):
            with pytest.raises(ParameterError) as caught:
                function(good | change, tmp_path / "store.nc")
            check_lines(str(caught.value), "parameters")
        for nothing in (None, [], "dataset", 3):
            with pytest.raises(ParameterError, match="parameters: must hold names and values, is "):
                function(nothing, tmp_path / "store.nc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"seeds": 10**6, "sigma": [*range(1000)], "epochs": 10**5},
            "seeds = 1000000: the results of 1,000,000,000 runs alone take ",
        ),
        ({"hidden": [10**6] * 2}, "hidden = [1000000, 1000000]: the conductances alone take 8,00"),
        ({"seeds": 10**5000}, "seeds = int of very many digits: Input should be less than or equal to 1000000"),
        ({"seeds": 10**9}, "seeds = 1000000000: Input should be less than or equal to 1000000"),
        ({"sigma": itertools.count()}, "sigma = 'count(0)': Input should be a valid list"),
        ({"beta": Decimal("1")}, None),
        ({"beta": "0.1"}, "beta = '0.1': Input should be a valid number"),
        ({"beta": True}, "beta = True: Input should be a valid number"),
        ({"sigma": np.array([0.1, 0.0])}, None),
        ({"seeds": np.int64(1), "hidden": list(np.array([4, 4]))}, None),
        ({"dataset": ["x"] * 100}, "dataset.0 = 'x': no such data set"),
    ],
)
def test_python_objects_mean_the_obvious_or_are_refused(change, message):
    if message is None:
        assert {name: getattr(validated(Sweep, TINY | change), name) for name in change} == {
            name: sorted(value) if np.ndim(value) else float(value) for name, value in change.items()
        }
    else:
        with pytest.raises(ParameterError) as caught:
            validated(Sweep, TINY | change)
        assert str(caught.value).startswith(f"parameters: {message}")
        check_lines(str(caught.value), "parameters")


def test_rules_of_several_fields_and_nested_names_say_where():
    published = SMOKE["00_published_networks"]
    first = next(iter(published["networks"]))
    for change, message in (
        ({"sgima": [0.1]}, f"networks.{first}.sgima: no such parameter; did you mean sigma?"),
        ({"rates": [0.1]}, f"networks.{first}.rates = [0.1]: 2 are needed, one for each layer of weights"),
        ({"batch_size": 201}, f"networks.{first}.batch_size = 201: allowed are 1 to train_images"),
    ):
        networks = published["networks"] | {first: published["networks"][first] | change}
        with pytest.raises(ParameterError) as caught:
            validated(Published, published | {"networks": networks})
        assert str(caught.value) == f"parameters: {message}"
    for name in ("../../escaped", "/root", "", "a/b", "$x$"):  # it becomes part of a file's name
        with pytest.raises(ParameterError, match="String should match pattern"):
            validated(Published, {**published, "networks": {name: published["networks"][first]}})


def test_what_networks_have_in_common_is_refused_by_name(tmp_path):
    networks = {"one": {"hidden": [16]}, "two": {"seeds": 2}}
    whole = validated(Comparison, {"base": TINY, "networks": networks}).networks
    assert whole == {name: validated(Sweep, TINY | given) for name, given in networks.items()}
    for base, message in (
        (TINY | {"sgima": [0.1]}, "base.sgima: no such parameter; did you mean sigma?"),
        (TINY | {"batch_size": 0}, "networks.one.batch_size = 0: Input should be greater than or equal to 1"),
        ([1], "base = [1]: Input should be a valid dictionary"),
    ):
        with pytest.raises(ParameterError) as caught:
            validated(Comparison, {"base": base, "networks": networks})
        assert str(caught.value).startswith(f"parameters: {message}")


def test_a_nudge_that_is_too_strong_for_the_network_is_a_wrong_parameter(tmp_path):
    with pytest.raises(
        ParameterError, match=r"parameters: beta: smaller ones are allowed \(beta = 100: must stay below"
    ):
        epkit.run(TINY | {"beta": 100.0}, tmp_path / "sweep.nc")
    assert not list(tmp_path.glob("*.nc")) + list(tmp_path.glob("*.parts"))


def test_nothing_unpickles_or_evaluates():
    sources = {
        path: path.read_text(encoding="utf-8")
        for folder in ("epkit", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        sources[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    forbidden = "|".join([
        r"\b(pickle|dill|joblib|marshal|shelve)\b", r"(?<![\w.])(eval|exec|compile|__import__)\(", "torch\\.load",
        "allow_pickle", r"yaml\.(unsafe_load|full_load|Loader|UnsafeLoader|FullLoader)\b", "os\\.system", "shell=True",
    ])  # fmt: skip
    assert len(sources) > 20
    assert not [(path.name, match[0]) for path, text in sources.items() for match in re.finditer(forbidden, text)]


# Misspelt names.


def test_papermill_with_a_misspelt_parameter_fails_with_the_nearest_name(tmp_path, monkeypatch, counted):
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = ROOT / "notebooks" / "02_critical_limit.ipynb"
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            source, tmp_path / "out.ipynb", {"sgima": 0.1}, kernel_name="python3", progress_bar=False
        )
    assert str(caught.value).rstrip().splitlines()[-2:] == [
        'Exception encountered at "In [3]":',
        "ParameterError: parameters: sgima: no such parameter; did you mean sigma?",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]
    counted("misspelt: papermill", "refused")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PROFIL=quick"], "PROFIL: no such variable; there are VENV PROFILE SETS"),
        (["profile=quick"], "profile: no such variable; there are VENV PROFILE"),
        (["XYZ=a b", "PROFILE=smoke", "PYTHON=/nonexistent"], "XYZ: no such variable; there are VENV PROFILE"),
        (["PROFILE=smoke", "VENV=venv", "PYTHON=python3", "SETS=digits", "EPKIT_OFFLINE=1", "CXX=c++"], None),
        (["BENCH=--quick", "SCHEDULE=--quick", "SCHEDULER=tcp://here"], None),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_variables_that_it_does_not_know_are_refused(counted, tmp_path, elsewhere, arguments, message):
    place = ["-f", str(ROOT / "Makefile")] if elsewhere else []
    done = make(*place, "help", *arguments, folder=tmp_path if elsewhere else ROOT)
    assert (done.returncode == 0) == (message is None)
    assert message is None or message in done.stderr
    counted("misspelt: make", "accepted" if message is None else "refused")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figurs"], "No such command 'figurs'. Did you mean 'figures'?"),
        (["figures", "--porfile", "smoke"], "No such option '--porfile'. Did you mean '--profile'?"),
        (["data", "mnits"], "unknown data set 'mnits'; did you mean mnist?"),
        (["data", "--chekc"], "No such option '--chekc'. (Did you mean one of: '--check', '--help'?)"),
    ],
)
def test_a_misspelt_command_line_names_the_nearest(capsys, counted, arguments, message):
    assert execute.main(arguments) == 2
    assert capsys.readouterr().err.rstrip().endswith(message)
    counted("misspelt: command line", "refused")
