"""Every notebook by papermill at profile smoke, and what must be true of the committed ones."""

import ast
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import papermill
import pytest
import zmq.sugar.socket
from click.testing import CliRunner

from epkit import __main__ as execute
from epkit import kernels
from epkit.files import StoreError
from epkit.messages import ParameterError
from epkit.study.limit import critical_limit, final_error
from epkit.sweep import inputs, store
from epkit.sweep.parameters import Summary

ROOT = Path(__file__).parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md"
NOTEBOOKS = inputs.study_notebooks()
NAMES = [path.stem for path in NOTEBOOKS]


def test_what_a_reader_copies_is_not_of_the_study(tmp_path, monkeypatch):
    """`make notebooks` would write into it, and `make records` would not know which of the two draws a figure."""
    for name in (
        "03_clt_scaling",
        "02_critical_limit",
        "02_critical_limit-Copy1",
        "02_critical_limit.failed",
        "[mine]",
    ):
        (tmp_path / f"{name}.ipynb").touch()
    monkeypatch.setattr(inputs, "NOTEBOOKS", tmp_path)
    assert [path.stem for path in inputs.study_notebooks()] == ["02_critical_limit", "03_clt_scaling"]


def parameters_cell(path):
    """The literals of a notebook's parameters cell."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1, "exactly one parameters cell"
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cells[0].source).body}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_committed_notebooks_are_executed(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(c.outputs) for c in cells) >= 3
    assert any("image/png" in o.get("data", {}) for c in cells for o in c.outputs)
    assert not any(o.output_type == "error" or o.get("name") == "stderr" for c in cells for o in c.outputs)


NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
TYPED, PRINTED = (re.compile(form.replace("#", NUMBER)) for form in (r"# \[#, #\]", r"(?=(?:^|\s)#\s+\[?#,?\s+#)"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_intervals_in_the_text_stand_in_a_table(path):
    """What somebody typed as `value [low, high]` is, but for rounding, what a cell of the notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    shown = [o.get("text") or o.get("data", {}).get("text/plain", "") for c in cells for o in c.get("outputs", [])]
    printed = PRINTED.findall("\n".join(shown))
    for typed in TYPED.findall("\n".join(c.source for c in cells if c.cell_type == "markdown")):
        digits = [len(number.partition(".")[2]) for number in typed]
        rounded = ([round(float(n), d) for n, d in zip(numbers, digits, strict=True)] for numbers in printed)
        assert [float(number) for number in typed] in rounded, f"{typed} stands in no table of {path.name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_parameter_is_written_once(path):
    """In the profile's file: the notebook names a profile whose store is committed, and leaves all else to it."""
    names = parameters_cell(path)
    profile = names.pop("profile")
    assert set(names.values()) <= {None}
    model = type(execute.planned(profile)[path.stem])
    assert set(names) <= {"scheduler", *model.model_fields}
    settings, _ = inputs.profile_settings(profile, path.stem, model)
    assert set(settings) <= set(names), "what the profile sets, a reader finds in the notebook"
    stores = "*.nc" if model is Summary else f"{path.stem}*.nc"
    assert list((ROOT / "results" / profile).glob(stores))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_takes_its_parameters_by_its_own_name(path):
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert f'parameters, folder = epkit.notebook("{path.stem}", globals())' in cells[1].splitlines()


def test_profiles_hold_what_differs_from_their_base():
    """Short files, and none that repeats its base."""
    for base in (ROOT / "params").glob("*/base.yaml"):
        shared = inputs.parameter_file(base, base.name)
        for path in set(base.parent.glob("*.yaml")) - {base}:
            own = inputs.parameter_file(path, path.name)
            assert not [name for name, value in own.items() if name in shared and value == shared[name]], path
            if path.name[:2] in ("02", "03", "04", "07"):
                assert len(path.read_text(encoding="utf-8").splitlines()) <= 15


@pytest.mark.parametrize("profile", sorted(p.name for p in (ROOT / "params").iterdir() if p.is_dir()))
def test_every_profile_is_valid(profile):
    assert set(execute.planned(profile)) <= set(NAMES)


def test_smoke_has_every_notebook():
    *others, last = execute.planned("smoke")
    assert others == sorted(others)
    assert sorted([*others, last]) == NAMES
    assert last == "05_claims", "it sums up what the others find"


def test_pages_show_what_the_stores_say():
    for page, text in execute.generated(execute.README_PROFILE).items():
        assert text.count("\n") > 8
        assert execute.MARKS[0] + "\n" + text + execute.MARKS[1] in page.read_text(encoding="utf-8")


