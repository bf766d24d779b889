"""The model directory: versions appear complete, vanish whole, and keep their numbers."""

from __future__ import annotations

import fcntl
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.modelcard import CARD_PATH, Code, ModelCard, Threshold
from trainer import registry
from trainer.errors import NothingToDo, RegistryError
from trainer.registry import directory

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
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


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
    seen = directory.versions

    def just_before_the_copy(base: Path) -> tuple[int, ...]:
        found = seen(base)
        (base / "1").mkdir(exist_ok=True)
        if content is not None:
            (base / "1" / "saved_model.pb").write_text(content)
        return found

    monkeypatch.setattr(directory, "versions", just_before_the_copy)
    assert publish(tmp_path) == 2
    copied = tmp_path / "1" / "saved_model.pb"
    assert (copied.read_text() if copied.exists() else None) == content


def test_nobody_else_publishes_between_choosing_a_number_and_taking_it(tmp_path: Path, monkeypatch):
    seen, turned_away = directory.versions, []

    def while_choosing(base: Path) -> tuple[int, ...]:
        with (base / ".lock").open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                turned_away.append(base)
        return seen(base)

    monkeypatch.setattr(directory, "versions", while_choosing)
    publish(tmp_path)
    assert turned_away == [tmp_path]


def test_what_a_killed_publisher_left_is_removed_by_the_next_one(tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from trainer import registry\n"
        "with registry.staging(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'saved_model.pb').write_text('half')\n"
        "    print(folder.name, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as publisher:
        assert publisher.stdout is not None
        left = tmp_path / publisher.stdout.readline().strip()
        publish(tmp_path)
        assert (left / "saved_model.pb").exists(), "it was at work"
        publisher.send_signal(signal.SIGKILL)
        publisher.wait(30)
        assert left.exists()
        publish(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "1", "2"]


def test_a_hidden_folder_of_somebody_else_stays(tmp_path: Path):
    (tmp_path / ".staging-copied-by-hand").mkdir()
    publish(tmp_path)
    assert (tmp_path / ".staging-copied-by-hand").is_dir()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "base").write_text("a file")
    with pytest.raises(RegistryError, match="cannot write to"):
        publish(tmp_path / "base")


def test_a_candidate_is_published_only_after_the_version_it_was_held_against(tmp_path: Path):
    publish(tmp_path)
    with registry.staging(tmp_path) as folder:
        (folder / "saved_model.pb").write_text("candidate")
        publish(tmp_path)
        with pytest.raises(RegistryError, match=r"served version 1 when .* and version 2 now"):
            registry.publish_after(folder, tmp_path, 1)
        with pytest.raises(RegistryError, match="served no version"):
            registry.publish_after(folder, tmp_path, None)
        assert registry.versions(tmp_path) == (1, 2)
        assert registry.publish_after(folder, tmp_path, 2) == 3


def test_a_copy_is_published_and_the_original_stays(tmp_path: Path):
    publish(tmp_path / "a", "refused")
    assert registry.publish_copy(tmp_path / "a" / "1", tmp_path / "b") == 1
    assert (tmp_path / "b" / "1" / "saved_model.pb").read_text() == "refused"
    assert registry.versions(tmp_path / "a") == (1,)
    with pytest.raises(RegistryError, match=r"no saved_model\.pb; expected a version's folder"):
        registry.publish_copy(tmp_path / "a", tmp_path / "b")


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
    fsync = directory._fsync

    def recording(path: Path) -> None:
        if not (tmp_path / "1").exists():
            synced.add(path.name)
        fsync(path)

    monkeypatch.setattr(directory, "_fsync", recording)
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


# --------------------------------------------------------------------------------- promote


