"""What a person does to a run that exists already: resume."""

from __future__ import annotations

from oma.domain.changes import JobResumed
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.states import JobState
from oma.domain.words import Words
from oma.service.audit import audit_refusal
from oma.service.deps import Deps
from oma.service.names import get_context
from oma.service.queries import get_job


async def resume_job(
    deps: Deps, job_id: str, words: Words, *, actor: str = "api", idempotency_key: str | None = None
) -> Job:
    """A parked run goes on where it stood; with `words.force` past the open issues that force may pass.

    Raises `job_not_found`, `needs_resolution`, `cleanup_in_progress` and `invalid_request`, the last three audited.
    """
    job = await get_job(deps, job_id)
    asked = CleanupRequest(job.vm_name, context_id=job.context_id, requested_by=actor, words=words)
    try:
        await _refuse_key_of_a_run(deps, idempotency_key)
        return await _resume(deps, job, asked, idempotency_key)
    except OmaError as error:
        await audit_refusal(deps, asked, error, job.id)
        raise


async def resume_vm(deps: Deps, request: CleanupRequest, idempotency_key: str | None) -> Job:
    """The same by the VM's name: its parked run goes on."""
    context = await get_context(deps, request.vm_name, request.context_id)
    records = await deps.inventory.get_records(context.context_id)
    job_id = records.active_job_id or await _last_resumed(deps, context.context_id, idempotency_key)
    if job_id is not None:
        return await resume_job(
            deps, job_id, request.words, actor=request.requested_by, idempotency_key=idempotency_key
        )
    error = OmaError(
        Code.INVALID_REQUEST,
        f"{request.vm_name} has no parked run that could be resumed; ask for a clean-up without resume.",
        field="resume",
        allowed="a parked run",
        vm_name=request.vm_name,
    )
    await audit_refusal(deps, request, error)
    raise error


async def _last_resumed(deps: Deps, context_id: str, idempotency_key: str | None) -> str | None:
    """The run that this very call resumed and that has ended meanwhile."""
    if idempotency_key is None:
        return None
    found = await deps.jobs.find_job_resumed_by(context_id, idempotency_key)
    return None if found is None else found.id


async def _refuse_key_of_a_run(deps: Deps, idempotency_key: str | None) -> None:
    """A key that began a run is not for resuming one."""
    found = await deps.jobs.find_job_by_key(idempotency_key) if idempotency_key is not None else None
    if found is not None:
        raise OmaError(
            Code.IDEMPOTENCY_KEY_REUSED,
            f"The idempotency key began the run {found[0].id}; choose a new key for resuming one.",
            job_id=found[0].id,
        )


async def _resume(deps: Deps, job: Job, asked: CleanupRequest, idempotency_key: str | None) -> Job:
    if deps.stopping.is_set():
        raise OmaError(Code.SHUTTING_DOWN, "The daemon is stopping; ask again in a moment.")
    words = asked.words
    how = f" by force: {words.reason}" if words.force else ""
    resumed = JobResumed(
        job_id=job.id,
        actor=asked.requested_by,
        words=words,
        idempotency_key=idempotency_key,
        at=deps.clock.now(),
        sentence=f"The parked clean-up of {job.vm_name} goes on{how}.",
    )
    try:
        found = await deps.journal.resume_job(resumed)
    except ConcurrentChange as error:
        raise OmaError(Code.VM_NOT_FOUND, f"The records of {job.vm_name} are gone.", vm_name=job.vm_name) from error
    if found.state is JobState.QUEUED:
        deps.wake.set()
    return found
