"""The world of the Volume Daemon's own tests, on SQLite, or on MariaDB where a test says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.volume_daemon.conftest import _logs, world
from tests.mariadb import MariaDb, mariadb_database

__all__ = ["_logs", "mariadb_database", "world"]


@pytest.fixture
def _on_mariadb() -> None:
    """Its name alone tells `database_url`."""


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if "_on_mariadb" not in request.fixturenames:
        return f"sqlite:///{tmp_path / 'oma.db'}"
    server: MariaDb = request.getfixturevalue("mariadb_server")
    return server.url(request.getfixturevalue("mariadb_database"))
