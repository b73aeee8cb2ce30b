"""One program of a kind per database, also where the first one is not heard of any more."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from database.errors import DatabaseUnavailable
from database.hold import Hold, build_hold
from tests.mariadb import MariaDb, mariadb_database, mariadb_server

__all__ = ["mariadb_database", "mariadb_server"]


@pytest.fixture(params=["SQLite", pytest.param("MariaDB", marks=pytest.mark.mariadb)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path / 'oma.db'}"
    server: MariaDb = request.getfixturevalue("mariadb_server")
    return server.url(request.getfixturevalue("mariadb_database"))


def test_only_one_has_it_until_it_is_given_back(url: str):
    first, second, of_another_kind = build_hold(url, "one"), build_hold(url, "one"), build_hold(url, "other")
    assert [first.take(), first.take(), second.take(), of_another_kind.take()] == [1, 1, None, 1]
    assert [first.is_ours(1), second.is_ours(1)] == [True, False]
    first.release()
    first.release()
    assert not first.is_ours(1)
    assert second.take()
    assert not first.take()
    second.release()
    of_another_kind.release()


def test_a_process_that_was_killed_has_it_no_more(url: str):
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        held = build_hold(url, "one")
        os.write(told, b"1" if held.take() else b"0")
        signal.pause()
    assert os.read(ready, 1) == b"1"
    mine = build_hold(url, "one")
    assert not mine.take()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while not mine.take():
        pass  # the server notices the end of the connection in its own time
    mine.release()
    os.close(ready)
    os.close(told)


def test_two_databases_are_two(tmp_path: Path):
    holds = [build_hold(f"sqlite:///{tmp_path / name}", "one") for name in ("a.db", "b.db")]
    assert [hold.take() for hold in holds] == [1, 1]
    for hold in holds:
        hold.release()
    in_memory = [build_hold("sqlite://", "one") for _ in range(2)]
    assert [hold.take() for hold in in_memory] == [1, 1]


@pytest.mark.mariadb
def test_one_whose_session_the_server_ended_is_not_ours_any_more_although_nobody_else_has_it(
    mariadb_server: MariaDb, mariadb_database: str
):
    """Somebody else may have had it in between, and changed what we know."""
    url = mariadb_server.url(mariadb_database)
    first, second = build_hold(url, "one"), build_hold(url, "one")
    assert first.take() == 1
    assert first.is_ours(1)
    _end_sessions_of_holds(url)
    while not second.take():
        pass
    second.release()
    assert not first.is_ours(1)
    while (taking := first.take()) is None:
        pass
    assert taking == 2
    assert [first.is_ours(1), first.is_ours(2)] == [False, True]
    first.release()


@pytest.mark.mariadb
def test_one_that_somebody_else_has_by_now_is_not_ours_at_the_first_question(
    mariadb_server: MariaDb, mariadb_database: str
):
    url = mariadb_server.url(mariadb_database)
    first, second = build_hold(url, "one"), build_hold(url, "one")
    assert first.take()
    _end_sessions_of_holds(url)
    while not second.take():
        pass
    assert not first.is_ours(1)
    assert first.take() is None
    second.release()


@pytest.mark.mariadb
def test_a_connection_that_only_we_know_to_be_gone_is_not_taken_for_somebody_else(
    mariadb_server: MariaDb, mariadb_database: str
):
    url = mariadb_server.url(mariadb_database)
    held = build_hold(url, "one")
    assert held.take()
    forgotten, held._connection = held._connection, None  # type: ignore[attr-defined]  # as after a time-out
    with pytest.raises(DatabaseUnavailable):
        held.take()
    while not _is_taken(held):
        pass
    held.release()
    forgotten.invalidate()
    forgotten.close()


def _is_taken(hold: Hold) -> bool:
    try:
        return hold.take() is not None
    except DatabaseUnavailable:
        return False


@pytest.mark.mariadb
def test_the_server_ends_one_that_is_not_heard_of(
    mariadb_server: MariaDb, mariadb_database: str, monkeypatch: pytest.MonkeyPatch
):
    """A machine that lost its power would hold it for the server's eight hours."""
    monkeypatch.setattr("database.hold.HELD_UNHEARD_S", 1)
    url = mariadb_server.url(mariadb_database)
    silent, next_one = build_hold(url, "one"), build_hold(url, "one")
    assert silent.take()
    assert not next_one.take()
    while not next_one.take():
        pass
    next_one.release()
    silent.release()


@pytest.mark.mariadb
def test_a_server_that_is_away_says_nothing():
    with pytest.raises(DatabaseUnavailable):
        build_hold("mysql+pymysql://oma:oma@127.0.0.1:9/oma", "one").take()


def _end_sessions_of_holds(url: str) -> None:
    """As a restart of the server does; all sessions of this database but our own."""
    engine = create_engine(url)
    with engine.connect() as connection:
        query = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        for number in connection.execute(text(query)).scalars().all():
            connection.exec_driver_sql(f"KILL {number}")
    engine.dispose()
