"""What a dry run shows: the plan, and how long it will take. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass

from oma.domain.errors import Code, OmaError
from oma.domain.estimate import Estimate
from oma.domain.jobs import CleanupRequest
from oma.domain.plan import Plan
from oma.service.audit import audit_dry_run, audit_refusal
from oma.service.cleanup import plan_cleanup, refuse_stale
from oma.service.deps import Deps
from oma.workflow.estimate import build_estimate, measure_medians
from oma.workflow.planning import first_phase_problem


@dataclass(frozen=True, slots=True)
class DryRun:
    plan: Plan
    estimate: Estimate


async def dry_run(deps: Deps, request: CleanupRequest) -> DryRun:
    """Raises what a real run of the same request would, before it is queued. Writes its audit entry, nothing else."""
    try:
        shown = await _dry_run(deps, request)
    except OmaError as error:
        await audit_refusal(deps, request, error)
        raise
    await audit_dry_run(deps, request, shown.plan)
    return shown


async def _dry_run(deps: Deps, request: CleanupRequest) -> DryRun:
    plan = await plan_cleanup(deps, request)
    problem = first_phase_problem(plan, request.phases)
    if problem is not None:
        raise OmaError(Code.INVALID_REQUEST, problem, field="phases")
    refuse_stale(deps, plan, request)
    medians = measure_medians(await deps.jobs.list_timed_actions())
    return DryRun(plan, build_estimate(plan, medians, request.phases))