CELLS = re.compile(r"^\| (\d\d) \| ([^|]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)
VERDICTS = CELLS.findall(RESULTS.read_text("utf-8"))  # notebook, hypothesis, setting, value


@pytest.mark.parametrize("number", sorted({row[0] for row in VERDICTS}))
def test_verdicts_of_later_notebooks_are_those_that_the_notebook_shows(number):
    """The table of all verdicts reads its stores by itself."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    shown = "\n".join(o.get("data", {}).get("text/plain", "") for c in cells for o in c.get("outputs", []))
    for _, hypothesis, setting, value in (row for row in VERDICTS if row[0] == number):
        assert re.search(rf"{re.escape(hypothesis)} +{re.escape(setting)} +{re.escape(value)} ", shown), hypothesis


def test_readme_is_read_in_a_minute():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_links_between_pages_lead_somewhere():
    for page in [README, *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}, (
                    f"{page.name}: {link}"
                )


def make_figures(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "epkit", "figures", *arguments],
        env=os.environ | {"EPKIT_RESULTS": str(folder), "EPKIT_OFFLINE": "1"} | environment,
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


def test_every_notebook_runs_end_to_end_and_a_second_time_not_at_all(tmp_path):
    first = make_figures(tmp_path, "--profile", "smoke")
    assert first.returncode == 0, first.stderr
    for name in NAMES:
        notebook = nbformat.read(tmp_path / "smoke" / f"{name}.ipynb", as_version=4)
        assert all(c.execution_count for c in notebook.cells if c.cell_type == "code")
        injected = [c.source for c in notebook.cells if c.source.startswith("# Parameters\n")]
        assert injected == ['# Parameters\nprofile = "smoke"\nscheduler = None\n']
        assert list((tmp_path / "smoke").glob(f"{name}*.nc")) or name == "05_claims"
        assert list((tmp_path / "smoke" / "figures").glob(f"{name[:2]}_*.png"))
        assert list((tmp_path / "smoke" / "figures").glob(f"{name[:2]}_*.svg"))
    assert "What its registered sweeps say of the claims" in first.stdout
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = make_figures(tmp_path, "--profile", "smoke")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("up to date") == len(NAMES)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == made


def test_without_data_a_named_profile_stops_with_the_way_to_get_them(tmp_path):
    nothing = {"EPKIT_DATA": str(tmp_path / "data"), "EPKIT_DATA_MIRROR": ""}
    done = make_figures(tmp_path / "results", "--profile", "quick", **nothing)
    assert done.returncode == 1
    assert "can't be had" in done.stderr
    assert "Three ways to get it" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_without_data_the_fallback_says_so_in_the_summary(tmp_path, monkeypatch, capsys):
    for profile in ("quick", "smoke"):  # one notebook is enough
        (tmp_path / "params" / profile).mkdir(parents=True)
        for name in ("base.yaml", "02_critical_limit.yaml"):
            shutil.copy(ROOT / "params" / profile / name, tmp_path / "params" / profile)
    for name, value in {"EPKIT_PARAMS": "params", "EPKIT_RESULTS": "results", "EPKIT_DATA": "data"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("EPKIT_OFFLINE", "1")
    monkeypatch.setenv("EPKIT_DATA_MIRROR", "")
    assert execute.main(["figures", "--fallback", "smoke"]) == 0
    printed = capsys.readouterr().out
    assert "Profile smoke instead of quick, on scikit-learn's digits" in printed
    assert "raw/t10k-images-idx3-ubyte can't be had" in printed or "raw/train-images-idx3-ubyte can't be had" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sgima: [0.1]", "02_critical_limit.yaml: sgima: no such parameter; did you mean sigma?"),
        ("sigma: [-1.0]", "02_critical_limit.yaml: sigma.0 = -1.0: Input should be greater than or equal to 0"),
        ("sigma: [0.1", "02_critical_limit.yaml: not valid YAML"),
        ("- 1", "02_critical_limit.yaml: must hold `name: value` lines"),
    ],
)
def test_a_broken_parameter_file_is_refused_before_any_work(tmp_path, monkeypatch, text, message):
    (tmp_path / "mine").mkdir()
    base = "dataset: [digits]\nsigma: [0.0]\n" if ":" in text and "sigma: " not in text else "dataset: [digits]\n"
    (tmp_path / "mine" / "02_critical_limit.yaml").write_text(text if text == "- 1" else base + text)
    monkeypatch.setenv("EPKIT_PARAMS", str(tmp_path))
    with pytest.raises(ParameterError) as caught:
        execute.planned("mine")
    assert message in str(caught.value)
    with pytest.raises(ParameterError, match="profile = 'other': no such profile; there are mine"):
        execute.planned("other")


def test_a_failing_notebook_keeps_the_old_result_and_shows_the_new_one(tmp_path):
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    source.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(source, tmp_path / "source.ipynb")
    (tmp_path / "target.ipynb").write_text("the old result")
    with pytest.raises(execute.papermill.PapermillExecutionError):
        execute.execute(tmp_path / "source.ipynb", tmp_path / "target.ipynb", {})
    assert (tmp_path / "target.ipynb").read_text() == "the old result"
    assert "ZeroDivisionError" in (tmp_path / "target.failed.ipynb").read_text()


@pytest.fixture
def one_notebook(tmp_path, monkeypatch):
    """params/smoke with notebook 02 alone, in a folder where results go too; the profile's file is returned."""
    folder = tmp_path / "params" / "smoke"
    folder.mkdir(parents=True)
    for name in ("base.yaml", "02_critical_limit.yaml"):
        shutil.copy(ROOT / "params" / "smoke" / name, folder)
    monkeypatch.setenv("EPKIT_PARAMS", str(tmp_path / "params"))
    return folder / "02_critical_limit.yaml"


def test_kernels_are_of_this_interpreter_and_start_clean(one_notebook, tmp_path, monkeypatch):
    """Whatever kernelspec, startup files and settings the reader has."""
    spec = {"argv": ["/gone/bin/python", "-f", "{connection_file}"], "display_name": "gone", "language": "python"}
    for path, text in {
        "jupyter/kernels/python3/kernel.json": json.dumps(spec),
        "ipython/profile_default/startup/mine.py": "raise SystemExit('startup')",
        "ipython/profile_default/ipython_config.py": "c.InteractiveShellApp.exec_lines = ['print(\"mine\")']",
        "pythonstartup.py": "import pandas; pandas.set_option('display.max_rows', 2)",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "pythonstartup.py"))
    code = "import sys, pandas\nprint([sys.executable, pandas.get_option('display.max_rows')])"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / "source.ipynb")
    execute.execute(tmp_path / "source.ipynb", tmp_path / "target.ipynb", {})
    outputs = nbformat.read(tmp_path / "target.ipynb", as_version=4).cells[-1].outputs
    assert [output.text for output in outputs] == [f"{[sys.executable, 60]}\n"]


