"""The changes of a run's own state: plan, steps, actions, issues, its end. Each writes, and tells what it wrote."""

from __future__ import annotations

from typing import Final

from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.changes import (
    ActionEnded,
    ActionOverdue,
    ActionSent,
    ActionSentAgain,
    ActionSkipped,
    ActionStarted,
    IssueOpened,
    JobEnded,
    JobReleased,
    LeakTracked,
    Noted,
    PlanSaved,
    PointOfNoReturnPassed,
    RevertEndSeen,
    StepEnded,
    StepStarted,
)
from oma.domain.errors import ConcurrentChange
from oma.domain.events import EventType
from oma.domain.states import JOB_TRANSITIONS, ActionState, JobState, LogLevel, Phase, StepStatus
from oma.store import actions, audit, claims, contexts, issues, joblog, leaks
from oma.store.events import Draft
from oma.store.writing import Writing

STEP_EVENTS: Final = {
    StepStatus.COMPLETED: EventType.STEP_COMPLETED,
    StepStatus.FAILED: EventType.STEP_FAILED,
    StepStatus.SKIPPED: EventType.STEP_SKIPPED,
}
JOB_EVENTS: Final = {
    JobState.PARKED: EventType.JOB_PARKED,
    JobState.COMPLETED: EventType.JOB_COMPLETED,
    JobState.FAILED: EventType.JOB_FAILED,
    JobState.CANCELLED: EventType.JOB_CANCELLED,
}
ACTION_EVENTS: Final = {
    ActionState.SKIPPED: EventType.ACTION_SKIPPED,
    ActionState.ROLLED_BACK: EventType.ACTION_ROLLED_BACK,
}
FAILED_ACTION_STATES: Final = frozenset({ActionState.EXECUTION_FAILED, ActionState.ROLLBACK_FAILED})


def save_plan(writing: Writing, change: PlanSaved) -> Draft:
    """Volumes that the plan names anew are claimed as well."""
    wanted = [volume.volume_id for volume in change.plan.volumes]
    claimants = claims.find_claimants(writing.connection, wanted)
    foreign = sorted(volume_id for volume_id, job_id in claimants.items() if job_id != writing.job_id)
    if foreign:
        raise ConcurrentChange(f"another job holds the volumes {', '.join(foreign)}")
    new = [volume_id for volume_id in wanted if volume_id not in claimants]
    claims.claim_volumes(writing.connection, writing.job_id, writing.context_id, new, writing.at)
    writing.change_job(plan=change.plan.as_json(), plan_digest=change.plan.digest)
    return Draft(EventType.PLAN_SAVED, change.sentence, {"plan_digest": change.plan.digest}, phase=Phase.ANALYZE)


def start_step(writing: Writing, change: StepStarted) -> Draft:
    joblog.start_step(writing.connection, writing.job_id, change.phase, writing.at)
    writing.change_job(phase=change.phase.value)
    return Draft(EventType.STEP_STARTED, change.sentence, {"phase": change.phase.value}, phase=change.phase)


def end_step(writing: Writing, change: StepEnded) -> Draft:
    if change.status not in STEP_EVENTS:
        raise ConcurrentChange(f"the step {change.phase.value} cannot end as {change.status.value}")
    joblog.end_step(writing.connection, writing.job_id, change, writing.at)
    failed = change.status is StepStatus.FAILED
    return Draft(
        STEP_EVENTS[change.status],
        change.line or change.sentence,
        {"phase": change.phase.value, **change.metadata},
        level=LogLevel.ERROR if failed else LogLevel.INFO,
        phase=change.phase,
    )


def start_action(writing: Writing, change: ActionStarted) -> Draft:
    action = change.action
    actions.start_action(writing.connection, action, change.sentence, writing.at)
    return Draft(
        EventType.ACTION_STARTED,
        change.sentence,
        {
            "action_id": action.id,
            "kind": action.kind.value,
            "phase": action.phase.value,
            "target": action.target.as_json(),
            "attempt": action.attempt,
        },
        phase=action.phase,
    )


def mark_sent(writing: Writing, change: ActionSent) -> Draft:
    row = actions.change_started(
        writing.connection,
        writing.job_id,
        change.action_id,
        writing.at,
        remote_id=change.remote_id,
        sent_at=writing.at,
    )
    return Draft(
        EventType.ACTION_SENT,
        change.sentence,
        {"action_id": change.action_id, "kind": row["kind"], "phase": row["phase"], "remote_id": change.remote_id},
        phase=Phase(row["phase"]),
    )


def send_again(writing: Writing, change: ActionSentAgain) -> Draft:
    row = actions.change_started(
        writing.connection, writing.job_id, change.action_id, writing.at, expires_at=change.expires_at
    )
    return Draft(
        EventType.NOTED,
        change.sentence,
        {"action_id": change.action_id, "kind": row["kind"], "phase": row["phase"]},
        level=LogLevel.WARN,
        phase=Phase(row["phase"]),
    )


def mark_overdue(writing: Writing, change: ActionOverdue) -> Draft:
    """The action stays STARTED: it is followed to its end."""
    row = actions.change_started(writing.connection, writing.job_id, change.action_id, writing.at, error=change.error)
    return Draft(
        EventType.ACTION_OVERDUE,
        change.sentence,
        {"action_id": change.action_id, "kind": row["kind"], "phase": row["phase"], **change.error},
        level=LogLevel.WARN,
        phase=Phase(row["phase"]),
    )


