"""An existing MigrateKit database is adopted: nothing of it changes, what is missing comes beside it."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import Connection, Insert, create_engine, select

from database import schema
from database.door import Door
from database.engine import parse_url
from database.errors import DatabaseUnavailable
from database.revision import HEAD
from database.tables import cbt_history, job_steps, job_tracking, metadata, oma_events
from tests.mariadb import MariaDb, is_installed, running_mariadb
from tests.parts import require_part

pytestmark = pytest.mark.mariadb

CREATED = {"cbt_history", "volume_operation_history"}


def show(server: MariaDb, database: str) -> dict[str, str]:
    """The definition and the rows of everything in it."""
    names = [str(name) for (name,) in server.execute("SHOW TABLES", database)]
    return {
        name: f"{server.execute(f'SHOW CREATE TABLE {name}', database)}{server.execute(f'SELECT * FROM {name}', database)}"
        for name in names
    }


def database_of(url: str) -> str:
    return str(parse_url(url).database)


def test_nothing_that_is_there_changes_and_what_is_missing_is_created(mariadb_server: MariaDb, legacy_url: str) -> None:
    name = database_of(legacy_url)
    before = show(mariadb_server, name)
    said = schema.upgrade(legacy_url)
    after = show(mariadb_server, name)
    assert {table: after[table] for table in before} == before
    new = {table for table in metadata.tables if table.startswith(("oma_", "volume_daemon_"))} | CREATED
    assert set(after) - set(before) == new | {"oma_alembic_version"}
    assert f"{len(new)} table(s) created" in said
    assert schema.check(legacy_url) == []
    assert schema.current(legacy_url) == HEAD


def test_a_second_run_does_nothing(mariadb_server: MariaDb, legacy_url: str) -> None:
    schema.upgrade(legacy_url)
    before = show(mariadb_server, database_of(legacy_url))
    assert schema.upgrade(legacy_url) == f"Nothing to do: the schema is at {HEAD}."
    assert show(mariadb_server, database_of(legacy_url)) == before


def test_new_tables_put_no_chain_on_existing_ones(mariadb_server: MariaDb, legacy_url: str) -> None:
    """The programs that own those tables go on deleting rows as before."""
    schema.upgrade(legacy_url)
    name = database_of(legacy_url)
    keys = mariadb_server.execute(
        "SELECT table_name, referenced_table_name FROM information_schema.key_column_usage "
        f"WHERE table_schema = '{name}' AND referenced_table_name IS NOT NULL"
    )
    chained = {(str(table), str(target)) for table, target in keys if str(table).startswith(("oma_", "volume_daemon_"))}
    assert chained == {("oma_actions", "oma_jobs"), ("oma_volume_claims", "oma_jobs")}
    assert not [key for key in keys if key[0] in CREATED]
    mariadb_server.execute("DELETE FROM vm_replication_contexts", name)


def test_differences_that_do_no_harm_are_notes(legacy_url: str) -> None:
    schema.upgrade(legacy_url)
    notes = schema.notes(legacy_url)
    assert "vm_replication_contexts has a column auto_added that this program does not use." in notes
    assert "device_mappings has no column volume_id; it is done without." in notes
    assert "nbd_exports has no column config_path; it is done without." in notes


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE ossea_volumes DROP COLUMN snapshot_status", "ossea_volumes lacks snapshot_status"),
        ("ALTER TABLE job_tracking ADD COLUMN tenant INT NOT NULL", "job_tracking.tenant must have a value"),
        ("ALTER TABLE volume_operations ENGINE=MyISAM", "volume_operations is kept by MyISAM"),
        ("ALTER TABLE device_mappings DROP COLUMN ossea_snapshot_id", "device_mappings lacks ossea_snapshot_id"),
    ],
)
def test_what_would_keep_us_from_working_is_a_fault(
    mariadb_server: MariaDb, legacy_url: str, statement: str, words: str
) -> None:
    mariadb_server.execute(statement, database_of(legacy_url))
    before = show(mariadb_server, database_of(legacy_url))
    assert words in schema.upgrade(legacy_url)
    (sentence,) = schema.check(legacy_url)
    assert words in sentence
    after = show(mariadb_server, database_of(legacy_url))
    assert {table: after[table] for table in before} == before


def test_a_value_that_an_enum_lacks_is_a_note(mariadb_server: MariaDb, legacy_url: str) -> None:
    mariadb_server.execute(
        "ALTER TABLE job_steps MODIFY status ENUM('running','completed','failed') NOT NULL", database_of(legacy_url)
    )
    schema.upgrade(legacy_url)
    assert schema.check(legacy_url) == []
    assert "job_steps.status can't hold skipped." in schema.notes(legacy_url)


def _execute(statement: Insert, connection: Connection) -> None:
    connection.execute(statement)


async def test_the_door_writes_into_adopted_and_created_tables(legacy_url: str) -> None:
    await asyncio.to_thread(schema.upgrade, legacy_url)
    door = await Door.open(legacy_url, legacy_time_zone="Europe/Berlin")
    steps = [
        job_tracking.insert().values(id="clean-1", job_type="cleanup", operation="failed-execution-cleanup"),
        job_steps.insert().values(job_id="clean-1", name="analyze-volume-state", seq=1),
        cbt_history.insert().values(job_id="job-1", disk_id="disk-2000", change_id="", sync_success=False),
    ]
    for step in steps:
        await door.write(functools.partial(_execute, step))
    assert await door.read(lambda c: c.execute(select(job_steps.c.name)).scalar()) == "analyze-volume-state"
    assert await door.read(lambda c: c.execute(select(oma_events)).all()) == []
    assert HEAD in await door.check()
    await door.close()


def test_a_user_who_may_not_create_is_told(mariadb_server: MariaDb, legacy_url: str) -> None:
    name = database_of(legacy_url)
    mariadb_server.execute("CREATE USER IF NOT EXISTS 'reader'@'%' IDENTIFIED BY 'oma'")
    mariadb_server.execute(f"GRANT SELECT ON {name}.* TO 'reader'@'%'")
    before = show(mariadb_server, name)
    with pytest.raises(DatabaseUnavailable, match="denied"):
        schema.upgrade(mariadb_server.url(name, user="reader"))
    assert show(mariadb_server, name) == before


def test_a_database_in_another_character_set_gets_tables_in_utf8mb4(mariadb_server: MariaDb) -> None:
    name = mariadb_server.create_database(options="CHARACTER SET latin1 COLLATE latin1_swedish_ci")
    schema.upgrade(mariadb_server.url(name))
    found = mariadb_server.execute(
        "SELECT DISTINCT character_set_name FROM information_schema.columns "
        f"WHERE table_schema = '{name}' AND character_set_name IS NOT NULL AND table_name <> 'oma_alembic_version'"
    )
    mariadb_server.drop_database(name)
    assert [str(charset) for (charset,) in found] == ["utf8mb4"]


def test_an_upgrade_waits_for_another_and_says_so_when_it_takes_too_long(
    mariadb_server: MariaDb, legacy_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "UPGRADE_WAIT_S", 0)
    with mariadb_server.admin() as holder, holder.cursor() as cursor:
        cursor.execute(f"SELECT GET_LOCK('oma-schema-{database_of(legacy_url)}', 0)")
        with pytest.raises(DatabaseUnavailable, match="another upgrade"):
            schema.upgrade(legacy_url)
    assert "created" in schema.upgrade(legacy_url)


def test_a_server_that_may_forget_commits_is_a_fault_unless_accepted(tmp_path: Path) -> None:
    require_part("MariaDB", is_installed())
    with running_mariadb(tmp_path, options=("--innodb-flush-log-at-trx-commit=2",)) as server:
        url = server.url(server.create_database())
        schema.upgrade(url)
        (sentence,) = schema.check(url)
        assert "innodb_flush_log_at_trx_commit reads 2" in sentence
        assert schema.check(url, accept_weak_durability=True) == []


def test_the_user_of_the_tests_may_touch_no_other_database(mariadb_server: MariaDb) -> None:
    engine = create_engine(mariadb_server.url("mysql"))
    with pytest.raises(Exception, match="denied") as caught, engine.connect():
        pass
    engine.dispose()
    assert isinstance(caught.value.__cause__, pymysql.Error)
