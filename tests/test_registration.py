"""That the claims were fixed before their data, and that what was changed since is said: git is asked."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from epkit.study.registration import Deviation, registered_claims
from epkit.sweep import store

ROOT = Path(__file__).parents[1]
FILE = "params/claims.yaml"
NOTEBOOKS = [registered_claims().second.notebook, *registered_claims().later]


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or (ROOT / ".git" / "shallow").exists(), reason="asks git, and this is no whole clone"
)


def registering_commit(notebook: str | None = None) -> str:
    """The commit that registered a notebook, None for the first registration."""
    if notebook is None:
        return git("log", "--diff-filter=A", "--format=%H", "--", FILE).splitlines()[-1]
    key = "\nsecond:\n" if notebook == registered_claims().second.notebook else f"\n  {notebook}:\n"
    return git("log", f"-S{key}", "--format=%H", "--", FILE).splitlines()[-1]


def flat(values: object, name: str = "") -> dict[str, object]:
    if isinstance(values, dict):
        return {
            key: v for k, part in values.items() for key, v in flat(part, f"{name}.{k}" if name else str(k)).items()
        }
    return {name: values}


def changed(then: dict, now: dict) -> set[str]:
    before, after = flat(then), flat(now)
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def unsaid(names: set[str], deviations: list[Deviation]) -> set[str]:
    """Those of the changed names that no deviation names."""
    said = [field for deviation in deviations for field in deviation.fields]
    return {name for name in names if not any(re.fullmatch(field, name) for field in said)}


def at(commit: str, path: str = FILE) -> dict:
    return yaml.safe_load(git("show", f"{commit}:{path}"))


def test_every_difference_from_what_was_registered_is_a_deviation():
    now = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8"))
    claims = registered_claims()
    first = {k: v for k, v in now.items() if k not in ("second", "later")}
    registrations = [(at(registering_commit()), first, claims.deviations)]
    second = at(registering_commit(claims.second.notebook))["second"]
    registrations.append((second, now["second"], claims.second.deviations))
    for name, later in claims.later.items():
        registrations.append((at(registering_commit(name))["later"][name], now["later"][name], later.deviations))
    for then, current, deviations in registrations:
        then.pop("deviations"), current.pop("deviations")
        silent = unsaid(changed(then, current), deviations)
        assert not silent, f"{FILE} was changed since it was registered: no deviation names {sorted(silent)}"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_design_is_as_it_was_registered(notebook):
    design = f"params/study/{notebook}.yaml"
    now = yaml.safe_load((ROOT / design).read_text(encoding="utf-8"))
    new = {f"design.{name}" for name in changed(at(registering_commit(notebook), design), now) - {"compute"}}
    claims = registered_claims()
    registered = claims.second if notebook == claims.second.notebook else claims.later[notebook]
    assert not unsaid(new, registered.deviations)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_registration_precedes_its_data(notebook):
    registered = registering_commit(notebook)
    stores = [ds for path in (ROOT / "results" / "study").glob(f"{notebook}.*.nc") if "run" in (ds := store.read(path))]
    assert stores
    for ds in stores:
        for maker in store.makers(ds):
            commit = re.search(r"commit ([0-9a-f]+)", maker)
            assert commit, f"{notebook}: made by {maker}, which names no commit"
            git("merge-base", "--is-ancestor", registered, commit[1])
