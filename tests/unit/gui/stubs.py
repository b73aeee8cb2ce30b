"""Ports that answer from memory, so that pages run over the real service functions in this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, cast

from oma.domain.actions import Action
from oma.domain.audit import AuditDraft, AuditEntry
from oma.domain.changes import ActionEnded, Change, JobCancelled, JobQueued, JobResumed
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.evidence import GuardLimits
from oma.domain.holders import DeviceHolder, DeviceHolders
from oma.domain.issues import Issue
from oma.domain.jobs import ClaimedJob, CleanupRequest, Job, Lease, LogLine, Step
from oma.domain.leaks import Leak
from oma.domain.records import VmContext, VmRecords
from oma.domain.remains import Remains
from oma.domain.resolving import IssueResolved, Settled
from oma.domain.states import JobState
from oma.domain.undoing import CancelAsked
from oma.domain.world import (
    CloudSnapshot,
    CloudVm,
    CloudVolume,
    DeviceLink,
    DeviceScan,
    Mapping,
    Mark,
    VmEvent,
    serial_of,
)
from oma.ports import ContextFilter, IssueFilter, JobFilter, Page
from oma.service.deps import Deps
from oma.workflow.bus import EventBus
from tests.fakes.controls import MemoryControls
from tests.unit.gui.samples import GIB, NOW, OMA_VM_ID, ago


class StubClock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOW).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class StubIds:
    def __init__(self) -> None:
        self._numbers = count(1)

    def new_id(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._numbers):012d}"


class StubEstate:
    """Inventory, journal and reader over the same dictionaries; `fault` is raised by every read when set."""

    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.vms: dict[str, VmRecords] = {}
        self.job_rows: dict[str, Job] = {}
        self.steps: dict[str, list[Step]] = defaultdict(list)
        self.actions: dict[str, list[Action]] = defaultdict(list)
        self.issues: list[Issue] = []
        self.log: dict[str, list[LogLine]] = defaultdict(list)
        self.events: list[Event] = []
        self.queued: list[JobQueued] = []
        self.audited: list[AuditDraft] = []
        self.resumed: list[JobResumed] = []
        self.timed: list[Action] = []
        """Actions of earlier runs, for how long each kind takes."""
        self.fault: OmaError | None = None
        self.on_queued: Callable[[Job], None] | None = None
        """Called before whoever asked has its answer."""
        self.on_followed: Callable[[Job], None] | None = None
        """Called when somebody opens the stream of an active job."""

    def add(self, *records: VmRecords) -> None:
        for one in records:
            self.vms[one.context.context_id] = one

    def put_job(self, job: Job) -> None:
        """Stores the job; an active one takes its VM's place, an ended one gives it free."""
        self.job_rows[job.id] = job
        records = self.vms.get(job.context_id)
        if records is not None:
            active = job.state in (JobState.QUEUED, JobState.RUNNING, JobState.PARKED)
            self.vms[job.context_id] = replace(records, active_job_id=job.id if active else None)

    def tell(self, job: Job, kind: EventType, sentence: str) -> None:
        """Journals the event, its log line, and publishes it."""
        event = Event(len(self.events) + 1, NOW, job.id, job.context_id, kind, sentence)
        self.events.append(event)
        self.log[job.id].append(LogLine(event.seq, job.id, job.phase, "INFO", sentence, {}, NOW))
        self.bus.publish([event])

    async def list_contexts_named(self, vm_name: str) -> tuple[Sequence[VmContext], Sequence[str]]:
        contexts = [one.context for one in self.vms.values()]
        near = [one.vm_name for one in contexts if one.vm_name.lower() == vm_name.lower() and one.vm_name != vm_name]
        return [one for one in contexts if one.vm_name == vm_name], near

    async def find_context(self, context_id: str) -> VmContext | None:
        records = self.vms.get(context_id)
        return records.context if records else None

    async def get_records(self, context_id: str) -> VmRecords:
        self._raise_fault()
        if context_id not in self.vms:
            raise OmaError(Code.VM_NOT_FOUND, f"No VM has the context {context_id!r}.")
        return self.vms[context_id]

    async def list_known_volume_ids(self, volume_ids: Sequence[str]) -> Sequence[str]:
        return [one for one in volume_ids if any(one == v.volume_id for r in self.vms.values() for v in r.volumes)]

    async def list_records(self, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmRecords]:
        self._raise_fault()
        if cursor is not None and not cursor.isdigit():
            raise OmaError(Code.INVALID_REQUEST, "cursor is not one of ours.", field="cursor")
        found = [
            one
            for one in sorted(self.vms.values(), key=lambda one: one.context.vm_name)
            if (where.status is None or one.context.current_status == where.status)
            and (where.q is None or where.q.lower() in one.context.vm_name.lower())
        ]
        start = int(cursor or 0)
        rest = found[start : start + limit]
        return Page(tuple(rest), str(start + limit) if start + limit < len(found) else None)

    async def queue_job(self, queued: JobQueued) -> Job:
        self.queued.append(queued)
        job = Job(
            id=queued.job_id,
            context_id=queued.plan.context_id,
            vm_name=queued.plan.vm_name,
            state=JobState.QUEUED,
            request=CleanupRequest.from_json(queued.request),
            plan=queued.plan,
            plan_digest=queued.plan.digest,
            correlation_id=queued.correlation_id,
            requested_by=queued.requested_by,
            created_at=queued.at,
        )
        self.put_job(job)
        self.tell(job, EventType.JOB_QUEUED, queued.sentence)
        if self.on_queued is not None:
            self.on_queued(job)
        return job

    async def claim_job(self, owner: str, lease_s: float) -> ClaimedJob | None:
        raise AssertionError("no page claims a job")

    async def renew_leases(self, owner: str, lease_s: float) -> Sequence[str]:
        raise AssertionError("no page renews a lease")

    async def apply(self, lease: Lease, changes: Sequence[Change], at: datetime) -> Sequence[Event]:
        raise AssertionError("no page writes the journal")

    async def list_unmarkings(self, before: datetime) -> Sequence[Action]:
        raise AssertionError("no page looks for markers")

    async def end_unmarking(self, job_id: str, ended: ActionEnded, remote_id: str | None, at: datetime) -> None:
        raise AssertionError("no page ends an action")

    async def cancel_job(self, cancelled: JobCancelled) -> Job:
        raise NotImplementedError

    async def find_cancel(self, job_id: str) -> CancelAsked | None:
        raise NotImplementedError

    async def append_audit(self, drafts: Sequence[AuditDraft]) -> None:
        self.audited.extend(drafts)

    async def open_world_issues(self, found: Sequence[Issue], at: datetime) -> Sequence[str]:
        return [issue.id for issue in found]

    async def close_world_issues(
        self, context_id: str, kept: Sequence[str], sentence: str, evidence: MappingType[str, Any], at: datetime
    ) -> Sequence[str]:
        return ()

    async def find_job_resumed_by(self, context_id: str, idempotency_key: str) -> Job | None:
        return None

    async def resolve_issue(self, resolved: IssueResolved) -> Settled:
        raise AssertionError("no issue is settled here")

    async def resume_job(self, resumed: JobResumed) -> Job:
        self.resumed.append(resumed)
        job = replace(self.job_rows[resumed.job_id], state=JobState.QUEUED)
        self.put_job(job)
        return job

    async def list_audit(self, limit: int, cursor: str | None) -> Page[AuditEntry]:
        return Page((), None)

    async def list_leaks(self, *, context_id: str | None = None, job_id: str | None = None) -> Sequence[Leak]:
        return ()

    async def list_records_of(self, context_ids: Sequence[str]) -> Sequence[VmRecords]:
        return [self.vms[one] for one in context_ids if one in self.vms]

    async def find_job(self, job_id: str) -> Job | None:
        self._raise_fault()
        return self.job_rows.get(job_id)

    async def find_job_by_key(self, idempotency_key: str) -> tuple[Job, str | None] | None:
        found = next((one for one in self.queued if one.idempotency_key == idempotency_key), None)
        return None if found is None else (self.job_rows[found.job_id], found.request_hash)

    async def list_jobs(self, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
        found = [
            one
            for one in reversed(self.job_rows.values())
            if (where.vm is None or one.vm_name == where.vm)
            and (where.status is None or one.state.value == where.status)
        ]
        start = int(cursor or 0)
        return Page(tuple(found[start : start + limit]), str(start + limit) if start + limit < len(found) else None)

    async def list_steps(self, job_id: str) -> Sequence[Step]:
        return self.steps[job_id]

    async def list_actions(self, job_id: str) -> Sequence[Action]:
        return self.actions[job_id]

    async def find_remains(self, job_id: str) -> Remains | None:
        raise NotImplementedError(job_id)

    async def list_timed_actions(self) -> Sequence[Action]:
        return self.timed

    async def list_log(self, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
        lines, start = self.log[job_id], int(cursor or 0)
        return Page(tuple(lines[start : start + limit]), str(start + limit) if start + limit < len(lines) else None)

    async def list_events(self, after_seq: int, job_id: str | None, limit: int) -> Sequence[Event]:
        job = self.job_rows.get(job_id or "")
        if self.on_followed is not None and job is not None and job.state in (JobState.QUEUED, JobState.RUNNING):
            self.on_followed(job)
        return [e for e in self.events if e.seq > after_seq and job_id in (None, e.job_id)][:limit]

    async def last_event_seq(self) -> int:
        return len(self.events)

    async def find_issue(self, issue_id: str) -> Issue | None:
        return next((one for one in self.issues if one.id == issue_id), None)

    async def find_next_issue(self) -> Issue | None:
        return next(iter(self.issues), None)

    async def list_issue_page(self, where: IssueFilter, limit: int, cursor: str | None) -> Page[Issue]:
        found = [one for one in self.issues if where.state in (None, one.state) and where.vm in (None, one.vm_name)]
        return Page(tuple(found[:limit]), cursor)

    async def list_issues(self, *, job_id: str | None = None, context_id: str | None = None) -> Sequence[Issue]:
        return [one for one in self.issues if job_id in (None, one.job_id) and context_id in (None, one.context_id)]

    async def count_jobs(self) -> dict[str, int]:
        return {}

    async def check(self) -> str:
        self._raise_fault()
        return "SQLite in memory."

    def _raise_fault(self) -> None:
        if self.fault is not None:
            raise self.fault


class StubWorld:
    """CloudStack and the Volume Daemon: mapped volumes at home, others detached; `missing` ones are not listed."""

    def __init__(self, estate: StubEstate) -> None:
        self._estate = estate
        self.missing: set[str] = set()
        self.foreign: set[str] = set()
        self.held: dict[str, tuple[DeviceHolder, ...]] = {}
        """Holders by the volume's id."""
        self.untracked: list[CloudSnapshot] = []
        """Snapshots that CloudStack lists and that no record names."""
        self.events: list[VmEvent] = []
        """What CloudStack's event log tells of any VM."""

    async def list_volumes(self, volume_ids: Sequence[str]) -> Sequence[CloudVolume]:
        return [self._volume(one) for one in volume_ids if one not in self.missing]

    def _volume(self, volume_id: str) -> CloudVolume:
        away: dict[str, Any] = {"vm_id": OMA_VM_ID, "vm_name": "oma"} if volume_id in self._home() else {}
        if volume_id in self.foreign:
            away = {"vm_id": "foreign-vm", "vm_name": "payroll"}
        name = next((v.volume_name for v in self._volumes() if v.volume_id == volume_id), volume_id)
        return CloudVolume(volume_id, name, "Ready", 40 * GIB, **away)

    def _volumes(self) -> list[Any]:
        return [volume for records in self._estate.vms.values() for volume in records.volumes]

    def _home(self) -> dict[str, Mapping]:
        """What the records have as mapped at the OMA is there."""
        return {
            mapping.volume_uuid: Mapping(mapping.volume_uuid, OMA_VM_ID, mapping.device_path, "oma")
            for records in self._estate.vms.values()
            for mapping in records.mappings
        }

    async def list_volumes_of_vm(self, vm_id: str) -> Sequence[CloudVolume]:
        return [self._volume(one) for one in self._home()] if vm_id == OMA_VM_ID else []

    async def list_snapshots(self, snapshot_ids: Sequence[str]) -> Sequence[CloudSnapshot]:
        return [
            CloudSnapshot(volume.snapshot_id, volume.volume_id, "test-failover", "BackedUp", ago(hours=2.5), 40 * GIB)
            for volume in self._volumes()
            if volume.snapshot_id in snapshot_ids
        ] + [snapshot for snapshot in self.untracked if snapshot.id in snapshot_ids]

    async def list_snapshots_named(self, part: str) -> Sequence[CloudSnapshot]:
        return [snapshot for snapshot in self.untracked if part in snapshot.name]

    async def list_marks(self) -> Sequence[Mark]:
        return []

    async def list_vms_named(self, part: str) -> Sequence[CloudVm]:
        return []

    async def list_vm_events(self, vm_id: str) -> Sequence[VmEvent]:
        return self.events

    async def list_volume_events(self, volume_id: str) -> Sequence[VmEvent]:
        return []

    async def list_holders(self, volume_id: str) -> DeviceHolders | None:
        holders = self.held.get(volume_id, ())
        return DeviceHolders(volume_id, complete=True, holders=holders, unread=(), scanned_at=NOW)

    async def list_vms(self, vm_ids: Sequence[str]) -> Sequence[CloudVm]:
        return [CloudVm(one, "oma" if one == OMA_VM_ID else one, "Running") for one in vm_ids]

    async def list_vm_snapshot_holders(self, vm_ids: Sequence[str]) -> Sequence[str]:
        return []

    async def find_mapping(self, volume_id: str) -> Mapping | None:
        return self._home().get(volume_id)

    async def scan_devices(self) -> DeviceScan:
        links = [DeviceLink(f"virtio-{serial_of(one)}", serial_of(one), 40 * GIB) for one in self._home()]
        return DeviceScan(OMA_VM_ID, None, NOW, tuple(links))

    async def check(self) -> str:
        return "Answers."


class StubDaemon:
    """`deps` for the service functions, with handles on what is behind them."""

    def __init__(self) -> None:
        self.bus = EventBus()
        self.estate = StubEstate(self.bus)
        self.world = StubWorld(self.estate)
        self.controls = MemoryControls()
        self.deps = Deps(
            inventory=self.estate,
            journal=self.estate,
            jobs=self.estate,
            controls=self.controls,
            cloud=cast("Any", self.world),
            volumes=cast("Any", self.world),
            clock=StubClock(),
            ids=StubIds(),
            bus=self.bus,
            limits=GuardLimits(oma_identity="trust"),
        )
