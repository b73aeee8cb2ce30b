"""`JournalStore` over the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from oma.domain.actions import Action
from oma.domain.audit import AuditDraft, AuditEntry
from oma.domain.changes import ActionEnded, Change, JobCancelled, JobQueued, JobResumed
from oma.domain.events import Event
from oma.domain.issues import Issue
from oma.domain.jobs import ClaimedJob, Job, Lease
from oma.domain.resolving import IssueResolved, Settled
from oma.domain.undoing import CancelAsked
from oma.store import audit, leases, unmarking, world_issues
from oma.store.applying import apply_changes
from oma.store.cancelling import cancel_job, find_cancel
from oma.store.claiming import Claims
from oma.store.events import stand
from oma.store.queueing import queue_job
from oma.store.resolving import resolve_issue
from oma.store.resuming import resume_job
from oma.store.transactions import DatabaseDoor, Transactions

T = TypeVar("T")


class SqlJournalStore:
    """Jobs, leases and everything a run writes; implements `oma.ports.JournalStore`.

    `announce` is given the committed events of `queue_job` and `claim_job`, which return something else; those of
    `apply` are returned to its caller.
    """

    def __init__(self, door: DatabaseDoor, announce: Callable[[Sequence[Event]], None] | None = None) -> None:
        self._transactions = Transactions(door)
        self._announce = announce
        self._claims = Claims(self._claim_jobs)

    async def queue_job(self, queued: JobQueued) -> Job:
        job, events = await self._write(lambda connection: queue_job(connection, queued))
        self._tell(events)
        return job

    async def resume_job(self, resumed: JobResumed) -> Job:
        job, events = await self._write(lambda connection: resume_job(connection, resumed))
        self._tell(events)
        return job

    async def cancel_job(self, cancelled: JobCancelled) -> Job:
        job, events = await self._write(lambda connection: cancel_job(connection, cancelled))
        self._tell(events)
        return job

    async def find_cancel(self, job_id: str) -> CancelAsked | None:
        return await self._transactions.read(lambda connection: find_cancel(connection, job_id))

    async def resolve_issue(self, resolved: IssueResolved) -> Settled:
        settled, events = await self._write(lambda connection: resolve_issue(connection, resolved))
        self._tell(events)
        return settled

    async def append_audit(self, drafts: Sequence[AuditDraft]) -> None:
        last: list[AuditEntry] = []

        def write(connection: Connection) -> None:
            last[:] = audit.append_audit(connection, drafts)

        await self._transactions.write(write, confirm=lambda connection: audit.stands(connection, last))

    async def claim_job(self, owner: str, lease_s: float) -> ClaimedJob | None:
        return await self._claims.claim(owner, lease_s)

    async def _claim_jobs(self, owner: str, lease_s: float, most: int) -> Sequence[ClaimedJob]:
        claimed, events = await self._write(lambda connection: leases.claim_jobs(connection, owner, lease_s, most))
        self._tell(events)
        return claimed

    async def renew_leases(self, owner: str, lease_s: float) -> Sequence[str]:
        return await self._transactions.write(
            lambda connection: leases.renew_leases(connection, owner, lease_s),
            # Renewing twice is as good as once: where the answer was lost it is simply done again.
            confirm=lambda _connection: False,
        )

    async def apply(self, lease: Lease, changes: Sequence[Change], at: datetime) -> Sequence[Event]:
        _nothing, events = await self._write(lambda connection: (None, apply_changes(connection, lease, changes, at)))
        return events

    async def list_unmarkings(self, before: datetime) -> Sequence[Action]:
        return await self._transactions.read(lambda connection: unmarking.list_unmarkings(connection, before))

    async def end_unmarking(self, job_id: str, ended: ActionEnded, remote_id: str | None, at: datetime) -> None:
        _nothing, events = await self._write(
            lambda connection: (None, unmarking.end_unmarking(connection, job_id, ended, remote_id, at))
        )
        self._tell(events)

    async def open_world_issues(self, found: Sequence[Issue], at: datetime) -> Sequence[str]:
        ids, events = await self._write(lambda connection: world_issues.open_world_issues(connection, found, at))
        self._tell(events)
        return ids

    async def close_world_issues(
        self, context_id: str, kept: Sequence[str], sentence: str, evidence: Mapping[str, Any], at: datetime
    ) -> Sequence[str]:
        ids, events = await self._write(
            lambda connection: world_issues.close_world_issues(connection, context_id, kept, sentence, evidence, at=at)
        )
        self._tell(events)
        return ids

    async def _write(self, fn: Callable[[Connection], tuple[T, list[Event]]]) -> tuple[T, list[Event]]:
        """Every write tells events in its own transaction; where the COMMIT's answer was lost they are looked for."""
        last: list[Event] = []

        def write(connection: Connection) -> tuple[T, list[Event]]:
            result, events = fn(connection)
            last[:] = events
            return result, events

        return await self._transactions.write(write, confirm=lambda connection: stand(connection, last))

    def _tell(self, events: Sequence[Event]) -> None:
        if self._announce is not None and events:
            self._announce(events)
