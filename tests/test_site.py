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
