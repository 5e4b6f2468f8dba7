"""What makes the study findable from outside: of each figure where it comes from, JSON Schemas of the parameter files,
and the crate of a release. Everything is made from committed files, and the same to the byte each time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import h5py
import nbformat
import xarray as xr
import yaml
from pydantic import BaseModel

from .files import CHECKOUT, StoreError
from .study.registration import registered_claims
from .study.report import SWEEPS
from .sweep import store
from .sweep.inputs import BASE, EXPERIMENTS, NOTEBOOKS, experiment, study_notebooks
from .sweep.parameters import Summary

FIGURES = CHECKOUT / "results" / "figures.json"
CITATION, ZENODO = CHECKOUT / "CITATION.cff", CHECKOUT / ".zenodo.json"
SETTINGS = CHECKOUT / ".vscode" / "settings.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What a release holds beside what the figures come from.
BESIDE = (
    "results/SHA256SUMS", "results/figures.json", "params/claims.yaml", "requirements.lock", "environment.yml",
    "pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", ".zenodo.json", "LICENSE",
)  # fmt: skip


def as_json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def figure_manifest(profiles: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of each committed figure of these profiles: what draws it, from what, made by which commits, and its hashes.

    A figure is named after its notebook's number. The notebook as committed shows one profile's figures: these have its
    words, too. The commits are those that the stores record of their runs; `+changes` marks code not committed then.
    """
    root = CHECKOUT / "results"
    commits = {path: _commits(path) for profile in profiles for path in sorted((root / profile).glob("*.nc"))}
    words = {digest: text for path in study_notebooks() for digest, text in _shown(path).items()}
    reads = {path: _reads(path) for path in study_notebooks()}
    figures = []
    for png in sorted(path for profile in profiles for path in (root / profile / "figures").glob("*.png")):
        profile, number = png.parent.parent.name, png.name.partition("_")[0]
        (notebook,) = (path for path in reads if path.name.startswith(f"{number}_"))
        stores = [path for path in sorted((root / profile).glob("*.nc")) if path.name.startswith(reads[notebook])]
        files = [CHECKOUT / "params" / profile / name for name in (f"{notebook.stem}.yaml", BASE)]
        figures.append(
            {
                "figure": png.stem,
                "profile": profile,
                "words": words.get(sha256(png)),
                "notebook": _relative(notebook),
                "parameters": [_relative(path) for path in files if path.exists()],
                "stores": [_relative(path) for path in stores],
                "commits": sorted({commit for path in stores for commit in commits[path]}),
                "files": {_relative(path): sha256(path) for path in (png, png.with_suffix(".svg"))},
            }
        )
    return figures


