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
from oma.domain.records import VmRecords
from oma.domain.states import JobState
from oma.domain.verdict import say_source_off, was_source_powered_off
from oma.service.audit import audit_refusal
from oma.service.control import resume_vm
from oma.service.deps import Deps
from oma.service.epochs import refuse_older
from oma.service.names import get_context
from oma.service.pausing import refuse_paused
from oma.service.words import check_words
from oma.service.world_issues import settle_world_issues
from oma.workflow.guards import judge
from oma.workflow.observe import World, collect_evidence
from oma.workflow.planning import build_plan, first_phase_problem
from oma.workflow.refusing import build_refused, build_refused_plan
from oma.workflow.spoken import say_words
from oma.workflow.staleness import stale_refusal

OBSERVE_AGAIN = 3
"""Times that a plan is made anew when somebody changes the VM's status between looking and queueing."""

FIRST_BUSY_PAUSE_S = 0.25
LONGEST_BUSY_PAUSE_S = 5.0

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
    async with deps.analyses:
        records = await deps.inventory.get_records(context.context_id)
        check_words(records, request.words)
        _refuse_if_occupied(records)
        world = World(deps.cloud, deps.volumes, deps.clock)
        evidence = await collect_evidence(records, world, deps.limits, deps.observe_timeout_s, request.words)
    refusals = judge(evidence)
    issue_ids = await settle_world_issues(deps, evidence, refusals, dry_run=request.dry_run)
    if refusals:
        refused = build_refused(evidence, refusals)
        refused.fields.update({"issue_ids": list(issue_ids)} if issue_ids else {})
        raise refused
    plan = say_words(build_plan(evidence), request.words)
    deps.shown.add(plan)
    return plan


async def find_run_of_key(deps: Deps, request: CleanupRequest, idempotency_key: str | None) -> Job | None:
    """The run that this request began under this key already; another request's key is refused.

    Raises `idempotency_key_reused`. Only runs are kept by key: what was refused may be asked again.
    """
    if idempotency_key is None:
        return None
    found = await deps.jobs.find_job_by_key(idempotency_key)
    if found is None:
        return None
    job, known_hash = found
    if known_hash != request_hash(request):
        raise OmaError(
            Code.IDEMPOTENCY_KEY_REUSED,
            f"The idempotency key was used for another request, of job {job.id}; choose a new key for this one.",
            job_id=job.id,
        )
    return job


async def submit_cleanup(
    deps: Deps, request: CleanupRequest, idempotency_key: str | None = None, *, patience_s: float | None = None
) -> Job:
    """Queues the run of a plan that passed every guard; raises `Refused` and then nothing was written.

    A request that began a run under its key already gets that run, however it stands. `patience_s` is how long the
    caller lets us wait for volumes in transition; `busy_wait_s` at most, and without a wish.
    """
    known = await find_run_of_key(deps, request, idempotency_key)
    if known is not None:
        return known
    if request.words.resume:
        return await resume_vm(deps, request, idempotency_key)
    try:
        return await _submit(deps, request, idempotency_key, patience_s)
    except OmaError as error:
        # The same call, sent twice at once: what stands in this one's way may be the run that the other began.
        known = await find_run_of_key(deps, request, idempotency_key)
        if known is None:
            await audit_refusal(deps, request, error)
            raise
        return known


async def _submit(deps: Deps, request: CleanupRequest, idempotency_key: str | None, patience_s: float | None) -> Job:
    if deps.stopping.is_set():
        raise OmaError(Code.SHUTTING_DOWN, "The daemon is stopping; ask again in a moment.")
    context = await get_context(deps, request.vm_name, request.context_id)
    await refuse_older(deps.epochs)
    await refuse_paused(deps, context.context_id, context.vm_name)
    wait_s = deps.busy_wait_s if patience_s is None else min(patience_s, deps.busy_wait_s)
    wait_until = deps.clock.monotonic() + wait_s
    for _ in range(OBSERVE_AGAIN):
        plan = await _plan_when_settled(deps, request, wait_until)
        problem = first_phase_problem(plan, request.phases)
        if problem is not None:
            raise OmaError(Code.INVALID_REQUEST, problem, field="phases")
        refuse_stale(deps, plan, request)
        try:
            job = await deps.journal.queue_job(_queued(deps, plan, request, idempotency_key))
        except ConcurrentChange:
            continue
        deps.wake.set()
        return job
    refusal = Refusal(
        Code.OPERATION_IN_PROGRESS,
        f"The status of {request.vm_name} keeps changing; somebody else works on this VM.",
        "Find out who writes vm_replication_contexts.current_status, then ask again.",
    )
    raise build_refused_plan(plan, (refusal,))


async def _plan_when_settled(deps: Deps, request: CleanupRequest, wait_until: float) -> Plan:
    """Plans, and waits for volumes in transition as long as they alone stand in the way, not beyond `wait_until`."""
    pause_s = FIRST_BUSY_PAUSE_S
    while True:
        try:
            return await plan_cleanup(deps, request)
        except Refused as refused:
            only_busy = all(refusal.code is Code.VOLUME_BUSY for refusal in refused.refusals)
            over = deps.clock.monotonic() + pause_s > wait_until
            if not only_busy or over or deps.stopping.is_set():
                raise
        await deps.clock.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_BUSY_PAUSE_S)


async def wait_for_job(deps: Deps, job_id: str, wait_s: float) -> Waited:
    """Waits until the job has ended, an operation of it is overdue, the daemon stops, or `wait_s` is over."""
    overdue: dict[str, object] | None = None
    with deps.bus.subscribe(job_id) as events:
        waited = await _look(deps, job_id)
        if waited.ended:
            return waited
        try:
            async with asyncio.timeout(wait_s):
                async for event in events:
                    if event.type is EventType.ACTION_OVERDUE:
                        overdue = dict(event.data)
                        break
                    if event.type in ENDING_EVENTS:
                        break
                    if event.type is EventType.JOB_RELEASED and deps.brakes.pauses:
                        # How long a pause lasts nobody knows: the caller is told where the run goes on.
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


def _refuse_if_occupied(records: VmRecords) -> None:
    """What stands in the way before anything is asked of the world; nothing is said of the replica then."""
    job_id, vm_name = records.active_job_id, records.context.vm_name
    source_off = was_source_powered_off(records)
    if records.open_issue_ids:
        read = f"Read the issue's guidance: oma jobs show {job_id}" if job_id else "Read the issue's guidance."
        raise OmaError(
            Code.NEEDS_RESOLUTION,
            f"{vm_name} has an open issue that a person has to settle before another run.",
            vm_name=vm_name,
            job_id=job_id,
            issue_ids=list(records.open_issue_ids),
            source_powered_off=source_off,
            next=say_source_off(read, source_off=source_off),
        )
    if job_id is not None:
        raise OmaError(
            Code.CLEANUP_IN_PROGRESS,
            f"A clean-up of {vm_name} is running already.",
            vm_name=vm_name,
            job_id=job_id,
            holder=records.active_job_holder,
            source_powered_off=source_off,
            next=say_source_off(f"Follow it: oma jobs follow {job_id}", source_off=source_off),
        )


def refuse_stale(deps: Deps, plan: Plan, request: CleanupRequest) -> None:
    """Raises `Refused` `plan_stale` where another plan was confirmed, saying what changed."""
    expected = request.expect_plan
    if expected is not None and expected != plan.digest:
        raise build_refused_plan(plan, (stale_refusal(expected, deps.shown.find(expected), plan),))


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
        sentence=f"Clean-up of {plan.vm_name} queued: {len(plan.changes)} actions on {len(plan.volumes)} volumes.",
    )
