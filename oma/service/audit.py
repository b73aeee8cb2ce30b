"""What is audited although nothing was done: refusals and dry runs. What runs do is audited in their transactions."""

from __future__ import annotations

from typing import Final

from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.errors import Code, OmaError, Refused
from oma.domain.jobs import CleanupRequest
from oma.domain.plan import Plan
from oma.service.deps import Deps

NOT_DECIDED: Final = frozenset(
    {
        Code.VM_NOT_FOUND,
        Code.AMBIGUOUS_VM_NAME,
        Code.JOB_NOT_FOUND,
        Code.ISSUE_NOT_FOUND,
        Code.IDEMPOTENCY_KEY_REUSED,
        Code.SHUTTING_DOWN,
        Code.DATABASE_UNAVAILABLE,
    }
)
"""Answers that decide nothing about a VM."""
NO_NAME: Final = "vm_name"
"""The field of a request for what no VM can be called: nothing was decided about a VM, and it may be of any length."""


async def audit_refusal(deps: Deps, request: CleanupRequest, error: OmaError, job_id: str | None = None) -> None:
    """One entry, and nothing else is written. Raises `database_unavailable`: what cannot be audited is not answered."""
    if error.code in NOT_DECIDED or error.fields.get("field") == NO_NAME:
        return
    detail: dict[str, object] = {"detail": error.sentence, "dry_run": request.dry_run}
    if isinstance(error, Refused):
        detail["codes"] = [refusal.code.value for refusal in error.refusals]
    for name in ("field", "issue_ids"):
        if name in error.fields:
            detail[name] = error.fields[name]
    known_job = error.fields.get("job_id")
    draft = AuditDraft(
        at=deps.clock.now(),
        actor=request.requested_by,
        action=AuditAction.REFUSED,
        decision=error.code.value,
        vm_name=request.vm_name,
        context_id=request.context_id,
        job_id=job_id or (known_job if isinstance(known_job, str) else None),
        words=request.words.as_json() if request.words.spoken else {},
        reason=request.words.reason,
        detail=detail,
    )
    await deps.journal.append_audit([draft])


async def audit_dry_run(deps: Deps, request: CleanupRequest, plan: Plan) -> None:
    draft = AuditDraft(
        at=deps.clock.now(),
        actor=request.requested_by,
        action=AuditAction.DRY_RUN,
        decision="planned",
        vm_name=plan.vm_name,
        context_id=plan.context_id,
        words=request.words.as_json() if request.words.spoken else {},
        reason=request.words.reason,
        detail={"plan_digest": plan.digest, "actions": len(plan.changes)},
    )
    await deps.journal.append_audit([draft])
