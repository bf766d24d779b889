"""Transactions: shared commits, isolation of failures, errors in our own words."""

from __future__ import annotations

import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, event, insert, select, text

from dicomnode.config import StorageSettings
from dicomnode.errors import ConfigError, StorageFull, StorageUnavailable
from dicomnode.storage import Storage, database, open_storage
from dicomnode.storage.database import (
    SQLITE_NAME,
    Database,
    IntegrityRefused,
    open_database,
)
from dicomnode.storage.prepared import Prepared
from dicomnode.storage.schema import meta
from dicomnode.testing.stores import opened_store


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Any:
    with opened_store(tmp_path) as opened:
        yield opened


def put(name: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(insert(meta).values(name=name, value="x"))
        return name

    return work


def names(store: Storage) -> set[str]:
    rows = store.database.read(lambda c: c.execute(select(meta.c.name)).scalars().all())
    return set(rows) - {"store_id", "starts"}


class Crowd:
    """Writers that all wait while the first one holds the turn."""

    def __init__(self, target: Database) -> None:
        self._database = target
        self._inside, self._go = threading.Event(), threading.Event()
        self.results: dict[str, object] = {}
        self._threads: list[threading.Thread] = []

    def send(self, works: dict[str, Callable[[Connection], Any]]) -> None:
        """Queue all of `works` behind one writer, then let them go together."""

        def hold(connection: Connection) -> None:
            self._inside.set()
            assert self._go.wait(20)

        group = self._database._group
        assert group is not None
        self._start("first", hold)
        assert self._inside.wait(20)
        for number, (name, work) in enumerate(works.items(), start=1):
            self._start(name, work)
            while len(group._waiting) < number:
                assert self._threads[-1].is_alive()
        self._go.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _start(self, name: str, work: Callable[[Connection], Any]) -> None:
        def run() -> None:
            try:
                self.results[name] = self._database.write(work)
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.results[name] = error

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()


def commits(target: Database) -> list[int]:
    seen: list[int] = []
    event.listen(target.engine, "commit", lambda _connection: seen.append(1))
    return seen


def test_writers_that_wait_share_one_commit(sqlite_store: Storage) -> None:
    seen = commits(sqlite_store.database)
    crowd = Crowd(sqlite_store.database)
    crowd.send({f"n{n}": put(f"n{n}") for n in range(10)})
    assert len(seen) == 2  # the first writer's, and everybody's
    assert names(sqlite_store) == {f"n{n}" for n in range(10)}
    assert all(crowd.results[f"n{n}"] == f"n{n}" for n in range(10))


def test_one_failing_writer_spoils_nothing_for_the_others(sqlite_store: Storage) -> None:
    def fail(connection: Connection) -> None:
        put("half done")(connection)
        raise LookupError("mine alone")

    crowd = Crowd(sqlite_store.database)
    crowd.send({"a": put("a"), "bad": fail, "twice": put("a"), "b": put("b")})
    assert names(sqlite_store) == {"a", "b"}
    assert (crowd.results["a"], crowd.results["b"]) == ("a", "b")
    assert isinstance(crowd.results["bad"], LookupError)
    assert isinstance(crowd.results["twice"], IntegrityRefused)


def test_a_commit_that_fails_is_tried_again_for_each(
    sqlite_store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([False, True])  # the first writer's commit succeeds, the shared one does not
    real = sqlite_store.database.engine.dialect.do_commit

    def do_commit(connection: Any) -> None:
        if next(failures, False):
            raise sqlite3.OperationalError("disk I/O error")
        real(connection)

    monkeypatch.setattr(sqlite_store.database.engine.dialect, "do_commit", do_commit)
    crowd = Crowd(sqlite_store.database)
    crowd.send({"a": put("a"), "b": put("b")})
    assert names(sqlite_store) == {"a", "b"}
    assert (crowd.results["a"], crowd.results["b"]) == ("a", "b")


def test_an_interrupted_leader_leaves_nobody_waiting(sqlite_store: Storage) -> None:
    def interrupted(connection: Connection) -> None:
        raise KeyboardInterrupt

    crowd = Crowd(sqlite_store.database)
    caught = []

    def lead() -> None:
        try:
            sqlite_store.database.write(interrupted)
        except KeyboardInterrupt:
            caught.append("interrupted")

    thread = threading.Thread(target=lead)
    thread.start()
    thread.join(20)
    assert caught == ["interrupted"]
    crowd.send({"a": put("a")})
    assert crowd.results["a"] == "a"


def test_writers_use_one_connection_until_there_is_an_error(sqlite_store: Storage) -> None:
    fetched: list[int] = []
    event.listen(sqlite_store.database.engine, "checkout", lambda *_: fetched.append(1))
    sqlite_store.database.close()
    sqlite_store.database.write(put("a"))
    sqlite_store.database.write(put("b"))
    assert len(fetched) == 1
    with pytest.raises(IntegrityRefused):
        sqlite_store.database.write(put("a"))
    sqlite_store.database.write(put("c"))
    assert len(fetched) == 2
    assert names(sqlite_store) == {"a", "b", "c"}


def test_a_full_disk_is_told_from_other_trouble(sqlite_store: Storage) -> None:
    def fill(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        try:
            connection.execute(insert(meta).values(name="big", value="x" * 100_000))
        finally:
            connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")

    with pytest.raises(StorageFull, match="disk is full"):
        sqlite_store.database.write(fill)
    sqlite_store.database.write(put("afterwards"))
    assert names(sqlite_store) == {"afterwards"}


def test_a_locked_database_is_an_outage(
    sqlite_store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_store.database.close()
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 1)
    other = sqlite3.connect(sqlite_store.files.root / SQLITE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable, match="SQLITE_BUSY"):
        sqlite_store.database.write(put("a"))
    other.close()
    sqlite_store.database.write(put("a"))


def test_sqlite_is_durable_and_checks_references(sqlite_store: Storage) -> None:
    def pragmas(connection: Connection) -> list[Any]:
        asked = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]

    assert sqlite_store.database.read(pragmas) == ["wal", 2, 1]


def test_postgresql_is_durable_whatever_the_server_says(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    with opened_store(tmp_path, database_url=new_database_url()) as store:
        show = store.database.read(lambda c: c.execute(text("SHOW synchronous_commit")).scalar())
        assert show == "on"


def test_no_value_reaches_an_error_message(storage: Storage) -> None:
    bad: list[dict[str, Any]] = [
        {"name": "n", "value": "Doe^Jane"},
        {"name": None, "value": "Doe^John"},
    ]
    with pytest.raises(IntegrityRefused, match="INSERT INTO meta") as caught:
        storage.database.write(lambda c: c.execute(insert(meta), bad))
    assert "Doe" not in "".join(traceback.format_exception(caught.value))


def test_prepared_statements_fail_as_others_do(storage: Storage) -> None:
    statement = Prepared(insert(meta), storage.database.engine.dialect, ("name", "value"))

    def work(connection: Connection) -> None:
        assert statement.run(connection, {"name": "n", "value": "x"}) is None
        statement.run(connection, {"name": "n", "value": "Doe^Jane"})

    with pytest.raises(IntegrityRefused, match="INSERT INTO meta") as caught:
        storage.database.write(work)
    assert "Doe" not in "".join(traceback.format_exception(caught.value))
    assert "n" not in names(storage)


def test_a_server_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"
    settings = StorageSettings(root=tmp_path, database_url=SecretStr(url))
    with pytest.raises(StorageUnavailable) as caught:
        open_storage(settings, single_owner=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://a/b", r"must begin with postgresql\+psycopg://, got mysql://"),
        ("no url", "is not a URL"),
    ],
)
def test_an_unusable_database_url_names_the_setting(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"storage\.database_url.*{message}"):
        open_database(tmp_path, url)


def test_a_missing_driver_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"dicomnode\[postgres\]"):
        open_database(tmp_path, "postgresql://a/b")
