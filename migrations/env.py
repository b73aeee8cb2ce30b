"""Run by Alembic for `database.schema.upgrade`, which gives the connection, holds the lock and ends the transaction."""

from __future__ import annotations

from alembic import context

from database.revision import VERSION_TABLE
from database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
