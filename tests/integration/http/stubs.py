"""A tiny estate in memory behind the ports, for tests of what the API answers. It counts what is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Mapping as MappingType
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from appliance.web import serve_site
from oma.domain.actions import Action, ActionKind, Target
from oma.domain.audit import AuditDraft, AuditEntry
from oma.domain.changes import ActionEnded, Change, JobCancelled, JobQueued, JobResumed
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.events import Event, EventType
from oma.domain.evidence import GuardLimits
from oma.domain.issues import Issue
from oma.domain.jobs import ClaimedJob, CleanupRequest, Job, Lease, LogLine, Step
from oma.domain.leaks import Leak
from oma.domain.records import DiskRecord, MappingRecord, OmaConfig, VmContext, VmRecords, VolumeRecord
from oma.domain.remains import Remains
from oma.domain.resolving import IssueResolved, Settled
from oma.domain.states import PHASES, ActionState, JobState, Phase, StepStatus, phase_seq
from oma.domain.undoing import CancelAsked
from oma.domain.world import (
    serial_of,
)
from oma.http.app import build_app
from oma.http.site import Site
from oma.ports import ContextFilter, IssueFilter, JobFilter, Page
from oma.service.deps import Deps
from oma.workflow.bus import EventBus
from tests.fakes.controls import MemoryControls
from tests.integration.http.stub_clock import START, StubClock, StubIds
from tests.integration.http.stub_cloud import OMA_VM, StubCloud
from tests.integration.http.stub_volumes import StubVolumes


def volume_id_of(number: int) -> str:
    return f"b0000000-{number:04d}-4000-8000-000000000000"


def vm_records(name: str, number: int, *, vcenter: str = "vc1", status: str = "cleanup_required") -> VmRecords:
    """A VM whose one disk is home on the OMA; what is left of its failover are rows."""
    context = VmContext(f"ctx-{number}", name, vcenter, status, None, 1, updated_at=START)
    volume = VolumeRecord(number, context.context_id, volume_id_of(number), f"{name}-disk-0", 10, 1, "attached")
    disk = DiskRecord(number, context.context_id, "disk-2000", number, 0, 10)
    mapping = MappingRecord(volume.volume_id, OMA_VM, "oma", f"/dev/disk/by-id/virtio-{serial_of(volume.volume_id)}")
    return VmRecords(
        context, (volume,), (disk,), (mapping,), (), (), (), (OmaConfig(1, "main", OMA_VM, is_active=True),)
    )


@dataclass
class Estate:
    """All four stubs look into this one state."""

    vms: dict[str, VmRecords] = field(default_factory=dict[str, Any])
    jobs: dict[str, Job] = field(default_factory=dict[str, Any])
    steps: dict[str, list[Step]] = field(default_factory=dict[str, Any])
    actions: dict[str, list[Action]] = field(default_factory=dict[str, Any])
    issues: list[Issue] = field(default_factory=list)
    log: dict[str, list[LogLine]] = field(default_factory=dict[str, Any])
    events: list[Event] = field(default_factory=list)
    queued: list[JobQueued] = field(default_factory=list)
    resumed: list[JobResumed] = field(default_factory=list)
    cancelled: list[JobCancelled] = field(default_factory=list)
    audit: list[AuditDraft] = field(default_factory=list)
    controls: MemoryControls = field(default_factory=MemoryControls)
    database_down: bool = False
    conflicts: int = 0
    """Times that somebody changes the VM's status between looking and queueing."""
    broken: Exception | None = None
    asked: list[Any] = field(default_factory=list)
    on_queued: Callable[[], None] | None = None
    bus: EventBus = field(default_factory=EventBus)
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    waited_for: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody listens to the bus and has looked at the job: whatever happens now reaches them."""

    def add_vm(self, name: str, *, vcenter: str = "vc1", status: str = "cleanup_required") -> VmRecords:
        records = vm_records(name, len(self.vms) + 1, vcenter=vcenter, status=status)
        self.vms[records.context.context_id] = records
        return records

    def look(self) -> None:
        if self.broken is not None:
            raise self.broken
        if self.database_down:
            raise OmaError(Code.DATABASE_UNAVAILABLE, "The database does not answer; see that it runs.")

    def emit(self, kind: EventType, job_id: str | None, sentence: str = "It happened.", **data: Any) -> Event:
        event = Event(len(self.events) + 1, START, job_id, None, kind, sentence, data)
        self.events.append(event)
        self.bus.publish([event])
        return event

    def end_job(self, job_id: str, state: JobState = JobState.COMPLETED, **values: Any) -> None:
        """As the runner would: steps, one action, the end, and the event."""
        job = self.jobs[job_id]
        self.jobs[job_id] = replace(
            job, state=state, started_at=START, ended_at=START + timedelta(seconds=31.5), **values
        )
        self.steps[job_id] = [
            Step(phase, phase_seq(phase), StepStatus.COMPLETED, START, START + timedelta(seconds=2)) for phase in PHASES
        ]
        self.actions[job_id] = [
            Action(
                "ac000000-0000-4000-8000-000000000001",
                job_id,
                Phase.RESET,
                1,
                ActionKind.RESET_RECORDS,
                Target(),
                ActionState.EXECUTED,
                intent_at=START,
                ended_at=START,
                sentence="Records reset.",
            )
        ]
        kinds = {
            JobState.COMPLETED: EventType.JOB_COMPLETED,
            JobState.PARKED: EventType.JOB_PARKED,
            JobState.FAILED: EventType.JOB_FAILED,
        }
        self.emit(kinds[state], job_id)


class StubInventory:
    def __init__(self, estate: Estate) -> None:
        self.estate = estate

    async def list_contexts_named(self, vm_name: str) -> tuple[Sequence[VmContext], Sequence[str]]:
        self.estate.look()
        contexts = [records.context for records in self.estate.vms.values()]
        same = [context for context in contexts if context.vm_name == vm_name]
        near = [context.vm_name for context in contexts if context.vm_name.lower() == vm_name.lower()]
        return same, [name for name in near if name != vm_name]

    async def find_context(self, context_id: str) -> VmContext | None:
        records = self.estate.vms.get(context_id)
        return records.context if records else None

    async def get_records(self, context_id: str) -> VmRecords:
        self.estate.look()
        return self.estate.vms[context_id]

    async def list_records_of(self, context_ids: Sequence[str]) -> Sequence[VmRecords]:
        return [await self.get_records(one) for one in context_ids]

    async def list_known_volume_ids(self, volume_ids: Sequence[str]) -> Sequence[str]:
        return list(volume_ids)

    async def list_records(self, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmRecords]:
        self.estate.look()
        self.estate.asked.append((where, limit, cursor))
        found = [
            records
            for records in self.estate.vms.values()
            if (where.status is None or records.context.current_status == where.status)
            and (where.q is None or where.q in records.context.vm_name)
        ]
        return Page(tuple(found[:limit]), None)


class StubJournal:
    def __init__(self, estate: Estate) -> None:
        self.estate = estate

    async def queue_job(self, queued: JobQueued) -> Job:
        self.estate.look()
        if self.estate.conflicts:
            self.estate.conflicts -= 1
            raise ConcurrentChange
        self.estate.queued.append(queued)
        job = Job(
            queued.job_id,
            queued.plan.context_id,
            queued.plan.vm_name,
            JobState.QUEUED,
            CleanupRequest.from_json(queued.request),
            queued.plan,
            queued.plan.digest,
            queued.correlation_id,
            queued.requested_by,
            queued.at,
        )
        self.estate.jobs[job.id] = job
        records = self.estate.vms[job.context_id]
        self.estate.vms[job.context_id] = replace(records, active_job_id=job.id, active_job_holder=None)
        self.estate.emit(EventType.JOB_QUEUED, job.id)
        if self.estate.on_queued is not None:
            self.estate.on_queued()
        return job

    async def resolve_issue(self, resolved: IssueResolved) -> Settled:
        raise AssertionError("no issue is settled here")

    async def resume_job(self, resumed: JobResumed) -> Job:
        self.estate.look()
        self.estate.resumed.append(resumed)
        job = replace(self.estate.jobs[resumed.job_id], state=JobState.QUEUED, ended_at=None, error=None)
        self.estate.jobs[job.id] = job
        self.estate.emit(EventType.JOB_RESUMED, job.id)
        if self.estate.on_queued is not None:
            self.estate.on_queued()
        return job

    async def cancel_job(self, cancelled: JobCancelled) -> Job:
        self.estate.cancelled.append(cancelled)
        job = replace(self.estate.jobs[cancelled.job_id], cancel=cancelled.asked)
        self.estate.jobs[job.id] = job
        return job

    async def find_cancel(self, job_id: str) -> CancelAsked | None:
        return self.estate.jobs[job_id].cancel

    async def append_audit(self, drafts: Sequence[AuditDraft]) -> None:
        self.estate.look()
        self.estate.audit.extend(drafts)

    async def open_world_issues(self, found: Sequence[Issue], at: datetime) -> Sequence[str]:
        return [issue.id for issue in found]

    async def close_world_issues(
        self, context_id: str, kept: Sequence[str], sentence: str, evidence: MappingType[str, Any], at: datetime
    ) -> Sequence[str]:
        return ()

    async def claim_job(self, owner: str, lease_s: float) -> ClaimedJob | None:
        return None

    async def renew_leases(self, owner: str, lease_s: float) -> Sequence[str]:
        return ()

    async def apply(self, lease: Lease, changes: Sequence[Change], at: datetime) -> Sequence[Event]:
        return ()

    async def list_unmarkings(self, before: datetime) -> Sequence[Action]:
        return ()

    async def end_unmarking(self, job_id: str, ended: ActionEnded, remote_id: str | None, at: datetime) -> None:
        raise AssertionError("the API ends no action")


class StubJobs:
    def __init__(self, estate: Estate) -> None:
        self.estate = estate

    async def find_job(self, job_id: str) -> Job | None:
        self.estate.look()
        self.estate.waited_for.set()
        return self.estate.jobs.get(job_id)

    async def find_job_by_key(self, idempotency_key: str) -> tuple[Job, str | None] | None:
        self.estate.look()
        for queued in self.estate.queued:
            if queued.idempotency_key == idempotency_key:
                return self.estate.jobs[queued.job_id], queued.request_hash
        return None

    async def find_job_resumed_by(self, context_id: str, idempotency_key: str) -> Job | None:
        return next((self.estate.jobs[one.job_id] for one in self.estate.resumed), None)

    async def list_audit(self, limit: int, cursor: str | None) -> Page[AuditEntry]:
        return Page((), None)

    async def list_leaks(self, *, context_id: str | None = None, job_id: str | None = None) -> Sequence[Leak]:
        return ()

    async def list_jobs(self, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
        self.estate.look()
        self.estate.asked.append((where, limit, cursor))
        return Page(tuple(self.estate.jobs.values())[:limit], "more" if len(self.estate.jobs) > limit else None)

    async def list_steps(self, job_id: str) -> Sequence[Step]:
        return self.estate.steps.get(job_id, [])

    async def list_actions(self, job_id: str) -> Sequence[Action]:
        return self.estate.actions.get(job_id, [])

    async def find_remains(self, job_id: str) -> Remains | None:
        return None

    async def list_timed_actions(self) -> Sequence[Action]:
        return ()

    async def list_log(self, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
        return Page(tuple(self.estate.log.get(job_id, [])[:limit]), None)

    async def list_events(self, after_seq: int, job_id: str | None, limit: int) -> Sequence[Event]:
        self.estate.subscribed.set()
        return [
            event
            for event in self.estate.events
            if event.seq > after_seq and (job_id is None or event.job_id == job_id)
        ][:limit]

    async def last_event_seq(self) -> int:
        return len(self.estate.events)

    async def find_issue(self, issue_id: str) -> Issue | None:
        return next((one for one in self.estate.issues if one.id == issue_id), None)

    async def find_next_issue(self) -> Issue | None:
        return next(iter(self.estate.issues), None)

    async def list_issue_page(self, where: IssueFilter, limit: int, cursor: str | None) -> Page[Issue]:
        found = [
            one for one in self.estate.issues if where.state in (None, one.state) and where.vm in (None, one.vm_name)
        ]
        return Page(tuple(found[:limit]), cursor)

    async def list_issues(self, *, job_id: str | None = None, context_id: str | None = None) -> Sequence[Issue]:
        return [issue for issue in self.estate.issues if job_id is None or issue.job_id == job_id]

    async def count_jobs(self) -> dict[str, int]:
        return {}

    async def check(self) -> str:
        self.estate.look()
        return "The database answers."


@dataclass
class Api:
    """A served application and a client for it."""

    estate: Estate
    deps: Deps
    url: str
    client: aiohttp.ClientSession
    requests: list[tuple[str, int, float]]
    unready: list[str]
    answered: asyncio.Event
    """Some request has been answered."""


@asynccontextmanager
async def served(**site_values: Any) -> AsyncIterator[Api]:
    estate = Estate()
    deps = Deps(
        inventory=StubInventory(estate),
        journal=StubJournal(estate),
        jobs=StubJobs(estate),
        controls=estate.controls,
        cloud=StubCloud(),
        volumes=StubVolumes(estate),
        clock=StubClock(),
        ids=StubIds(),
        bus=estate.bus,
        limits=GuardLimits(oma_identity="trust"),
    )
    requests: list[tuple[str, int, float]] = []
    unready: list[str] = []
    answered = asyncio.Event()

    def observe(route: str, status: int, seconds: float) -> None:
        requests.append((route, status, seconds))
        answered.set()

    site = Site(
        deps,
        observe_request=observe,
        unready=lambda: unready[0] if unready else None,
        **site_values,
    )
    runner, url = await serve_site(build_app(site), "127.0.0.1", 0, shutdown_timeout_s=1)
    try:
        async with aiohttp.ClientSession() as client:
            yield Api(estate, deps, url, client, requests, unready, answered)
    finally:
        estate.bus.close()
        await runner.cleanup()
