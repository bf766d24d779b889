"""Which films a version was made from, told by the digests of their bytes.

``assets.extra/training_manifest.csv`` has the columns sha256, label, part and no
identifier of anybody. Part is training, validation or test.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainer.errors import RegistryError

TRAINING_MANIFEST_PATH: Final = "assets.extra/training_manifest.csv"
"""Relative to a version's folder."""

TEST_PART: Final = "test"


@dataclass(frozen=True, kw_only=True)
class UsedFilm:
    """A film as a version knew it."""

    label: str
    part: str

    @property
    def learned_from(self) -> bool:
        """Whether weights, threshold or calibration depend on it."""
        return self.part != TEST_PART


def used_films(version_folder: Path) -> dict[str, UsedFilm] | None:
    """The films of a version by sha256; None when the version does not say.

    Raises `RegistryError` when its list cannot be read.
    """
    path = version_folder / TRAINING_MANIFEST_PATH
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            return {row["sha256"]: UsedFilm(label=row["label"], part=row["part"]) for row in rows}
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise RegistryError(
            f"{path} cannot be read as a list of films (sha256,label,part): {error}"
        ) from error