@pytest.mark.parametrize(
    ("present", "withdrawn", "version", "returns", "withdraws", "after"),
    [
        ((1, 2), (3,), 3, True, (), (1, 2, 3)),
        ((1, 2, 3), (), 1, False, (2, 3), (1,)),
        ((3, 4), (1, 2), 2, True, (3, 4), (2,)),
        ((), (1,), 1, True, (), (1,)),
    ],
)
def test_promotion_makes_a_version_the_highest_that_is_published(
    tmp_path: Path, present, withdrawn, version, returns, withdraws, after
):
    publish_many(tmp_path, "a", max(*present, *withdrawn, 0))
    for number in withdrawn:
        registry.withdraw(tmp_path, number)
    planned = registry.plan_promotion(tmp_path, version)
    assert (planned.returns, planned.withdraws) == (returns, withdraws)
    assert registry.versions(tmp_path) == present, "a plan changes nothing"
    assert registry.promote(tmp_path, version) == planned
    assert registry.versions(tmp_path) == after


def test_a_promotion_is_taken_back_by_promoting_what_served(tmp_path: Path):
    publish_many(tmp_path, "a", 3)
    done = registry.promote(tmp_path, 1)
    assert done.serving == 3
    registry.promote(tmp_path, done.serving)
    assert registry.versions(tmp_path)[-1] == 3
    assert publish(tmp_path) == 4, "numbers are not given out again"


def test_at_every_moment_of_a_promotion_the_old_or_the_new_version_is_the_highest(
    tmp_path: Path, monkeypatch
):
    publish_many(tmp_path, "a", 4)
    registry.withdraw(tmp_path, 1)
    highest, move = [], directory._move

    def watched(source: Path, target: Path) -> None:
        move(source, target)
        highest.append(registry.versions(tmp_path)[-1])

    monkeypatch.setattr(directory, "_move", watched)
    registry.promote(tmp_path, 1)
    assert highest == [4, 4, 4, 1]


def test_promoting_what_serves_is_nothing_to_do_and_an_unknown_version_is_named(tmp_path: Path):
    publish_many(tmp_path, "a", 2)
    registry.rollback(tmp_path)
    with pytest.raises(NothingToDo, match=r"version 1 of .* serves already"):
        registry.promote(tmp_path, 1)
    with pytest.raises(RegistryError, match="no version 9; published: 1; withdrawn: 2"):
        registry.promote(tmp_path, 9)


# ------------------------------------------------------------------------------------ diff


def with_films(base: Path, version: int, *films: tuple[str, str, str]) -> None:
    path = base / str(version) / registry.TRAINING_MANIFEST_PATH
    rows = [("sha256", "label", "part"), *films]
    path.write_text("".join(f"{','.join(row)}\n" for row in rows))


def test_a_comparison_counts_the_films_that_came_went_and_changed(tmp_path: Path):
    publish_many(tmp_path, "a", 2)
    with_films(
        tmp_path, 1, ("a", "ill", "training"), ("b", "ill", "test"), ("c", "well", "training")
    )
    with_films(
        tmp_path, 2, ("b", "ill", "training"), ("c", "ill", "training"), ("d", "well", "test")
    )
    compared = registry.compare(tmp_path, 1, 2)
    assert compared.films == {"added": 1, "removed": 1, "relabelled": 1, "moved": 1, "kept": 2}
    rows = {(row.section, row.name): (row.first, row.second) for row in compared.rows}
    assert rows["data", "label ill"] == (2, 2)
    assert rows["data", "part training"] == (2, 2)
    assert rows["network", "network"] == ("tiny", "tiny")
    assert rows["network", "device_uid"][0] != rows["network", "device_uid"][1]


def test_versions_that_do_not_say_their_films_are_compared_without_them(tmp_path: Path):
    publish_many(tmp_path, "a", 2)
    registry.withdraw(tmp_path, 2)
    with_films(tmp_path, 1, ("a", "ill", "training"))
    assert registry.compare(tmp_path, 1, 2).films is None


def test_a_damaged_list_of_films_is_named(tmp_path: Path):
    publish(tmp_path)
    (tmp_path / "1" / registry.TRAINING_MANIFEST_PATH).write_text("digest\nabc\n")
    with pytest.raises(RegistryError, match=r"training_manifest\.csv cannot be read"):
        registry.used_films(tmp_path / "1")
