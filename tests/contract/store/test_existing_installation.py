"""A database as existing installations have it: ENUM columns, INT ids, local times of one second's precision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from database import schema
from oma.domain.changes import (
    JobEnded,
    RecordsReset,
    StepEnded,
    StepStarted,
    TrackingCleared,
)
from oma.domain.states import JobState, Phase, StepStatus
from oma.ports import ContextFilter
from tests.contract.store.conftest import Store, open_store
from tests.contract.store.world import (
    build_plan,
    build_queued,
    context_id,
    failover_id,
    snapshot_id,
    volume_id,
)
from tests.mariadb import MariaDb

pytestmark = pytest.mark.mariadb

ZONES = ("America/New_York", "Europe/Berlin")
NAME = "pgtest1"

TABLES = (
    """CREATE TABLE replication_jobs (
        id VARCHAR(64) PRIMARY KEY, vm_context_id VARCHAR(64),
        status VARCHAR(50) NOT NULL DEFAULT 'pending', change_id VARCHAR(191), previous_change_id VARCHAR(191),
        nbd_export_name VARCHAR(191), started_at DATETIME NULL, completed_at DATETIME NULL, updated_at DATETIME NULL,
        vma_last_poll_at DATETIME NULL)""",
    """CREATE TABLE vm_replication_contexts (
        context_id VARCHAR(64) PRIMARY KEY, vm_name VARCHAR(255) NOT NULL, vmware_vm_id VARCHAR(255),
        vm_path VARCHAR(500), vcenter_host VARCHAR(255) NOT NULL, datacenter VARCHAR(255),
        current_status ENUM('discovered','replicating','ready_for_failover','failed_over_test','failed_over_live',
            'completed','failed','cleanup_required') DEFAULT 'discovered',
        current_job_id VARCHAR(64), total_jobs_run INT DEFAULT 0, successful_jobs INT DEFAULT 0,
        failed_jobs INT DEFAULT 0, last_successful_job_id VARCHAR(64), cpu_count INT, memory_mb INT,
        os_type VARCHAR(255), power_state VARCHAR(50), vm_tools_version VARCHAR(50),
        created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        first_job_at TIMESTAMP NULL, last_job_at TIMESTAMP NULL,
        last_status_change TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        credential_id INT, ossea_config_id INT, last_operation_summary JSON,
        UNIQUE KEY uk (vm_name, vcenter_host),
        FOREIGN KEY (current_job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL)""",
    """CREATE TABLE ossea_volumes (
        id INT AUTO_INCREMENT PRIMARY KEY, vm_context_id VARCHAR(64), volume_id VARCHAR(191) NOT NULL,
        volume_name VARCHAR(191) NOT NULL, size_gb INT NOT NULL, ossea_config_id INT, volume_type VARCHAR(50),
        device_path VARCHAR(191), mount_point VARCHAR(191),
        status ENUM('creating','available','attached','detached','error') DEFAULT 'creating',
        snapshot_id VARCHAR(191) DEFAULT '', snapshot_created_at DATETIME NULL,
        snapshot_status ENUM('none','creating','ready','failed','rollback_complete') DEFAULT 'none',
        created_at DATETIME DEFAULT CURRENT_TIMESTAMP, updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
        FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE)""",
    """CREATE TABLE failover_jobs (
        id INT AUTO_INCREMENT PRIMARY KEY, vm_context_id VARCHAR(64), job_id VARCHAR(191) NOT NULL UNIQUE,
        vm_id VARCHAR(191), replication_job_id VARCHAR(191), job_type ENUM('live','test') NOT NULL,
        status ENUM('pending','validating','snapshotting','creating_vm','switching_volume','powering_on','completed',
            'failed','cleanup','reverting') DEFAULT 'pending',
        source_vm_name VARCHAR(191), source_vm_spec TEXT, destination_vm_id VARCHAR(191),
        ossea_snapshot_id VARCHAR(191), network_mappings TEXT, error_message TEXT,
        created_at DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3), updated_at DATETIME(3), started_at DATETIME(3),
        completed_at DATETIME(3))""",
    """CREATE TABLE job_tracking (
        id VARCHAR(64) PRIMARY KEY, parent_job_id VARCHAR(64), job_type VARCHAR(50) NOT NULL,
        operation VARCHAR(100) NOT NULL, status ENUM('pending','running','completed','failed','cancelled') NOT NULL,
        cloudstack_job_id VARCHAR(255), external_job_id VARCHAR(64), metadata JSON, error_message TEXT,
        percent_complete TINYINT UNSIGNED, owner VARCHAR(64), context_id VARCHAR(64),
        job_category ENUM('system','failover','replication','scheduler','discovery','bulk') DEFAULT 'system',
        started_at TIMESTAMP NOT NULL, completed_at TIMESTAMP NULL, canceled_at TIMESTAMP NULL,
        created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)""",
    """CREATE TABLE job_steps (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, job_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL,
        seq INT NOT NULL, status ENUM('running','completed','failed','skipped') NOT NULL,
        started_at TIMESTAMP NOT NULL, completed_at TIMESTAMP NULL, error_message TEXT, metadata JSON,
        UNIQUE KEY uk (job_id, seq), FOREIGN KEY (job_id) REFERENCES job_tracking (id) ON DELETE CASCADE)""",
    """CREATE TABLE log_events (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, job_id VARCHAR(64), step_id BIGINT,
        level ENUM('DEBUG','INFO','WARN','ERROR') NOT NULL, message TEXT NOT NULL, attrs JSON,
        ts TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, external_job_id VARCHAR(64),
        FOREIGN KEY (job_id) REFERENCES job_tracking (id) ON DELETE CASCADE,
        FOREIGN KEY (step_id) REFERENCES job_steps (id) ON DELETE SET NULL)""",
    """CREATE TABLE device_mappings (
        id VARCHAR(64) PRIMARY KEY, volume_uuid VARCHAR(64) NOT NULL UNIQUE, volume_id VARCHAR(64),
        vm_id VARCHAR(64), vm_context_id VARCHAR(64), operation_mode ENUM('oma','failover') NOT NULL,
        device_path VARCHAR(255) NOT NULL UNIQUE, cloudstack_device_id INT, cloudstack_state VARCHAR(32),
        linux_state VARCHAR(32), size BIGINT, ossea_snapshot_id VARCHAR(191),
        snapshot_status ENUM('none','creating','ready','failed','rollback_complete') DEFAULT 'none',
        last_sync TIMESTAMP NULL, created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)""",
    """CREATE TABLE vm_disks (
        id INT AUTO_INCREMENT PRIMARY KEY, vm_context_id VARCHAR(64), job_id VARCHAR(64), disk_id VARCHAR(64) NOT NULL,
        size_gb INT, unit_number INT, capacity_bytes BIGINT, ossea_volume_id INT, disk_change_id VARCHAR(255),
        sync_status VARCHAR(32), bytes_synced BIGINT, created_at DATETIME, updated_at DATETIME,
        FOREIGN KEY (ossea_volume_id) REFERENCES ossea_volumes (id) ON DELETE SET NULL)""",
    """CREATE TABLE ossea_configs (
        id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(191) NOT NULL UNIQUE, api_url VARCHAR(191),
        api_key VARCHAR(191), secret_key VARCHAR(191), domain VARCHAR(191), zone VARCHAR(191), template_id VARCHAR(191),
        network_id VARCHAR(191), service_offering_id VARCHAR(191), disk_offering_id VARCHAR(191),
        oma_vm_id VARCHAR(191), is_active TINYINT(1) DEFAULT 1, created_at DATETIME, updated_at DATETIME)""",
)


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> ZoneInfo:
    return ZoneInfo(request.param)


@pytest.fixture
async def store(
    mariadb_server: MariaDb, mariadb_database: str, mariadb_url: str, zone: ZoneInfo
) -> AsyncIterator[Store]:
    """What is there is adopted; what is missing stands beside it."""

    def prepare() -> None:
        for table in TABLES:
            options = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci"
            mariadb_server.execute(f"{table} {options}", mariadb_database)
        schema.upgrade(mariadb_url)

    await asyncio.to_thread(prepare)
    store = await open_store(mariadb_url, legacy_time_zone=zone.key)
    yield store
    await store.door.close()


async def raw(store: Store, query: str) -> list[Any]:
    """What the server itself shows, without our columns' reading of it."""
    return await store.door.read(lambda connection: [tuple(row) for row in connection.exec_driver_sql(query)])


