"""Run by alembic. The connection, inside its transaction, comes from `storage.upgrade`."""

from __future__ import annotations

from alembic import context

from dicomnode.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters tables by copying them
)
context.run_migrations()
