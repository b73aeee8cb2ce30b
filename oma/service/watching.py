"""The watcher: finds failovers, and jobs of our own, that make no progress, and opens an issue that says what to do.

It starts nothing and changes nothing else. An issue of its own blocks no run and closes itself once its cause is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from oma.domain.errors import OmaError, Refusal
from oma.domain.evidence import Evidence
from oma.domain.issues import FAILOVER_STUCK, JOB_STUCK, Issue, Severity, due_time
from oma.domain.records import FailoverRecord, VmRecords
from oma.domain.states import IssueState
from oma.domain.verdict import shell_word
from oma.domain.watching import SlowJob
from oma.ports import ContextFilter, Watch
from oma.service.deps import Deps
from oma.workflow.guards import judge
from oma.workflow.life import clients_of, failover_life, failover_life_in
from oma.workflow.needs import needs_cleanup
from oma.workflow.observe import World, collect_evidence

PAGE = 500
LOOKS = 20
"""VMs whose world is asked about in one turn; further ones wait for the next."""
LOOK_AGAIN_S = 600.0
"""After a look that opened nothing: somebody is alive there, or did not answer."""
GONE = "What it was about has ended."


@dataclass(frozen=True, slots=True)
class Patience:
    """After how many seconds without progress an issue is opened."""

    failover_s: float = 1800.0
    job_s: float = 3600.0


@dataclass(slots=True)
class Watcher:
    """`jobs_stuck` is how many jobs of ours the last turn found."""

    deps: Deps
    watch: Watch
    patience: Patience = field(default_factory=Patience)
    jobs_stuck: int = 0
    _looked: dict[str, float] = field(default_factory=dict[str, float])

    async def run_once(self) -> str | None:
        """Raises `database_unavailable`; nothing is closed by a turn that did not come to its end."""
        open_causes = {issue.cause for issue in await self.deps.jobs.list_issues()}
        jobs = await self._watch_jobs(open_causes)
        failovers = await self._watch_failovers(open_causes)
        opened, closed = jobs[0] + failovers[0], jobs[1] + failovers[1]
        return f"Stuck: {opened} issues opened, {closed} closed." if opened or closed else None

    async def _watch_jobs(self, open_causes: set[str]) -> tuple[int, int]:
        now = self.deps.clock.now()
        slow = await self.watch.list_slow_jobs(now - timedelta(seconds=self.patience.job_s))
        self.jobs_stuck = len(slow)
        new = [build_job_issue(job, self.deps.ids.new_id(), now) for job in slow if _job_cause(job) not in open_causes]
        return await self._settle(JOB_STUCK, new, [_job_cause(job) for job in slow])

    async def _watch_failovers(self, open_causes: set[str]) -> tuple[int, int]:
        """Judged by the records; a new one is opened only where the world shows no life behind it either."""
        now, kept, new, looks = self.deps.clock.now(), list[str](), list[Issue](), 0
        async for records in self._all_records():
            failover = records.newest_failover
            if failover is None or not self._looks_stuck(records, failover, now):
                continue
            cause = f"{records.context.context_id}/{failover.job_id}/stuck"[:255]
            if cause in open_causes:
                kept.append(cause)
            elif looks < LOOKS and self._may_look(cause):
                looks += 1
                issue = await self._judge_world(records, cause, now)
                new += [issue] if issue else []
        return await self._settle(FAILOVER_STUCK, new, kept)

    async def _all_records(self) -> AsyncIterator[VmRecords]:
        cursor: str | None = None
        while True:
            page = await self.deps.inventory.list_records(ContextFilter(), PAGE, cursor)
            for records in page.items:
                yield records
            cursor = page.next_cursor
            if cursor is None:
                return

    def _may_look(self, cause: str) -> bool:
        """So that those behind which the world shows life don't keep the others waiting."""
        now = self.deps.clock.monotonic()
        self._looked = {known: at for known, at in self._looked.items() if now - at < LOOK_AGAIN_S}
        if cause in self._looked:
            return False
        self._looked[cause] = now
        return True

    def _looks_stuck(self, records: VmRecords, failover: FailoverRecord, now: datetime) -> bool:
        """Open, dead, quiet for long enough, and a clean-up would be offered."""
        if not failover.is_open or failover_life(records, failover, now, self.deps.limits).alive:
            return False
        quiet_since = last_sign_of(records, failover)
        if quiet_since is not None and (now - quiet_since).total_seconds() < self.patience.failover_s:
            return False
        return needs_cleanup(records, now, self.deps.limits).recommended

    async def _judge_world(self, records: VmRecords, cause: str, now: datetime) -> Issue | None:
        """None where something is alive behind it, or where somebody did not answer."""
        deps = self.deps
        async with deps.analyses:
            try:
                fresh = await deps.inventory.get_records(records.context.context_id)
                world = World(deps.cloud, deps.volumes, deps.clock)
                evidence = await collect_evidence(fresh, world, deps.limits, deps.observe_timeout_s)
            except OmaError:
                return None
        failover = fresh.newest_failover
        if failover is None or not self._looks_stuck(fresh, failover, now) or evidence.unanswered:
            return None
        if failover_life_in(evidence, failover).alive or any(True for _ in clients_of(evidence)):
            return None
        return build_failover_issue(
            evidence, failover, judge(evidence), cause=cause, issue_id=deps.ids.new_id(), now=now
        )

    async def _settle(self, kind: str, new: Sequence[Issue], kept: Sequence[str]) -> tuple[int, int]:
        return await self.watch.settle_watched(kind, new, kept, GONE, self.deps.clock.now())


