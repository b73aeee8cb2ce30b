"""A run that met a fault of the daemon itself: how it is parked, with an issue that names each uncertain action."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from oma.domain.actions import Action, Target
from oma.domain.changes import Change, IssueOpened, JobEnded
from oma.domain.errors import Code
from oma.domain.guidance import build_guidance
from oma.domain.issues import INTERNAL, Issue, Severity, due_time
from oma.domain.jobs import Job, build_summary
from oma.domain.states import ActionState, IssueState, JobState
from oma.domain.verdict import of_parked
from oma.ports import Ids

UNCERTAIN: Final = frozenset({ActionState.STARTED, ActionState.EXECUTION_FAILED})
"""Begun, and how it ended is not known or not good."""


def build_park(job: Job, actions: Sequence[Action], ids: Ids, now: datetime) -> list[Change]:
    """The changes of one transaction. `actions`: as the journal has them now, not as they were claimed."""
    sentence = f"The clean-up of {job.vm_name} met a fault of the daemon itself and was parked."
    first = _build_fault(job, ids.new_id(), now)
    issues = [first, *(_build_uncertain(job, one, ids.new_id(), now) for one in actions if one.state in UNCERTAIN)]
    error = {
        "code": Code.CLEANUP_FAILED.value,
        "detail": sentence,
        "issue_id": first.id,
        "issue_ids": [one.id for one in issues],
        "source_powered_off": job.plan.source_powered_off,
        "guidance": list(first.guidance),
        **of_parked(job.plan, actions, {one.kind for one in issues}, job.id).as_json(),
    }
    summary = build_summary(job.id, JobState.PARKED, now, error)
    return [
        IssueOpened(first, sentence),
        *(IssueOpened(one, f"Issue {one.id} opened: {one.title}") for one in issues[1:]),
        JobEnded(JobState.PARKED, sentence, error=error, summary=summary),
    ]


def _build_fault(job: Job, issue_id: str, now: datetime) -> Issue:
    return Issue(
        **{**_shared(job, issue_id, now), "evidence": {"correlation_id": job.correlation_id}},
        cause=f"internal:{job.id}",
        action_id=None,
        kind=INTERNAL,
        title="The daemon met a fault of its own",
        target={},
        guidance=build_guidance(INTERNAL, Target(), job_id=job.id, remote_id=None, issue_id=issue_id),
    )


def _build_uncertain(job: Job, action: Action, issue_id: str, now: datetime) -> Issue:
    return Issue(
        **_shared(job, issue_id, now),
        cause=action.id,
        action_id=action.id,
        kind=action.kind.value,
        title=f"How {action.words} ended is not known: the run met a fault of the daemon before it could be followed.",
        target=action.target.as_json(),
        guidance=build_guidance(
            action.kind,
            action.target,
            job_id=job.id,
            remote_id=action.remote_id or action.request_id,
            force_command=None,
            issue_id=issue_id,
        ),
    )


def _shared(job: Job, issue_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": issue_id,
        "job_id": job.id,
        "context_id": job.context_id,
        "vm_name": job.vm_name,
        "code": Code.INTERNAL_ERROR.value,
        "severity": Severity.CRITICAL,
        "state": IssueState.OPEN,
        "evidence": {},
        "error": None,
        "opened_at": now,
        "due_at": due_time(Severity.CRITICAL, now),
    }
