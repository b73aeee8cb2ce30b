"""What a person does to a run that exists already: resume it, or cancel it."""

from __future__ import annotations

from typing import Final

from oma.domain.changes import JobCancelled, JobResumed
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.issues import UNBELIEVABLE
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.remains import Remains
from oma.domain.states import JobState
from oma.domain.undoing import CancelAsked
from oma.domain.verdict import shell_word
from oma.domain.words import Words
from oma.ports import IssueFilter
from oma.service.audit import audit_refusal
from oma.service.deps import Deps
from oma.service.epochs import refuse_older
from oma.service.names import get_context
from oma.service.pausing import refuse_paused
from oma.service.queries import get_job

ISSUES: Final = 20
"""Open ones of a run that an answer names at most."""


async def resume_job(
    deps: Deps, job_id: str, words: Words, *, actor: str = "api", idempotency_key: str | None = None
) -> Job:
    """A parked run goes on where it stood; with `words.force` past the open issues that force may pass.

    Raises `job_not_found`, `needs_resolution`, `cleanup_in_progress` and `invalid_request`, the last three audited.
    """
    job = await _get_readable(deps, job_id, actor, words)
    asked = CleanupRequest(job.vm_name, context_id=job.context_id, requested_by=actor, words=words)
    try:
        await _refuse_key_of_a_run(deps, idempotency_key)
        await refuse_older(deps.epochs)
        await refuse_paused(deps, job.context_id, job.vm_name)
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


async def cancel_job(deps: Deps, job_id: str, reason: str | None, *, actor: str = "api") -> Job:
    """The run stops between two actions: before the first revert it goes back and ends, after it it parks.

    Raises `job_not_found`, and `invalid_request` where it has ended or can only go forward; that one is audited.
    """
    job = await _get_readable(deps, job_id, actor, Words(reason=reason))
    asked = CancelAsked(actor, reason, deps.clock.now())
    sentence = f"{asked.sentence}; it stops between two actions."
    try:
        await refuse_older(deps.epochs)
        found = await deps.journal.cancel_job(JobCancelled(job.id, asked, sentence))
    except OmaError as error:
        request = CleanupRequest(job.vm_name, context_id=job.context_id, requested_by=actor)
        await audit_refusal(deps, request, error, job.id)
        raise
    if found.state is JobState.QUEUED:
        deps.wake.set()
    return found


async def _get_readable(deps: Deps, job_id: str, actor: str, words: Words) -> Job:
    """Raises `needs_resolution`, audited, where its rows can't be read; what leads on is a word about its issue."""
    try:
        job = await get_job(deps, job_id)
        await deps.jobs.list_actions(job_id)
    except OmaError as error:
        remains = await deps.jobs.find_remains(job_id) if error.code is Code.INTERNAL_ERROR else None
        if remains is None:
            raise
        told = await _tell_unreadable(deps, remains, error)
        asked = CleanupRequest(remains.vm_name, context_id=remains.context_id, requested_by=actor, words=words)
        await audit_refusal(deps, asked, told, job_id)
        raise told from error
    return job


async def _tell_unreadable(deps: Deps, remains: Remains, error: OmaError) -> OmaError:
    """One that is not parked yet is parked by whoever claims it next, and then has its issue."""
    found = (await deps.jobs.list_issue_page(IssueFilter(job_id=remains.job_id), ISSUES, None)).items
    own = sorted(found, key=lambda one: one.kind != UNBELIEVABLE)
    step = f"See what is open of it, and say RESYNC of that: oma issue list --vm {shell_word(remains.vm_name)}"
    if own:
        step = (
            "Put the row right and say APPLIED, or end the run for good, so that every disk is copied whole: "
            f'oma audit fix -c {own[0].id} --resolution RESYNC --notes "…"'
        )
    return OmaError(
        Code.NEEDS_RESOLUTION,
        f"{error.sentence} Nothing was done to the run of {remains.vm_name}, which is {remains.state.value}.",
        vm_name=remains.vm_name,
        job_id=remains.job_id,
        issue_ids=[one.id for one in own],
        next=step,
    )


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
