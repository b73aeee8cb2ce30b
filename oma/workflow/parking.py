"""A run that cannot go on by itself: its issues, its last words, and the journal's account of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oma.domain.actions import ActionKind, Target
from oma.domain.changes import Change, IssueOpened, JobEnded, StatusRestored, StepEnded
from oma.domain.errors import Code, Refused
from oma.domain.forcing import is_passable
from oma.domain.guidance import build_guidance
from oma.domain.issues import Issue, Severity, due_time
from oma.domain.jobs import build_summary
from oma.domain.states import IssueState, JobState, StepStatus
from oma.domain.verdict import forced_resume_command, of_parked, of_refusal
from oma.domain.whole_copies import is_in_doubt
from oma.workflow.phases.outcome import count
from oma.workflow.run import Failure, Run
from oma.workflow.unmarking import end_markers


async def park(run: Run, failures: tuple[Failure, ...], *, before: Sequence[Change] = ()) -> str:
    """Opens an issue per failure and parks the job, in one transaction; the VM stays `cleanup_required`.

    `before`: changes of the same transaction.

    A failed action has told its sentence to the log already; what follows there says only what follows from it.
    """
    # A parked run keeps its markers, also where the transaction that would have ended it was refused.
    run.unmarking.clear()
    command = _force_command(run, failures)
    issues = [_build_issue(run, failure, command) for failure in failures]
    first, issue = failures[0], issues[0]
    error = _last_words(run, first, issue, issues)
    await run.journal.write(
        *before,
        *(IssueOpened(one, _issue_line(one, failure)) for one, failure in zip(issues, failures, strict=True)),
        StepEnded(run.phase, StepStatus.FAILED, first.sentence, line=f"{run.phase.value} failed."),
        JobEnded(
            JobState.PARKED,
            f"The run is parked: a person has to settle {count(len(issues), 'issue')}.",
            error=error,
            summary=_summary(run, JobState.PARKED, error),
        ),
    )
    return f"parked: {first.sentence}"


def _issue_line(issue: Issue, failure: Failure) -> str:
    if failure.action is None:
        return f"Issue {issue.id} opened: {issue.title}"
    return f"Issue {issue.id} opened about {failure.action.words}; what to do stands in it."


def _summary(run: Run, state: JobState, error: dict[str, Any]) -> dict[str, Any]:
    return build_summary(run.job.id, state, run.tools.clock.now(), error)


async def refuse(run: Run, refused: Refused) -> str:
    """Ends a job whose guards refused before anything was touched; the VM gets its former status back."""
    verdict = of_refusal(
        refused.refusals,
        needs_revert=any(volume.needs_revert for volume in run.plan.volumes),
        awaits_copy=bool(run.plan.awaiting),
        source_off=run.plan.source_powered_off,
    )
    error = {
        "code": refused.code.value,
        "detail": refused.sentence,
        "phase": run.phase.value,
        **verdict.as_json(),
        **refused.fields,
    }
    await run.journal.write(
        StepEnded(run.phase, StepStatus.FAILED, refused.sentence),
        StatusRestored(run.plan.context_id, run.plan.former_status, f"Status back to {run.plan.former_status}."),
        *await end_markers(run),
        JobEnded(
            JobState.FAILED,
            "The run ended; nothing was touched.",
            error=error,
            summary=_summary(run, JobState.FAILED, error),
        ),
    )
    return f"Nothing was touched: {refused.sentence}"


def _force_command(run: Run, failures: tuple[Failure, ...]) -> str | None:
    """Force lets the run go on only where it may pass everything that stands in the way."""
    for failure in failures:
        upstream = failure.upstream.as_json() if failure.upstream else None
        if failure.action is None or not is_passable(failure.action.kind, upstream):
            return None
    return forced_resume_command(run.plan.vm_name, run.plan.context_id)


def _build_issue(run: Run, failure: Failure, force_command: str | None) -> Issue:
    action = failure.action
    now = run.tools.clock.now()
    kind = action.kind if action else None
    target = action.target if action else failure.target or Target()
    severity = _severity(failure, kind)
    cause = action.id if action else f"{run.job.id}/{failure.phase.value}/{failure.sentence}"
    issue_id = run.tools.ids.new_id()
    return Issue(
        id=issue_id,
        cause=cause[:255],
        job_id=run.job.id,
        action_id=action.id if action else None,
        context_id=run.plan.context_id,
        vm_name=run.plan.vm_name,
        kind=failure.issue_kind or (kind.value if kind else failure.phase.value),
        code=failure.code.value,
        severity=severity,
        state=IssueState.OPEN,
        title=failure.sentence,
        target=target.as_json(),
        evidence={**failure.evidence, "unknown": failure.unknown},
        error=failure.upstream.as_json() if failure.upstream else None,
        guidance=build_guidance(
            failure.issue_kind or kind or _open_phase(run, failure),
            target,
            job_id=run.job.id,
            remote_id=(action.remote_id or action.id) if action else None,
            force_command=force_command,
            undo_command=f"oma undo {run.job.id}" if run.undoing is not None else None,
            issue_id=issue_id,
        ),
        opened_at=now,
        due_at=due_time(severity, now),
    )


def _open_phase(run: Run, failure: Failure) -> str | None:
    """The phase, where what its issue is about may be given up."""
    phase = failure.phase.value
    return phase if is_in_doubt(phase, run.plan, run.actions) else None


def _severity(failure: Failure, kind: ActionKind | None) -> Severity:
    critical = kind is ActionKind.REVERT_SNAPSHOT or failure.sentence.startswith("Alarm:")
    return Severity.CRITICAL if critical else Severity.STANDARD


def _last_words(run: Run, first: Failure, issue: Issue, issues: list[Issue]) -> dict[str, Any]:
    verdict = of_parked(run.plan, run.actions, {one.kind for one in issues}, run.job.id)
    return {
        **build_error(run, first),
        "issue_id": issue.id,
        "issue_ids": [one.id for one in issues],
        "guidance": list(issue.guidance),
        **verdict.as_json(),
    }


def build_error(run: Run, first: Failure) -> dict[str, Any]:
    """What a run says of the failure that stopped it, however it ends."""
    action = first.action
    return {
        "code": first.code.value if first.code in PARKING_CODES else Code.CLEANUP_FAILED.value,
        "detail": first.sentence,
        "phase": first.phase.value,
        "action": {"id": action.id, "kind": action.kind.value, "target": action.target.as_json()} if action else None,
        "upstream": first.upstream.as_json() if first.upstream else None,
        "source_powered_off": run.plan.source_powered_off,
    }


PARKING_CODES = frozenset(
    {
        Code.CLEANUP_FAILED,
        Code.CLOUDSTACK_ERROR,
        Code.CLOUDSTACK_TIMEOUT,
        Code.VOLUME_DAEMON_ERROR,
        Code.VOLUME_DAEMON_TIMEOUT,
    }
)
