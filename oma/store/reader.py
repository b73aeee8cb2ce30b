"""`JobReader` over the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oma.domain.actions import Action
from oma.domain.audit import AuditEntry
from oma.domain.events import Event
from oma.domain.issues import Issue
from oma.domain.jobs import Job, LogLine, Step
from oma.domain.leaks import Leak
from oma.domain.remains import Remains
from oma.ports import IssueFilter, JobFilter, Page
from oma.store import actions, audit, events, giving_up, issues, joblog, jobs, leaks
from oma.store.transactions import DatabaseDoor, Transactions


class SqlJobReader:
    """Jobs with all their parts, read; implements `oma.ports.JobReader`."""

    def __init__(self, door: DatabaseDoor) -> None:
        self._transactions = Transactions(door)

    async def find_job(self, job_id: str) -> Job | None:
        return await self._transactions.read(lambda connection: jobs.find_job(connection, job_id))

    async def find_job_by_key(self, idempotency_key: str) -> tuple[Job, str | None] | None:
        """The job that was queued under this `Idempotency-Key`, and the hash of its request."""
        return await self._transactions.read(lambda connection: jobs.find_job_by_key(connection, idempotency_key))

    async def find_job_resumed_by(self, context_id: str, idempotency_key: str) -> Job | None:
        return await self._transactions.read(
            lambda connection: jobs.find_job_resumed_by(connection, context_id, idempotency_key)
        )

    async def list_jobs(self, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
        return await self._transactions.read(lambda connection: jobs.list_jobs(connection, where, limit, cursor))

    async def list_steps(self, job_id: str) -> Sequence[Step]:
        return await self._transactions.read(lambda connection: joblog.list_steps(connection, job_id))

    async def list_actions(self, job_id: str) -> Sequence[Action]:
        return await self._transactions.read(lambda connection: actions.list_actions(connection, job_id))

    async def find_remains(self, job_id: str) -> Remains | None:
        return await self._transactions.read(lambda connection: giving_up.find_remains(connection, job_id))

    async def list_timed_actions(self) -> Sequence[Action]:
        return await self._transactions.read(actions.list_timed)

    async def list_log(self, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
        return await self._transactions.read(lambda connection: joblog.list_log(connection, job_id, limit, cursor))

    async def list_events(self, after_seq: int, job_id: str | None, limit: int) -> Sequence[Event]:
        return await self._transactions.read(
            lambda connection: events.list_events(connection, after_seq, job_id, limit)
        )

    async def last_event_seq(self) -> int:
        return await self._transactions.read(events.last_seq)

    async def list_issues(self, *, job_id: str | None = None, context_id: str | None = None) -> Sequence[Issue]:
        return await self._transactions.read(
            lambda connection: issues.list_open(connection, job_id=job_id, context_id=context_id)
        )

    async def find_issue(self, issue_id: str) -> Issue | None:
        return await self._transactions.read(lambda connection: issues.find_issue(connection, issue_id))

    async def find_next_issue(self) -> Issue | None:
        return await self._transactions.read(issues.find_next)

    async def list_issue_page(self, where: IssueFilter, limit: int, cursor: str | None) -> Page[Issue]:
        return await self._transactions.read(lambda connection: issues.list_page(connection, where, limit, cursor))

    async def list_audit(self, limit: int, cursor: str | None) -> Page[AuditEntry]:
        return await self._transactions.read(lambda connection: audit.list_audit(connection, limit, cursor))

    async def list_leaks(self, *, context_id: str | None = None, job_id: str | None = None) -> Sequence[Leak]:
        return await self._transactions.read(
            lambda connection: leaks.list_leaks(connection, context_id=context_id, job_id=job_id)
        )

    async def count_jobs(self) -> Mapping[str, int]:
        return await self._transactions.read(jobs.count_active)

    async def check(self) -> str:
        return await self._transactions.check()
