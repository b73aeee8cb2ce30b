"""A person's word that a run is to stop, and the run's own that it goes back: both stand in the job's request.

A cancel is read by whoever runs the job, between two actions. A run that was never begun ends in the cancel's own
transaction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.engine import Connection

from database.tables import oma_jobs
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.changes import JobCancelled, JobEnded, OwnIssuesClosed, StatusRestored, UndoingBegun
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.issues import UNDONE
from oma.domain.jobs import Job, build_summary
from oma.domain.states import JobState, LogLevel, Phase
from oma.domain.undoing import CancelAsked, can_turn_back
from oma.domain.verdict import of_cancelled
from oma.store import actions, audit, contexts, issues, joblog, jobs, record_changes, resuming, run_changes
from oma.store.events import Draft, record_events
from oma.store.writing import Writing

ENDED_WELL_OR_NOT: Final = frozenset({JobState.COMPLETED, JobState.FAILED})
_REQUEST: Final = select(oma_jobs.c.request).where(oma_jobs.c.id == bindparam("job"))
"""Asked between any two actions of every run, so it is built once."""


def cancel_job(connection: Connection, cancelled: JobCancelled) -> tuple[Job, list[Event]]:
    """Everything or nothing; see `JournalStore.cancel_job`. Asked twice, it is as if it was asked once, but that a run
    which has parked meanwhile looks again.

    The VM's row is locked before the job's, as `queue_job` does it.
    """
    context_id = connection.execute(select(oma_jobs.c.context_id).where(oma_jobs.c.id == cancelled.job_id)).scalar()
    if context_id is None:
        raise OmaError(Code.JOB_NOT_FOUND, f"No job has the id {cancelled.job_id!r}.", job_id=cancelled.job_id)
    contexts.find_locked(connection, context_id)
    query = select(oma_jobs).where(oma_jobs.c.id == cancelled.job_id).with_for_update()
    job = jobs.build_job(connection.execute(query).mappings().one())
    if job.state is JobState.CANCELLED or (job.cancel is not None and job.state is not JobState.PARKED):
        return job, []
    if job.state in ENDED_WELL_OR_NOT:
        raise _too_late(job, f"ended {job.state.value}", "See what it did: oma jobs show")
    begun = actions.list_actions(connection, job.id)
    if job.state is JobState.PARKED and not (job.undoing or can_turn_back(begun, reverted=job.reverted)):
        if job.cancel is not None:
            return job, []
        sentence = "is parked past the point from which nothing is undone; the way is forward only"
        raise _too_late(job, sentence, "Settle its issues, then let it go on: oma jobs resume")
    at, asked = cancelled.asked.at, cancelled.asked
    writing = Writing(connection, job.id, context_id, job.vm_name, at, asked.actor)
    _put(writing, jobs.CANCEL, asked.as_json())
    audit.append_audit(connection, [_audited(writing, AuditAction.CANCEL_ASKED, asked)])
    drafts = [Draft(EventType.CANCEL_ASKED, cancelled.sentence, asked.as_json(), level=LogLevel.WARN)]
    if job.state is JobState.QUEUED and not begun:
        drafts += _end(writing, job, asked)
    elif job.state is JobState.PARKED:
        resuming.requeue(connection, connection.execute(query).mappings().one(), at)
    events = record_events(connection, job.id, context_id, drafts, at)
    joblog.add_lines(connection, job.id, drafts, at)
    return jobs.build_job(connection.execute(query).mappings().one()), events


def find_cancel(connection: Connection, job_id: str) -> CancelAsked | None:
    request = connection.execute(_REQUEST, {"job": job_id}).scalar() or {}
    return CancelAsked.from_json(request[jobs.CANCEL]) if request.get(jobs.CANCEL) else None


def begin_undoing(writing: Writing, change: UndoingBegun) -> Draft:
    _put(writing, jobs.UNDOING, change.undoing.as_json())
    if change.undoing.tells_more:
        return Draft(EventType.NOTED, change.sentence, level=LogLevel.WARN, phase=Phase.DETACH)
    error = change.undoing.error
    draft = _audited(writing, AuditAction.UNDOING_BEGUN, None)
    detail = {"because": error.get("detail"), "code": error.get("code"), "ends": change.undoing.ends.value}
    audit.append_audit(writing.connection, [replace(draft, detail=detail)])
    return Draft(EventType.UNDOING_BEGUN, change.sentence, detail, level=LogLevel.WARN, phase=Phase.DETACH)


def close_own_issues(writing: Writing, change: OwnIssuesClosed) -> Draft:
    """Each with an audit entry of its own."""
    found = issues.list_open(writing.connection, job_id=writing.job_id, locked=True)
    for issue in found:
        actor = writing.requested_by
        issues.resolve(writing.connection, issue.id, UNDONE, notes=change.sentence, actor=actor, at=writing.at)
        draft = _audited(writing, AuditAction.ISSUE_RESOLVED, None)
        detail = {"issue_id": issue.id, "action_id": issue.action_id, "kind": issue.kind, "title": issue.title}
        audit.append_audit(writing.connection, [replace(draft, decision=UNDONE, detail=detail)])
    return Draft(EventType.ISSUE_RESOLVED, change.sentence, {"issue_ids": [one.id for one in found]})


def _end(writing: Writing, job: Job, asked: CancelAsked) -> list[Draft]:
    """It never began: nothing was touched, and the VM gets its former status back."""
    detail = f"{asked.sentence}; nothing was touched."
    error = {
        "code": Code.CLEANUP_FAILED.value,
        "detail": detail,
        "phase": Phase.ANALYZE.value,
        "source_powered_off": job.plan.source_powered_off,
        **of_cancelled(job.plan, job.id).as_json(),
    }
    former = job.plan.former_status
    restored = StatusRestored(writing.context_id, former, f"Status back to {former}.")
    summary = build_summary(job.id, JobState.CANCELLED, writing.at, error)
    ended = JobEnded(JobState.CANCELLED, detail, error=error, summary=summary)
    return [record_changes.restore_status(writing, restored), run_changes.end_job(writing, ended)]


def _put(writing: Writing, key: str, value: dict[str, object]) -> None:
    query = select(oma_jobs.c.request).where(oma_jobs.c.id == writing.job_id).with_for_update()
    request = dict(writing.connection.execute(query).scalar_one())
    writing.change_job(request={**request, key: value})


def _audited(writing: Writing, action: AuditAction, asked: CancelAsked | None) -> AuditDraft:
    return AuditDraft(
        at=writing.at,
        actor=asked.actor if asked else writing.requested_by,
        action=action,
        decision=action.value,
        vm_name=writing.vm_name,
        context_id=writing.context_id,
        job_id=writing.job_id,
        reason=asked.reason if asked else None,
    )


def _too_late(job: Job, how: str, step: str) -> OmaError:
    return OmaError(
        Code.INVALID_REQUEST,
        f"The run {job.id} of {job.vm_name} {how}; it cannot be cancelled.",
        field="job_id",
        allowed="a run that is queued, running, or parked before the first revert",
        vm_name=job.vm_name,
        job_id=job.id,
        next=f"{step} {job.id}",
    )
