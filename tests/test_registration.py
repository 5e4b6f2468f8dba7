"""That the claims were fixed before their data, and that what was changed since is said: git is asked."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from epkit.study.registration import registered_claims
from epkit.sweep import store

ROOT = Path(__file__).parents[1]
FILE = "params/claims.yaml"
DESIGN = "params/study/10_confirmation.yaml"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or (ROOT / ".git" / "shallow").exists(), reason="asks git, and this is no whole clone"
)


def registering_commits() -> tuple[str, str]:
    """The commits that added the first registration, and the second."""
    first = git("log", "--diff-filter=A", "--format=%H", "--", FILE).splitlines()[-1]
    second = git("log", "-S\nsecond:\n", "--format=%H", "--", FILE).splitlines()[-1]
    return first, second


def flat(values: object, name: str = "") -> dict[str, object]:
    if isinstance(values, dict):
        return {
            key: v for k, part in values.items() for key, v in flat(part, f"{name}.{k}" if name else str(k)).items()
        }
    return {name: values}


def changed(then: dict, now: dict) -> set[str]:
    before, after = flat(then), flat(now)
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def at(commit: str, path: str = FILE) -> dict:
    return yaml.safe_load(git("show", f"{commit}:{path}"))


def test_every_difference_from_what_was_registered_is_a_deviation():
    first, second = registering_commits()
    now = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8"))
    claims = registered_claims()
    for then, current, deviations in (
        (at(first), {k: v for k, v in now.items() if k != "second"}, claims.deviations),
        (at(second)["second"], now["second"], claims.second.deviations),
    ):
        then.pop("deviations"), current.pop("deviations")
        said = {field for deviation in deviations for field in deviation.fields}
        unsaid = {key for key in changed(then, current) if not any(re.fullmatch(f, key) for f in said)}
        assert not unsaid, f"{FILE} was changed since it was registered: no deviation names {sorted(unsaid)}"


def test_the_design_is_as_it_was_registered():
    now = yaml.safe_load((ROOT / DESIGN).read_text(encoding="utf-8"))
    then = at(registering_commits()[1], DESIGN)
    assert changed(then, now) <= {"compute"}


def test_the_second_registration_precedes_its_data():
    registered = registering_commits()[1]
    stores = sorted((ROOT / "results" / "study").glob(f"{registered_claims().second.notebook}.*.nc"))
    assert stores
    for path in stores:
        for maker in store.makers(store.read(path)):
            commit = re.search(r"commit ([0-9a-f]+)", maker)
            assert commit, f"{path.name}: made by {maker}, which names no commit"
            git("merge-base", "--is-ancestor", registered, commit[1])
        assert git("log", "--format=%H", f"{registered}..HEAD", "--", str(path.relative_to(ROOT)))
