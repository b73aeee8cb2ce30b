"""An empty database gets all tables, once."""

from __future__ import annotations

import multiprocessing
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from database import schema
from database.errors import DatabaseUnavailable, SchemaOutdated
from database.revision import HEAD, VERSION_TABLE
from database.tables import metadata


def upgrade_into(url: str, results: multiprocessing.Queue[str]) -> None:
    results.put(schema.upgrade(url))


def test_all_tables_columns_and_indexes_are_there(url: str) -> None:
    said = schema.upgrade(url)
    assert f"{len(metadata.tables)} table(s) created" in said
    engine = create_engine(url)
    inspector = inspect(engine)
    assert set(inspector.get_table_names()) == set(metadata.tables) | {VERSION_TABLE}
    for table in metadata.sorted_tables:
        assert {column["name"] for column in inspector.get_columns(table.name)} == set(table.columns.keys())
        assert {index.name for index in table.indexes} <= {index["name"] for index in inspector.get_indexes(table.name)}
        assert len(inspector.get_foreign_keys(table.name)) == len(table.foreign_key_constraints)
    engine.dispose()
    assert schema.current(url) == HEAD
    assert schema.check(url) == []
    assert schema.notes(url) == []


def test_a_second_upgrade_does_nothing(url: str) -> None:
    schema.upgrade(url)
    assert schema.upgrade(url).startswith("Nothing to do")
    assert schema.check(url) == []


def test_upgrades_at_the_same_time_follow_one_another(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=upgrade_into, args=(url, results)) for _ in range(2)]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(schema.upgrade, [url, url]))
    said += [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(each.startswith("Nothing to do") for each in said) == [False, True, True, True]
    assert schema.check(url) == []


def test_a_table_that_went_missing_is_said_and_created_again(url: str) -> None:
    schema.upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE oma_events"))
    engine.dispose()
    assert schema.check(url) == ["The table oma_events is missing; run `oma db upgrade`."]
    assert "1 table(s) created (oma_events)" in schema.upgrade(url)
    assert schema.check(url) == []


def test_an_upgrade_that_was_cut_off_is_completed(url: str) -> None:
    """As MariaDB leaves it: some tables, one without its indexes, no version."""
    schema.upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE oma_events"))
        connection.execute(text("DROP TABLE oma_volume_claims"))
        on = "" if engine.dialect.name == "sqlite" else " ON oma_jobs"
        connection.execute(text(f"DROP INDEX ix_oma_jobs_state{on}"))
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    assert "2 table(s) created" in schema.upgrade(url)
    inspector = inspect(engine)
    assert "ix_oma_jobs_state" in {index["name"] for index in inspector.get_indexes("oma_jobs")}
    assert len(inspector.get_foreign_keys("oma_volume_claims")) == 1
    engine.dispose()
    assert schema.check(url) == []


def test_looking_creates_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/oma.db"
    assert schema.current(url) == "none"
    (sentence,) = schema.check(url)
    assert "oma db upgrade" in sentence
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_or_server_needs_an_upgrade(url: str, tmp_path: Path) -> None:
    (tmp_path / "oma.db").touch()
    (sentence,) = schema.check(url)
    assert "oma db upgrade" in sentence


def test_a_newer_database_is_left_alone(url: str) -> None:
    schema.upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaOutdated, match="newer"):
        schema.upgrade(url)
    assert "newer" in schema.check(url)[0]
    assert schema.current(url) == "9999"


def test_another_programs_database_is_left_alone(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE wp_posts (id INTEGER PRIMARY KEY)"))
    with pytest.raises(SchemaOutdated, match="wp_posts"):
        schema.upgrade(url)
    (sentence,) = schema.check(url)
    assert "another program" in sentence
    assert inspect(engine).get_table_names() == ["wp_posts"]
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
    engine.dispose()


def test_a_table_with_our_name_and_another_shape_is_left_alone(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE oma_jobs (id INTEGER PRIMARY KEY, what VARCHAR(9))"))
    with pytest.raises(SchemaOutdated, match=r"oma_jobs lacks .*lease_fence"):
        schema.upgrade(url)
    assert inspect(engine).get_table_names() == ["oma_jobs"]
    engine.dispose()


def test_a_view_with_a_tables_name_is_said(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE vm_disks (id INTEGER PRIMARY KEY)"))
        connection.execute(text("CREATE VIEW oma_jobs AS SELECT * FROM vm_disks"))
    with pytest.raises(SchemaOutdated, match="oma_jobs is a view"):
        schema.upgrade(url)
    engine.dispose()


@pytest.mark.parametrize("content", [b"plain text, " * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_no_database_gives_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "oma.db"
    path.write_bytes(content)
    for call in (schema.upgrade, schema.check, schema.current):
        with pytest.raises(DatabaseUnavailable, match=r"oma\.db"):
            call(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_file_that_another_program_has_locked_gives_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("database.engine.BUSY_TIMEOUT_S", 0.1)
    url = f"sqlite:///{tmp_path}/oma.db"
    schema.upgrade(url)
    with closing(sqlite3.connect(tmp_path / "oma.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locks"):
            schema.upgrade(url)
        assert schema.check(url) == []


def test_a_server_that_is_not_there_gives_a_sentence() -> None:
    for call in (schema.upgrade, schema.check, schema.current):
        with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1/oma_x") as caught:
            call("mysql+pymysql://a:secret@127.0.0.1:1/oma_x")
        assert "secret" not in caught.value.reason
