"""What `cbt_history` and `vm_disks` say about change ids, on both servers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, update

from database.tables import cbt_history, failover_jobs, replication_jobs, vm_disks
from oma.domain.changes import TrackingCleared
from oma.ports import ContextFilter
from tests.contract.store.conftest import Store, sent_statements
from tests.contract.store.world import NOW, build_queued, context_id, seed_failover, snapshot_id, uid, volume_id

HOUR = timedelta(hours=1)


def store_change_id(connection: Connection, name: str, disk: int, change_id: str, at: datetime, **more: Any) -> None:
    values = {
        "job_id": f"repl-{uid(name)}",
        "disk_id": f"disk-{2000 + disk}",
        "change_id": change_id,
        "sync_type": "incremental",
        "sync_success": True,
        "created_at": at,
        **more,
    }
    connection.execute(insert(cbt_history).values(**values))


async def put(store: Store, name: str, disk: int, change_id: str, at: datetime, **more: Any) -> None:
    await store.door.write(lambda connection: store_change_id(connection, name, disk, change_id, at, **more))


async def test_the_newest_first_each_with_its_disk_and_job(store: Store) -> None:
    await store.seed("pgtest1")
    await put(store, "pgtest1", 0, "older", NOW - 2 * HOUR)
    await put(store, "pgtest1", 1, "newer", NOW - HOUR, sync_type="full")

    records = await store.inventory.get_records(context_id("pgtest1"))

    assert [(row.disk_id, row.change_id, row.sync_type, row.stored_at) for row in records.change_ids] == [
        ("disk-2001", "newer", "full", NOW - HOUR),
        ("disk-2000", "older", "incremental", NOW - 2 * HOUR),
    ]
    assert {row.job_id for row in records.change_ids} == {f"repl-{uid('pgtest1')}"}


async def test_only_this_vms_by_the_replication_that_stored_them(store: Store) -> None:
    await store.seed("pgtest1", "neighbour")
    await put(store, "neighbour", 0, "theirs", NOW)

    assert (await store.inventory.get_records(context_id("pgtest1"))).change_ids == ()
    (row,) = (await store.inventory.get_records(context_id("neighbour"))).change_ids
    assert row.change_id == "theirs"


async def test_what_older_writers_left_out_is_none_or_empty(store: Store) -> None:
    await store.seed("pgtest1")
    await put(store, "pgtest1", 0, "", NOW, disk_id=None, sync_type=None)

    (row,) = (await store.inventory.get_records(context_id("pgtest1"))).change_ids
    assert (row.disk_id, row.change_id, row.sync_type) == ("", None, "")


async def test_a_disk_says_when_its_row_was_written(store: Store) -> None:
    await store.seed("pgtest1")
    touched = NOW - 3 * HOUR
    await store.door.write(
        lambda connection: connection.execute(
            update(vm_disks).where(vm_disks.c.disk_id == "disk-2000").values(updated_at=touched)
        )
    )

    disks = (await store.inventory.get_records(context_id("pgtest1"))).disks
    assert disks[0].updated_at == touched
    assert disks[1].updated_at is not None


async def test_a_list_of_vms_asks_once_for_all(store: Store) -> None:
    names = [f"vm-{number}" for number in range(8)]
    await store.seed(*names, disks=1)
    for name in names:
        await put(store, name, 0, f"change-of-{name}", NOW)

    with sent_statements() as statements:
        page = await store.inventory.list_records(ContextFilter(), 100, None)

    assert sum("cbt_history" in statement for statement, _ in statements) == 1
    assert {records.context.vm_name: records.change_ids[0].change_id for records in page.items} == {
        name: f"change-of-{name}" for name in names
    }


async def test_another_replication_of_the_vm_counts_too(store: Store) -> None:
    await store.seed("pgtest1")
    await store.door.write(
        lambda connection: connection.execute(
            insert(replication_jobs).values(id="repl-2", vm_context_id=context_id("pgtest1"), status="failed")
        )
    )
    await put(store, "pgtest1", 0, "late", NOW, job_id="repl-2")

    (row,) = (await store.inventory.get_records(context_id("pgtest1"))).change_ids
    assert (row.change_id, row.job_id) == ("late", "repl-2")


async def test_an_ended_failovers_tracking_is_cleared_like_an_open_ones(store: Store) -> None:
    await store.seed("pgtest1")
    ended, third = f"failover-{uid('ended')}", "70000000-5555-4000-8000-000000000003"

    def write(connection: Connection) -> None:
        seed_failover(connection, "pgtest1", ended, status="failed", ossea_snapshot_id=third)

    await store.door.write(write)
    await store.journal.queue_job(build_queued("pgtest1"))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    volumes = (volume_id("pgtest1"), volume_id("pgtest1", 1))
    change = TrackingCleared(context_id("pgtest1"), volumes, (snapshot_id("pgtest1"), third), "Cleared.")

    await store.journal.apply(claimed.lease, [change], NOW)

    rows = await store.rows(failover_jobs, vm_context_id=context_id("pgtest1"))
    assert [row["ossea_snapshot_id"] for row in rows] == ["", ""]
    assert {row["status"] for row in rows} == {"pending", "failed"}