def end_action(writing: Writing, change: ActionEnded) -> Draft:
    row = actions.end_action(
        writing.connection,
        writing.job_id,
        change.action_id,
        change.state,
        writing.at,
        evidence=change.evidence,
        error=change.error,
        sentence=change.sentence,
    )
    failed = change.state in FAILED_ACTION_STATES
    done = ACTION_EVENTS.get(change.state, EventType.ACTION_EXECUTED)
    return Draft(
        EventType.ACTION_FAILED if failed else done,
        change.sentence,
        {
            "action_id": change.action_id,
            "kind": row["kind"],
            "phase": row["phase"],
            "state": change.state.value,
            "evidence": change.evidence,
            "error": change.error,
        },
        level=LogLevel.ERROR if failed else LogLevel.INFO,
        phase=Phase(row["phase"]),
    )


def skip_action(writing: Writing, change: ActionSkipped) -> Draft:
    action = change.action
    actions.skip_action(writing.connection, action, change.sentence, writing.at)
    return Draft(
        EventType.ACTION_SKIPPED,
        change.sentence,
        {
            "action_id": action.id,
            "kind": action.kind.value,
            "phase": action.phase.value,
            "target": action.target.as_json(),
            "evidence": action.evidence,
        },
        phase=action.phase,
    )


def keep_revert_end(writing: Writing, change: RevertEndSeen) -> Draft:
    actions.keep_evidence(writing.connection, writing.job_id, change.action_id, change.evidence, writing.at)
    return Draft(EventType.NOTED, change.sentence, {"action_id": change.action_id})


def track_leak(writing: Writing, change: LeakTracked) -> Draft:
    leaks.track_leak(writing.connection, change.leak, writing.at)
    return leaks.build_draft(change.leak, change.sentence)


def pass_point_of_no_return(writing: Writing, change: PointOfNoReturnPassed) -> Draft:
    writing.change_job(reverted=True)
    return Draft(EventType.POINT_OF_NO_RETURN_PASSED, change.sentence, level=LogLevel.WARN, phase=Phase.SNAPSHOTS)


def open_issue(writing: Writing, change: IssueOpened) -> Draft:
    issue = change.issue
    issue_id = issues.open_issue(writing.connection, issue, writing.at)
    return Draft(
        EventType.ISSUE_OPENED,
        change.sentence,
        {
            "issue_id": issue_id,
            "cause": issue.cause,
            "code": issue.code,
            "severity": issue.severity.value,
            "action_id": issue.action_id,
        },
        level=LogLevel.ERROR,
    )


def note(_writing: Writing, change: Noted) -> Draft:
    return Draft(EventType.NOTED, change.message, change.attrs, level=change.level, phase=change.phase)


def end_job(writing: Writing, change: JobEnded) -> Draft:
    """Parked keeps the VM and its volumes; every other end gives them free."""
    if change.state not in JOB_EVENTS or change.state not in JOB_TRANSITIONS[JobState.RUNNING]:
        raise ConcurrentChange(f"a running job cannot end as {change.state.value}")
    result = change.result or {}
    values = {
        "state": change.state.value,
        "result": change.result,
        "error": change.error,
        "ended_at": writing.at,
        "partial": bool(result.get("partial")),
        "lease_owner": None,
        "lease_until": None,
    }
    if change.state is not JobState.PARKED:
        values["active_context_id"] = None
        claims.free_volumes(writing.connection, writing.job_id)
    writing.change_job(**values)
    if change.summary is not None:
        contexts.set_summary(writing.connection, writing.context_id, change.summary, writing.at)
    _end_in_joblog(writing, change)
    audit.append_audit(writing.connection, [_audited(writing, change)])
    bad = change.state is not JobState.COMPLETED
    return Draft(
        JOB_EVENTS[change.state],
        change.sentence,
        {"state": change.state.value, "result": change.result, "error": change.error},
        level=LogLevel.ERROR if bad else LogLevel.INFO,
    )


def _audited(writing: Writing, change: JobEnded) -> AuditDraft:
    result, error = change.result or {}, change.error or {}
    kept = {"code": error.get("code"), "replica": result.get("replica"), "issue_ids": error.get("issue_ids")}
    kept["leaks"] = [leak["id"] for leak in result.get("leaks", ())]
    return AuditDraft(
        at=writing.at,
        actor=writing.requested_by,
        action=AuditAction.RUN_PARKED if change.state is JobState.PARKED else AuditAction.RUN_ENDED,
        decision=change.state.value,
        vm_name=writing.vm_name,
        context_id=writing.context_id,
        job_id=writing.job_id,
        detail={"sentence": change.sentence, **{key: value for key, value in kept.items() if value}},
    )


def _end_in_joblog(writing: Writing, change: JobEnded) -> None:
    """Existing installations know no "parked": there it is failed, and the message says so."""
    at, connection, job_id = writing.at, writing.connection, writing.job_id
    reason = str((change.error or {}).get("detail") or change.sentence)
    if change.state is JobState.COMPLETED:
        partial = bool((change.result or {}).get("partial"))
        percent = {} if partial else {"percent_complete": 100}
        joblog.change_job(connection, job_id, at, status="completed", completed_at=at, error_message=None, **percent)
        return
    joblog.fail_running_steps(connection, job_id, reason, at)
    if change.state is JobState.CANCELLED:
        joblog.change_job(
            connection, job_id, at, status="cancelled", completed_at=at, canceled_at=at, error_message=reason
        )
        return
    message = f"parked: {reason}" if change.state is JobState.PARKED else reason
    joblog.change_job(connection, job_id, at, status="failed", completed_at=at, error_message=message)


def release_job(writing: Writing, change: JobReleased) -> Draft:
    """Back to the queue, with everything that was journaled; the fence stays, the next claim raises it."""
    writing.change_job(state=JobState.QUEUED.value, lease_owner=None, lease_until=None)
    joblog.change_job(writing.connection, writing.job_id, writing.at, status="pending")
    return Draft(EventType.JOB_RELEASED, change.sentence)
