"""The schema of a database: `upgrade`, `current` and `check`. Synchronous; daemons call them in a thread.

Alembic is used as a library, over the installed `migrations` package, with a version table of our own. An existing
MigrateKit database is adopted: what is there stays as it is, what is missing is created beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import inspect, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

import migrations
from database.creation import create_missing_tables
from database.durability import read_durability
from database.engine import Engines, build_engines, describe_place, is_in_memory, parse_url
from database.errors import DatabaseUnavailable, SchemaOutdated
from database.faults import judge_fault, to_error
from database.revision import HEAD, describe_revision_fault, read_revision
from database.shape import Shape, compare_tables, find_stranger, find_wrong_own_tables

NO_SCHEMA = "none"
UPGRADE_WAIT_S = 50
"""How long an upgrade waits for another that is running; below the time after which a silent server is given up."""

# Alembic keeps the running environment in a module; two upgrades in one process would mix theirs up.
_ALEMBIC = threading.Lock()


def upgrade(url: str) -> str:
    """Creates what is missing and says so in a sentence; a second run does nothing.

    Upgrades that run at the same time, in any process, follow one another. Raises `SchemaOutdated` before anything is
    changed where the database is newer, another program's, or holds other tables under our names, and
    `DatabaseUnavailable`.
    """
    parsed = parse_url(url)
    if _file_exists(parsed) is not False:
        # Before the first connection that writes: even WAL would change another program's file.
        with _connected(parsed, writing=False) as (_, connection):
            _require_ours(connection)
    with _connected(parsed, writing=True) as (engines, connection), _alone(engines, connection):
        _require_ours(connection)
        before = read_revision(connection)
        created = [*_migrate(connection), *create_missing_tables(connection)]
        shape = compare_tables(connection)
        if connection.in_transaction():
            connection.commit()
    return _describe_upgrade(before, created, shape)


def current(url: str) -> str:
    """The revision of the schema, or "none"."""
    parsed = parse_url(url)
    if _file_exists(parsed) is False:
        return NO_SCHEMA
    with _connected(parsed, writing=False) as (_, connection):
        return read_revision(connection) or NO_SCHEMA


def check(url: str, *, accept_weak_durability: bool = False) -> list[str]:
    """What keeps the program from working on this database, in sentences; empty where nothing does.

    Raises `DatabaseUnavailable` where the database can't be asked.
    """
    parsed = parse_url(url)
    if _file_exists(parsed) is False:
        return [f"There is no database at {describe_place(parsed)} yet; run `oma db upgrade`."]
    with _connected(parsed, writing=False) as (engines, connection):
        stranger = find_stranger(connection)
        if stranger is not None:
            return [stranger]
        fault = describe_revision_fault(read_revision(connection))
        sentences = [] if fault is None else [fault]
        # Without a schema every table would be missing: one sentence says it.
        if read_revision(connection) is not None:
            sentences += compare_tables(connection).faults
        if not engines.is_sqlite and not accept_weak_durability:
            weakness = read_durability(engines, connection).weakness
            sentences += [] if weakness is None else [f"{weakness}."]
    return sentences


def is_fresh_sqlite(url: str) -> bool:
    """Whether it is a SQLite file that is not there yet, or holds no table: whoever opened it first left it at that.

    False for what can't be read: why, tells whoever uses it.
    """
    parsed = parse_url(url)
    exists = _file_exists(parsed)
    if not exists:
        return exists is False
    try:
        with _connected(parsed, writing=False) as (_, connection):
            return not inspect(connection).get_table_names()
    except DatabaseUnavailable:
        return False


def notes(url: str) -> list[str]:
    """Differences of the tables that the program lives with: extra columns, absent ones that it can do without."""
    parsed = parse_url(url)
    if _file_exists(parsed) is False:
        return []
    with _connected(parsed, writing=False) as (_, connection):
        return list(compare_tables(connection).notes)


def _require_ours(connection: Connection) -> None:
    stranger = find_stranger(connection)
    if stranger is not None:
        raise SchemaOutdated(stranger)
    revision = read_revision(connection)
    if revision is not None and revision > HEAD:
        raise SchemaOutdated(describe_revision_fault(revision) or "")
    wrong = find_wrong_own_tables(connection)
    if wrong:
        raise SchemaOutdated(" ".join(wrong))


def _migrate(connection: Connection) -> Sequence[str]:
    """Runs the revisions that are due on this connection; names of the tables that they created."""
    # Alembic is loaded only where something is upgraded: `check` is part of every start.
    from alembic import command  # noqa: PLC0415 - slow to import, and every start only checks
    from alembic.config import Config  # noqa: PLC0415 - likewise

    created: list[str] = []
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["created"] = created
    with _ALEMBIC:
        command.upgrade(config, HEAD)
    return created


def _describe_upgrade(before: str | None, created: Sequence[str], shape: Shape) -> str:
    if before == HEAD and not created:
        done = f"Nothing to do: the schema is at {HEAD}."
    else:
        names = f" ({', '.join(created)})" if created else ""
        done = f"The schema is at {HEAD}: {len(created)} table(s) created{names}."
    return " ".join([done, *shape.faults])


def _file_exists(url: URL) -> bool | None:
    """None where the database is no file."""
    if url.get_backend_name() != "sqlite" or is_in_memory(url):
        return None
    return Path(url.database or "").exists()


@contextmanager
def _connected(url: URL, *, writing: bool) -> Iterator[tuple[Engines, Connection]]:
    engines = build_engines(url, readers=1)
    try:
        with (engines.writer if writing else engines.reader).connect() as connection:
            yield engines, connection
    except DBAPIError as error:
        told = to_error(judge_fault(error), error)
        raise (told.at(describe_place(url)) if isinstance(told, DatabaseUnavailable) else told) from error
    finally:
        engines.dispose()


@contextmanager
def _alone(engines: Engines, connection: Connection) -> Iterator[None]:
    """Nobody else upgrades meanwhile. On SQLite the upgrade is one transaction; on MariaDB each table commits."""
    if engines.is_sqlite:
        with connection.begin():
            yield
        return
    lock = f"oma-schema-{engines.url.database}"
    got = connection.execute(
        text("SELECT GET_LOCK(:lock, :seconds)"), {"lock": lock, "seconds": UPGRADE_WAIT_S}
    ).scalar()
    if got != 1:
        raise DatabaseUnavailable(f"{engines.place}: another upgrade is running; wait for it, then try again")
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:lock)"), {"lock": lock})
        connection.rollback()