def test_a_kernel_that_cannot_be_started_is_told_by_its_name(tmp_path, monkeypatch):
    async def start(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(execute.Kernel, "start_kernel", start)
    with pytest.raises(execute.KernelDied, match=r"source: no kernel can be started \(Resource temporarily unavail"):
        execute.execute(tmp_path / "source.ipynb", tmp_path / "target.ipynb", {})


def test_from_another_folder_all_lands_in_one(one_notebook, tmp_path):
    """A relative EPKIT_RESULTS is one of the caller's; a terminal without Greek letters and an unknown user will do."""
    unknown = (
        "import os, pwd, runpy, sys\nos.environ.pop('HOME', None)\n"
        "def getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid\n"
        "sys.argv = ['epkit', 'figures', '--profile', 'smoke']\nrunpy.run_module('epkit', run_name='__main__')\n"
    )
    environment = os.environ | {"EPKIT_RESULTS": "out", "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", unknown], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "There is a sharp critical limit: " in done.stdout
    assert "Traceback" not in done.stderr
    assert {path.name for path in (tmp_path / "out" / "smoke").iterdir() if path.suffix != ".lock"} == {
        "02_critical_limit.nc", "02_critical_limit.ipynb", "figures",
    }  # fmt: skip


def test_a_summary_of_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path))
    with pytest.raises(StoreError, match=f"^{tmp_path}/smoke: holds no store"):
        execute.summary("smoke", "", 0.0)


