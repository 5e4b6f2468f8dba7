"""What the study tests, registered before the data in `params/claims.yaml`: hypotheses, settings, thresholds."""

import math
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from ..ep.readout import Averaging
from ..sweep.inputs import parameter_file
from ..sweep.parameters import Count, DatasetName, Network, Positive, Share
from ..validation import validated

FIXED = Path(__file__).with_name("claims.yaml")  # a link to params/claims.yaml, which an installed epkit has with it


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError("a range is [low, high], low < high")
    return ends


Definition = Literal["half way", "midpoint", "onset"]  # of the level that the error crosses at the limit
Range = Annotated[tuple[float, float], Strict(False), AfterValidator(_rising)]


class Registered(BaseModel):
    """A part of the file, in which a misspelt name is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Setting(Registered):
    """Where a claim's verdict is read: of each field given, this value alone."""

    dataset: DatasetName | None = None
    learning_rate: Positive | None = None
    averaging: Averaging | None = None
    sigma: Positive | None = None  # V

    def includes(self, point: Mapping[str, Any]) -> bool:
        """Whether a point of a grid has the values given here."""
        return all(
            _alike(point[name], value) for name, value in self.model_dump(exclude_none=True).items() if name in point
        )


def _alike(value: Any, other: Any) -> bool:
    """Equal, numbers to 1e-6, for grids are computed."""
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_alike, value, other))
    if isinstance(value, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(value, other, rel_tol=1e-6)
    return bool(value == other)


class Claim(Registered):
    """What every claim says before the data: the hypothesis, its measure, and the primary setting."""

    paper: str
    hypothesis: str
    measure: str
    notebook: str
    primary: Setting
    trained: Network | None = None

    def setting(self, recorded: Mapping[str, Any], point: Mapping[str, Any]) -> str:
        """What a point of the grid of a store that records these parameters is to this claim.

        "primary", or "secondary" where the grid's values are not the registered ones; "another setting" where the
        network, its training or its read-out are not.
        """
        if self.trained is not None:
            expected = self.trained.model_dump(exclude={"looks"})  # which change no number
            defaults = Network().model_dump()  # of what is None, and so isn't recorded
            as_registered = all(_alike(recorded.get(key, defaults[key]), value) for key, value in expected.items())
            if not as_registered or "network" in recorded or "readout" in recorded:  # of somebody's own making
                return "another setting"
        return "primary" if self.primary.includes(point) else "secondary"


class ToleranceClaim(Claim):
    within: Positive


class LimitClaim(Claim):
    within: Annotated[float, Field(gt=1)]


class DatasetsClaim(Claim):
    factor: Annotated[float, Field(gt=1)]


class ScalingClaim(Claim):
    exponent: float
    inside: Range
    collapse: Positive


class BenefitClaim(Claim):
    threshold: float


class OptimumClaim(Claim):
    inside: Range


class EscapeClaim(Claim):
    below: Positive


class Deviation(Registered):
    """A change made after the claims were fixed."""

    date: Annotated[date, Strict(False)]
    change: str
    reason: str
    fields: list[str] = []  # of the file, as patterns; none where the file says the same as before


class Family(Registered):
    """A claim of the second or a later registration, judged over all settings of its family that can be tested."""

    paper: str
    hypothesis: str
    measure: str
    family: str
    holds: Literal["everywhere", "somewhere"]
    inside: Range
    contains: float | None = None


class FamilyClaims(Registered):
    """The claims of the second registration."""

    limit: Family
    value: Family
    datasets: Family
    scaling: Family
    rescue: Family
    accuracy: Family
    beyond_tuning: Family
    optimum: Family


class Second(Registered):
    """The second registration: what was known before it, and what is tested on fresh seeds and images."""

    pilot: str
    notebook: str
    seeds: Count
    averaging_seeds: Count
    epochs: list[Count]
    bracketed: Share
    works: Share
    definitions: list[Definition]
    onset: Share
    claims: FamilyClaims
    deviations: list[Deviation]


class Later(Registered):
    """The registration of a notebook: its claims, judged by the rules of the second registration."""

    pilot: str
    claims: dict[str, Family]
    deviations: list[Deviation]


class Claims(Registered):
    """`params/claims.yaml`: hypotheses, measures and thresholds, fixed before the data."""

    learns: Share
    limit: LimitClaim
    datasets: DatasetsClaim
    scaling: ScalingClaim
    benefit: BenefitClaim
    beyond_tuning: BenefitClaim
    optimum: OptimumClaim
    escape: EscapeClaim
    gradient: ToleranceClaim
    published: ToleranceClaim
    exactness: ToleranceClaim
    deviations: list[Deviation]
    second: Second
    later: dict[str, Later]  # by notebook


@cache
def registered_claims() -> Claims:
    """Hypotheses, primary settings and thresholds of `params/claims.yaml`; ParameterError for what is wrong in it."""
    place = "params/claims.yaml"
    return validated(Claims, parameter_file(FIXED, place), place)