def last_sign_of(records: VmRecords, failover: FailoverRecord) -> datetime | None:
    """Its JobLog's last word; where it has none, the latest time in its own row, which others may touch as well."""
    log = records.joblog_of(failover)
    if log is not None and log.last_activity_at is not None:
        return log.last_activity_at
    times = (failover.updated_at, failover.started_at, failover.created_at)
    return max((at for at in times if at is not None), default=None)


def build_failover_issue(
    evidence: Evidence,
    failover: FailoverRecord,
    refusals: Iterable[Refusal],
    *,
    cause: str,
    issue_id: str,
    now: datetime,
) -> Issue:
    """Recommends the clean-up, and says what would refuse it now."""
    context = evidence.records.context
    life = failover_life_in(evidence, failover)
    last = last_sign_of(evidence.records, failover)
    found = list(refusals)
    named = f"{shell_word(context.vm_name)} --context-id {shell_word(context.context_id)}"
    steps = [f"See what a clean-up would do: oma cleanup {named} --dry-run"]
    steps += [f"Now it would be refused ({one.code.value}): {one.next_step}" for one in found]
    steps.append(f"Clean up; this issue closes itself: oma cleanup {named}")
    return Issue(
        id=issue_id,
        cause=cause,
        job_id=None,
        action_id=None,
        context_id=context.context_id,
        vm_name=context.vm_name,
        kind=FAILOVER_STUCK,
        code="cleanup_recommended",
        severity=Severity.STANDARD,
        state=IssueState.OPEN,
        title=f"The {failover.job_type} failover {failover.job_id} of {context.vm_name} makes no progress: "
        f"{life.sentence}",
        target={"failover_job_id": failover.job_id, "destination_vm_id": failover.destination_vm_id},
        evidence={
            "status": failover.status,
            "life": life.sentence,
            "last_sign_at": last.isoformat() if last else None,
            "refusals": [one.as_json() for one in found],
        },
        error=None,
        guidance=tuple(f"{number}. {step}" for number, step in enumerate(steps, 1)),
        opened_at=now,
        due_at=due_time(Severity.STANDARD, now),
    )


def build_job_issue(job: SlowJob, issue_id: str, now: datetime) -> Issue:
    """It names the job as its target only: an issue of a job is one that its resume waits for."""
    where = f" in {job.phase}" if job.phase else ""
    minutes = int((now - job.since).total_seconds() // 60)
    named = f"--vm {shell_word(job.vm_name)} --context-id {shell_word(job.context_id)}"
    steps = (
        f"See what it waits for: oma jobs show {job.id}",
        f"Read its log: oma jobs log {job.id}",
        "See that CloudStack, the Volume Daemon and the database answer: oma doctor",
        f"Stop it at its next safe point, until you know more: oma pause {named} --reason '...'",
    )
    return Issue(
        id=issue_id,
        cause=_job_cause(job),
        job_id=None,
        action_id=None,
        context_id=job.context_id,
        vm_name=job.vm_name,
        kind=JOB_STUCK,
        code="job_stuck",
        severity=Severity.STANDARD,
        state=IssueState.OPEN,
        title=f"The clean-up {job.id} of {job.vm_name} has been {job.state.value}{where} for {minutes} minutes.",
        target={"job_id": job.id},
        evidence={"state": job.state.value, "phase": job.phase, "holder": job.holder, "since": job.since.isoformat()},
        error=None,
        guidance=tuple(f"{number}. {step}" for number, step in enumerate(steps, 1)),
        opened_at=now,
        due_at=due_time(Severity.STANDARD, now),
    )


def _job_cause(job: SlowJob) -> str:
    return f"{job.id}/{JOB_STUCK}"
