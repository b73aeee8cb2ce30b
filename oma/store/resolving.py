"""A person settles an issue: the issue, its action, the audit and, after the last one, the run itself, at once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_issues, oma_jobs
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.events import Event, EventType
from oma.domain.issues import CANCELLED, Issue
from oma.domain.resolving import FENCE, ActionMark, IssueResolved, Settled
from oma.domain.states import ActionState, IssueState, JobState
from oma.store import actions, audit, contexts, giving_up, issues, joblog, resuming
from oma.store.events import Draft, record_events


def resolve_issue(connection: Connection, resolved: IssueResolved) -> tuple[Settled, list[Event]]:
    """Everything or nothing; see `JournalStore.resolve_issue` for what is raised.

    Locked in the order of all others: the VM's row, the job's, the issue's.
    """
    if resolved.ends is not None:
        return giving_up.end_run(connection, resolved, resolved.ends)
    known = issues.find_issue(connection, resolved.issue_id)
    if known is None:
        raise OmaError(Code.ISSUE_NOT_FOUND, f"No issue has the id {resolved.issue_id!r}; `oma issue list` shows them.")
    if known.context_id is not None:
        contexts.find_locked(connection, known.context_id)
    if resolved.stays_open or resolved.fences:
        return _keep(connection, known, resolved)
    job = _lock_job(connection, known)
    issue = _lock_issue(connection, resolved.issue_id)
    if issue.state is not IssueState.OPEN:
        raise ConcurrentChange(f"the issue {issue.id} is {issue.state.value} already")
    _refuse_at_work(job)
    for mark in resolved.marks:
        _mark(connection, mark, resolved)
    _close(connection, issue, resolved)
    if job is not None and issue.kind == CANCELLED:
        # The word was about the cancel; one about anything else leaves the cancel standing.
        job = resuming.lift_cancel(connection, job, resolved.at)
    left = _left(connection, issue)
    resumed = job is not None and job["state"] == JobState.PARKED.value and not left
    if job is not None and resumed:
        resuming.requeue(connection, job, resolved.at)
        actions.release_failed(connection, job["id"], resolved.at)
    audit.append_audit(connection, _audited(issue, resolved, resumed=resumed))
    drafts = _drafts(issue, resolved, resumed=resumed)
    events = record_events(connection, issue.job_id, issue.context_id, drafts, resolved.at)
    if job is not None:
        joblog.add_lines(connection, job["id"], drafts, resolved.at)
    state = None if job is None else JobState.QUEUED if resumed else JobState(job["state"])
    return Settled(_lock_issue(connection, issue.id), state, resumed, tuple(left)), events


def _keep(connection: Connection, known: Issue, resolved: IssueResolved) -> tuple[Settled, list[Event]]:
    """The word and what was seen are kept with the open issue; nothing else changes but the fence of its run."""
    fenced = {FENCE: giving_up.raise_fence(connection, known.job_id)} if resolved.fences and known.job_id else {}
    issue = _lock_issue(connection, known.id)
    if issue.state is not IssueState.OPEN:
        raise ConcurrentChange(f"the issue {issue.id} is {issue.state.value} already")
    evidence = {**issue.evidence, **resolved.evidence, **fenced}
    connection.execute(
        update(oma_issues).where(oma_issues.c.id == issue.id).values(evidence=evidence, updated_at=resolved.at)
    )
    audit.append_audit(connection, _audited(issue, resolved, resumed=False))
    draft = Draft(EventType.NOTED, resolved.sentence, {"issue_id": issue.id, "requested_by": resolved.actor})
    events = record_events(connection, issue.job_id, issue.context_id, [draft], resolved.at)
    return Settled(_lock_issue(connection, issue.id), None, resumed=False, open_issue_ids=(issue.id,)), events


def _lock_job(connection: Connection, issue: Issue) -> RowMapping | None:
    if issue.job_id is None:
        return None
    query = select(oma_jobs).where(oma_jobs.c.id == issue.job_id).with_for_update()
    return connection.execute(query).mappings().first()


def _refuse_at_work(row: RowMapping | None) -> None:
    if row is not None and row["state"] in (JobState.QUEUED.value, JobState.RUNNING.value):
        raise OmaError(
            Code.CLEANUP_IN_PROGRESS,
            f"The run {row['id']} of {row['vm_name']} is {row['state']}; its issues are settled while it is parked.",
            vm_name=row["vm_name"],
            job_id=row["id"],
            holder=row["lease_owner"] or row["state"],
            next=f"Follow it: oma jobs follow {row['id']}",
        )


def _lock_issue(connection: Connection, issue_id: str) -> Issue:
    query = select(oma_issues).where(oma_issues.c.id == issue_id).with_for_update()
    return issues.build_issue(connection.execute(query).mappings().one())


def _mark(connection: Connection, mark: ActionMark, resolved: IssueResolved) -> None:
    """Only an action that still stands as it was judged; raises `ConcurrentChange` else."""
    action = mark.action
    if mark.expected is None:
        actions.skip_action(connection, action, action.sentence, resolved.at)
        return
    former = ActionState(actions.get_row(connection, action.job_id, action.id)["state"])
    if former is not mark.expected:
        raise ConcurrentChange(f"action {action.id} is {former.value}, no longer {mark.expected.value}")
    actions.end_action(
        connection,
        action.job_id,
        action.id,
        action.state,
        resolved.at,
        evidence=action.evidence,
        sentence=action.sentence,
    )


def _close(connection: Connection, issue: Issue, resolved: IssueResolved) -> None:
    issues.resolve(
        connection,
        issue.id,
        resolved.resolution.value,
        notes=resolved.notes,
        actor=resolved.actor,
        at=resolved.at,
        evidence={**issue.evidence, "resolved_with": resolved.evidence},
    )


def _left(connection: Connection, issue: Issue) -> list[str]:
    """Issues of the VM that still stand in the way of a run."""
    if issue.context_id is None:
        return []
    return [one for _context, one, _job in issues.list_open_ids(connection, [issue.context_id], locked=True)]


def _audited(issue: Issue, resolved: IssueResolved, *, resumed: bool) -> list[AuditDraft]:
    marked = {one.action.id: one.action.state.value for one in resolved.marks}
    base = AuditDraft(
        at=resolved.at,
        actor=resolved.actor,
        action=AuditAction.ISSUE_RESOLVED,
        decision=resolved.resolution.value,
        vm_name=issue.vm_name,
        context_id=issue.context_id,
        job_id=issue.job_id,
        reason=resolved.notes,
        detail={
            "issue_id": issue.id,
            "action_id": issue.action_id,
            "kind": issue.kind,
            "title": issue.title,
            "sentence": resolved.sentence,
            "actions": marked,
            "evidence": resolved.evidence,
        },
    )
    if not resumed:
        return [base]
    after = AuditDraft(
        at=resolved.at,
        actor=resolved.actor,
        action=AuditAction.RUN_RESUMED,
        decision=JobState.QUEUED.value,
        vm_name=issue.vm_name,
        context_id=issue.context_id,
        job_id=issue.job_id,
        detail={"issue_id": issue.id},
    )
    return [base, after]


def _drafts(issue: Issue, resolved: IssueResolved, *, resumed: bool) -> list[Draft]:
    said: dict[str, Any] = {
        "issue_id": issue.id,
        "cause": issue.cause,
        "resolution": resolved.resolution.value,
        "requested_by": resolved.actor,
        "evidence": resolved.evidence,
    }
    drafts = [
        Draft(EventType.ISSUE_RESOLVED, f"Issue {issue.id} resolved, {resolved.resolution}: {resolved.sentence}", said)
    ]
    if resumed:
        sentence = f"No issue of {issue.vm_name} is open any more; the parked run goes on."
        drafts.append(Draft(EventType.JOB_RESUMED, sentence, {"requested_by": resolved.actor, "forced": False}))
    return drafts
