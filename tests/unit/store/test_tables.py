"""The tables hold what the contract names, and both servers take them."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, insert, inspect, select
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import StatementError
from sqlalchemy.schema import CreateTable

from database.tables import failover_jobs, metadata, ossea_volumes, vm_replication_contexts
from database.tables.columns import Json
from database.times import LegacyTime, is_own_table
from oma.store.contexts import near_key

CONTRACT = {
    "vm_replication_contexts": "context_id vm_name vmware_vm_id vm_path vcenter_host datacenter current_status "
    "current_job_id total_jobs_run successful_jobs failed_jobs last_successful_job_id cpu_count memory_mb os_type "
    "power_state vm_tools_version created_at updated_at first_job_at last_job_at last_status_change credential_id "
    "ossea_config_id last_operation_summary",
    "ossea_volumes": "id vm_context_id volume_id volume_name size_gb ossea_config_id volume_type device_path "
    "mount_point status snapshot_id snapshot_created_at snapshot_status created_at updated_at",
    "failover_jobs": "id vm_context_id job_id vm_id replication_job_id job_type status source_vm_name source_vm_spec "
    "destination_vm_id ossea_snapshot_id network_mappings error_message created_at updated_at started_at completed_at",
    "vm_disks": "id vm_context_id job_id disk_id size_gb unit_number capacity_bytes ossea_volume_id disk_change_id "
    "sync_status bytes_synced created_at updated_at",
    "replication_jobs": "id vm_context_id status change_id previous_change_id nbd_export_name started_at completed_at "
    "updated_at vma_last_poll_at",
    "cbt_history": "id job_id disk_id change_id previous_change_id sync_type sync_success created_at",
    "ossea_configs": "id name api_url api_key secret_key domain zone template_id network_id service_offering_id "
    "disk_offering_id oma_vm_id is_active created_at updated_at",
    "job_tracking": "id parent_job_id job_type operation status cloudstack_job_id external_job_id metadata "
    "error_message percent_complete owner context_id job_category started_at completed_at canceled_at created_at "
    "updated_at",
    "job_steps": "id job_id name seq status started_at completed_at error_message metadata",
    "log_events": "id job_id step_id level message attrs ts external_job_id",
}


@pytest.mark.parametrize("table", sorted(CONTRACT))
def test_existing_tables_have_exactly_the_contracts_columns(table: str) -> None:
    assert {column.name for column in metadata.tables[table].columns} == set(CONTRACT[table].split())


def test_every_table_is_existing_or_carries_a_name_of_its_own() -> None:
    existing = {*CONTRACT, "volume_operations", "device_mappings", "nbd_exports", "volume_operation_history"}
    assert {name for name in metadata.tables if not is_own_table(name)} == existing


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_mariadb_takes_them_with_full_unicode(table: str) -> None:
    ddl = str(CreateTable(metadata.tables[table]).compile(dialect=mysql.dialect()))

    assert "utf8mb4" in ddl
    assert "ENUM" not in ddl
    assert "CHECK" not in ddl


def test_foreign_keys_stay_on_their_side() -> None:
    """An existing table may have a collation to which no key of ours can be laid."""
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            assert is_own_table(table.name) == is_own_table(key.column.table.name)


def test_every_legacy_time_knows_its_place() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, LegacyTime):
                assert column.type.place == f"{table.name}.{column.name}"


def test_indexes_for_the_lists() -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    indexes = {
        (table, tuple(index["column_names"]))
        for table in inspect(engine).get_table_names()
        for index in inspect(engine).get_indexes(table)
    }
    for wanted in (
        ("failover_jobs", ("vm_context_id", "created_at", "id")),
        ("vm_replication_contexts", ("vm_name", "context_id")),
        ("oma_jobs", ("state", "created_at", "id")),
        ("oma_jobs", ("created_at", "id")),
        ("oma_events", ("job_id", "seq")),
        ("log_events", ("job_id", "id")),
        ("oma_issues", ("state", "opened_at", "id")),
    ):
        assert wanted in indexes


def test_a_value_that_the_enumeration_lacks_is_not_written() -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        with pytest.raises(StatementError, match="is not one of"):
            connection.execute(insert(ossea_volumes).values(volume_id="v", status="in use"))
        found = connection.execute(select(failover_jobs).where(failover_jobs.c.status == "in use")).all()
        assert found == []


def test_a_row_needs_only_its_keys() -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(vm_replication_contexts).values(context_id="c", vm_name="n"))
        row = connection.execute(select(vm_replication_contexts)).one()
    assert (row.current_status, row.vcenter_host) == ("discovered", "")
    assert row.created_at.tzinfo is not None


@pytest.mark.parametrize("text", ["", "{", "nope"])
def test_text_that_is_not_json_is_nothing(text: str) -> None:
    assert Json().process_result_value(text, mysql.dialect()) is None


def test_json_keeps_any_script() -> None:
    stored = Json().process_bind_param({"имя": "сервер", "n": None}, mysql.dialect())
    assert stored is not None
    assert "сервер" in stored
    assert Json().process_result_value(stored, mysql.dialect()) == {"имя": "сервер", "n": None}


def test_an_odd_value_is_read_as_it_stands() -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO failover_jobs (job_id, job_type, status) VALUES ('j', 'test', 'executing')"
        )
        row = connection.execute(select(failover_jobs)).one()
    assert row.status == "executing"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("PhilB Test machine", "philb test  machine ", True),
        ("сервер-1", "СЕРВЕР-1", True),
        ("pgtest1", "pgtest2", False),
        ("db-1", "db_1", False),
    ],
)
def test_what_is_near(one: str, other: str, same: bool) -> None:
    assert (near_key(one) == near_key(other)) is same
