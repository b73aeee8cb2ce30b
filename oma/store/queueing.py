"""A new job: the one-per-VM insert, the volumes' claims, the handshake on the VM's status, JobLog row and event."""

from __future__ import annotations

from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from database.tables import oma_jobs
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.changes import JobQueued
from oma.domain.controls import build_paused, find_pause
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.jobs import OPERATION, Job
from oma.domain.states import JobState
from oma.store import audit, claims, contexts, controls, issues, joblog, jobs
from oma.store.events import Draft, record_events

_INSERT: Final = insert(oma_jobs)


def queue_job(connection: Connection, queued: JobQueued) -> tuple[Job, list[Event]]:
    """Everything or nothing; see `JournalStore.queue_job` for what is raised.

    The VM's row is locked first, so that two daemons that want the same VM come here one after the other. What is
    looked at after that is read with locks: a plain read may answer from a snapshot older than the lock.
    """
    context_id = queued.plan.context_id
    contexts.lock_context(connection, context_id)
    known = _job_of_key(connection, queued)
    if known is not None:
        return known, []
    _refuse_paused(connection, queued)
    _refuse_open_issue(connection, queued)
    _refuse_active_job(connection, queued)
    contexts.claim_context(connection, context_id, queued.plan.former_status, queued.at)
    try:
        _insert_job(connection, queued)
        volume_ids = [volume.volume_id for volume in queued.plan.volumes]
        claims.claim_volumes(connection, queued.job_id, context_id, volume_ids, queued.at)
    except IntegrityError as error:
        # Another daemon was faster: with this key for another VM, with this VM, or with one of its volumes.
        _job_of_key(connection, queued)
        _refuse_active_job(connection, queued)
        raise _occupied(queued, None, None) from error
    joblog.insert_job(connection, queued)
    audit.append_audit(connection, _audited(queued))
    draft = Draft(
        EventType.JOB_QUEUED,
        queued.sentence,
        {"plan_digest": queued.plan.digest, "requested_by": queued.requested_by, "vm_name": queued.plan.vm_name},
    )
    events = record_events(connection, queued.job_id, context_id, [draft], queued.at)
    joblog.add_lines(connection, queued.job_id, [draft], queued.at)
    job = jobs.find_job(connection, queued.job_id)
    assert job is not None  # noqa: S101 - inserted above, in this transaction
    return job, events


def _audited(queued: JobQueued) -> list[AuditDraft]:
    words = audit.words_of(queued.request)
    begun = AuditDraft(
        at=queued.at,
        actor=queued.requested_by,
        action=AuditAction.RUN_BEGUN,
        decision=JobState.QUEUED.value,
        vm_name=queued.plan.vm_name,
        context_id=queued.plan.context_id,
        job_id=queued.job_id,
        words=words.as_json() if words.spoken else {},
        reason=words.reason,
        detail={"plan_digest": queued.plan.digest, "phases": queued.request.get("phases")},
    )
    return [begun, *audit.spoken_drafts(begun, words)]


def _job_of_key(connection: Connection, queued: JobQueued) -> Job | None:
    """The same key and body: the same job. The same key and another body is refused."""
    if queued.idempotency_key is None:
        return None
    found = jobs.find_job_by_key(connection, queued.idempotency_key, locked=True)
    if found is None or found[0].id == queued.job_id:
        return None
    job, request_hash = found
    if request_hash == queued.request_hash:
        return job
    raise OmaError(
        Code.IDEMPOTENCY_KEY_REUSED,
        f"The idempotency key was used for another request, of job {job.id}; choose a new key for this one.",
        job_id=job.id,
    )


def _refuse_paused(connection: Connection, queued: JobQueued) -> None:
    """A pause that comes a moment later is as good: what it covers is not claimed."""
    pause = find_pause(controls.list_pauses(connection), queued.plan.context_id)
    if pause is not None:
        raise build_paused(pause, queued.plan.vm_name)


def _refuse_open_issue(connection: Connection, queued: JobQueued) -> None:
    found = issues.list_open_ids(connection, [queued.plan.context_id], locked=True)
    if not found:
        return
    job_id = next((job_id for _context, _issue, job_id in found if job_id), None)
    raise OmaError(
        Code.NEEDS_RESOLUTION,
        f"{queued.plan.vm_name} has an open issue that a person has to settle before another run.",
        vm_name=queued.plan.vm_name,
        job_id=job_id,
        issue_ids=[issue_id for _context, issue_id, _job in found],
        next=f"Read the issue's guidance: oma jobs show {job_id}" if job_id else "Read the issue's guidance.",
    )


def _refuse_active_job(connection: Connection, queued: JobQueued) -> None:
    """Locking reads: they see what another daemon committed a moment ago."""
    table = oma_jobs.c
    query = select(table.id, table.lease_owner, table.state).where(table.id != queued.job_id).with_for_update()
    row = connection.execute(query.where(table.active_context_id == queued.plan.context_id)).first()
    if row is None:
        volume_ids = [volume.volume_id for volume in queued.plan.volumes]
        holder_ids = sorted(set(claims.find_claimants(connection, volume_ids).values()))
        if holder_ids:
            row = connection.execute(query.where(table.id == holder_ids[0])).first()
    if row is not None:
        raise _occupied(queued, row.id, row.lease_owner or row.state)


def _occupied(queued: JobQueued, job_id: str | None, holder: str | None) -> OmaError:
    follow = f"; follow it with: oma jobs follow {job_id}" if job_id else "."
    look = f"Follow it: oma jobs follow {job_id}" if job_id else "See which run it is: oma jobs list"
    return OmaError(
        Code.CLEANUP_IN_PROGRESS,
        f"Another clean-up holds {queued.plan.vm_name} or one of its volumes{follow}",
        vm_name=queued.plan.vm_name,
        job_id=job_id,
        holder=holder,
        next=look,
    )


def _insert_job(connection: Connection, queued: JobQueued) -> None:
    values = {
        "id": queued.job_id,
        "context_id": queued.plan.context_id,
        "active_context_id": queued.plan.context_id,
        "vm_name": queued.plan.vm_name,
        "operation": OPERATION,
        "state": JobState.QUEUED.value,
        "request": queued.request,
        "request_hash": queued.request_hash,
        "idempotency_key": queued.idempotency_key,
        "plan": queued.plan.as_json(),
        "plan_digest": queued.plan.digest,
        "correlation_id": queued.correlation_id,
        "requested_by": queued.requested_by,
        "created_at": queued.at,
        "updated_at": queued.at,
    }
    connection.execute(_INSERT, values)
