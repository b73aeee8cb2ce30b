"""The same suite over both servers: SQLite in a file, and a real MariaDB."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Table, event

from database import schema
from database.door import Door
from database.tables import metadata
from oma.domain.events import Event
from oma.store import SqlInventory, SqlJobReader, SqlJournalStore
from tests.contract.store.world import rows_of, seed_vm
from tests.mariadb import MariaDb, mariadb_database, mariadb_server, mariadb_url

__all__ = ["mariadb_database", "mariadb_server", "mariadb_url"]


@dataclass
class Store:
    """One daemon's view of the database, with the means to look and to interfere from outside."""

    door: Door
    inventory: SqlInventory
    journal: SqlJournalStore
    reader: SqlJobReader
    announced: list[Event] = field(default_factory=list)

    async def rows(self, table: Table, **where: Any) -> list[dict[str, Any]]:
        """What stands in a table, without the store's own reading of it."""
        return await self.door.read(lambda connection: rows_of(connection, table, **where))

    async def seed(self, *names: str, **more: Any) -> None:
        """Broken VMs of these names."""

        def write(connection: Connection) -> None:
            for name in names:
                seed_vm(connection, name, **more)

        await self.door.write(write)

    async def sql(self, statement: str) -> None:
        """What another program does to the same database."""
        await self.door.write(lambda connection: connection.exec_driver_sql(statement))


async def open_store(url: str, **options: Any) -> Store:
    door = await Door.open(url, **options)
    announced: list[Event] = []
    journal = SqlJournalStore(door, announced.extend)
    return Store(door, SqlInventory(door), journal, SqlJobReader(door), announced)


@pytest.fixture(scope="session")
def sqlite_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with all tables, to be copied."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def mariadb_schema(mariadb_server: MariaDb) -> Iterator[str]:
    """The name of a database with all tables; making them anew takes longer than most of the tests."""
    name = mariadb_server.create_database()
    schema.upgrade(mariadb_server.url(name))
    yield name
    mariadb_server.drop_database(name)


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database with all tables."""
    return str(request.getfixturevalue(f"{request.param}_empty"))


@pytest.fixture
def sqlite_empty(sqlite_schema: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_schema, tmp_path / "oma.db")
    return f"sqlite:///{tmp_path}/oma.db"


@pytest.fixture
def mariadb_empty(mariadb_server: MariaDb, mariadb_schema: str) -> str:
    with mariadb_server.admin(mariadb_schema) as connection, connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        connection.begin()
        for table in metadata.tables:
            cursor.execute(f"DELETE FROM {table}")
        connection.commit()
    return mariadb_server.url(mariadb_schema)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    yield store
    await store.door.close()


@pytest.fixture
async def other(url: str, store: Store) -> AsyncIterator[Store]:
    """A second daemon on the same database."""
    other = await open_store(url)
    yield other
    await other.door.close()


@contextmanager
def sent_statements() -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent within the block, with their parameters."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)
