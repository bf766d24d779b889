"""Cards by version, from a model directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.errors import ModelCardMissing
from dicomnode.modelcard import CARD_PATH
from dicomnode.serving import DirectoryModelCards
from dicomnode.testing.saved_models import tiny_card


def _publish(base: Path, version: int, *, card_version: int | None = None, notes: str = "") -> Path:
    path = base / str(version) / CARD_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    card = tiny_card("covid19", card_version or version).model_copy(update={"notes": notes})
    path.write_text(card.to_json())
    return path


def test_the_card_of_a_version_and_the_newest(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        _publish(tmp_path, version)
    (tmp_path / ".staging-11").mkdir()
    cards = DirectoryModelCards(tmp_path)
    assert cards.get(2).model_version == 2
    assert cards.newest().model_version == 10


def test_a_card_that_changes_is_read_again(tmp_path: Path) -> None:
    path = _publish(tmp_path, 1)
    cards = DirectoryModelCards(tmp_path)
    assert cards.get(1) is cards.get(1)
    path.unlink()
    _publish(tmp_path, 1, notes="corrected")
    assert cards.get(1).notes == "corrected"


def test_a_withdrawn_version_keeps_its_card(tmp_path: Path) -> None:
    """An image that it judged just before the rollback can still be reported."""
    _publish(tmp_path, 1)
    _publish(tmp_path / "withdrawn", 2)
    cards = DirectoryModelCards(tmp_path)
    assert cards.get(2).model_version == 2
    assert cards.newest().model_version == 1


def test_what_is_missing_is_said_in_words(tmp_path: Path) -> None:
    cards = DirectoryModelCards(tmp_path)
    with pytest.raises(ModelCardMissing, match="no model version is published"):
        cards.newest()
    with pytest.raises(ModelCardMissing, match="version 3 has no card"):
        cards.get(3)
    with pytest.raises(ModelCardMissing, match="cannot read"):
        DirectoryModelCards(tmp_path / "gone").newest()


def test_a_card_that_is_none_or_another_versions_is_refused(tmp_path: Path) -> None:
    _publish(tmp_path, 1).write_text("{}")
    _publish(tmp_path, 2, card_version=9)
    cards = DirectoryModelCards(tmp_path)
    with pytest.raises(ModelCardMissing, match="is not a model card"):
        cards.get(1)
    with pytest.raises(ModelCardMissing, match="version 9, expected 2"):
        cards.get(2)
