"""A run whose journal can't be believed, ended for good by a person's word; only plain columns are read of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_actions, oma_jobs
from oma.domain.actions import Action
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.changes import ActionStarted, ResyncDemanded
from oma.domain.errors import Code, ConcurrentChange
from oma.domain.events import Event, EventType
from oma.domain.issues import Issue
from oma.domain.jobs import build_summary
from oma.domain.remains import Remains, RunGivenUp
from oma.domain.resolving import IssueResolved, Settled
from oma.domain.states import ActionState, IssueState, JobState, LogLevel, Replica
from oma.store import actions, audit, claims, contexts, issues, joblog, leaks, replications, unreadable
from oma.store.events import Draft, record_events
from oma.store.resyncing import demand_resync
from oma.store.run_changes import start_action
from oma.store.sequences import FENCE, take_numbers
from oma.store.writing import Writing

GIVEN_UP = "given_up"
"""In the last words of such a run."""
_PLAIN = (
    oma_jobs.c.id,
    oma_jobs.c.context_id,
    oma_jobs.c.vm_name,
    oma_jobs.c.state,
    oma_jobs.c.lease_fence,
    oma_jobs.c.ended_at,
    oma_jobs.c.reverted,
)


def find_remains(connection: Connection, job_id: str) -> Remains | None:
    row = connection.execute(select(*_PLAIN).where(oma_jobs.c.id == job_id)).mappings().first()
    if row is None:
        return None
    read, torn = _read_actions(connection, job_id)
    return Remains(
        job_id=row["id"],
        context_id=row["context_id"],
        vm_name=row["vm_name"],
        state=JobState(row["state"]),
        fence=row["lease_fence"],
        parked_at=row["ended_at"],
        reverted=bool(row["reverted"]),
        actions=tuple(read),
        unreadable=tuple(torn),
        volume_ids=claims.list_claimed(connection, job_id),
    )


def raise_fence(connection: Connection, job_id: str) -> int:
    """Of a parked run, whose row is locked: whoever still works for it under an older one is refused by the others.

    Raises `ConcurrentChange`.
    """
    _lock_parked(connection, job_id)
    fence = take_numbers(connection, FENCE)
    connection.execute(update(oma_jobs).where(oma_jobs.c.id == job_id).values(lease_fence=fence))
    return fence


def end_run(connection: Connection, resolved: IssueResolved, given_up: RunGivenUp) -> tuple[Settled, list[Event]]:
    """Everything or nothing; the VM keeps its status, and is free for another run.

    Raises `ConcurrentChange` where the run or the issue no longer stands as it was judged.
    """
    known = issues.find_issue(connection, resolved.issue_id)
    if known is None or known.job_id is None or known.context_id is None:
        raise ConcurrentChange(f"the issue {resolved.issue_id} names no run")
    contexts.find_locked(connection, known.context_id)
    row = _lock_parked(connection, known.job_id)
    if row["lease_fence"] != given_up.fence:
        raise ConcurrentChange(f"the run {row['id']} was at work again")
    own = issues.list_open(connection, job_id=row["id"], locked=True)
    if known.id not in {one.id for one in own}:
        raise ConcurrentChange(f"the issue {known.id} is not open any more")
    for issue in own:
        issues.resolve(
            connection,
            issue.id,
            resolved.resolution.value,
            notes=resolved.notes,
            actor=resolved.actor,
            at=resolved.at,
        )
    _refuse_replication(connection, known.context_id, given_up)
    _set_aside(connection, row["id"], resolved)
    return _end(connection, row, own, resolved, given_up)


def _lock_parked(connection: Connection, job_id: str) -> RowMapping:
    query = select(*_PLAIN).where(oma_jobs.c.id == job_id).with_for_update()
    row = connection.execute(query).mappings().one()
    if row["state"] != JobState.PARKED.value:
        raise ConcurrentChange(f"the run {row['id']} is {row['state']}, no longer parked")
    return row


def _refuse_replication(connection: Connection, context_id: str, given_up: RunGivenUp) -> None:
    """One that began after the look, or that is not dead after all."""
    for one in replications.list_open(connection, context_id):
        if one not in given_up.dead:
            raise ConcurrentChange(f"replication {one.id} is {one.status}")


def _end(
    connection: Connection, row: RowMapping, own: list[Issue], resolved: IssueResolved, given_up: RunGivenUp
) -> tuple[Settled, list[Event]]:
    job_id, context_id, at = row["id"], row["context_id"], resolved.at
    error = {
        "code": Code.CLEANUP_FAILED.value,
        "detail": given_up.sentence,
        "replica": Replica.RESYNC_REQUIRED.value,
        "next": given_up.next_step,
        GIVEN_UP: True,
    }
    ended: dict[str, Any] = {"state": JobState.FAILED.value, "active_context_id": None, "error": error, "ended_at": at}
    connection.execute(update(oma_jobs).where(oma_jobs.c.id == job_id).values(**ended, updated_at=at))
    claims.free_volumes(connection, job_id)
    for leak in given_up.leaks:
        leaks.track_leak(connection, leak, at)
    contexts.set_summary(connection, context_id, build_summary(job_id, JobState.FAILED, at, error), at)
    joblog.fail_running_steps(connection, job_id, given_up.sentence, at)
    joblog.change_job(connection, job_id, at, status="failed", completed_at=at, error_message=given_up.sentence)
    audit.append_audit(connection, _audited(row, own, resolved))
    writing = Writing(connection, job_id, context_id, row["vm_name"], at, resolved.actor)
    drafts = [
        *(_draft(one, resolved) for one in own),
        demand_resync(writing, ResyncDemanded(context_id, given_up.volume_ids, given_up.sentence)),
        *(start_action(writing, ActionStarted(one, one.sentence)) for one in given_up.unmarkings),
        *(leaks.build_draft(one, f"Left away: {one.sentence}") for one in given_up.leaks),
        Draft(EventType.JOB_FAILED, given_up.sentence, {"state": "failed", "error": error}, level=LogLevel.ERROR),
    ]
    events = record_events(connection, job_id, context_id, drafts, at)
    joblog.add_lines(connection, job_id, drafts, at)
    settled = issues.find_issue(connection, resolved.issue_id)
    left = tuple(one for _context, one, _job in issues.list_open_ids(connection, [context_id], locked=True))
    if settled is None or settled.state is not IssueState.RESOLVED:
        raise ConcurrentChange(f"the issue {resolved.issue_id} could not be resolved")
    return Settled(settled, JobState.FAILED, resumed=False, open_issue_ids=left), events


def _read_actions(connection: Connection, job_id: str) -> tuple[list[Action], list[str]]:
    """Each row by itself, so that one that is torn spoils no other's reading."""
    table = oma_actions.c
    query = select(table.id).where(table.job_id == job_id).order_by(table.seq, table.id)
    read: list[Action] = []
    torn: list[str] = []
    for one in connection.execute(query).scalars().all():
        try:
            row = connection.execute(select(oma_actions).where(table.id == one)).mappings().one()
            read.append(actions.build_action(row))
        except unreadable.UNREADABLE:
            torn.append(one)
    return read, torn


