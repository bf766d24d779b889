"""Rows from one database into another of the same schema, whatever kinds they are of."""

from __future__ import annotations

from sqlalchemy import Connection, Integer, Table, delete, func, insert, inspect, select, text

from dicomnode.storage.database import Database
from dicomnode.storage.schema import metadata

_ROWS = 500


def copy_rows(source: Database, target: Database) -> None:
    """Replace the rows of `target` in one transaction by those of `source`, as one view
    shows them."""
    target.write(lambda writing: source.read(lambda reading: _copy(reading, writing)))


def is_empty(database: Database) -> bool:
    """Whether a database's schema holds no rows, or does not exist yet."""

    def work(connection: Connection) -> bool:
        there = inspect(connection)
        tables = [metadata.tables[name] for name in ("studies", "conflicts", "meta")]
        return all(
            connection.execute(select(table).limit(1)).first() is None
            for table in tables
            if there.has_table(table.name)
        )

    return database.read(work)


def _copy(reading: Connection, writing: Connection) -> None:
    _open_view(reading)
    if writing.dialect.name == "postgresql":
        writing.execute(text("SET LOCAL statement_timeout = 0"))
    for table in reversed(metadata.sorted_tables):
        writing.execute(delete(table))
    for table in metadata.sorted_tables:
        rows = reading.execute(select(table).execution_options(yield_per=_ROWS))
        for some in rows.mappings().partitions(_ROWS):
            writing.execute(insert(table), [dict(row) for row in some])
        if writing.dialect.name == "postgresql":
            _continue_numbers(writing, table)


def _open_view(connection: Connection) -> None:
    """One view for all tables; SQLite's transactions have it anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def _continue_numbers(connection: Connection, table: Table) -> None:
    """The next row's number follows the copied ones."""
    column = table.columns.get("id")
    if column is None or not isinstance(column.type, Integer):
        return
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    highest = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
    connection.execute(select(func.setval(sequence, highest, False)))
