"""Backups: complete or not there, what a restore refuses, and stores that move."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select

from dicomnode.cli import main
from dicomnode.config import ServingSettings, Settings
from dicomnode.errors import ConfigError, StorageFull
from dicomnode.jobs import JobKind, JobState
from dicomnode.pipeline import report_json_path
from dicomnode.storage import Storage, open_storage
from dicomnode.storage.backup import (
    BackupDamaged,
    BackupRefused,
    Taken,
    find_backup,
    guards,
    restore_backup,
    snapshot,
    take_backup,
    verify_backup,
)
from dicomnode.storage.backup.copying import data_set_offset
from dicomnode.storage.backup.tables import copy_rows
from dicomnode.storage.database import open_database
from dicomnode.storage.schema import meta, metadata
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from dicomnode.testing.stores import opened_store, received_instance, store_settings
from tests.conftest import require_program

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def settings_of(root: Path, url: str = "", *, base: Path | None = None) -> Settings:
    return Settings(
        storage=store_settings(root, database_url=url),
        serving=ServingSettings(model_base_path=base or root.parent / "models" / "covid19"),
    )


def accept(store: Storage, number: int) -> Path:
    received = received_instance(
        store.files.incoming,
        sop=f"1.5.{number}",
        study=f"1.2.3.{number}",
        content=f"data set {number}".encode(),
        accession_number=f"ACC{number}",
    )
    path = store.files.keep(received)
    store.index.accept(received, path=path, now=NOW, report_due_at=NOW)
    return store.files.absolute(path)


def publish(base: Path, version: str, content: str = "weights") -> None:
    folder = base / version / "variables"
    folder.mkdir(parents=True)
    (folder / "variables.data").write_text(content)


def rows(store: Storage) -> dict[str, list[tuple[object, ...]]]:
    def work(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
            if table is not meta
        }

    return store.database.read(work)


def tree(root: Path) -> dict[str, bytes]:
    parts = ("instances", "conflicts", "documents", "display")
    return {
        str(path.relative_to(root)): path.read_bytes()
        for part in parts
        for path in sorted((root / part).rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def small(tmp_path: Path) -> Settings:
    """A SQLite store of three images and one model version, not in use."""
    settings = settings_of(tmp_path / "store")
    with opened_store(settings.storage.root) as store:
        for number in range(3):
            accept(store, number)
    publish(settings.serving.model_base_path, "1")
    return settings


def take(settings: Settings, target: Path, **options: bool) -> Taken:
    return take_backup(settings, target, config=None, **options)


# ---------------------------------------------------------------- there and back


def test_a_restored_store_holds_the_same_rows_and_files_under_an_identity_of_its_own(
    storage: Storage,
    database_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """While a node holds the store, and a worker a job."""
    for number in range(3):
        accept(storage, number)
    (job,) = storage.queue.claim(JobKind.ANALYSE, owner="worker", now=NOW, lease_seconds=1e9)
    settings = settings_of(storage.files.root, database_url)
    taken = take(settings, tmp_path / "backups")
    url = request.getfixturevalue("new_database_url")() if database_url else ""
    elsewhere = settings_of(tmp_path / "elsewhere", url)
    restored = restore_backup(elsewhere, find_backup(tmp_path / "backups"))
    assert restored.manifest == taken.manifest
    with opened_store(elsewhere.storage.root, database_url=url) as copy:
        assert copy.recover(now=NOW)["orphans_removed"] == 0
        assert tree(copy.files.root) == tree(storage.files.root)
        storage.queue.give_back(job, now=NOW)
        before, after = rows(storage), rows(copy)
        assert {k: v for k, v in after.items() if k != "jobs"} == {
            k: v for k, v in before.items() if k != "jobs"
        }
        assert copy.queue.counts() == {JobState.QUEUED: 6}
        accept(copy, 7)
    identity = json.loads((elsewhere.storage.root / "store.json").read_text())
    assert identity["store_id"] == restored.store_id != taken.manifest.store_id


def test_a_store_moves_from_sqlite_to_postgresql_and_back(
    small: Settings, tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    url = new_database_url()
    take(small, tmp_path / "backups")
    there = settings_of(tmp_path / "shared", url)
    restore_backup(there, find_backup(tmp_path / "backups"))
    with opened_store(there.storage.root, database_url=url) as store:
        accept(store, 3)  # numbers of rows continue after the copied ones
        moved = rows(store)
    take(there, tmp_path / "of-postgresql")
    back = settings_of(tmp_path / "back")
    restore_backup(back, find_backup(tmp_path / "of-postgresql"))
    with opened_store(back.storage.root) as store:
        assert rows(store) == moved
        assert len(moved["instances"]) == 4


def test_what_comes_in_after_the_database_was_copied_is_left_to_the_next_backup(
    tmp_path: Path,
) -> None:
    """The database first, then the files: the copy never names a file that is not there."""
    settings = settings_of(tmp_path / "store")
    with opened_store(settings.storage.root) as store:
        accept(store, 0)
        late: list[Path] = []

        def told(stage: str, _done: int, _total: int) -> None:
            if stage == "copying" and not late:
                late.append(accept(store, 1))

        taken = take_backup(settings, tmp_path / "backups", config=None, told=told)
    assert (taken.manifest.instances, taken.manifest.missing) == (1, ())
    listed = (taken.folder / "SHA256SUMS").read_text()
    assert late[0].name not in listed
    assert not list(taken.folder.rglob(late[0].name))


def test_a_study_that_comes_between_two_tables_is_not_half_copied(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    """PostgreSQL's rows are read table by table, all in one view."""
    url = new_database_url()
    with (
        opened_store(tmp_path / "store", database_url=url) as store,
        opened_store(tmp_path / "copy") as copy,
    ):
        accept(store, 0)
        late: list[Path] = []

        def between(*arguments: object) -> None:
            if str(arguments[2]).startswith("SELECT instances.id") and not late:
                late.append(accept(store, 1))

        reading = open_database(tmp_path / "store", url)
        event.listen(reading.engine, "before_cursor_execute", between)
        copy_rows(reading, copy.database)
        reading.close()
        assert late
        assert [len(rows(copy)[table]) for table in ("studies", "instances")] == [1, 1]


