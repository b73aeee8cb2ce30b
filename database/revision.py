"""Which version of the schema this program is written for, without loading Alembic."""

from __future__ import annotations

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

HEAD = "0005"
"""The newest revision in `migrations/versions`."""

VERSION_TABLE = "oma_alembic_version"
"""A name of our own: an installation that uses Alembic itself keeps its `alembic_version` untouched."""


def read_revision(connection: Connection) -> str | None:
    """None where the schema was never created by this program."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return None if revision is None else str(revision)


def describe_revision_fault(revision: str | None) -> str | None:
    """A sentence that says what to do; None where the revision is the one that this program needs."""
    if revision == HEAD:
        return None
    if revision is None:
        return f"The database has no schema of this program yet (it needs {HEAD}); run `oma db upgrade`."
    if revision > HEAD:
        return (
            f"The database's schema is at {revision}, which this program does not know (it knows {HEAD} and older): "
            "a newer version has upgraded it; install that version, or restore the backup made before the upgrade."
        )
    return f"The database's schema is at {revision}, this program needs {HEAD}; run `oma db upgrade`."
