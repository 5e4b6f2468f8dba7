"""`epkit.notebook`: a profile's parameters, what a reader or papermill sets instead, and where the results then go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import epkit
from epkit.messages import ParameterError
from epkit.sweep import inputs
from epkit.sweep.parameters import Checked, Summary, Sweep
from epkit.validation import validated

ROOT = Path(__file__).parents[1]
CELL = 'profile = "smoke"\nscheduler = None\nsigma = None\nseeds = None\n'


def executed(cell, *injected, name="02_critical_limit"):
    """`epkit.notebook` in a kernel that has executed these cells."""
    variables = {}
    for source in (cell, *injected):
        exec(source, variables)
    return epkit.notebook(name, variables | {"In": ["", cell, *injected, "import epkit"]})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path / "results"))


def test_what_nobody_sets_is_the_profiles(capsys):
    parameters, folder = executed(CELL)
    settings, place = inputs.profile_settings("smoke", "02_critical_limit", Sweep)
    assert place == "params/smoke/02_critical_limit.yaml on base.yaml"
    assert parameters == validated(Sweep, settings).model_dump()
    assert parameters["looks"] == 2, "of the notebook's own file"
    assert parameters["hidden"] == [32, 32], "of base.yaml"
    assert parameters["bias_rate"] == 1.0, "the model's default"
    assert folder == epkit.results("smoke")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("change", ["seeds = 3\n", "# Parameters\nseeds = 3\n", '# Parameters\nseeds = "3"\n'])
def test_a_change_never_reaches_the_profiles_stores(change, capsys):
    parameters, folder = executed(CELL, change) if change.startswith("#") else executed(CELL + change)
    assert parameters == executed(CELL)[0] | {"seeds": 3}
    assert folder == epkit.results("mine") / "smoke"
    printed = capsys.readouterr()
    assert not printed.out, "nbval compares it"
    assert printed.err == f"Not as in params/smoke: seeds. Stores and figures go to {folder}\n"


@pytest.mark.parametrize("same", ["seeds = 2", 'seeds = "2"', "sigma = [0.01, 0.0, 1e-4, 1e-3]"])
def test_what_is_set_to_the_profiles_own_value_changes_nothing(same, capsys):
    assert executed(CELL + same) == executed(CELL)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('sigma = "[0.0, 0.001]"', "sigma", [0.0, 0.001]),  # papermill -p sigma '[0.0, 0.001]'
        ('sigma = ["1e-3"]', "sigma", [1e-3]),  # papermill -y '{sigma: [1e-3]}'
        ('beta = "1e-3"', "beta", 1e-3),
        ('looks = "null"', "looks", None),
        ('dataset = "[mnist]"', "dataset", ["mnist"]),
        ('estimator = "positive"', "estimator", "positive"),
        ('hidden = "{16}"', None, "parameters: hidden = {16: None}: Input should be a valid list"),
        ('hidden = "[16"', None, "parameters: hidden = '[16': not valid YAML, line 1: expected ',' or ']', but got"),
        ('dataset = "mnits"', None, "parameters: dataset = 'mnits': Input should be a valid list"),
        ('seeds = "010"', None, "parameters: seeds = '010': Input should be a valid integer"),
        ("seeds = 0", None, "parameters: seeds = 0: Input should be greater than or equal to 1"),
    ],
)
def test_texts_of_a_command_line_stand_for_what_they_say(line, name, value):
    if name:
        assert executed(CELL + line)[0][name] == value
    else:
        with pytest.raises(ParameterError) as caught:
            executed(CELL + line)
        assert str(caught.value).startswith(value)


def test_misspelt_names_are_refused_wherever_they_were_set():
    with pytest.raises(ParameterError) as caught:
        executed(CELL + "sgima = [0.1]\n", '# Parameters\nseds = 3\nx = float("nan")\n')
    assert str(caught.value).splitlines() == [
        "parameters: sgima: no such parameter; did you mean sigma?",
        "parameters: seds: no such parameter; did you mean seeds?",
        f"parameters: x: no such parameter; there are {', '.join([*Sweep.model_fields, *inputs.HOW])[:160]}…",
    ]
    assert caught.value._render_traceback_() == [f"ParameterError: {caught.value}"]


def test_only_the_parameters_cell_is_looked_at_as_last_executed():
    variables = {"profile": "smoke", "seeds": None, "sigma": [0.5], "x": 1}
    cells = ["", "x = 1", CELL + "sgima = 1", "not python", CELL.replace("sigma", "samples"), "sigma = [0.5]", "x = 1"]
    assert epkit.notebook("02_critical_limit", variables | {"samples": None, "In": cells}) == executed(CELL)


def test_the_settings_within_settings_change_one_by_one():
    cell = 'profile = "smoke"\nbase = {"seeds": 2}\n'
    file, _ = executed('profile = "smoke"\n', name="08_architecture")
    changed, folder = executed(cell, name="08_architecture")
    assert folder == epkit.results("mine/smoke")
    assert changed["base"] == file["base"] | {"seeds": 2}
    assert changed["networks"]["depth-1"] == file["networks"]["depth-1"] | {"seeds": 2}
    checked, _ = executed('profile = "smoke"\ncheck = {"seeds": 3}\n', name="04_dataset_comparison")
    file, _ = executed('profile = "smoke"\n', name="04_dataset_comparison")
    assert checked == file | {"check": file["check"] | {"seeds": 3}}
    networks = 'networks = {"small": {"hidden": [8]}}\n'
    assert list(executed('profile = "smoke"\n' + networks, name="08_architecture")[0]["networks"]) == ["small"]


def test_a_check_is_the_sweep_but_for_what_it_says():
    sweep = {"dataset": ["digits"], "sigma": [0.0, 0.1], "hidden": [16], "train_images": 100, "test_images": 50}
    parameters = validated(Checked, sweep | {"check": {"sigma": [0.0], "dtype": "float64"}})
    assert parameters.check == validated(Sweep, sweep | {"sigma": [0.0], "dtype": "float64"})
    assert parameters.sweep == validated(Sweep, sweep)


def test_a_profile_that_lacks_what_the_notebook_needs_says_so():
    for profile, message in (
        ("smok", "profile = 'smok': no such profile; did you mean smoke?"),
        ("", "profile = '': no such profile; there are digits, paper, quick, smoke, study"),
        ("paper", "params/paper/02_critical_limit.yaml: no such file; there are 00_published_networks, 09_escape"),
        (None, "profile = None: must be the name of a folder of params/"),
    ):
        with pytest.raises(ParameterError) as caught:
            executed(f"profile = {profile!r}")
        assert str(caught.value).startswith(message)
    assert epkit.notebook("05_claims", {"profile": "smoke"}) == ({}, epkit.results("smoke"))


def test_a_base_reaches_whom_it_concerns_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_PARAMS", str(tmp_path))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "base.yaml").write_text("dataset: [digits]\nseeds: 2\nbetas: [0.1, 0.2]\nsigma: [0.0]\n")
    (folder / "02_critical_limit.yaml").write_text("sigma: [0.1]")
    (folder / "05_claims.yaml").write_text("{}")
    settings = {"dataset": ["digits"], "seeds": 2, "sigma": [0.1]}
    assert inputs.profile_settings("mine", "02_critical_limit", Sweep)[0] == settings
    assert inputs.profile_settings("mine", "05_claims", Summary)[0] == {}
    (folder / "base.yaml").write_text("dataset: [digits]\nsgima: [0.0]\n")
    with pytest.raises(ParameterError, match=r"params/mine/base\.yaml: sgima: no such parameter; did you mean sigma\?"):
        inputs.profile_settings("mine", "02_critical_limit", Sweep)
    (folder / "base.yaml").write_text("dataset: [digits]\nbeta: -1\n")
    with pytest.raises(ParameterError, match=r"params/mine/02_critical_limit\.yaml on base\.yaml: beta = -1"):
        executed('profile = "mine"')


@pytest.fixture(scope="module")
def first_cells(tmp_path_factory):
    """Notebook 02 up to the cell that takes the parameters, which it then prints."""
    notebook = nbformat.read(ROOT / "notebooks" / "02_critical_limit.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    cells[1].source += "\nimport json\nprint(json.dumps([parameters, str(folder)]))"
    notebook.cells = cells
    path = tmp_path_factory.mktemp("notebook") / "first.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["-p", "profile", "smoke"], {}),
        (
            ["-p", "profile", "smoke", "-p", "sigma", "[0.0, 0.001]", "-p", "seeds", "3", "-p", "looks", "null"],
            {"sigma": [0.0, 0.001], "seeds": 3, "looks": None},
        ),
        (
            ["-y", "{profile: smoke, sigma: [1e-3], beta: 1e-2, dataset: [digits], looks: 'null'}"],
            {"sigma": [0.001], "beta": 0.01, "looks": None},
        ),
        (["-r", "profile", "smoke", "-r", "hidden", "[16, 16]"], {"hidden": [16, 16]}),
        (["-p", "profile", "smoke", "-p", "sgima", "[0.1]"], "sgima: no such parameter; did you mean sigma?"),
        (["-y", "{profile: smoke, sigma: 1e-3}"], "sigma = 0.001: Input should be a valid list"),
    ],
)
def test_the_command_line_of_papermill(first_cells, tmp_path, arguments, changes):
    """As docs/papermill.md has it."""
    done = subprocess.run(
        [sys.executable, "-m", "papermill", first_cells, tmp_path / "out.ipynb", *arguments, "-k", "python3"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if isinstance(changes, str):
        assert done.returncode
        assert done.stderr.rstrip().endswith(f"ParameterError: parameters: {changes}")
        return
    assert done.returncode == 0, done.stderr
    outputs = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    texts = {output.name: output.text for output in outputs if output.output_type == "stream"}
    expected = executed(CELL)[0]
    folder = epkit.results("mine/smoke" if changes else "smoke")
    assert json.loads(texts["stdout"]) == [expected | changes, str(folder)]
    assert ("stderr" in texts) == bool(changes)
