"""Databases for the cases, and the census of the stories, which is taken once per test run."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
from collections.abc import Iterator, Sequence

import pytest
import structlog

from tests.crash.databases import MariaSchema, SqliteFile, kept_engines, made_mariadb_schemas, make_sqlite_files
from tests.crash.matrix import Census, take_census
from tests.crash.stories import STORIES
from tests.mariadb import MariaDb, mariadb_server

__all__ = ["mariadb_server"]

AT_ONCE = 4
"""Cases beside each other in one process: each mostly waits, for the world or for the disk."""


@pytest.fixture(scope="session")
def sqlite_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[SqliteFile]:
    return make_sqlite_files(tmp_path_factory.mktemp("crash"), AT_ONCE)


@pytest.fixture(scope="session")
def mariadb_schemas(mariadb_server: MariaDb) -> Iterator[Sequence[MariaSchema]]:
    with made_mariadb_schemas(mariadb_server, AT_ONCE) as schemas:
        yield schemas


@pytest.fixture(autouse=True)
def _engines() -> Iterator[None]:
    with kept_engines():
        yield


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """A thousand runs say a hundred thousand lines."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def census(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sqlite_files: Sequence[SqliteFile]
) -> list[Census]:
    """Taken by whichever worker wants it first."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if hasattr(request.config, "workerinput") else base) / "census.json"
    with path.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with kept_engines():
                taken = asyncio.run(take_census(STORIES.values(), sqlite_files))
            path.write_text(json.dumps({one.story.name: one.reached for one in taken}), encoding="utf-8")
    known = json.loads(path.read_text(encoding="utf-8"))
    return [Census(story, known[story.name]) for story in STORIES.values()]