def test_another_experiments_stores_are_refused_or_set_aside(one_notebook, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out" / "smoke"
    monkeypatch.setenv("EPKIT_RESULTS", str(folder.parent))
    assert execute.main(["figures", "--profile", "smoke"]) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    one_notebook.write_text(one_notebook.read_text() + "beta: 0.07\n")
    capsys.readouterr()
    assert execute.main(["figures", "--profile", "smoke"]) == 1
    message, ways = capsys.readouterr().err.splitlines()
    assert message.startswith(f"{folder / '02_critical_limit.nc'}: holds ")
    assert "runs of another experiment (beta: " in message
    assert message.endswith("0.07 now); params/smoke/02_critical_limit.yaml on base.yaml asks for it")
    assert "`make recompute PROFILE=smoke` sets the profile's stores aside" in ways
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for name in ("02_critical_limit.nc.old", "02_critical_limit.nc.old2"):
        assert execute.main(["figures", "--profile", "smoke", "--fresh"]) == 0
        assert f"02_critical_limit.nc: set aside as {name}\n" in capsys.readouterr().out
    assert (folder / "02_critical_limit.nc.old").read_bytes() == before[folder / "02_critical_limit.nc"]


def test_a_signal_ends_it_like_ctrl_c_and_leaves_nothing(one_notebook, tmp_path):
    folder = tmp_path / "out" / "smoke"
    folder.mkdir(parents=True)
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    node = platform.node()
    leftover, foreign, own = (
        folder / f".02_critical_limit.ipynb.{name}.ipynb"
        for name in (f"{node}.{killed.pid}", f"elsewhere.{killed.pid}", f"{node}.{os.getpid()}")
    )
    for path in (leftover, foreign, own):
        path.touch()
    environment = os.environ | {"EPKIT_RESULTS": str(folder.parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "epkit", "figures", "--profile", "smoke"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    temporary = folder / f".02_critical_limit.ipynb.{node}.{process.pid}.ipynb"
    deadline = time.monotonic() + 300
    while not temporary.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert temporary.exists()
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert said.count("Interrupted. What was finished is kept; the same command goes on from there.\n") == 1
    assert "Traceback" not in said
    assert not temporary.exists()
    assert not leftover.exists()
    assert foreign.exists(), "of another machine"
    assert own.exists(), "of a process that lives"


@pytest.mark.filterwarnings("ignore:Unclosed socket:ResourceWarning")
def test_an_interrupt_while_sockets_are_made_leaves_nothing_to_wait_for(monkeypatch):
    """At every line in which pyzmq makes a client's sockets: for an open socket their context would wait for ever."""
    lines = 0

    def interrupted_at(number: int) -> None:
        def trace(frame, event, _):
            nonlocal lines
            if event == "line" and frame.f_code.co_filename == zmq.sugar.socket.__file__:
                lines += 1
                if lines == number:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        def open_channels(*_, km, **__):
            sys.settrace(trace)
            try:
                km.client().start_channels()
            finally:
                sys.settrace(None)

        monkeypatch.setattr(papermill, "execute_notebook", open_channels)
        with kernels.kernels() as (kernel,), contextlib.suppress(KeyboardInterrupt):
            kernel.shell_port, kernel.iopub_port, kernel.stdin_port, kernel.hb_port, kernel.control_port = range(1, 6)
            kernels._executed(Path("a.ipynb"), Path("b.ipynb"), {}, kernel)

    monkeypatch.setattr(kernels, "run_sync", lambda _: lambda *_: None)  # no kernel is started
    interrupted_at(0)
    assert lines > 50
    for number in range(1, lines + 1):
        lines = 0
        thread = threading.Thread(target=interrupted_at, args=(number,), daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), f"waits for ever after an interrupt at line {number}"


def test_too_few_open_files_are_told_by_their_name(tmp_path):
    environment = os.environ | {"EPKIT_RESULTS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = f"ulimit -n 40; '{sys.executable}' -m epkit figures --profile smoke"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: too many open files (EMFILE): the limit is 40, kernels need 256; `ulimit -n 256` or a new shell\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_misspelt_variable_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("EPKIT_DATA_MIROR", "1")
    for command in ("data", "figures", "notebooks"):
        assert execute.main([command]) == 1
        line = "EPKIT_DATA_MIROR: no such environment variable; did you mean EPKIT_DATA_MIRROR?\n"
        assert capsys.readouterr() == ("", line)


def test_the_first_lines_of_readme_print_what_they_promise(tmp_path):
    source = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"noise of (\S+) V: test error (\S+)%", done.stdout)
    assert [sigma for sigma, _ in lines] == ["0.0", "0.1"]
    assert float(lines[0][1]) < 30 < float(lines[1][1])


@pytest.mark.full_data("mnist")
def test_readme_predicts_the_limit_that_notebook_02_measures():
    (command,) = re.findall(r"python -m (epkit budget .+)", README.read_text(encoding="utf-8"))
    done = CliRunner().invoke(execute.commands, [*command.split()[1:], "--json"])
    assert done.exit_code == 0, done.output
    asked = next(c for c in json.loads(done.output)["candidates"] if c["fit"] == "as asked")
    limit, low, high = (asked[name] for name in ("limit", "limit_low", "limit_high"))
    assert low < limit < high
    ds = store.read(ROOT / "results" / "study" / "02_critical_limit.nc").sel(learning_rate=0.02)
    measured = float(critical_limit(final_error(ds), ds.chance)["mean"].squeeze())
    assert limit / 2 < measured < limit * 2
