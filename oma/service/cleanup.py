"""The main job: plan it, submit it, wait for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass

from oma.domain.changes import JobQueued
from oma.domain.errors import Code, ConcurrentChange, OmaError, Refusal, Refused
from oma.domain.events import ENDING_EVENTS, EventType
from oma.domain.jobs import CleanupRequest, Job, Step
from oma.domain.plan import Plan
from oma.domain.states import JobState
from oma.service.deps import Deps
from oma.service.names import get_context
from oma.workflow.guards import judge
from oma.workflow.observe import World, collect_evidence
from oma.workflow.planning import build_plan, first_phase_problem

OBSERVE_AGAIN = 3
"""Times that a plan is made anew when somebody changes the VM's status between looking and queueing."""

ENDED = frozenset({JobState.COMPLETED, JobState.PARKED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Waited:
    """Where a job stands after waiting. `overdue` holds the error of an operation that is late but still followed."""

    job: Job
    steps: tuple[Step, ...]
    overdue: dict[str, object] | None = None

    @property
    def ended(self) -> bool:
        return self.job.state in ENDED


async def plan_cleanup(deps: Deps, request: CleanupRequest) -> Plan:
    """Observes, judges and plans without changing anything; raises `Refused` with every reason."""
    context = await get_context(deps, request.vm_name, request.context_id)
    records = await deps.inventory.get_records(context.context_id)
    _refuse_if_occupied(records.active_job_id, records.active_job_holder, records.open_issue_ids, context.vm_name)
    world = World(deps.cloud, deps.volumes, deps.clock)
    evidence = await collect_evidence(records, world, deps.limits, deps.observe_timeout_s)
    refusals = judge(evidence)
    if refusals:
        raise Refused(refusals, vm_name=context.vm_name)
    return build_plan(evidence)


async def submit_cleanup(deps: Deps, request: CleanupRequest, idempotency_key: str | None = None) -> Job:
    """Queues the run of a plan that passed every guard; raises `Refused` and then nothing was written."""
    if deps.stopping.is_set():
        raise OmaError(Code.SHUTTING_DOWN, "The daemon is stopping; ask again in a moment.")
    for _ in range(OBSERVE_AGAIN):
        plan = await plan_cleanup(deps, request)
        problem = first_phase_problem(plan, request.phases)
        if problem is not None:
            raise OmaError(Code.INVALID_REQUEST, problem, field="phases")
        _refuse_stale(plan, request)
        try:
            job = await deps.journal.queue_job(_queued(deps, plan, request, idempotency_key))
        except ConcurrentChange:
            continue
        deps.wake.set()
        return job
    raise Refused(
        (
            Refusal(
                Code.OPERATION_IN_PROGRESS,
                f"The status of {request.vm_name} keeps changing; somebody else works on this VM.",
                "Find out who writes vm_replication_contexts.current_status, then ask again.",
            ),
        ),
        vm_name=request.vm_name,
    )


async def wait_for_job(deps: Deps, job_id: str, wait_s: float) -> Waited:
    """Waits until the job has ended, an operation of it is overdue, the daemon stops, or `wait_s` is over."""
    overdue: dict[str, object] | None = None
    with deps.bus.subscribe() as events:
        waited = await _look(deps, job_id)
        if waited.ended:
            return waited
        try:
            async with asyncio.timeout(wait_s):
                async for event in events:
                    if event.job_id != job_id:
                        continue
                    if event.type is EventType.ACTION_OVERDUE:
                        overdue = dict(event.data)
                        break
                    if event.type in ENDING_EVENTS:
                        break
        except TimeoutError:
            pass
    waited = await _look(deps, job_id)
    return Waited(waited.job, waited.steps, None if waited.ended else overdue)


async def _look(deps: Deps, job_id: str) -> Waited:
    job = await deps.jobs.find_job(job_id)
    if job is None:
        raise OmaError(Code.JOB_NOT_FOUND, f"No job has the id {job_id!r}.", job_id=job_id)
    return Waited(job, tuple(await deps.jobs.list_steps(job_id)))


def request_hash(request: CleanupRequest) -> str:
    """SHA-256 over what was asked for, without who asked and when."""
    body = request.as_json()
    for key in ("correlation_id", "requested_by"):
        body.pop(key)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _refuse_if_occupied(job_id: str | None, holder: str | None, open_issue_ids: tuple[str, ...], vm_name: str) -> None:
    if open_issue_ids:
        raise OmaError(
            Code.NEEDS_RESOLUTION,
            f"{vm_name} has an open issue that a person has to settle before another run.",
            vm_name=vm_name,
            job_id=job_id,
            issue_ids=list(open_issue_ids),
            next=f"Read the issue's guidance: oma jobs show {job_id}" if job_id else "Read the issue's guidance.",
        )
    if job_id is not None:
        raise OmaError(
            Code.CLEANUP_IN_PROGRESS,
            f"A clean-up of {vm_name} is running already; follow it with: oma jobs follow {job_id}",
            vm_name=vm_name,
            job_id=job_id,
            holder=holder,
        )


def _refuse_stale(plan: Plan, request: CleanupRequest) -> None:
    if request.expect_plan is not None and request.expect_plan != plan.digest:
        raise Refused(
            (
                Refusal(
                    Code.PLAN_STALE,
                    f"The plan for {plan.vm_name} is no longer the one that was shown.",
                    "Look at the new plan with a dry run and confirm that one.",
                    {"expected": request.expect_plan, "current": plan.digest},
                ),
            ),
            vm_name=plan.vm_name,
        )


def _queued(deps: Deps, plan: Plan, request: CleanupRequest, idempotency_key: str | None) -> JobQueued:
    return JobQueued(
        job_id=deps.ids.new_id(),
        plan=plan,
        request=request.as_json(),
        request_hash=request_hash(request),
        idempotency_key=idempotency_key,
        correlation_id=request.correlation_id,
        requested_by=request.requested_by,
        at=deps.clock.now(),
        sentence=f"Clean-up of {plan.vm_name} queued: {len(plan.actions)} actions on {len(plan.volumes)} volumes.",
    )
