"""The model directory: numbered versions that appear and vanish in one step.

``BASE/1``, ``BASE/2`` ... are versions; a model server loads the highest. What is being
written stands in ``BASE/.staging-*``, which servers do not look at. A withdrawn version
moves to ``BASE/withdrawn/N`` and its number is not given out again: reports name it.
Files only, no tensorflow.
"""

from __future__ import annotations

from trainer.registry.comparison import Comparison, Row, compare
from trainer.registry.directory import (
    WITHDRAWN,
    Promotion,
    folder_of,
    plan_promotion,
    promote,
    publish,
    publish_after,
    read_card,
    rollback,
    versions,
    withdraw,
    withdrawn_versions,
)
from trainer.registry.films import TRAINING_MANIFEST_PATH, UsedFilm, used_films
from trainer.registry.staging import publish_copy, staging

__all__ = [
    "TRAINING_MANIFEST_PATH",
    "WITHDRAWN",
    "Comparison",
    "Promotion",
    "Row",
    "UsedFilm",
    "compare",
    "folder_of",
    "plan_promotion",
    "promote",
    "publish",
    "publish_after",
    "publish_copy",
    "read_card",
    "rollback",
    "staging",
    "used_films",
    "versions",
    "withdraw",
    "withdrawn_versions",
]
