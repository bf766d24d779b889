"""Starting again: who owns a store, what a crash left, what must never be removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode.errors import ConfigError
from dicomnode.jobs import JobKind, JobState
from dicomnode.storage import Storage, open_single_owner, open_storage
from dicomnode.storage.database import SQLITE_NAME
from dicomnode.storage.sweep import SHARED_GRACE_SECONDS, sweep
from dicomnode.testing.stores import opened_store, received_instance, store_settings

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def accept(store: Storage, number: int) -> Path:
    received = received_instance(
        store.files.incoming, sop=f"1.5.{number}", content=str(number).encode()
    )
    path = store.files.keep(received)
    store.index.accept(received, path=path, now=NOW, report_due_at=NOW)
    return store.files.absolute(path)


def leave_orphan(store: Storage, number: int, *, series: str = "1.2.3.10") -> Path:
    """As a node leaves it that dies between the rename and the commit."""
    received = received_instance(
        store.files.incoming, sop=f"1.6.{number}", series=series, content=str(number).encode()
    )
    return store.files.absolute(store.files.keep(received))


def crash(store: Storage) -> None:
    """Let go of everything without the note that `close` leaves."""
    store.database.close()
    if store.lock is not None:
        store.lock.release()


def open_node(root: Path, url: str = "") -> Storage:
    return open_storage(store_settings(root, database_url=url), single_owner=True)


# ---------------------------------------------------------------- owning


def test_a_second_node_on_a_sqlite_store_is_refused(tmp_path: Path) -> None:
    with (
        opened_store(tmp_path),
        pytest.raises(ConfigError, match=r"in use by another node.*PostgreSQL"),
        opened_store(tmp_path),
    ):
        pass
    with opened_store(tmp_path):
        pass


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from dicomnode.storage import open_single_owner\n"
        "lock = open_single_owner(pathlib.Path(sys.argv[1])); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ConfigError):
            open_single_owner(tmp_path)
    finally:
        child.kill()
        child.communicate(timeout=20)
    open_single_owner(tmp_path).release()


def test_a_guest_neither_locks_nor_recovers(tmp_path: Path) -> None:
    with opened_store(tmp_path):
        guest = open_storage(store_settings(tmp_path))
        with pytest.raises(RuntimeError, match="only a node recovers"):
            guest.recover(now=NOW)
        guest.close()
    assert json.loads((tmp_path / "store.json").read_text())["clean"]


def test_a_guest_may_be_the_first(tmp_path: Path) -> None:
    guest = open_storage(store_settings(tmp_path))
    assert guest.index.studies() == []
    guest.close()
    with opened_store(tmp_path) as store:
        assert store.recover(now=NOW)["orphans_removed"] == 0


# ---------------------------------------------------------------- the right database


def test_a_lost_database_does_not_make_every_image_an_orphan(tmp_path: Path) -> None:
    with opened_store(tmp_path) as store:
        place = accept(store, 1)
    for name in (SQLITE_NAME, f"{SQLITE_NAME}-wal", f"{SQLITE_NAME}-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="belongs to another database"):
        open_node(tmp_path)
    (tmp_path / "store.json").unlink()
    with pytest.raises(ConfigError, match="holds instances, and the database is new"):
        open_node(tmp_path)
    assert place.exists()


def test_another_stores_database_is_refused(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    one, other = new_database_url(), new_database_url()
    with opened_store(tmp_path / "one", database_url=one) as store:
        place = accept(store, 1)
    with opened_store(tmp_path / "other", database_url=other):
        pass
    with pytest.raises(ConfigError, match="Restore the database that belongs to it"):
        open_node(tmp_path / "one", other)
    assert place.exists()


def test_a_database_restored_from_a_backup_removes_nothing(tmp_path: Path) -> None:
    with opened_store(tmp_path) as store:
        accept(store, 1)
    shutil.copy(tmp_path / SQLITE_NAME, tmp_path / "backup")
    store = open_node(tmp_path)
    store.recover(now=NOW)
    newest = accept(store, 2)
    crash(store)
    for name in (SQLITE_NAME, f"{SQLITE_NAME}-wal", f"{SQLITE_NAME}-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup", tmp_path / SQLITE_NAME)
    with opened_store(tmp_path) as restored:
        assert restored.index.lookup("1.5.2") is None
        assert restored.recover(now=NOW)["orphans_removed"] == 0
    assert newest.exists()


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    with opened_store(tmp_path):
        pass
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"store\.json is damaged"):
        open_node(tmp_path)


# ---------------------------------------------------------------- sweeping


def test_after_a_crash_orphans_go_and_what_was_acknowledged_stays(tmp_path: Path) -> None:
    store = open_node(tmp_path)
    store.recover(now=NOW)
    places = [accept(store, number) for number in range(3)]
    orphans = [leave_orphan(store, 1), leave_orphan(store, 2, series="1.7")]
    aside = store.files.absolute(
        store.files.set_aside(str(leave_orphan(store, 3).relative_to(tmp_path)))
    )
    half = received_instance(store.files.incoming).path
    store.queue.claim(JobKind.ANALYSE, owner="w", now=NOW, lease_seconds=3600)
    crash(store)
    with opened_store(tmp_path) as store:
        assert store.recover(now=NOW) == {
            "incoming_removed": 1,
            "orphans_removed": 3,
            "folders_swept": 3,
            "leases_released": 1,
        }
        assert all(place.exists() for place in places)
        assert not any(path.exists() for path in (*orphans, aside, half))
        assert JobState.RUNNING not in store.queue.counts()


def test_a_noted_conflict_is_no_orphan(tmp_path: Path) -> None:
    store = open_node(tmp_path)
    accept(store, 1)
    received = received_instance(store.files.incoming, sop="1.5.1", content=b"other")
    aside = store.files.set_aside(store.files.keep(received))
    store.index.record_conflict(received, path=aside)
    crash(store)
    with opened_store(tmp_path) as store:
        assert store.recover(now=NOW)["orphans_removed"] == 0
        assert store.files.absolute(aside).exists()


def test_after_an_orderly_stop_no_folder_is_looked_at(tmp_path: Path) -> None:
    with opened_store(tmp_path) as store:
        store.recover(now=NOW)
        accept(store, 1)
    with opened_store(tmp_path) as store:
        assert store.recover(now=NOW)["folders_swept"] == 0


def test_only_folders_that_changed_since_the_last_sweep_are_looked_into(tmp_path: Path) -> None:
    with opened_store(tmp_path) as store:
        leave_orphan(store, 1, series="1.7")
        place = leave_orphan(store, 2, series="1.8")
        os.utime(tmp_path / "instances/1.2.3.100/1.7", (1000, 1000))
        swept = sweep(tmp_path, store.index.named_paths, since=time.time() - 100)
        assert (swept.folders, swept.orphans) == (1, 1)
        assert not place.exists()
        assert sweep(tmp_path, store.index.named_paths, since=0.0).orphans == 1


def test_a_sweep_that_is_interrupted_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_node(tmp_path)
    store.recover(now=NOW)
    orphan = leave_orphan(store, 1)
    crash(store)
    store = open_node(tmp_path)

    def interrupted(_paths: object) -> set[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.index, "named_paths", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.recover(now=NOW)
    crash(store)
    with opened_store(tmp_path) as store:
        store.recover(now=NOW)
    assert not orphan.exists()


def test_a_node_that_shares_its_root_leaves_young_files_to_the_others(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    url = new_database_url()
    with opened_store(tmp_path, database_url=url) as one:
        arriving = received_instance(one.files.incoming).path
        kept = leave_orphan(one, 1)
        old = leave_orphan(one, 2)
        hours_ago = time.time() - SHARED_GRACE_SECONDS - 60
        os.utime(old, (hours_ago, hours_ago))
        half_an_hour_ago = time.time() - SHARED_GRACE_SECONDS / 2
        accept(one, 1)
        os.utime(kept.parent, (half_an_hour_ago, half_an_hour_ago))
        one.queue.claim(JobKind.ANALYSE, owner="one", now=NOW, lease_seconds=60)
        with opened_store(tmp_path, database_url=url) as other:
            found = other.recover(now=NOW)
            assert (found["orphans_removed"], found["leases_released"]) == (1, 0)
            assert (arriving.exists(), kept.exists(), old.exists()) == (True, True, False)
            assert other.queue.counts()[JobState.RUNNING] == 1
            os.utime(kept, (hours_ago, hours_ago))
            os.utime(kept.parent, (half_an_hour_ago, half_an_hour_ago))
            swept_at = json.loads((tmp_path / "store.json").read_text())["swept_at"]
            again = sweep(tmp_path, other.index.named_paths, since=swept_at, grace_seconds=3600)
            assert (again.orphans, kept.exists()) == (1, False)


def test_starts_are_counted_in_both_places(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        with opened_store(tmp_path) as store:
            assert json.loads((tmp_path / "store.json").read_text())["starts"] == expected
            assert store.start is not None
            assert not store.start.database_is_older
