"""The schema: equal to the sum of its migrations, upgraded once, never downgraded."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text, update

from dicomnode.errors import ConfigError
from dicomnode.storage import open_storage, upgrade
from dicomnode.storage.database import Database, open_database
from dicomnode.storage.schema import REVISIONS, metadata, version
from dicomnode.testing.stores import opened_store, store_settings


@pytest.fixture
def empty(tmp_path: Path, database_url: str) -> Any:
    opened = open_database(tmp_path, database_url)
    yield opened
    opened.close()


def _definitions(target: Database) -> dict[str, str]:
    """Every table and index as the database itself describes it."""
    if target.dialect == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    else:
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL "
            "SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) "
            "FROM pg_constraint WHERE connamespace = 'public'::regnamespace UNION ALL "
            "SELECT table_name || '.' || column_name, data_type || is_nullable || "
            "coalesce(character_maximum_length::text, '') FROM information_schema.columns "
            "WHERE table_schema = 'public'"
        )
    rows = target.read(lambda connection: connection.execute(text(query)).all())
    return {
        name: " ".join(sql.replace(", ", ",").split())
        for name, sql in rows
        if "alembic" not in name
    }


def test_the_tables_are_the_sum_of_the_migrations(empty: Database) -> None:
    upgrade.upgrade(empty)

    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(
            MigrationContext.configure(connection, opts={"compare_server_default": True}), metadata
        )

    assert empty.read(differences) == []
    migrated = _definitions(empty)
    empty.write(lambda c: (metadata.drop_all(c), metadata.create_all(c)))
    created = _definitions(empty)
    assert created.keys() == migrated.keys()
    for name, sql in created.items():
        # the order of constraints inside a statement means nothing
        assert sorted(sql.split(",")) == sorted(migrated[name].split(",")), name


def test_the_known_revisions_are_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == REVISIONS


def test_a_newer_schema_is_refused_with_the_way_out(tmp_path: Path, database_url: str) -> None:
    with opened_store(tmp_path, database_url=database_url) as store:
        store.database.write(lambda c: c.execute(update(version).values(version_num="9999")))
    with pytest.raises(ConfigError, match=r"'9999'.*a newer dicomnode made it"):
        open_storage(store_settings(tmp_path, database_url=database_url), single_owner=True)


def test_an_interrupted_migration_leaves_nothing_behind(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(connection: Connection) -> None:
        upgrade._upgrade(connection)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        empty.write(interrupted)
    assert not upgrade.is_current(empty)
    upgrade.upgrade(empty)
    assert upgrade.is_current(empty)


def test_nodes_that_start_at_once_migrate_once(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    url = new_database_url()
    start = threading.Barrier(4)
    failures: list[Exception] = []

    def run() -> None:
        start.wait(20)
        try:
            with opened_store(tmp_path, database_url=url):
                pass
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with opened_store(tmp_path, database_url=url) as store:
        assert store.start is not None
        assert store.start.identity.starts >= 1
        assert upgrade.is_current(store.database)


def test_a_current_store_opens_without_alembic_and_orm(tmp_path: Path) -> None:
    """They would cost a small board memory for nothing."""
    with opened_store(tmp_path):
        pass
    script = (
        "import sys, pathlib; from dicomnode.testing.stores import opened_store\n"
        "with opened_store(pathlib.Path(sys.argv[1])): pass\n"
        "print([name for name in ('alembic', 'sqlalchemy.orm', 'psycopg') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
