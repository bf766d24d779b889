"""What a candidate has to show. Table ``[gate]`` of a retraining file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import UsageError


class Policy(BaseModel):
    """The gate's figures. Films and patients are those of the held-out part."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    margin: float = Field(default=0.02, ge=0, le=0.5)
    """How much AUC a candidate may lose at worst: the lower end of the 95 % interval of
    the difference to the current version must not lie below minus this."""
    sensitivity_floor: float = Field(default=0.8, ge=0, le=1)
    """Least sensitivity at the candidate's threshold."""
    specificity_floor: float = Field(default=0.5, ge=0, le=1)
    """Least specificity there: a model that calls every film positive is sensitive too."""
    auc_floor: float = Field(default=0.7, ge=0, le=1)
    """Least AUC over all sources."""
    minimum_patients: int = Field(default=30, ge=2)
    """With fewer held-out patients nothing can be judged, and nothing is published."""
    minimum_positive_patients: int = Field(default=10, ge=1)
    """Of them with a positive film."""
    minimum_negative_patients: int = Field(default=10, ge=1)
    """Of them with a negative film."""
    source_drop: float = Field(default=0.1, ge=0, le=1)
    """How far accuracy or AUC of one source may fall below the current version's."""
    source_minimum_films: int = Field(default=20, ge=1)
    """A source with fewer films is shown but not judged."""
    confounding: Literal["refuse", "warn"] = "refuse"
    """What happens to a candidate that may know the source rather than the finding."""
    confounding_gain: float = Field(default=0.02, gt=0, le=1)
    """From this gain of AUC over all sources on, the gain within sources is looked at."""
    within_share: float = Field(default=0.5, ge=0, le=1)
    """The least part of that gain that must be there within sources too."""
    within_auc_floor: float = Field(default=0.6, ge=0, le=1)
    """Least AUC when only films of the same source are compared with each other."""
    within_minimum_films: int = Field(default=10, ge=1)
    """Fewest films of each label, in sources that hold both, for an AUC within sources."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Of the bootstrap over patients."""
    seed: int = 42
    """Of the bootstrap, so that the same answers give the same decision."""


def policy_from(table: Mapping[str, Any]) -> Policy:
    """A policy from a table of a settings file. Raises `UsageError` that names each key."""
    try:
        return Policy.model_validate(dict(table))
    except ValidationError as error:
        raise UsageError("; ".join(_told(problem) for problem in error.errors())) from error


def _told(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Policy.model_fields, n=1)
        return f"gate.{name} is not a setting" + (f"; did you mean gate.{near[0]}?" if near else "")
    return f"gate.{name}: {problem['msg'].lower()}, got {problem['input']!r}"
