"""The model directory: versions appear complete, vanish whole, and keep their numbers."""

from __future__ import annotations

import fcntl
import multiprocessing
from pathlib import Path

import pytest

from dicomnode.modelcard import CARD_PATH, Code, ModelCard, Threshold
from trainer import registry
from trainer.errors import NothingToDo, RegistryError

CARD = ModelCard(
    model_name="covid19",
    model_version=1,
    network="tiny",
    classes=("negative", "positive"),
    positive_class="positive",
    finding=Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
    preprocess_profile="unit-rgb-224/1",
    threshold=Threshold(value=0.5),
    created_at="2024-01-15T09:30:00+00:00",
)


def publish(base: Path, text: str = "graph") -> int:
    with registry.staging(base) as folder:
        (folder / "saved_model.pb").write_text(text)
        (folder / "variables").mkdir()
        (folder / "variables" / "variables.index").write_text(text)
        (folder / "assets.extra").mkdir()
        (folder / CARD_PATH).write_text(CARD.to_json())
        return registry.publish(folder, base)


def publish_many(base: Path, name: str, count: int) -> list[int]:
    return [publish(base, f"{name}-{number}") for number in range(count)]


def test_a_missing_base_has_no_versions(tmp_path: Path):
    assert registry.versions(tmp_path / "none") == ()


def test_versions_count_up_from_1_and_the_card_says_so(tmp_path: Path):
    assert [publish(tmp_path), publish(tmp_path)] == [1, 2]
    assert registry.versions(tmp_path) == (1, 2)
    assert [registry.read_card(tmp_path, number).model_version for number in (1, 2)] == [1, 2]
    assert registry.read_card(tmp_path, 1).device_uid != registry.read_card(tmp_path, 2).device_uid


def test_versions_are_ordered_by_number_and_not_by_name(tmp_path: Path):
    for name in ("10", "9", "2", "x3", "-4", ".5", "withdrawn"):
        (tmp_path / name).mkdir()
    assert registry.versions(tmp_path) == (2, 9, 10)


def test_a_folder_without_a_saved_model_is_not_published(tmp_path: Path):
    with (
        registry.staging(tmp_path) as folder,
        pytest.raises(RegistryError, match=r"holds no saved_model\.pb"),
    ):
        registry.publish(folder, tmp_path)
    assert registry.versions(tmp_path) == ()


def test_a_failed_run_leaves_nothing_behind(tmp_path: Path):
    def fails() -> None:
        with registry.staging(tmp_path) as folder:
            (folder / "saved_model.pb").write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_is_hidden_from_servers(tmp_path: Path):
    with registry.staging(tmp_path) as folder:
        assert folder.name.startswith(".")
        assert registry.versions(tmp_path) == ()


def test_publishers_at_the_same_time_get_numbers_of_their_own(tmp_path: Path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        runs = [pool.apply_async(publish_many, (tmp_path, name, 8)) for name in "abc"]
        numbers = [number for run in runs for number in run.get(timeout=60)]
    assert sorted(numbers) == list(range(1, 25))
    assert registry.versions(tmp_path) == tuple(range(1, 25))
    contents = {(tmp_path / str(n) / "saved_model.pb").read_text() for n in numbers}
    assert len(contents) == 24
    assert all(registry.read_card(tmp_path, n).model_version == n for n in numbers)
    assert not list(tmp_path.glob(".staging-*"))


@pytest.mark.parametrize("content", [None, "copied by hand"])
def test_a_number_taken_by_somebody_without_the_lock_is_stepped_over(
    tmp_path: Path, monkeypatch, content
):
    seen = registry.versions

    def just_before_the_copy(base: Path) -> tuple[int, ...]:
        found = seen(base)
        (base / "1").mkdir(exist_ok=True)
        if content is not None:
            (base / "1" / "saved_model.pb").write_text(content)
        return found

    monkeypatch.setattr(registry, "versions", just_before_the_copy)
    assert publish(tmp_path) == 2
    copied = tmp_path / "1" / "saved_model.pb"
    assert (copied.read_text() if copied.exists() else None) == content


def test_nobody_else_publishes_between_choosing_a_number_and_taking_it(tmp_path: Path, monkeypatch):
    seen, turned_away = registry.versions, []

    def while_choosing(base: Path) -> tuple[int, ...]:
        with (base / ".lock").open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                turned_away.append(base)
        return seen(base)

    monkeypatch.setattr(registry, "versions", while_choosing)
    publish(tmp_path)
    assert turned_away == [tmp_path]


def test_a_withdrawn_version_is_kept_and_its_number_not_given_out_again(tmp_path: Path):
    publish(tmp_path)
    publish(tmp_path)
    assert registry.withdraw(tmp_path, 2) == tmp_path / "withdrawn" / "2"
    assert registry.versions(tmp_path) == (1,)
    assert registry.withdrawn_versions(tmp_path) == (2,)
    assert registry.read_card(tmp_path, 2).model_version == 2
    assert publish(tmp_path) == 3


def test_withdrawing_what_is_not_there_names_what_is(tmp_path: Path):
    publish(tmp_path)
    with pytest.raises(RegistryError, match="no version 7 to withdraw; published: 1"):
        registry.withdraw(tmp_path, 7)


def test_rollback_withdraws_the_newest_and_names_the_one_that_serves(tmp_path: Path):
    publish_many(tmp_path, "a", 3)
    assert registry.rollback(tmp_path) == (3, 2)
    assert registry.versions(tmp_path) == (1, 2)


def test_the_last_version_is_never_rolled_back(tmp_path: Path):
    publish(tmp_path)
    with pytest.raises(NothingToDo, match="needs an older one"):
        registry.rollback(tmp_path)
    assert registry.versions(tmp_path) == (1,)


def test_everything_is_on_disk_before_the_version_is_visible(tmp_path: Path, monkeypatch):
    synced: set[str] = set()
    fsync = registry._fsync

    def recording(path: Path) -> None:
        if not (tmp_path / "1").exists():
            synced.add(path.name)
        fsync(path)

    monkeypatch.setattr(registry, "_fsync", recording)
    publish(tmp_path)
    expected = {"saved_model.pb", "variables", "variables.index", "assets.extra", "model_card.json"}
    assert expected <= synced


@pytest.mark.parametrize(
    ("card", "message"), [(None, "has no assets"), ("{}", "is not a model card")]
)
def test_a_card_that_cannot_be_read_is_named(tmp_path: Path, card, message):
    publish(tmp_path)
    path = tmp_path / "1" / CARD_PATH
    path.unlink()
    if card is not None:
        path.write_text(card)
    with pytest.raises(RegistryError, match=message):
        registry.read_card(tmp_path, 1)
