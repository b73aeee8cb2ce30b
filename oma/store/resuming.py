"""A parked job goes on: its issues are settled or passed, its failed actions released, itself back in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, NoReturn

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_jobs
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.changes import JobResumed
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.forcing import is_forcible
from oma.domain.issues import CANCELLED, FORCED, RESUMED, Issue
from oma.domain.jobs import Job
from oma.domain.states import JobState, Phase
from oma.domain.verdict import forced_resume_command
from oma.store import actions, audit, contexts, issues, joblog, jobs, recoveries
from oma.store.events import Draft, record_events


def resume_job(connection: Connection, resumed: JobResumed) -> tuple[Job, list[Event]]:
    """Everything or nothing; see `JournalStore.resume_job` for what is raised.

    The VM's row is locked before the job's, as `queue_job` does it, so that the two wait for each other.
    """
    context_id = connection.execute(select(oma_jobs.c.context_id).where(oma_jobs.c.id == resumed.job_id)).scalar()
    if context_id is None:
        raise OmaError(Code.JOB_NOT_FOUND, f"No job has the id {resumed.job_id!r}.", job_id=resumed.job_id)
    contexts.lock_context(connection, context_id)
    row = connection.execute(select(oma_jobs).where(oma_jobs.c.id == resumed.job_id).with_for_update()).mappings().one()
    if _is_same_call(row, resumed):
        return jobs.build_job(row), []
    if row["state"] != JobState.PARKED.value:
        _refuse_state(row)
    passed = _settle_issues(connection, row, resumed)
    _go_on(connection, row, resumed)
    released = actions.release_failed(connection, row["id"], resumed.at)
    audit.append_audit(connection, _audited(row, resumed, passed))
    drafts = [
        Draft(
            EventType.JOB_RESUMED,
            resumed.sentence,
            {
                "requested_by": resumed.actor,
                "forced": resumed.words.force,
                "passed_issue_ids": [issue.id for issue in passed],
                "released_action_ids": released,
            },
        )
    ]
    events = record_events(connection, row["id"], context_id, drafts, resumed.at)
    joblog.add_lines(connection, row["id"], drafts, resumed.at)
    job = jobs.find_job(connection, row["id"])
    assert job is not None  # noqa: S101 - locked above, in this transaction
    return job, events


def _is_same_call(row: RowMapping, resumed: JobResumed) -> bool:
    """Whether this very call resumed the job before; however it stands now, also parked again, that is its answer.

    Raises `idempotency_key_reused` where the words are others.
    """
    key, words = resumed.idempotency_key, row["request"].get(jobs.RESUMED_WITH)
    if key is None or row["request"].get(jobs.RESUMED_BY) != key:
        return False
    if words is not None and words != resumed.words.as_json():
        raise OmaError(
            Code.IDEMPOTENCY_KEY_REUSED,
            f"The idempotency key was used for another resume of the job {row['id']}; choose a new key for this one.",
            job_id=row["id"],
        )
    return True


def _refuse_state(row: RowMapping) -> NoReturn:
    job_id, state = row["id"], row["state"]
    if state in (JobState.QUEUED.value, JobState.RUNNING.value):
        raise OmaError(
            Code.CLEANUP_IN_PROGRESS,
            f"The run {job_id} of {row['vm_name']} is {state} and needs no resume; "
            f"follow it with: oma jobs follow {job_id}",
            vm_name=row["vm_name"],
            job_id=job_id,
            holder=row["lease_owner"] or state,
            next=f"Follow it: oma jobs follow {job_id}",
        )
    raise OmaError(
        Code.INVALID_REQUEST,
        f"The run {job_id} of {row['vm_name']} ended {state}; only a parked run is resumed. Ask for a new clean-up.",
        field="resume",
        allowed="a parked run",
        vm_name=row["vm_name"],
        job_id=job_id,
    )


def _settle_issues(connection: Connection, row: RowMapping, resumed: JobResumed) -> list[Issue]:
    """Those that `force` passes, now resolved; raises `needs_resolution` where any other is open."""
    open_ids = issues.list_open_ids(connection, [row["context_id"]], locked=True)
    blocking = {issue_id for _context, issue_id, _job in open_ids}
    listed = issues.list_open(connection, context_id=row["context_id"], locked=True)
    open_issues = [issue for issue in listed if issue.id in blocking or issue.job_id == row["id"]]
    own = [issue for issue in open_issues if issue.job_id == row["id"]]
    passed = [issue for issue in own if issue.kind == CANCELLED or (resumed.words.force and is_forcible(issue))]
    left = [issue for issue in open_issues if issue not in passed]
    if left:
        forcible = all(issue in own and is_forcible(issue) for issue in left)
        more = "force with a reason passes it as a tracked leak" if forcible else "force does not pass it"
        read = f"Read the issue's guidance: oma jobs show {left[0].job_id or row['id']}"
        force = f"Pass it by force: {forced_resume_command(row['vm_name'], row['context_id'])}"
        raise OmaError(
            Code.NEEDS_RESOLUTION,
            f"{row['vm_name']} has an open issue that a person has to settle first ({left[0].title}); {more}.",
            vm_name=row["vm_name"],
            job_id=row["id"],
            issue_ids=[issue.id for issue in left],
            guidance=list(left[0].guidance),
            next=force if forcible else read,
        )
    for issue in passed:
        notes, by = resumed.words.reason, resumed.actor
        issues.resolve(connection, issue.id, _resolution(issue), notes=notes, actor=by, at=resumed.at)
    return passed


def _resolution(issue: Issue) -> str:
    return RESUMED if issue.kind == CANCELLED else FORCED


def _go_on(connection: Connection, row: RowMapping, resumed: JobResumed) -> None:
    """A person's word that the run is to go on lifts a cancel that was said before."""
    words = audit.words_of(row["request"])
    if resumed.words.force:
        words = words.with_force(resumed.words.reason)
    said = {
        "words": words.as_json(),
        jobs.CANCEL: None,
        jobs.RESUMED_BY: resumed.idempotency_key,
        jobs.RESUMED_WITH: resumed.words.as_json(),
    }
    requeue(connection, row, resumed.at, said)