def _relative(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def _commits(path: Path) -> set[str]:
    with h5py.File(path) as file:  # its attributes alone, of which all stores together take a second
        makers = store.makers(xr.Dataset(attrs=dict(file.attrs)))
    return set(re.findall(r"commit (\w{7,40}(?:\+changes)?)", " ".join(makers)))


def _shown(path: Path) -> dict[str, str]:
    """The figures that a notebook shows, by hash, with the words that stand for them."""
    outputs = [o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", [])]
    return {
        hashlib.sha256(base64.b64decode(o.data["image/png"])).hexdigest(): o.metadata["image/png"]["alt"]
        for o in outputs
        if "image/png" in o.get("data", {})
    }


def _reads(notebook: Path) -> tuple[str, ...]:
    """What the stores that a notebook reads begin with: its own name, those of others that its code names, and what
    two functions of the study look for by themselves.
    """
    if experiment(notebook) is Summary:
        return ("",)
    code = "\n".join(cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code")
    own = {f"{notebook.stem}.", *(f"{name}." for name in re.findall(r'"(\d\d_\w+)"', code) if _is_notebook(name))}
    own |= {f"{registered_claims().second.notebook}."} if "study.evidence(" in code else set()
    own |= {f"{SWEEPS[0]}."} if "study.exploratory(" in code else set()
    return tuple(own)


def _is_notebook(name: str) -> bool:
    return (NOTEBOOKS / f"{name}.ipynb").exists()


def schemas() -> dict[Path, str]:
    """JSON Schemas of the parameter files, one an experiment, and the settings that tell editors which is whose.

    Nothing is required, for a file may leave to base.yaml what it doesn't say; what fields exclude in one another is
    seen when the file is read.
    """
    folder = CHECKOUT / "params"
    written: dict[str, Any] = {name: _schema(model) for name, model in EXPERIMENTS.items()}
    variants: dict[str, dict[str, Any]] = {}
    for schema in written.values():
        for field, allowed in schema["properties"].items():
            words = {key: value for key, value in allowed.items() if key != "default"}
            rule = as_json({key: value for key, value in words.items() if key != "description"})
            variants.setdefault(field, {}).setdefault(rule, words)
    shared = {
        field: next(iter(found.values())) if len(found) == 1 else {"anyOf": [*found.values()]}
        for field, found in variants.items()
    }
    definitions = {name: value for schema in written.values() for name, value in schema.get("$defs", {}).items()}
    written["base"] = {
        "$schema": DIALECT, "title": BASE, "description": "What the notebooks of a profile share.", "type": "object",
        "properties": shared, "additionalProperties": False, "$defs": definitions,
    }  # fmt: skip
    patterns: dict[str, list[str]] = {name: [] for name in written}
    patterns["base"].append(f"params/*/{BASE}")
    for path in study_notebooks():
        patterns[experiment(path).__name__].append(f"params/*/{path.stem}.yaml")
    files = {folder / f"{name}.schema.json": as_json(schema) for name, schema in written.items()}
    return files | {SETTINGS: as_json({"yaml.schemas": {f"./params/{n}.schema.json": p for n, p in patterns.items()}})}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for part in (schema, *definitions.values()):
        part.pop("required", None)
    schema.setdefault("properties", {})
    if "base" in schema["properties"]:  # a mapping of anything to pydantic, which checks it where it is merged
        words = schema["properties"]["base"]["description"]
        schema["properties"]["base"] = {"$ref": "#/$defs/Sweep", "description": words}
    return {"$schema": DIALECT} | schema


def zenodo() -> str:
    """What Zenodo reads of a release, from CITATION.cff."""
    citation = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    articles = [article["identifiers"][0]["value"] for article in citation["references"]]
    return as_json(
        {
            "upload_type": "software",
            "title": citation["title"],
            "description": citation["abstract"],
            "version": citation["version"],
            "license": citation["license"],
            "creators": [{"name": author["name"]} for author in citation["authors"]],
            "keywords": citation["keywords"],
            "related_identifiers": [{"identifier": name, "relation": "cites", "scheme": "arxiv"} for name in articles],
        }
    )


def release(folder: Path, published: date) -> Path:
    """Write the release into `folder`, as an RO-Crate and as its zip file, and return the zip's path.

    The crate holds what the figures come from, and says of each notebook which parameters and stores it makes figures
    from. Equal files and an equal date make an equal zip.
    """
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate  # of the extra `site`, which nothing else of epkit needs

    citation = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    crate = ROCrate()
    crate.name, crate.description, crate.license = citation["title"], citation["abstract"], citation["license"]
    crate.datePublished = published.isoformat()
    crate.root_dataset["version"] = citation["version"]
    crate.root_dataset["keywords"] = citation["keywords"]
    for name in _released(figures):
        crate.add_file(CHECKOUT / name, name, properties={"sha256": sha256(CHECKOUT / name)})
    for figure in figures:
        makes = {
            "@type": "CreateAction",
            "name": f"{figure['figure']}, profile {figure['profile']}",
            "description": figure["words"] or f"A figure of {figure['notebook']}",
            "instrument": {"@id": figure["notebook"]},
            "object": [{"@id": name} for name in (*figure["parameters"], *figure["stores"])],
            "result": [{"@id": name} for name in figure["files"]],
        }
        crate.add(ContextEntity(crate, f"#{figure['profile']}/{figure['figure']}", makes))
    target = folder / f"epkit-{citation['version']}"
    shutil.rmtree(target, ignore_errors=True)
    crate.write(target)
    with ZipFile(archive := folder / f"{target.name}.zip", "w") as file:
        for path in sorted(path for path in target.rglob("*") if path.is_file()):
            file.writestr(ZipInfo(f"{target.name}/{path.relative_to(target).as_posix()}"), path.read_bytes())
    return archive


def _released(figures: list[dict[str, Any]]) -> list[str]:
    """A release's files: what figures are and come from, all stores, what says so. StoreError if one is missing."""
    names = {name for f in figures for name in (f["notebook"], *f["parameters"], *f["stores"], *f["files"])}
    listed = (CHECKOUT / "results" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    names |= {f"results/{line.split(maxsplit=1)[1]}" for line in listed} | set(BESIDE)
    if missing := sorted(name for name in names if not (CHECKOUT / name).is_file()):
        raise StoreError(f"a release lacks {', '.join(missing)}: `make records` lists what is there")
    return sorted(names)
