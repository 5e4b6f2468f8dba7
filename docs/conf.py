"""The site, which `make html` builds from what is committed: pages, executed notebooks, figures, API.

The source folder is the checkout itself, so that a link from page to page, notebook, store or source file is the same
on the site and in the repository; what is no page becomes a download.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from epkit.bench import page  # noqa: E402 (of this checkout)

project, author = "epkit", "epkit contributors"
copyright = author  # without a year, which would have to be renewed
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "data", "results", "tests", "benchmarks", "epkit", "params", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "Equilibrium Propagation under uncertainty"
html_math_renderer = "mathml"
html_additional_pages = {"index": "index.html"}  # of the site's own folder: goes on to the front page
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = False

nb_execution_mode = "off"  # notebooks are committed executed, and shown as they are
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
python_use_unqualified_type_names = True
nitpicky = True
suppress_warnings = ["ref.python"]  # of several targets: dimensions in shapes have the names of parameters
# Types of other libraries, whose own pages can't be asked without a network; and names for types, which are spelt out.
nitpick_ignore_regex = [("py:.*", r"(?!epkit\.).*"), ("py:.*", r"epkit\..*\.(_\w+|Key|Model|Operation|Stores)")]


def figure(entry: dict) -> str:
    """Markdown of a figure, and where it comes from."""
    png, *others = entry["files"]

    def links(names: list[str]) -> str:
        return ", ".join(f"[{Path(name).name}](../{name})" for name in names)

    title, _, caption = entry["words"].partition(". ")
    caption = "" if "_{" in caption else caption  # a drawing's labels say nothing outside it
    stores = links(entry["stores"])
    if len(entry["stores"]) > 3:
        stores = f"\n\n<details><summary>{len(entry['stores'])} stores</summary>\n\n{stores}\n\n</details>\n"
    else:
        stores = f" · stores: {stores}" if stores else ""
    commits = ", ".join(map(commit, entry["commits"])) or "not recorded"
    return (
        f"## {title}\n\n![{entry['words']}](../{png})\n\n{caption}\n\n"
        f"Drawn by [{Path(entry['notebook']).stem}](../{entry['notebook']}) (also as {links(others)})"
        f" · parameters: {links(entry['parameters'])} · computed by commit {commits}{stores}\n"
    )


def commit(name: str) -> str:
    """A commit's name, linked where the workflow that builds this says at which code host."""
    host, repository = (os.environ.get(f"GITHUB_{part}") for part in ("SERVER_URL", "REPOSITORY"))
    return f"[`{name}`]({host}/{repository}/commit/{name.removesuffix('+changes')})" if repository else f"`{name}`"


FIGURES = json.loads((ROOT / "results" / "figures.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
SENTENCES = README.split("<!-- results: written by `make notebooks` -->")[1].split("<!-- end of results -->")[0]
myst_substitutions = {
    "sentences": SENTENCES.replace("](results/", "](../results/"),
    "figures": "\n".join(figure(entry) for entry in FIGURES if entry["words"]),
    "budget": '<a href="../budget.html">Ask the budget page</a>, with your own figures.',
}


def mathml(writer: HTML5Translator, node: nodes.Element) -> None:
    """A formula in the browsers' own language: MathJax would have to come from another machine."""
    # Brackets grow by themselves there; an index alone, as behind a plain σ, is that of an empty group.
    formula = re.sub(r"\\[bB]ig+(?![a-zA-Z])|^(?=[_^])", lambda found: "" if found[0] else "{}", node.astext())
    writer.body.append(tex2mathml(formula, as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def plain(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text, in which |x| is a norm."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def budget(app: Sphinx, failure: Exception | None) -> None:
    """The budget's page is a file of its own, and links figures that lie beside it."""
    own = Path(page.PROFILE) / "figures"
    ignored = shutil.ignore_patterns("*.svg")
    shutil.copytree(ROOT / "results" / own, app.outdir / own, ignore=ignored, dirs_exist_ok=True)
    page.write(app.outdir / "budget.html", results=".")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", plain)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("build-finished", budget)
