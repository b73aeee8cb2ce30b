"""Broken VMs as rows, and the values that a run journals about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, Table, insert, select

from database.tables import (
    device_mappings,
    failover_jobs,
    job_steps,
    job_tracking,
    log_events,
    ossea_configs,
    ossea_volumes,
    replication_jobs,
    vm_disks,
    vm_replication_contexts,
)
from oma.domain.actions import Action, ActionKind, PlannedAction, Target
from oma.domain.changes import JobQueued
from oma.domain.issues import Issue, Severity, due_time
from oma.domain.jobs import CleanupRequest
from oma.domain.plan import Plan, VolumePlan
from oma.domain.states import ActionState, IssueState, Phase, VolumePlace

NOW = datetime(2026, 3, 1, 3, 0, 0, 123456, tzinfo=UTC)
OMA_VM = "0b000000-0000-4000-8000-000000000001"
SPACE = UUID("5d1f6d4c-1111-4111-8111-111111111111")


def uid(*words: object) -> str:
    return str(uuid5(SPACE, "/".join(str(word) for word in words)))


def volume_id(name: str, disk: int = 0) -> str:
    return uid("volume", name, disk)


def snapshot_id(name: str, disk: int = 0) -> str:
    return uid("snapshot", name, disk)


def context_id(name: str) -> str:
    return f"ctx-{uid('context', name)}"


def seed_config(connection: Connection) -> None:
    known = connection.execute(select(ossea_configs.c.id).where(ossea_configs.c.id == 1)).first()
    if known is None:
        connection.execute(
            insert(ossea_configs).values(
                id=1, name="production", oma_vm_id=OMA_VM, is_active=True, api_key="key", secret_key="hidden"
            )
        )


def seed_vm(
    connection: Connection,
    name: str,
    *,
    disks: int = 2,
    status: str = "failed_over_test",
    vcenter: str = "vc-1",
    current_job: bool = True,
    with_mapping_time: bool = True,
) -> str:
    """A VM in the middle of a dead test failover, every snapshot tracked. Returns the context's id."""
    seed_config(connection)
    key = context_id(name)
    if current_job:
        connection.execute(
            insert(replication_jobs).values(
                id=f"repl-{uid(name)}",
                vm_context_id=key,
                status="completed",
                change_id=f"change-{uid(name)}",
                started_at=NOW - timedelta(hours=5),
                completed_at=NOW - timedelta(hours=4),
                updated_at=NOW - timedelta(hours=4),
            )
        )
    connection.execute(
        insert(vm_replication_contexts).values(
            context_id=key,
            vm_name=name,
            vcenter_host=vcenter,
            current_status=status,
            current_job_id=f"repl-{uid(name)}" if current_job else None,
            last_status_change=NOW - timedelta(hours=2),
        )
    )
    failover = failover_id(name)
    for disk in range(disks):
        done = connection.execute(
            insert(ossea_volumes).values(
                vm_context_id=key,
                volume_id=volume_id(name, disk),
                volume_name=f"{name} disk {disk}"[:255],
                size_gb=10,
                ossea_config_id=1,
                status="detached",
                snapshot_id=snapshot_id(name, disk),
                snapshot_status="ready",
                snapshot_created_at=NOW - timedelta(hours=2),
            )
        )
        assert done.inserted_primary_key is not None
        connection.execute(
            insert(vm_disks).values(
                vm_context_id=key,
                job_id=f"repl-{uid(name)}",
                disk_id=f"disk-{2000 + disk}",
                size_gb=10,
                unit_number=disk,
                capacity_bytes=10 * 2**30,
                ossea_volume_id=done.inserted_primary_key[0],
                disk_change_id=f"change-{disk}",
            )
        )
        connection.execute(
            insert(device_mappings).values(
                id=uid("mapping", name, disk),
                volume_uuid=volume_id(name, disk),
                volume_id=volume_id(name, disk),
                vm_id=uid("test vm", name),
                operation_mode="failover",
                device_path=f"remote-vm-{uid('test vm', name)}-{disk}",
                ossea_snapshot_id=snapshot_id(name, disk),
                snapshot_status="ready",
                **({"snapshot_created_at": NOW - timedelta(hours=2)} if with_mapping_time else {}),
            )
        )
    seed_failover(connection, name, failover)
    return key


def failover_id(name: str) -> str:
    return f"failover-{uid(name)}"