def requeue(
    connection: Connection, row: RowMapping, at: datetime, said: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """The parked job, locked by the caller, goes back to the queue with everything that was journaled.

    `said`: what is new in its request. How often it was taken over from a daemon that died counts anew.
    """
    connection.execute(
        update(oma_jobs)
        .where(oma_jobs.c.id == row["id"])
        .values(
            state=JobState.QUEUED.value,
            request={**row["request"], recoveries.RECOVERIES: None, **said},
            result=None,
            error=None,
            ended_at=None,
            updated_at=at,
        )
    )
    joblog.change_job(
        connection, row["id"], at, status="running", completed_at=None, canceled_at=None, error_message=None
    )
    if row["phase"] is not None:
        joblog.reopen_step(connection, row["id"], Phase(row["phase"]))


def lift_cancel(connection: Connection, row: RowMapping, at: datetime) -> RowMapping:
    """The parked job, locked by the caller, is not cancelled any more; returns its row as it stands then."""
    mine = oma_jobs.c.id == row["id"]
    request = {**row["request"], jobs.CANCEL: None}
    connection.execute(update(oma_jobs).where(mine).values(request=request, updated_at=at))
    return connection.execute(select(oma_jobs).where(mine).with_for_update()).mappings().one()


def _audited(row: RowMapping, resumed: JobResumed, passed: list[Issue]) -> list[AuditDraft]:
    words = resumed.words
    base = AuditDraft(
        at=resumed.at,
        actor=resumed.actor,
        action=AuditAction.RUN_RESUMED,
        decision=JobState.QUEUED.value,
        vm_name=row["vm_name"],
        context_id=row["context_id"],
        job_id=row["id"],
        words=words.as_json(),
        reason=words.reason,
    )
    resolved = [
        replace(
            base,
            action=AuditAction.ISSUE_RESOLVED,
            decision=_resolution(issue),
            words={},
            detail={"issue_id": issue.id, "action_id": issue.action_id, "kind": issue.kind, "title": issue.title},
        )
        for issue in passed
    ]
    return [base, *audit.spoken_drafts(base, words), *resolved]