async def test_a_whole_run(store: Store, zone: ZoneInfo) -> None:
    at = datetime(2026, 3, 1, 3, 0, 0, 123456, tzinfo=UTC)
    await store.seed(NAME, with_mapping_time=False)
    plan = build_plan(NAME)
    await store.journal.queue_job(build_queued(NAME, at=at, plan=plan))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    records = await store.inventory.get_records(context_id(NAME))
    assert records.context.current_status == "cleanup_required"

    await store.journal.apply(
        claimed.lease,
        [
            StepStarted(Phase.ANALYZE, "Looking."),
            StepEnded(Phase.ANALYZE, StepStatus.COMPLETED, "Looked."),
            StepEnded(Phase.DETACH, StepStatus.SKIPPED, "Nothing attached."),
            TrackingCleared(context_id(NAME), (volume_id(NAME), volume_id(NAME, 1)), (snapshot_id(NAME),), "Cleared."),
            RecordsReset(
                context_id=context_id(NAME),
                observed_job_id=records.context.current_job_id,
                new_status="ready_for_failover",
                failover_ids=tuple(failover.id for failover in records.failovers),
                joblog_ids=(failover_id(NAME),),
                volume_ids=(volume_id(NAME), volume_id(NAME, 1)),
                summary={"replica": "ready"},
                sentence="Reset.",
            ),
            JobEnded(JobState.COMPLETED, "Done.", result={"replica": "ready"}),
        ],
        at,
    )

    after = await store.inventory.get_records(context_id(NAME))
    assert (after.context.current_status, after.context.current_job_id) == ("ready_for_failover", None)
    assert after.context.last_operation_summary == {"replica": "ready"}
    assert {(volume.status, volume.snapshot_status) for volume in after.volumes} == {("attached", "none")}
    assert [(failover.status, failover.ossea_snapshot_id) for failover in after.failovers] == [("failed", None)]
    # TIMESTAMP is UTC, DATETIME the appliance's local time, to the precision that the column has.
    assert await raw(store, "SELECT last_status_change FROM vm_replication_contexts") == [(at_second(at),)]
    local = at.astimezone(zone).replace(tzinfo=None)
    assert await raw(store, "SELECT completed_at FROM failover_jobs") == [(local.replace(microsecond=123000),)]
    assert after.failovers[0].completed_at == at.replace(microsecond=123000)
    assert await raw(store, "SELECT at FROM oma_events ORDER BY seq DESC LIMIT 1") == [(at.replace(tzinfo=None),)]
    steps = await store.reader.list_steps(claimed.job.id)
    assert [(step.seq, step.status) for step in steps] == [(1, StepStatus.COMPLETED), (2, StepStatus.SKIPPED)]
    page = await store.reader.list_log(claimed.job.id, 50, None)
    assert page.items[-1].message == "Done."


