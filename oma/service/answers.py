"""The bodies that callers of the main job get, built from what the journal says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from oma.domain.actions import Action, ActionKind
from oma.domain.errors import CleanupFailed, Code
from oma.domain.estimate import Estimate
from oma.domain.jobs import CleanupRequest, Job, Step
from oma.domain.plan import Plan
from oma.domain.states import JobState, Phase
from oma.domain.verdict import of_begun, of_ended, of_plan

FAILURE_PREFIX = "Failed to cleanup failed execution: "


def dry_run_answer(request: CleanupRequest, plan: Plan, estimate: Estimate, at: datetime) -> dict[str, Any]:
    """What a dry run answers: the whole plan, and what the phases that were asked for would do of it."""
    return {
        "success": True,
        "dry_run": True,
        **({} if Phase.RESET in request.phases else {"partial": True}),
        "message": _dry_run_message(request, plan),
        "vm_name": plan.vm_name,
        "context_id": plan.context_id,
        "timestamp": as_rfc3339(at),
        "correlation_id": request.correlation_id,
        "phases": [phase.value for phase in request.phases],
        "plan": {**plan.as_json(), "plan_digest": plan.digest, "estimate": estimate.as_json()},
        "plan_digest": plan.digest,
        **of_plan(plan, request).as_json(),
    }


def _dry_run_message(request: CleanupRequest, plan: Plan) -> str:
    chosen = [action for action in plan.changes if action.phase in request.phases]
    if len(chosen) == len(plan.changes):
        number = f"{len(chosen)} action{'' if len(chosen) == 1 else 's'}"
        return f"Dry run for {plan.vm_name}: {number} planned, nothing was changed"
    names = [phase.value for phase in request.phases if phase is not Phase.ANALYZE] or [Phase.ANALYZE.value]
    return (
        f"Dry run for {plan.vm_name}: {len(chosen)} of {len(plan.changes)} actions planned in {', '.join(names)}; "
        f"{'' if Phase.RESET in request.phases else 'the VM would not be cleaned up; '}nothing was changed"
    )


def cleanup_answer(job: Job, steps: tuple[Step, ...], actions: tuple[Action, ...], at: datetime) -> dict[str, Any]:
    """What a finished run answers; raises `CleanupFailed` for one that did not end well."""
    if job.state is not JobState.COMPLETED:
        raise failure_of(job, job.error or {})
    result = job.result or {}
    verdict = of_ended(job.plan, job.id).as_json()
    return {
        "success": True,
        **({"partial": True} if result.get("partial") else {}),
        "message": result.get("message", f"Failed execution cleanup completed for {job.vm_name}"),
        "vm_name": job.vm_name,
        "timestamp": as_rfc3339(job.ended_at or at),
        "job_id": job.id,
        "correlation_id": job.correlation_id,
        "duration_seconds": duration_s(job, at),
        # Markers are taken off after the end; the same key gets the same answer, however that stands.
        "phases": [
            phase_entry(step, [one for one in actions if one.kind is not ActionKind.CLEAR_MARKER]) for step in steps
        ],
        **({"leaks": result["leaks"]} if result.get("leaks") else {}),
        "replica": result.get("replica", verdict["replica"]),
        "next": result.get("next", verdict["next"]),
    }


def accepted_answer(job: Job, at: datetime) -> dict[str, Any]:
    """What a caller gets who doesn't wait, or can't wait any longer."""
    return {
        "success": True,
        "message": f"Clean-up of {job.vm_name} is {job.state.value}",
        "vm_name": job.vm_name,
        "timestamp": as_rfc3339(at),
        "job_id": job.id,
        "correlation_id": job.correlation_id,
        "status": job.state.value,
        "location": f"/api/v1/jobs/{job.id}",
        **of_begun(job.plan, job.id).as_json(),
    }


def failure_of(job: Job, error: dict[str, Any]) -> CleanupFailed:
    """The error that a journaled failure stands for; its fields name job, phase, action, upstream, issue, guidance."""
    fields = {key: value for key, value in error.items() if key not in ("code", "detail")}
    runs = job.state in (JobState.QUEUED, JobState.RUNNING)
    verdict = of_begun(job.plan, job.id) if runs else of_ended(job.plan, job.id)
    return CleanupFailed(
        Code(error.get("code", Code.CLEANUP_FAILED.value)),
        str(error.get("detail", f"The clean-up of {job.vm_name} ended {job.state.value}.")),
        **{"vm_name": job.vm_name, "job_id": job.id, **verdict.as_json(), **fields},
    )


def phase_entry(step: Step, actions: Sequence[Action]) -> dict[str, Any]:
    return {
        "name": step.phase.value,
        "status": step.status.value,
        "duration_seconds": step.duration_s,
        "actions": [action_entry(action) for action in actions if action.phase is step.phase],
    }


def action_entry(action: Action) -> dict[str, Any]:
    return {
        "id": action.id,
        "kind": action.kind.value,
        "state": action.state.value,
        "target": action.target.as_json(),
        "attempt": action.attempt,
        "remote_id": action.remote_id,
        "sentence": action.sentence,
        "error": action.error,
        "started_at": as_rfc3339(action.intent_at),
        "ended_at": as_rfc3339(action.ended_at),
    }


def duration_s(job: Job, at: datetime) -> float | None:
    if job.started_at is None:
        return None
    return ((job.ended_at or at) - job.started_at).total_seconds()


def as_rfc3339(at: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds."""
    return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")
