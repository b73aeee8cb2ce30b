"""Doors to test: over SQLite in a file, in memory, and over a real MariaDB."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from database.door import Door
from tests.mariadb import mariadb_database, mariadb_server, mariadb_url
from tests.unit.database.rows import create_rows

__all__ = ["mariadb_database", "mariadb_server", "mariadb_url"]


@pytest.fixture(params=["file", "memory", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "file":
            return f"sqlite:///{tmp_path}/oma.db"
        case "memory":
            return "sqlite://"
        case _:
            return str(request.getfixturevalue("mariadb_url"))


@pytest.fixture
async def door(url: str) -> AsyncIterator[Door]:
    """Over an empty table `rows`."""
    door = await Door.open(url)
    await door.write(create_rows)
    yield door
    await door.close()


@pytest.fixture
def commits(door: Door) -> list[str]:
    """One entry per COMMIT that the writer sends from now on."""
    seen: list[str] = []
    event.listen(door._engines.writer, "commit", lambda _connection: seen.append("commit"))
    return seen
