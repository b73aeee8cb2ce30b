"""A journal in memory that knows leases, and a clock that a test sets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from oma.domain.actions import Action
from oma.domain.audit import AuditDraft, AuditEntry
from oma.domain.changes import Change, IssueOpened, JobEnded, JobQueued, JobReleased, JobResumed
from oma.domain.errors import Code, LeaseLost, OmaError
from oma.domain.events import Event, EventType
from oma.domain.issues import Issue
from oma.domain.jobs import ClaimedJob, CleanupRequest, Job, Lease, LogLine, Step
from oma.domain.leaks import Leak
from oma.domain.plan import Plan
from oma.domain.remains import Remains
from oma.domain.states import JobState
from oma.ports import JobFilter, Page

START = datetime(2026, 1, 31, 3, tzinfo=UTC)


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class CountingIds:
    def __init__(self) -> None:
        self.count = 0

    def new_id(self) -> str:
        self.count += 1
        return f"id-{self.count}"


def plan_of(vm_name: str) -> Plan:
    return Plan("ctx", vm_name, "failed", None, "oma", None, (), (), (), (), (), ())


class FakeJournal:
    """Implements `JournalStore` and what the worker reads of `JobReader`."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.waiting: deque[str] = deque()
        self.fence = 0
        self.down = False
        self.torn: set[str] = set()
        """Jobs whose rows no value can be made of."""
        self.claim_gate: asyncio.Event | None = None
        """A claim waits here before it is answered."""
        self.issues: list[Issue] = []
        self.actions: list[Action] = []
        self.summaries: list[dict[str, Any] | None] = []
        """What the VMs' records keep of the runs that ended."""
        self.claims = 0
        self.refused: list[Lease] = []
        """Leases under which somebody tried to write who no longer held them."""
        self.after_renewal: Callable[[], None] | None = None

    def add(self, job_id: str) -> None:
        request = CleanupRequest(vm_name=f"vm-{job_id}")
        self.jobs[job_id] = Job(
            job_id,
            f"ctx-{job_id}",
            request.vm_name,
            JobState.QUEUED,
            request,
            plan_of(request.vm_name),
            "d",
            "c",
            "t",
            START,
        )
        self.waiting.append(job_id)

    def take_over(self, job_id: str, owner: str) -> None:
        """Another daemon took the job while our lease had run out."""
        self.fence += 1
        self.jobs[job_id] = replace(self.jobs[job_id], lease_owner=owner, lease_fence=self.fence)

    def lapse(self, job_id: str) -> None:
        """The lease ran out: the next claim takes the job again."""
        self.waiting.append(job_id)

    async def open_world_issues(self, found: Sequence[Issue], at: datetime) -> Sequence[str]:
        raise AssertionError("the worker opens no issues about the world")

    async def close_world_issues(
        self, context_id: str, kept: Sequence[str], sentence: str, evidence: Mapping[str, Any], at: datetime
    ) -> Sequence[str]:
        raise AssertionError("the worker closes no issues about the world")

    def look(self) -> None:
        if self.down:
            raise OmaError(Code.DATABASE_UNAVAILABLE, "The database is away.")

    async def queue_job(self, queued: JobQueued) -> Job:
        raise NotImplementedError

    async def resume_job(self, resumed: JobResumed) -> Job:
        raise NotImplementedError

    async def append_audit(self, drafts: Sequence[AuditDraft]) -> None:
        raise NotImplementedError

    async def find_job_resumed_by(self, context_id: str, idempotency_key: str) -> Job | None:
        raise NotImplementedError

    async def list_audit(self, limit: int, cursor: str | None) -> Page[AuditEntry]:
        raise NotImplementedError

    async def list_leaks(self, *, context_id: str | None = None, job_id: str | None = None) -> Sequence[Leak]:
        raise NotImplementedError

    async def claim_job(self, owner: str, lease_s: float) -> ClaimedJob | None:
        self.look()
        if self.claim_gate is not None:
            await self.claim_gate.wait()
        self.claims += 1
        if not self.waiting:
            return None
        self.fence += 1
        job_id = self.waiting.popleft()
        recovered = self.jobs[job_id].started_at is not None
        job = replace(
            self.jobs[job_id], state=JobState.RUNNING, lease_owner=owner, lease_fence=self.fence, started_at=START
        )
        self.jobs[job_id] = job
        return ClaimedJob(Lease(job_id, owner, self.fence), job, (), (), recovered)

    async def renew_leases(self, owner: str, lease_s: float) -> Sequence[str]:
        self.look()
        held = [job.id for job in self.jobs.values() if job.state is JobState.RUNNING and job.lease_owner == owner]
        if self.after_renewal is not None:
            self.after_renewal()
        return held

    async def apply(self, lease: Lease, changes: Sequence[Change], at: datetime) -> Sequence[Event]:
        self.look()
        job = self.jobs[lease.job_id]
        if (job.state, job.lease_owner, job.lease_fence) != (JobState.RUNNING, lease.owner, lease.fence):
            self.refused.append(lease)
            raise LeaseLost(f"{job.id} is held by {job.lease_owner}")
        events = []
        for change in changes:
            if isinstance(change, IssueOpened):
                self.issues.append(change.issue)
            if isinstance(change, JobEnded):
                self.summaries.append(change.summary)
                self.jobs[job.id] = replace(job, state=change.state, error=change.error, lease_owner=None)
            if isinstance(change, JobReleased):
                self.jobs[job.id] = replace(job, state=JobState.QUEUED, lease_owner=None)
                self.waiting.append(job.id)
            events.append(Event(1, at, job.id, None, EventType.NOTED, type(change).__name__))
        return events

    async def find_job(self, job_id: str) -> Job | None:
        self.look()
        if job_id in self.torn:
            raise OmaError(Code.INTERNAL_ERROR, f"The journal of the run {job_id} makes no sense.")
        return self.jobs.get(job_id)

    async def find_job_by_key(self, idempotency_key: str) -> tuple[Job, str | None] | None:
        raise NotImplementedError

    async def list_jobs(self, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
        raise NotImplementedError

    async def list_steps(self, job_id: str) -> Sequence[Step]:
        raise NotImplementedError

    async def list_actions(self, job_id: str) -> Sequence[Action]:
        self.look()
        return [one for one in self.actions if one.job_id == job_id]

    async def find_remains(self, job_id: str) -> Remains | None:
        raise NotImplementedError

    async def list_timed_actions(self) -> Sequence[Action]:
        raise NotImplementedError

    async def list_log(self, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
        raise NotImplementedError

    async def list_events(self, after_seq: int, job_id: str | None, limit: int) -> Sequence[Event]:
        raise NotImplementedError

    async def last_event_seq(self) -> int:
        raise NotImplementedError

    async def list_issues(self, *, job_id: str | None = None, context_id: str | None = None) -> Sequence[Issue]:
        return self.issues

    async def count_jobs(self) -> dict[str, int]:
        raise NotImplementedError

    async def check(self) -> str:
        raise NotImplementedError


class Runs:
    """Stands in for the runner: each run waits until the test says how it ends."""

    def __init__(self, journal: FakeJournal) -> None:
        self.journal = journal
        self.begun: asyncio.Queue[ClaimedJob] = asyncio.Queue()
        self.ends: dict[str, asyncio.Future[BaseException | None]] = {}
        self.cancelled: list[str] = []

    async def run(self, claimed: ClaimedJob) -> str:
        key = f"{claimed.job.id}/{claimed.lease.fence}"
        end = self.ends.setdefault(key, asyncio.get_running_loop().create_future())
        self.begun.put_nowait(claimed)
        try:
            error = await end
        except asyncio.CancelledError:
            self.cancelled.append(key)
            raise
        if error is not None:
            raise error
        await self.journal.apply(claimed.lease, [JobEnded(JobState.COMPLETED, "Done.")], START)
        return "Done."

    def end(self, claimed: ClaimedJob, error: BaseException | None = None) -> None:
        self.ends[f"{claimed.job.id}/{claimed.lease.fence}"].set_result(error)
