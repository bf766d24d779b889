"""What a document is built from: facts in, nothing looked up.

The caller passes time and UIDs; every other UID follows from them (UUID version 5).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.errors import ModelCardMissing, ReportUnbuildable
from dicomnode.findings import Evaluated, Outcome
from dicomnode.modelcard import ModelCard

MANUFACTURER = "dicomnode"
SERIES_DESCRIPTION = "AI result - investigational, not for diagnostic use"
NOTICE = "INVESTIGATIONAL - NOT FOR DIAGNOSTIC USE"

IMPLEMENTATION_CLASS_UID = "2.25.154627408927512384926730518642970157313"
"""Of the documents' file meta information (PS3.10 7.1), the same that the node negotiates."""

_NAMESPACE = uuid.UUID("0d7c4b4e-52a5-5f0e-8a35-7f6c0f1e9b21")

Predecessor = tuple[str, str, str]
"""Study, Series and SOP Instance UID of the report that this one replaces."""


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """One report about one study.

    `headers` are the images' data sets without pixel data, as they were stored, and may
    be hostile. Raises `ValueError` when the parts do not fit together.
    """

    headers: tuple[Dataset, ...]
    outcomes: tuple[Outcome, ...]
    """One per header, in the same order."""
    cards: Mapping[int, ModelCard]
    """By version; those that answered must be there, others do no harm."""
    model_name: str
    sop_instance_uid: str
    series_instance_uid: str
    content_time: datetime
    """Aware. It is the document's only clock."""
    software_version: str
    revision: int = 1
    predecessor: Predecessor | None = None
    series_number: int = 9800
    instance_number: int = 1
    timezone: tzinfo = UTC
    """Of the dates and times written here, unless the images declare an offset."""
    manufacturer: str = MANUFACTURER
    station: str = MANUFACTURER
    institution: str | None = None
    study_instance_uid: str | None = None
    """Under which the node indexed the study; stands in for a header that has none."""

    def __post_init__(self) -> None:
        if len(self.headers) != len(self.outcomes):
            raise ValueError(
                f"a report needs one outcome per header, got {len(self.headers)} headers "
                f"and {len(self.outcomes)} outcomes"
            )
        _require_aware(self.content_time)
        for outcome in self.outcomes:
            if isinstance(outcome, Evaluated):
                _require_probability(outcome)

    def card(self, outcome: Evaluated) -> ModelCard:
        """The card of the version that answered. Raises `ModelCardMissing`."""
        return _card_of(outcome, self.cards.get(outcome.model_version))

    def answering_cards(self) -> tuple[ModelCard, ...]:
        """One card per version that answered, newest version first."""
        answered = {
            outcome.model_version: self.card(outcome)
            for outcome in self.outcomes
            if isinstance(outcome, Evaluated)
        }
        return tuple(answered[version] for version in sorted(answered, reverse=True))

    @property
    def node_device_uid(self) -> str:
        """Of the node itself: it decides what is not evaluated."""
        return node_device_uid(self.software_version)


@dataclass(frozen=True, kw_only=True)
class HeatmapContent:
    """The picture of one evaluated image.

    `display` is uint8 [rows, columns], the activations float32 [h, w] in 0..1: `cam`, or
    when that is None those of the outcome. Raises `ValueError` when neither is there, on
    other shapes, and on activations that are not finite.
    """

    header: Dataset
    outcome: Evaluated
    card: ModelCard
    display: NDArray[np.uint8]
    sop_instance_uid: str
    series_instance_uid: str
    content_time: datetime
    software_version: str
    cam: NDArray[np.float32] | None = None
    series_number: int = 9801
    instance_number: int = 1
    timezone: tzinfo = UTC
    manufacturer: str = MANUFACTURER
    station: str = MANUFACTURER
    institution: str | None = None
    study_instance_uid: str | None = None

    @property
    def activations(self) -> NDArray[np.float32]:
        found = self.outcome.cam if self.cam is None else self.cam
        if found is None:
            raise ValueError("a heatmap needs activations, got an outcome without a cam")
        return found

    def __post_init__(self) -> None:
        cam = self.activations
        if cam.ndim != 2 or 0 in cam.shape or not np.isfinite(cam).all():
            raise ValueError(f"a heatmap needs finite activations [h, w], got shape {cam.shape}")
        if self.display.ndim != 2 or 0 in self.display.shape or self.display.dtype != np.uint8:
            raise ValueError(
                f"a heatmap needs a uint8 image [rows, columns], got {self.display.dtype} "
                f"{self.display.shape}"
            )
        _require_aware(self.content_time)
        _require_probability(self.outcome)
        _card_of(self.outcome, self.card)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A point in time as DICOM writes it."""

    date: str
    time: str
    date_time: str
    """With the offset, VR DT."""
    offset: str = field(default="")

    @classmethod
    def of(cls, when: datetime, *, zone: tzinfo, offset: str) -> Moment:
        """In the images' declared `offset` when there is one (Timezone Offset From UTC
        governs the whole data set, PS3.3 C.12.1.1.8), else in `zone`."""
        local = when.astimezone(_zone(offset) if offset else zone)
        return cls(
            date=local.strftime("%Y%m%d"),
            time=local.strftime("%H%M%S.%f"),
            date_time=local.strftime("%Y%m%d%H%M%S.%f%z")[:26],
            offset=offset,
        )


def tracking_uid(sop_instance_uid: str, card: ModelCard | None) -> str:
    """What is tracked is a finding on an image: every revision of the report, and every
    version of the model, speaks of the same thing."""
    finding = f"{card.finding.scheme_designator}|{card.finding.value}" if card else ""
    return _derived_uid(f"tracking|{sop_instance_uid}|{finding}")


def node_device_uid(software_version: str) -> str:
    return _derived_uid(f"device|{MANUFACTURER}|{software_version}")


def _derived_uid(identity: str) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, identity).int}"


def _zone(offset: str) -> timezone:
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _require_aware(when: datetime) -> None:
    if when.utcoffset() is None:
        raise ValueError("content_time must be aware, got one without a time zone")


def _require_probability(outcome: Evaluated) -> None:
    for name, value in (("probability", outcome.probability), ("threshold", outcome.threshold)):
        if not math.isfinite(value) or not 0 <= value <= 1:
            raise ReportUnbuildable(
                f"{name} of model '{outcome.model_name}' version {outcome.model_version} is "
                f"{value}, expected a number from 0 to 1"
            )


def _card_of(outcome: Evaluated, card: ModelCard | None) -> ModelCard:
    if card is None or card.model_version != outcome.model_version:
        found = "none" if card is None else f"that of version {card.model_version}"
        raise ModelCardMissing(
            f"version {outcome.model_version} of model '{outcome.model_name}' answered, but its "
            f"card is not here (got {found}); a report cannot say what its numbers mean"
        )
    return card
