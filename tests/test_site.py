"""The site, the release and what is made for them: whole, current, and the same each time."""

import datetime
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import jsonschema
import pytest
import yaml
from rocrate.rocrate import ROCrate

from epkit import __main__ as execute
from epkit import publish
from epkit.study import report
from epkit.sweep import inputs, store

ROOT = Path(__file__).parents[1]
FIGURES = json.loads(publish.FIGURES.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """The ids of a page, and what it links or shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found["id"]} if found.get("id") else set()
        self.links |= {found[name] for name in ("href", "src") if found.get(name)}

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    """The pages of the site, built as `make html` does, where any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = ["-b", "html", "-c", "docs", "-d", folder / "doctrees", "-W", "--keep-going", "-q", ".", folder / "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {path: Page(path) for path in (folder / "html").rglob("*.html")}


def page(site: dict[Path, Page], name: str) -> tuple[Path, Page]:
    return next((path, found) for path, found in site.items() if path.as_posix().endswith(f"/html/{name}.html"))


def test_links_within_the_site_lead_somewhere(site):
    broken = []
    for path, found in site.items():
        for link in found.links:
            address, fragment = urldefrag(link)
            if urlsplit(link).scheme or address.startswith("//"):
                continue
            target = (path.parent / unquote(address.partition("?")[0])).resolve() if address else path
            if not target.is_file() or (fragment and target in site and unquote(fragment) not in site[target].ids):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_the_site_takes_nothing_from_other_machines(site):
    """Scripts, styles, fonts, pictures: it reads the same without a network."""
    for path in site:
        text = path.read_text(encoding="utf-8")
        elsewhere = r'(?:src|<link[^>]+href)="(?:https?:)?//[^"]+'
        assert not re.findall(elsewhere, text)


def test_the_front_page_says_what_the_readme_says(site):
    _, front = page(site, "docs/index")
    said = " ".join(front.text.split())
    verdicts = re.findall(r"^\d+\. \*\*(.+?)\*\*", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(verdicts) > 8
    assert not [sentence for sentence in verdicts if sentence not in said]


def test_every_page_of_the_repository_is_one_of_the_site(site):
    for source in [*(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]:
        page(site, f"{source.parent.name}/{source.stem}")


def test_the_gallery_shows_every_figure_of_the_notebooks_and_where_it_comes_from(site):
    path, gallery = page(site, "docs/figures")
    files = [path.parent / unquote(link) for link in gallery.links if "://" not in link and "#" not in link]
    names, sums = {file.name for file in files}, {publish.sha256(file) for file in files if file.suffix == ".png"}
    shown = [entry for entry in FIGURES if entry["words"]]
    assert {entry["figure"][:2] for entry in shown} == {name[:2] for name in execute.planned("smoke")}
    for entry in shown:
        assert {f"{Path(entry['notebook']).stem}.html"} | {
            Path(name).name for name in (*entry["stores"], *entry["parameters"])
        } <= names
        assert all(commit in gallery.text for commit in entry["commits"])
        assert sums & set(entry["files"].values())


def test_the_manifest_of_figures_is_current_and_complete():
    assert publish.figure_manifest(execute.COMMITTED) == FIGURES
    assert {name for entry in FIGURES for name in entry["files"]} == {
        path.relative_to(ROOT).as_posix()
        for profile in execute.COMMITTED
        for path in (ROOT / "results" / profile / "figures").iterdir()
        if path.suffix in (".png", ".svg")
    }
    assert all(entry["stores"] and entry["commits"] and entry["parameters"] for entry in FIGURES)


def test_the_manifest_knows_what_the_study_reads_by_itself(monkeypatch):
    """Of notebooks that read others' stores: what these two functions open is among theirs."""
    opened, read = set(), store.read
    monkeypatch.setattr(store, "read", lambda path: opened.add(path.relative_to(ROOT).as_posix()) or read(path))
    report.evidence("study")
    stores = {entry["notebook"][10:12]: set(entry["stores"]) for entry in FIGURES if entry["profile"] == "study"}
    assert opened
    assert opened <= stores["10"] & stores["13"] & stores["05"]
    report.exploratory("study")
    assert opened <= stores["10"]


def test_schemas_are_those_of_the_models():
    for path, text in publish.schemas().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make records`"


PARAMETERS = sorted((ROOT / "params").glob("*/*.yaml"))


def test_editors_can_say_what_every_parameter_is():
    for path, text in publish.schemas().items():
        schema = json.loads(text)
        for name, model in {path.name: schema, **schema.get("$defs", {})}.items():
            for field, allowed in model.get("properties", {}).items():
                said = [allowed] if "description" in allowed else allowed.get("anyOf", [{}])
                assert all("description" in variant for variant in said), f"{path.name}, {name}: {field}"


def schema_of(path: Path) -> dict:
    """The schema that the settings for editors give to a parameter file."""
    settings = json.loads(publish.SETTINGS.read_text(encoding="utf-8"))["yaml.schemas"]
    (schema,) = (s for s, patterns in settings.items() if any(path.match(pattern) for pattern in patterns))
    return json.loads((ROOT / schema).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PARAMETERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_parameter_files_are_valid_by_their_schemas(path):
    jsonschema.validate(inputs.parameter_file(path, path.name), schema_of(path), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"sigmas": [0.1]}, []),
        ({"sigma": [-0.1]}, ["sigma", 0]),
        ({"dataset": ["mnist", "kmnst"]}, ["dataset", 1]),
        ({"schedule": {"rule": "never", "images": 1}}, ["schedule"]),
    ],
)
def test_schemas_refuse_what_the_models_refuse(settings, where):
    schema = schema_of(ROOT / "params" / "study" / "02_critical_limit.yaml")
    (error,) = jsonschema.Draft202012Validator(schema).iter_errors(settings)
    assert list(error.absolute_path) == where


def test_a_release_is_a_crate_and_the_same_each_time(tmp_path):
    day = datetime.date(2025, 1, 1)
    first, second = (publish.release(tmp_path / name, day) for name in ("first", "second"))
    assert publish.sha256(first) == publish.sha256(second)
    folder = first.with_suffix("")
    crate = ROCrate(folder)
    assert crate.root_dataset["datePublished"] == day.isoformat()
    files = {entity.id: entity for entity in crate.data_entities}
    assert all(publish.sha256(folder / name) == entity["sha256"] for name, entity in files.items())
    sums = (ROOT / "results" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert {f"results/{line.split()[1]}" for line in sums} | {"requirements.lock", "CITATION.cff"} <= set(files)
    makes = [entity for entity in crate.contextual_entities if entity.type == "CreateAction"]
    assert len(makes) == len(FIGURES)
    for action in makes:
        assert {entity.id for entity in (action["instrument"], *action["object"], *action["result"])} <= set(files)


def test_zenodo_is_told_what_the_citation_says():
    assert publish.ZENODO.read_text(encoding="utf-8") == publish.zenodo()


def test_the_change_log_ends_with_the_version():
    version = yaml.safe_load(publish.CITATION.read_text(encoding="utf-8"))["version"]
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_whose_version_is_named(path):
    used = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
    assert used
    assert not [line for line in used if not re.match(r"[\w./-]+@[0-9a-f]{40}  # v?\d+\.\d+\.\d+", line)]
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