def at_second(at: datetime) -> datetime:
    return at.replace(tzinfo=None, microsecond=0)


async def test_local_times_are_read_as_the_zone_has_them(store: Store, zone: ZoneInfo) -> None:
    await store.seed(NAME, with_mapping_time=False)
    await store.door.write(
        lambda connection: connection.exec_driver_sql(
            "UPDATE ossea_volumes SET snapshot_created_at = '2026-07-01 12:00:00'"
        )
    )

    (volume, *_rest) = (await store.inventory.get_records(context_id(NAME))).volumes

    assert volume.snapshot_created_at == datetime(2026, 7, 1, 12, 0, tzinfo=zone).astimezone(UTC)


async def test_the_hour_that_clocks_repeat_is_read_as_the_later_one(store: Store, zone: ZoneInfo) -> None:
    """Later is younger, and later than the snapshot: the more dangerous meaning."""
    repeated, expected = {
        "America/New_York": ("2026-11-01 01:30:00", datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
        "Europe/Berlin": ("2026-10-25 02:30:00", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    }[zone.key]
    await store.seed(NAME, with_mapping_time=False)
    await store.door.write(
        lambda connection: connection.exec_driver_sql(f"UPDATE replication_jobs SET completed_at = '{repeated}'")
    )

    (replication,) = (await store.inventory.get_records(context_id(NAME))).replications

    assert replication.completed_at == expected


REPEATED = {
    "America/New_York": ("2026-11-01 01:30:00", datetime(2026, 11, 1, 5, 30, tzinfo=UTC)),
    "Europe/Berlin": ("2026-10-25 02:30:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
}
LEFT_OUT = {
    "America/New_York": ("2026-03-08 02:30:00", datetime(2026, 3, 8, 6, 30, tzinfo=UTC)),
    "Europe/Berlin": ("2026-03-29 02:30:00", datetime(2026, 3, 29, 0, 30, tzinfo=UTC)),
}


@pytest.mark.parametrize(("hours", "verb"), [(REPEATED, "repeat"), (LEFT_OUT, "leave out")])
@pytest.mark.parametrize(
    "place",
    [
        "replication_jobs.completed_at",
        "replication_jobs.vma_last_poll_at",
        "failover_jobs.created_at",
        "failover_jobs.started_at",
    ],
)
async def test_a_time_with_two_meanings_is_told_with_both(
    store: Store, zone: ZoneInfo, place: str, hours: dict[str, tuple[str, datetime]], verb: str
) -> None:
    written, earliest = hours[zone.key]
    table, column = place.split(".")
    await store.seed(NAME, with_mapping_time=False)
    await store.seed("other", with_mapping_time=False)
    row_id = "job_id" if table == "failover_jobs" else "id"
    await store.sql(f"UPDATE {table} SET {column} = '{written}' WHERE vm_context_id = '{context_id(NAME)}'")

    records = await store.inventory.get_records(context_id(NAME))

    (doubt,) = [one for one in records.doubtful_times if one.column == column]
    (told,) = await raw(store, f"SELECT {row_id} FROM {table} WHERE vm_context_id = '{context_id(NAME)}'")
    assert (doubt.table, doubt.row_id) == (table, told[0])
    assert (doubt.earliest, doubt.latest) == (earliest, earliest + timedelta(hours=1))
    assert f"{written} local time, in an hour that clocks {verb}" in doubt.why
    held = records.replications[0] if table == "replication_jobs" else records.failovers[0]
    assert getattr(held, column) == doubt.latest, "the row holds the more dangerous meaning"
    assert (await store.inventory.get_records(context_id("other"))).doubtful_times == ()


async def test_a_time_of_its_own_hour_has_one_meaning(store: Store, zone: ZoneInfo) -> None:
    """An hour before and after the change, and a column that holds UTC whatever its hour."""
    await store.seed(NAME, with_mapping_time=False)
    day = REPEATED[zone.key][0].split()[0]
    await store.sql(f"UPDATE replication_jobs SET started_at = '{day} 00:59:59', completed_at = '{day} 03:00:00'")
    await store.sql(f"UPDATE job_steps SET started_at = '{REPEATED[zone.key][0]}'")

    assert (await store.inventory.get_records(context_id(NAME))).doubtful_times == ()


async def test_the_local_time_of_this_minute_is_no_future(store: Store, zone: ZoneInfo) -> None:
    """Read in a wrong zone it would be hours old, or hours ahead."""
    await store.seed(NAME, with_mapping_time=False)
    local = datetime.now(zone).replace(tzinfo=None, microsecond=0)
    await store.sql(f"UPDATE replication_jobs SET status = 'running', completed_at = NULL, updated_at = '{local}'")

    records = await store.inventory.get_records(context_id(NAME))

    assert [one for one in records.doubtful_times if one.column == "updated_at"] == []
    touched = records.replications[0].last_touched_at
    assert touched is not None
    assert records.read_at is not None
    assert abs(records.read_at - touched) < timedelta(minutes=2)


async def test_an_empty_status_is_an_open_failover(store: Store) -> None:
    """A lenient server keeps the empty string where a writer's value is not among the ENUM's."""
    await store.seed(NAME, with_mapping_time=False)

    def spoil(connection) -> None:
        connection.exec_driver_sql("SET SESSION sql_mode = ''")
        connection.exec_driver_sql("UPDATE failover_jobs SET status = 'executing'")
        connection.exec_driver_sql("SET SESSION sql_mode = 'STRICT_TRANS_TABLES'")

    await store.door.write(spoil)

    (failover,) = (await store.inventory.get_records(context_id(NAME))).failovers

    assert (failover.status, failover.is_open) == ("", True)


async def test_lists_work_over_its_columns(store: Store) -> None:
    for name in ("сервер-1", "db/prod #7", NAME):
        await store.seed(name, disks=1, with_mapping_time=False)

    page = await store.inventory.list_records(ContextFilter(status="failed_over_test"), 2, None)
    rest = await store.inventory.list_records(ContextFilter(status="failed_over_test"), 2, page.next_cursor)

    names = [records.context.vm_name for records in (*page.items, *rest.items)]
    assert sorted(names) == sorted(("сервер-1", "db/prod #7", NAME))
