"""The model card: what a version's numbers mean.

Written by the trainer to `BASE/<version>/assets.extra/model_card.json`, read by the
node. A version without a card cannot be reported: nobody could say what its outputs
are. Pure: text in, card out.
"""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

CARD_PATH = "assets.extra/model_card.json"
"""Relative to a version's directory."""

_DEVICE_UID_NAMESPACE = uuid.UUID("6b3c3f0e-6a0f-5c1e-9d3a-6e1f2c7d8a55")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Code(_Part):
    """A code of a finding (PS3.3 section 8)."""

    value: str = Field(min_length=1, max_length=16)
    scheme_designator: str = Field(min_length=1, max_length=16)
    meaning: str = Field(min_length=1, max_length=64)


class Threshold(_Part):
    """Where a probability becomes a finding, and how that point was chosen."""

    value: float = Field(ge=0, le=1)
    rule: str = "fixed"
    """In words: 'Youden index on the validation part', 'fixed at 0.5'."""


class Calibration(_Part):
    """Temperature scaling (Guo et al. 2017); 1.0 leaves the probabilities as they are.
    The exported graph already applies it: this only documents it."""

    method: str = "none"
    temperature: float = Field(default=1.0, gt=0)


class ModelCard(_Part):
    """What a version's numbers mean, and where they come from."""

    schema_version: int = 1
    model_name: str = Field(min_length=1, max_length=64)
    model_version: int = Field(ge=1)
    network: str
    classes: tuple[str, ...] = Field(min_length=2)
    positive_class: str
    finding: Code
    preprocess_profile: str
    """Name and version of the profile in `dicomnode.imaging.preprocess`, e.g. `unit-rgb-224/1`."""
    threshold: Threshold
    calibration: Calibration = Calibration()
    manufacturer: str = "dicomnode"
    intended_use: str = "Investigational, not for diagnostic use"
    created_at: str
    """ISO 8601, UTC."""
    parent_version: int | None = None
    data_manifest_sha256: str | None = None
    seed: int | None = None
    training_seconds: float | None = None
    libraries: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    """Each figure with its interval and the number of cases it stands on."""
    per_source: list[dict[str, Any]] = []
    notes: str = ""

    @model_validator(mode="after")
    def _positive_class_is_a_class(self) -> ModelCard:
        if self.positive_class not in self.classes:
            raise ValueError(
                f"positive_class {self.positive_class!r} is not one of classes {list(self.classes)}"
            )
        return self

    @property
    def positive_index(self) -> int:
        return self.classes.index(self.positive_class)

    @property
    def device_uid(self) -> str:
        """A UID of this very version; another training gives another UID (IHE AIR).

        UUID-derived (PS3.5 B.2) from the name, the version, the time and the data.
        """
        identity = "|".join(
            [
                self.model_name,
                str(self.model_version),
                self.created_at,
                self.data_manifest_sha256 or "",
            ]
        )
        return f"2.25.{uuid.uuid5(_DEVICE_UID_NAMESPACE, identity).int}"

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """Raises `pydantic.ValidationError` (a ValueError) naming each wrong field."""
        return cls.model_validate_json(text)