def _set_aside(connection: Connection, job_id: str, resolved: IssueResolved) -> None:
    """What was uncertain is settled by the word; no later run reads a row that can't be read."""
    for mark in resolved.marks:
        action = mark.action
        actions.end_action(
            connection,
            job_id,
            action.id,
            action.state,
            resolved.at,
            evidence=action.evidence,
            sentence=action.sentence,
        )
    _, torn = _read_actions(connection, job_id)
    for one in torn:
        values = {"state": ActionState.SKIPPED.value, "updated_at": resolved.at}
        connection.execute(update(oma_actions).where(oma_actions.c.id == one).values(**values))


def _draft(issue: Issue, resolved: IssueResolved) -> Draft:
    said = {"issue_id": issue.id, "cause": issue.cause, "resolution": resolved.resolution.value}
    sentence = f"Issue {issue.id} resolved, {resolved.resolution}: {resolved.sentence}"
    return Draft(EventType.ISSUE_RESOLVED, sentence, {**said, "requested_by": resolved.actor})


def _audited(row: RowMapping, own: list[Issue], resolved: IssueResolved) -> list[AuditDraft]:
    def entry(action: AuditAction, decision: str, detail: dict[str, Any]) -> AuditDraft:
        return AuditDraft(
            at=resolved.at,
            actor=resolved.actor,
            action=action,
            decision=decision,
            vm_name=row["vm_name"],
            context_id=row["context_id"],
            job_id=row["id"],
            reason=resolved.notes,
            detail=detail,
        )

    decision = resolved.resolution.value
    settled = [
        entry(AuditAction.ISSUE_RESOLVED, decision, {"issue_id": one.id, "kind": one.kind, "title": one.title})
        for one in own
    ]
    ended = {"sentence": resolved.sentence, "evidence": resolved.evidence, GIVEN_UP: True}
    return [*settled, entry(AuditAction.RUN_ENDED, JobState.FAILED.value, ended)]
