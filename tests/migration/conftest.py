"""Databases to upgrade: none yet, and one as existing installations have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mariadb import MariaDb, mariadb_database, mariadb_server, mariadb_url

__all__ = ["mariadb_database", "mariadb_server", "mariadb_url"]

LEGACY = Path(__file__).parent / "legacy_mariadb.sql"


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Nothing is there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/oma.db"
    return str(request.getfixturevalue("mariadb_url"))


@pytest.fixture
def legacy_url(mariadb_server: MariaDb, mariadb_database: str, mariadb_url: str) -> str:
    mariadb_server.run_script(LEGACY, mariadb_database)
    return mariadb_url
