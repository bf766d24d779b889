"""What is known of a film before it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAXIMUM_FILMS: Final = 200_000
"""Of one training set; more is a mistake in the path, or too much for one manifest."""
MAXIMUM_FILE_BYTES: Final = 256 * 1024 * 1024
"""Of one film: 100 million pixels of two bytes, and some. It is read as a whole."""
MAXIMUM_PIXELS: Final = 100_000_000
"""Of one film, decoded."""

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg")
DICOM_SUFFIXES: Final = (".dcm", ".dicom", "")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One labelled film."""

    path: Path
    name: str
    """Relative to the training folder; unique in a set."""
    label: str
    patient: str
    """Whom a film belongs to decides which part it goes to; it is never printed."""
    source: str = ""
    """Where it was made: a data set, a calling AE title, a device."""
    view: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    sha256: str = ""
    """Of the file's bytes, where the manifest says so: another content is not the film that
    was meant."""

    @property
    def is_image_file(self) -> bool:
        """JPEG or PNG by its suffix; anything else is read as DICOM."""
        return self.path.suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A film that was left out, and why, in words that name nobody and no file."""

    name: str
    reason: str
    copy_of: str | None = None
    """The film that has the same bytes and was kept."""

    @property
    def why(self) -> str:
        """The reason, and of a copy the film that was kept: for people at the command."""
        return self.reason if self.copy_of is None else f"{self.reason} ({self.copy_of})"
