"""Replications of the demo's VMs as rows: the jobs, the change ids of the disks, and the history of those."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, update
from sqlalchemy.engine import Connection

from database.tables import cbt_history, replication_jobs, vm_disks
from oma.demo.stack import Stack
from oma.demo.story import Disk, ReplicationStory, SeededVm, uid


def insert_replications(connection: Connection, vm: SeededVm) -> None:
    """The one that the failover began from, and those that came after."""
    _insert_replication(connection, vm, vm.replication_id, vm.replicated_at - timedelta(minutes=30), vm.replicated_at)
    for disk in vm.disks:
        _insert_change_id(connection, vm.replication_id, disk, vm.change_id(disk), vm.replicated_at)
    for number, story in enumerate(vm.story.replications, start=1):
        started, ended = vm.begun_at + story.started, _end(vm, story)
        replication_id = f"job-{uid('replication', vm.context_id, number)}"
        _insert_replication(connection, vm, replication_id, started, ended, status=story.status)
        if story.status == "completed" and ended is not None:
            for disk in vm.disks:
                _insert_change_id(connection, replication_id, disk, vm.change_id(disk), ended)
    if vm.story.stored_change_id:
        for disk in vm.disks:
            at = vm.begun_at + timedelta(minutes=45)
            _insert_change_id(connection, vm.replication_id, disk, vm.change_id(disk), at)


def _end(vm: SeededVm, story: ReplicationStory) -> datetime | None:
    return None if story.ended is None else vm.begun_at + story.ended


def _insert_replication(
    connection: Connection,
    vm: SeededVm,
    replication_id: str,
    started_at: datetime,
    ended_at: datetime | None,
    *,
    status: str = "completed",
) -> None:
    connection.execute(
        insert(replication_jobs).values(
            id=replication_id,
            vm_context_id=vm.context_id,
            status=status,
            change_id=f"52 de c0 d9/{replication_id[-6:]}" if ended_at else None,
            started_at=started_at,
            completed_at=ended_at,
            updated_at=ended_at or datetime.now(UTC),
        )
    )


def _insert_change_id(
    connection: Connection, replication_id: str, disk: Disk, change_id: str, stored_at: datetime
) -> None:
    connection.execute(
        insert(cbt_history).values(
            job_id=replication_id,
            disk_id=disk.disk_id,
            change_id=change_id,
            sync_type="incremental",
            sync_success=True,
            created_at=stored_at,
        )
    )


async def begin_replication(stack: Stack, vm: SeededVm) -> str:
    """The row of a replication that starts now, as the existing scheduler writes it; its id."""
    return await stack.door.write(lambda connection: _begin(connection, vm))


async def complete_replication(stack: Stack, vm: SeededVm, replication_id: str) -> None:
    """It ends well: its row, a new change id for every disk, and the history of them."""
    await stack.door.write(lambda connection: _complete(connection, vm, replication_id))


async def run_replication(stack: Stack, vm: SeededVm) -> None:
    """One that begins and ends before anybody looks again."""
    await stack.door.write(lambda connection: _complete(connection, vm, _begin(connection, vm)))


def _begin(connection: Connection, vm: SeededVm) -> str:
    now = datetime.now(UTC)
    replication_id = f"job-{uid('replication', vm.context_id, now)}"
    _insert_replication(connection, vm, replication_id, now, None, status="replicating")
    return replication_id


def _complete(connection: Connection, vm: SeededVm, replication_id: str) -> None:
    now = datetime.now(UTC)
    connection.execute(
        update(replication_jobs)
        .where(replication_jobs.c.id == replication_id)
        .values(status="completed", completed_at=now, updated_at=now, change_id=f"52 de c0 ff/{now:%H%M%S}")
    )
    for disk in vm.disks:
        change_id = f"52 de c0 ff/{disk.number}"
        connection.execute(
            update(vm_disks)
            .where(vm_disks.c.vm_context_id == vm.context_id, vm_disks.c.disk_id == disk.disk_id)
            .values(disk_change_id=change_id, updated_at=now)
        )
        _insert_change_id(connection, replication_id, disk, change_id, now)
