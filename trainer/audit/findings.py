"""What an audit can find: the kinds, how grave each is, and what is said of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


class Kind(enum.Enum):
    """Title, severity, whether a cleaned manifest leaves the films out, and what it means."""

    def __init__(self, title: str, severity: Severity, drops: bool, meaning: str) -> None:
        self.title = title
        self.severity: Severity = severity
        self.drops = drops
        self.meaning = meaning

    UNREADABLE = (
        "unreadable",
        "error",
        True,
        "The file cannot be read or decoded; training skips it.",
    )
    REFUSED = (
        "not for the model",
        "error",
        True,
        "The node's own gate would not evaluate the film, so training skips it too.",
    )
    NOT_FRONTAL = (
        "not frontal",
        "warning",
        True,
        "Manifest or header states a view other than AP or PA.",
    )
    TINY = (
        "tiny",
        "warning",
        True,
        "The shorter side is under 200 pixels: a thumbnail.",
    )
    LOW_CONTRAST = (
        "low contrast",
        "warning",
        True,
        "The film uses less than a quarter of the greys.",
    )
    INVERTED = (
        "inverted",
        "warning",
        True,
        "Lungs are bright and air is white: the film looks like a chest only as a negative.",
    )
    UPSIDE_DOWN = (
        "upside down",
        "warning",
        True,
        "The film looks like a chest only when it is turned upside down.",
    )
    ON_SIDE = (
        "on its side",
        "warning",
        True,
        "The film looks like a chest only after a quarter turn.",
    )
    UNLIKE = (
        "unlike a frontal chest",
        "note",
        False,
        "The greys do not lie as in a frontal chest. A white lung does this too, so the films are "
        "kept: look at them.",
    )
    LABEL_CONFLICT = (
        "one picture, two labels",
        "error",
        True,
        "The same picture is labelled differently; nobody can say which label is right.",
    )
    EXACT_DUPLICATE = (
        "same file twice",
        "warning",
        True,
        "Byte for byte the same file; the first by name is kept.",
    )
    NEAR_DUPLICATE = (
        "same picture twice",
        "warning",
        True,
        "The same picture in another size, window or crop; the largest is kept.",
    )
    BOTH_LABELS = (
        "patients on both sides",
        "note",
        False,
        "Patients with films of more than one label. Split by patient, they stay in one part.",
    )
    SEVERAL_SOURCES = (
        "patients under several sources",
        "note",
        False,
        "Is it one person, or do two sources use the same number?",
    )
    PATIENT_UNKNOWN = (
        "patient not stated",
        "note",
        False,
        "Each of these films counts as a patient of its own, so two films of one person may come "
        "into different parts and flatter the figures.",
    )
    FEW_PATIENTS = (
        "too few patients",
        "error",
        False,
        "A class cannot be parted into training, validation and test.",
    )
    SOURCE_CONFOUNDING = (
        "source tells the label",
        "warning",
        False,
        "A model may learn the source instead of the finding. Report figures per source, and the "
        "AUC over sources that hold both labels.",
    )
    VIEW_CONFOUNDING = (
        "view tells the label",
        "warning",
        False,
        "A model may learn the view (the sick are filmed lying, AP) instead of the finding.",
    )
    NOT_COMPARED = (
        "comparisons left out", "note", False,
        "There were too many similar films to compare every pair for duplicates.",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A film in a finding."""

    name: str
    label: str
    source: str
    detail: str = ""
    group: int | None = None
    """Films of the same number belong together: the same picture, or the same patient."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of trouble, and every film that has it."""

    kind: Kind
    sentence: str
    """With figures."""
    films: tuple[Mention, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.name.lower(),
            "severity": self.kind.severity,
            "sentence": self.sentence,
            "films": [
                {name: value for name, value in vars(film).items() if value not in ("", None)}
                for film in self.films
            ],
        }
