"""Databases for the cases: emptied for each of them, opened anew by each life."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

from sqlalchemy.engine import URL

from database import schema
from database.engine import Engines, build_engines, parse_url
from database.tables import metadata
from tests.mariadb import MariaDb


class Database(Protocol):
    @property
    def url(self) -> str: ...

    def empty(self) -> None:
        """Nothing is in its tables afterwards."""


@dataclass(frozen=True)
class SqliteFile:
    path: Path
    template: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def empty(self) -> None:
        for rest in (f"{self.path}-wal", f"{self.path}-shm"):
            Path(rest).unlink(missing_ok=True)
        shutil.copyfile(self.template, self.path)


@dataclass(frozen=True)
class MariaSchema:
    server: MariaDb
    name: str

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def empty(self) -> None:
        with self.server.admin(self.name) as connection, connection.cursor() as cursor:
            cursor.execute("SET foreign_key_checks = 0")
            connection.begin()
            for table in metadata.tables:
                cursor.execute(f"DELETE FROM {table}")
            connection.commit()


def make_sqlite_files(directory: Path, count: int) -> Sequence[SqliteFile]:
    template = directory / "empty.db"
    schema.upgrade(f"sqlite:///{template}")
    return [SqliteFile(directory / f"oma-{number}.db", template) for number in range(count)]


@contextmanager
def made_mariadb_schemas(server: MariaDb, count: int) -> Iterator[Sequence[MariaSchema]]:
    names = [server.create_database() for _ in range(count)]
    try:
        for name in names:
            schema.upgrade(server.url(name))
        yield [MariaSchema(server, name) for name in names]
    finally:
        for name in names:
            server.drop_database(name)


@contextmanager
def kept_engines() -> Iterator[None]:
    """Within the block an engine outlives its door, with its compiled statements and without its connections.

    Every life opens and closes the database as ever; what is spared is what SQLAlchemy computes once per process.
    """

    @functools.cache
    def build_once(url: str, readers: int) -> Engines:
        return build_engines(parse_url(url), readers)

    def build_kept(url: URL, readers: int) -> Engines:
        return build_once(url.render_as_string(hide_password=False), readers)

    with patch("database.door.build_engines", build_kept):
        yield
