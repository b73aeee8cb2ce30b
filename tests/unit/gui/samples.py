"""VMs, jobs and issues as values, for pages, command line and browser alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from oma.domain.actions import Action, ActionKind, PlannedAction, Target
from oma.domain.events import Event, EventType
from oma.domain.issues import Issue, Severity
from oma.domain.jobs import CleanupRequest, Job, LogLine, Step
from oma.domain.plan import Plan, VolumePlan
from oma.domain.records import (
    DiskRecord,
    FailoverRecord,
    JobLogRecord,
    MappingRecord,
    OmaConfig,
    VmContext,
    VmRecords,
    VolumeRecord,
)
from oma.domain.states import PHASES, ActionState, IssueState, JobState, Phase, StepStatus, VolumePlace, phase_seq

NOW = datetime(2026, 3, 1, 3, 0, 0, tzinfo=UTC)
OMA_VM_ID = "0a0a0a0a-0000-4000-8000-000000000001"
TEST_VM_ID = "0a0a0a0a-0000-4000-8000-0000000000aa"
GIB = 1024**3


def ago(**delta: float) -> datetime:
    return NOW - timedelta(**delta)


def volume_id(number: int) -> str:
    return f"b3bb93{number:02d}-1b59-4f62-97e8-cefffdfe38{number:02d}"


def snapshot_id(number: int) -> str:
    return f"51a9{number:04d}-0000-4000-8000-000000000000"


def vm_records(
    name: str,
    *,
    context_id: str = "",
    vcenter: str = "vcenter-1.example",
    status: str = "failed_over_test",
    broken: bool = True,
    disks: int = 2,
    first: int = 1,
    active_job_id: str | None = None,
    open_issue_ids: tuple[str, ...] = (),
) -> VmRecords:
    """A VM whose test failover died after its volumes were detached; with `broken=False` one that is well."""
    context_id = context_id or f"ctx-{name}"
    numbers = range(first, first + disks)
    failover = FailoverRecord(
        id=first,
        context_id=context_id,
        job_id=f"failover-{name}",
        job_type="test",
        status="pending",
        created_at=ago(hours=3),
        updated_at=ago(hours=2),
    )
    log = JobLogRecord(
        job_id=failover.job_id,
        status="failed",
        job_type="failover",
        operation="test-failover",
        step_names=("virtio-driver-injection",),
        last_activity_at=ago(hours=2),
    )
    return VmRecords(
        context=VmContext(
            context_id=context_id,
            vm_name=name,
            vcenter_host=vcenter,
            current_status=status if broken else "ready_for_failover",
            current_job_id=None,
            ossea_config_id=1,
        ),
        volumes=tuple(
            VolumeRecord(
                id=number,
                context_id=context_id,
                volume_id=volume_id(number),
                volume_name=f"vol-{number}",
                size_gb=40,
                ossea_config_id=1,
                status="attached",
                snapshot_id=snapshot_id(number) if broken else "",
                snapshot_status="ready" if broken else "none",
            )
            for number in numbers
        ),
        disks=tuple(
            DiskRecord(id=number, context_id=context_id, disk_id=f"disk-{2000 + place}", ossea_volume_id=number)
            for place, number in enumerate(numbers)
        ),
        mappings=()
        if broken
        else tuple(MappingRecord(volume_id(number), OMA_VM_ID, "oma", f"/dev/vd{number}") for number in numbers),
        failovers=(failover,) if broken else (),
        joblog=(log,) if broken else (),
        replications=(),
        configs=(OmaConfig(1, "main", OMA_VM_ID, is_active=True),),
        active_job_id=active_job_id,
        open_issue_ids=open_issue_ids,
        read_at=NOW,
    )


def volume_plan(number: int = 1, order: int = 0) -> VolumePlan:
    return VolumePlan(
        volume_id=volume_id(number),
        name=f"vol-{number}",
        size_bytes=40 * GIB,
        disk_id=f"disk-{2000 + order}",
        order=order,
        place=VolumePlace.DETACHED,
        vm_id=None,
        device_id=None,
        is_root=False,
        mapping="detached",
        on_oma=False,
        snapshot_id=snapshot_id(number),
        needs_revert=True,
        revert_reason="it is detached, so it left the OMA",
    )


def plan(name: str = "pgtest1", volumes: int = 2, *, powered_off: bool = False) -> Plan:
    planned = tuple(volume_plan(number, number - 1) for number in range(1, volumes + 1))
    targets = [Target(volume_id=one.volume_id, volume_name=one.name, snapshot_id=one.snapshot_id) for one in planned]
    actions = [
        *(PlannedAction(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT, t, f"Revert {t.volume_name}.") for t in targets),
        *(
            PlannedAction(Phase.SNAPSHOTS, ActionKind.DELETE_SNAPSHOT, t, f"Delete the snapshot of {t.volume_name}.")
            for t in targets
        ),
        *(
            PlannedAction(Phase.REATTACH, ActionKind.ATTACH_VOLUME, t, f"Attach {t.volume_name} to the OMA.")
            for t in targets
        ),
        PlannedAction(Phase.RESET, ActionKind.RESET_RECORDS, Target(), "Reset the records to ready_for_failover."),
    ]
    return Plan(
        context_id=f"ctx-{name}",
        vm_name=name,
        former_status="failed_over_test",
        former_job_id=None,
        oma_vm_id=OMA_VM_ID,
        test_vm=None,
        volumes=planned,
        open_failover_ids=(1,),
        open_joblog_ids=(),
        actions=tuple(actions),
        observed=(f"The test failover failover-{name} says pending: its JobLog row says failed.",),
        risks=("2 volumes lose everything written since the snapshot; the way is then forward only.",),
        source_powered_off=powered_off,
    )


def job(job_id: str = "job-1", name: str = "pgtest1", state: JobState = JobState.RUNNING, **changes: object) -> Job:
    made = plan(name)
    base = Job(
        id=job_id,
        context_id=f"ctx-{name}",
        vm_name=name,
        state=state,
        request=CleanupRequest(vm_name=name, correlation_id="corr-1"),
        plan=made,
        plan_digest=made.digest,
        correlation_id="corr-1",
        requested_by="api",
        created_at=ago(seconds=32),
        started_at=ago(seconds=31),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def completed_job(job_id: str = "job-1", name: str = "pgtest1") -> Job:
    return job(
        job_id,
        name,
        JobState.COMPLETED,
        phase=Phase.RESET,
        ended_at=NOW,
        reverted=True,
        result={
            "message": f"Failed execution cleanup completed for {name}",
            "replica": "ready",
            "next": "Run a replication before the next failover.",
        },
    )


def parked_job(job_id: str = "job-1", name: str = "pgtest1") -> Job:
    return job(
        job_id,
        name,
        JobState.PARKED,
        phase=Phase.SNAPSHOTS,
        ended_at=NOW,
        reverted=True,
        error={
            "code": "cleanup_failed",
            "detail": "The revert of vol-1 failed.",
            "phase": Phase.SNAPSHOTS.value,
            "action": ActionKind.REVERT_SNAPSHOT.value,
            "upstream": {"system": "CloudStack", "code": "530", "text": "Unable to revert volume"},
            "issue_id": "issue-1",
            "guidance": ["1. Look at the job: cs queryAsyncJobResult jobid=abc", "2. Then resolve the issue."],
            "replica": "unknown",
            "next": f"The content of vol-1 is not proven; don't fail over {name}.",
        },
    )


def issue(job_id: str = "job-1", name: str = "pgtest1") -> Issue:
    return Issue(
        id="issue-1",
        cause="revert of vol-1",
        job_id=job_id,
        action_id="action-1",
        context_id=f"ctx-{name}",
        vm_name=name,
        kind=ActionKind.REVERT_SNAPSHOT.value,
        code="cleanup_failed",
        severity=Severity.CRITICAL,
        state=IssueState.OPEN,
        title="The revert of vol-1 is unproven",
        target={"volume_id": volume_id(1)},
        evidence={},
        error=None,
        guidance=("1. Look at the job: cs queryAsyncJobResult jobid=abc", "2. Then resolve the issue."),
        opened_at=ago(minutes=1),
        due_at=NOW + timedelta(hours=4),
    )


def steps(upto: Phase, status: StepStatus = StepStatus.RUNNING) -> tuple[Step, ...]:
    """Every phase before `upto` completed, 3 s each; `upto` itself in `status`."""
    done = [
        Step(phase, phase_seq(phase), StepStatus.COMPLETED, ago(seconds=30 - 3 * place), ago(seconds=27 - 3 * place))
        for place, phase in enumerate(PHASES[: phase_seq(upto) - 1])
    ]
    ended = None if status is StepStatus.RUNNING else NOW
    return (*done, Step(upto, phase_seq(upto), status, ago(seconds=10), ended))


def action(
    number: int,
    kind: ActionKind,
    phase: Phase,
    state: ActionState,
    *,
    job_id: str = "job-1",
    volume: int = 1,
    sentence: str = "",
    error: dict[str, object] | None = None,
) -> Action:
    ended = None if state is ActionState.STARTED else ago(seconds=5)
    return Action(
        id=f"action-{number}",
        job_id=job_id,
        phase=phase,
        seq=number,
        kind=kind,
        target=Target(volume_id=volume_id(volume), volume_name=f"vol-{volume}"),
        state=state,
        intent_at=ago(seconds=9),
        ended_at=ended,
        error=error,
        sentence=sentence,
    )


def actions_of_run() -> tuple[Action, ...]:
    """One volume reverted, the other under way."""
    return (
        action(
            1,
            ActionKind.REVERT_SNAPSHOT,
            Phase.SNAPSHOTS,
            ActionState.EXECUTED,
            sentence="Reverted vol-1 to its snapshot.",
        ),
        action(
            2,
            ActionKind.REVERT_SNAPSHOT,
            Phase.SNAPSHOTS,
            ActionState.STARTED,
            volume=2,
            sentence="Reverting vol-2 to its snapshot.",
        ),
    )


def log_line(number: int, message: str, level: str = "INFO", job_id: str = "job-1") -> LogLine:
    return LogLine(number, job_id, Phase.SNAPSHOTS, level, message, {}, ago(seconds=20 - min(number, 20)))


def event(seq: int, kind: EventType, sentence: str, job_id: str = "job-1", name: str = "pgtest1") -> Event:
    return Event(seq, NOW, job_id, f"ctx-{name}", kind, sentence)