def seed_failover(connection: Connection, name: str, job_id: str, **more: Any) -> int:
    """An open test failover with a JobLog row that has a step and a line."""
    values = {
        "vm_context_id": context_id(name),
        "job_id": job_id,
        "job_type": "test",
        "status": "pending",
        "source_vm_name": name,
        "destination_vm_id": uid("test vm", name),
        "ossea_snapshot_id": snapshot_id(name, 0),
        "created_at": NOW - timedelta(hours=2),
        **more,
    }
    done = connection.execute(insert(failover_jobs).values(**values))
    connection.execute(
        insert(job_tracking).values(
            id=job_id,
            job_type="failover",
            operation="test-failover",
            status="running",
            context_id=context_id(name),
            job_category="failover",
            owner="scheduler",
            started_at=NOW - timedelta(hours=2),
        )
    )
    connection.execute(
        insert(job_steps).values(
            job_id=job_id,
            name="virtio-driver-injection",
            seq=1,
            status="running",
            started_at=NOW - timedelta(minutes=110),
        )
    )
    connection.execute(
        insert(log_events).values(
            job_id=job_id, level="INFO", message="injecting", attrs={}, ts=NOW - timedelta(minutes=100)
        )
    )
    assert done.inserted_primary_key is not None
    return int(done.inserted_primary_key[0])


def build_plan(name: str, *, disks: int = 2, former_status: str = "failed_over_test", failover: int = 1) -> Plan:
    return Plan(
        context_id=context_id(name),
        vm_name=name,
        former_status=former_status,
        former_job_id=f"repl-{uid(name)}",
        oma_vm_id=OMA_VM,
        test_vm=None,
        volumes=tuple(
            VolumePlan(
                volume_id=volume_id(name, disk),
                name=f"{name} disk {disk}",
                size_bytes=10 * 2**30,
                disk_id=f"disk-{2000 + disk}",
                order=disk,
                place=VolumePlace.ON_TEST_VM,
                vm_id=uid("test vm", name),
                device_id=disk,
                is_root=disk == 0,
                mapping="on the test VM",
                on_oma=False,
                snapshot_id=snapshot_id(name, disk),
                needs_revert=True,
                revert_reason="it left the OMA",
            )
            for disk in range(disks)
        ),
        open_failover_ids=(failover,),
        open_joblog_ids=(failover_id(name),),
        actions=(
            PlannedAction(
                Phase.DETACH, ActionKind.DETACH_VOLUME, Target(volume_id=volume_id(name)), "Detach the system disk."
            ),
        ),
        observed=("2 volumes on the test VM",),
        risks=(),
    )


def build_queued(name: str, *, plan: Plan | None = None, key: str | None = None, **more: Any) -> JobQueued:
    plan = plan or build_plan(name)
    return JobQueued(
        **{
            "job_id": uid("job", name),
            "plan": plan,
            "request": CleanupRequest(vm_name=name, requested_by="operator", correlation_id="corr-1").as_json(),
            "request_hash": "hash-1",
            "idempotency_key": key,
            "correlation_id": "corr-1",
            "requested_by": "operator",
            "at": NOW,
            "sentence": f"Clean-up of {name} queued.",
            **more,
        }
    )


def build_action(
    job_id: str, seq: int = 1, *, kind: ActionKind = ActionKind.DETACH_VOLUME, phase: Phase = Phase.DETACH
) -> Action:
    return Action(
        id=uid("action", job_id, seq),
        job_id=job_id,
        phase=phase,
        seq=seq,
        kind=kind,
        target=Target(volume_id=volume_id("pgtest1"), volume_name="pgtest1 disk 0"),
        state=ActionState.STARTED,
        intent_at=NOW,
        expires_at=NOW + timedelta(seconds=60),
    )


def skipped(action: Action) -> Action:
    return replace(action, state=ActionState.SKIPPED, evidence={"found": "detached already"})


def build_issue(job_id: str | None, name: str = "pgtest1", cause: str = "revert/1") -> Issue:
    return Issue(
        id=uid("issue", job_id, cause),
        cause=cause,
        job_id=job_id,
        action_id=None,
        context_id=context_id(name),
        vm_name=name,
        kind="revert_snapshot",
        code="cleanup_failed",
        severity=Severity.CRITICAL,
        state=IssueState.OPEN,
        title="A revert failed",
        target={"volume_id": volume_id(name)},
        evidence={"errorcode": 530},
        error={"system": "CloudStack", "code": "530", "text": "Failed to revert"},
        guidance=("Look at the snapshot.", "Say what you found."),
        opened_at=NOW,
        due_at=due_time(Severity.CRITICAL, NOW),
    )


def rows_of(connection: Connection, table: Table, **where: Any) -> list[dict[str, Any]]:
    query = select(table)
    for column, value in where.items():
        query = query.where(table.c[column] == value)
    return [dict(row) for row in connection.execute(query).mappings()]