def test_the_json_form_of_a_report_is_copied_with_it() -> None:
    assert report_json_path("documents/1.2/1.3.dcm") == (
        f"documents/1.2/1.3{snapshot.REPORT_JSON_SUFFIX}"
    )


def test_the_data_set_is_found_in_a_file_as_the_node_writes_it() -> None:
    data = part10_bytes(phantom_dataset(1, True, rows=32, columns=32))
    offset = data_set_offset(data)
    assert data[offset : offset + 4] == b"\x08\x00\x05\x00"  # (0008,0005) comes first
    assert data_set_offset(b"no file meta information" * 20) == 0


# ---------------------------------------------------------------- each after the other


def test_what_did_not_change_gets_a_second_name_and_outlives_the_first_backup(
    small: Settings, tmp_path: Path
) -> None:
    first = take(small, tmp_path / "backups")
    with opened_store(small.storage.root) as store:
        accept(store, 9)
    second = take(small, tmp_path / "backups")
    assert (first.linked_files, second.linked_files) == (0, 4)  # three images and a model
    assert second.copied_files == 2  # the database and the new image
    shutil.rmtree(first.folder)
    assert verify_backup(second.folder) == second.manifest
    assert take(small, tmp_path / "backups", full=True).linked_files == 0


def test_the_list_is_one_that_sha256sum_checks(small: Settings, tmp_path: Path) -> None:
    taken = take(small, tmp_path / "backups")
    command = [require_program("sha256sum"), "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=taken.folder, check=False).returncode == 0
    assert len((taken.folder / "SHA256SUMS").read_text().splitlines()) == taken.manifest.files


def test_a_backup_that_was_not_finished_is_none_and_the_next_one_removes_it(
    small: Settings, tmp_path: Path
) -> None:
    def power_cut(stage: str, _done: int, _total: int) -> None:
        if stage == "syncing":
            raise KeyboardInterrupt

    target = tmp_path / "backups"
    with pytest.raises(KeyboardInterrupt):
        take_backup(small, target, config=None, told=power_cut)
    with pytest.raises(BackupRefused, match="no finished backup"):
        find_backup(target)
    (target / ".partial-20260304T000000.000Z" / "store").mkdir(parents=True)
    taken = take(small, target)
    assert [path.name for path in target.iterdir() if path.name != ".lock"] == [taken.folder.name]


def test_a_damaged_backup_does_not_keep_the_next_one_from_being_taken(
    small: Settings, tmp_path: Path
) -> None:
    sound, damaged = take(small, tmp_path / "backups"), take(small, tmp_path / "backups")
    (damaged.folder / "SHA256SUMS").write_text("nonsense\n")
    assert take(small, tmp_path / "backups").linked_files == 4
    shutil.rmtree(sound.folder)
    for folder in (tmp_path / "backups").glob("2*"):
        (folder / "SHA256SUMS").unlink()
    assert verify_backup(take(small, tmp_path / "backups").folder)


def test_two_backups_into_one_folder_at_a_time_are_refused(small: Settings, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    target.mkdir()
    with guards.alone(target), pytest.raises(BackupRefused, match="another backup"):
        take(small, target)


def test_without_room_nothing_is_left_behind(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(guards.shutil, "disk_usage", lambda _: usage(guards.MARGIN_BYTES + 10))
    with pytest.raises(StorageFull, match="remove old backups"):
        take(small, tmp_path / "backups")
    assert [path.name for path in (tmp_path / "backups").iterdir()] == [".lock"]


def test_a_backup_of_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no store"):
        take(settings_of(tmp_path / "stroe"), tmp_path / "backups")
    assert not (tmp_path / "stroe").exists()


def test_a_backup_inside_the_store_is_refused(small: Settings) -> None:
    with pytest.raises(ConfigError, match="must not hold one another"):
        take(small, small.storage.root / "backups")


# ---------------------------------------------------------------- damage


def test_a_store_that_lost_or_altered_an_image_is_backed_up_and_named(
    small: Settings, tmp_path: Path
) -> None:
    """What is still there is worth keeping; the command ends with 1."""
    lost, altered, _ = sorted((small.storage.root / "instances").rglob("*.dcm"))
    lost.unlink()
    altered.write_bytes(b"data set X")
    manifest = take(small, tmp_path / "backups").manifest
    assert manifest.missing == (f"store/{lost.relative_to(small.storage.root)}",)
    assert manifest.altered == (f"store/{altered.relative_to(small.storage.root)}",)


@pytest.mark.parametrize("part", ["store", "models", "dicomnode.sqlite3", "SHA256SUMS"])
@pytest.mark.parametrize("harm", ["altered", "gone"])
def test_a_damaged_backup_is_refused_before_anything_is_changed(
    small: Settings, tmp_path: Path, part: str, harm: str
) -> None:
    taken = take(small, tmp_path / "backups")
    place = taken.folder / part
    victim = place if place.is_file() else next(p for p in place.rglob("*") if p.is_file())
    if harm == "gone":
        victim.unlink()
    else:
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elsewhere = settings_of(tmp_path / "elsewhere")
    with pytest.raises(BackupDamaged, match=re_name(victim)):
        restore_backup(elsewhere, taken.folder)
    assert not elsewhere.storage.root.exists()


def re_name(path: Path) -> str:
    return path.name.replace(".", r"\.")


def test_a_list_that_leads_out_of_the_backup_is_refused(small: Settings, tmp_path: Path) -> None:
    folder = take(small, tmp_path / "backups").folder
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  store/../../../outside\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = subprocess.run(
        [require_program("sha256sum"), sums], check=True, capture_output=True, text=True
    ).stdout[:64]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sums_sha256": digest}))
    with pytest.raises(BackupDamaged, match="is not a digest and path"):
        restore_backup(settings_of(tmp_path / "elsewhere"), folder)


# ---------------------------------------------------------------- what is there already


def test_a_restore_over_a_store_is_refused_and_sets_it_aside_only_when_told(
    small: Settings, tmp_path: Path
) -> None:
    folder = take(small, tmp_path / "backups").folder
    with opened_store(small.storage.root) as store:
        accept(store, 9)
    with pytest.raises(BackupRefused, match="--force-empty"):
        restore_backup(small, folder)
    before = tree(small.storage.root)
    replaced = restore_backup(small, folder, force_empty=True).replaced
    with opened_store(small.storage.root) as store:
        assert len(rows(store)["instances"]) == len(tree(small.storage.root)) == 3
    assert replaced is not None
    assert tree(replaced) == before  # the film that came after the backup is still somewhere
    assert list(small.storage.root.glob(".re*")) == [replaced]


def test_a_restore_that_breaks_off_leaves_no_store_and_the_old_one_aside(
    small: Settings, tmp_path: Path
) -> None:
    folder = take(small, tmp_path / "backups").folder
    before = tree(small.storage.root)

    def power_cut(stage: str, _done: int, _total: int) -> None:
        if stage == "verifying what was written":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_backup(small, folder, force_empty=True, told=power_cut)
    with pytest.raises(ConfigError, match=r"no store\.json"):
        open_storage(small.storage, single_owner=True)
    (aside,) = small.storage.root.glob(".replaced-*")
    assert tree(aside) == before
    restore_backup(small, folder, force_empty=True)
    with opened_store(small.storage.root) as store:
        assert len(rows(store)["instances"]) == 3


def test_a_store_that_a_node_holds_is_not_replaced(small: Settings, tmp_path: Path) -> None:
    folder = take(small, tmp_path / "backups").folder
    with (
        opened_store(small.storage.root),
        pytest.raises(ConfigError, match="in use by another node"),
    ):
        restore_backup(small, folder, force_empty=True)


def test_a_database_that_somebody_uses_is_not_replaced(
    small: Settings, tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    folder = take(small, tmp_path / "backups").folder
    url = new_database_url()
    elsewhere = settings_of(tmp_path / "elsewhere", url)
    with opened_store(tmp_path / "shared", database_url=url) as store:
        accept(store, 1)
        with pytest.raises(BackupRefused, match="stop every node"):
            restore_backup(elsewhere, folder)
    with pytest.raises(BackupRefused, match="the database has rows"):
        restore_backup(elsewhere, folder)
    restore_backup(elsewhere, folder, force_empty=True)
    with opened_store(elsewhere.storage.root, database_url=url) as store:
        assert len(rows(store)["instances"]) == 3


def test_model_versions_are_added_and_never_exchanged(small: Settings, tmp_path: Path) -> None:
    publish(small.serving.model_base_path, "withdrawn/2")
    publish(small.serving.model_base_path, ".staging-3")
    taken = take(small, tmp_path / "backups")
    assert taken.manifest.models == ("1", "withdrawn/2")
    base = tmp_path / "other" / "covid19"
    publish(base, "1")
    added = restore_backup(settings_of(tmp_path / "a", base=base), taken.folder)
    assert added.models == ("withdrawn/2",)
    assert sorted(path.name for path in base.iterdir()) == ["1", "withdrawn"]
    (base / "1" / "variables" / "variables.data").write_text("another network")
    other = settings_of(tmp_path / "b", base=base)
    with pytest.raises(BackupRefused, match="--no-models"):
        restore_backup(other, taken.folder)
    assert restore_backup(other, taken.folder, models=False).models == ()
    assert take(small, tmp_path / "backups", models=False).manifest.models == ()


# ---------------------------------------------------------------- the commands


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture
def config(small: Settings, tmp_path: Path) -> Path:
    """Of the small store."""
    path = tmp_path / "node.toml"
    base = small.serving.model_base_path
    path.write_text(f'[storage]\nroot = "store"\n[serving]\nmodel_base_path = "{base}"\n')
    return path


def test_the_commands_end_with_0_and_say_what_they_did(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, other = tmp_path / "backups", tmp_path / "other.toml"
    other.write_text('[storage]\nroot = "elsewhere"\n[serving]\nmodel_base_path = "m/covid19"\n')
    code, told, _ = command(capsys, "backup", target, "--config", config)
    assert (code, "3 studies, 3 images" in told) == (0, True)
    code, told, _ = command(capsys, "backup", target, "--config", config, "--json", "--verify")
    facts = json.loads(told)
    assert (code, facts["linked_files"], facts["missing"], facts["models"]) == (0, 5, [], ["1"])
    folder = Path(facts["backup"])
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "node.toml").read_text() == config.read_text()
    code, told, _ = command(capsys, "restore", target, "--config", other, "--check")
    assert (code, "as they were written" in told) == (0, True)
    assert not (tmp_path / "elsewhere").exists()
    code, told, _ = command(capsys, "restore", target, "--config", other, "--json")
    facts = json.loads(told)
    assert (code, facts["backup"], facts["jobs"]["queued"]) == (0, str(folder), 6)
    assert (tmp_path / "m" / "covid19" / "1").is_dir()
    code, _, told = command(capsys, "restore", target, "--config", other)
    assert (code, "--force-empty" in told) == (1, True)


def test_a_damaged_store_ends_with_1_though_it_is_backed_up(
    config: Path, small: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next((small.storage.root / "instances").rglob("*.dcm")).unlink()
    code, told, errors = command(capsys, "backup", tmp_path / "b", "--config", config, "--json")
    assert (code, len(json.loads(told)["missing"])) == (1, 1)
    assert "the store no longer has 1 files" in errors
    assert command(capsys, "restore", tmp_path / "b", "--config", config, "--check")[0] == 0
