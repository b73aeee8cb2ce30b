"""A run that nobody works on is parked: its job, step, JobLog and audit say so, and its VM's summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.engine import Connection

from database.tables import oma_jobs
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.events import Event, EventType
from oma.domain.jobs import build_summary
from oma.domain.states import JobState, LogLevel
from oma.store import audit, contexts, joblog
from oma.store.events import Draft, record_events


@dataclass(frozen=True, slots=True)
class Parking:
    """Whom it is about, and its last words: `detail`, `issue_ids`, `replica` and `next` among them."""

    job_id: str
    context_id: str
    vm_name: str
    requested_by: str
    error: Mapping[str, Any]


def park_job(
    connection: Connection, parking: Parking, at: datetime, *, before: Sequence[Draft] = (), fence: int | None = None
) -> list[Event]:
    """`before`: what is told ahead of it; `fence`: the new one of a job that somebody may still hold."""
    job_id, context_id = parking.job_id, parking.context_id
    error = dict(parking.error)
    sentence = str(error["detail"])
    values: dict[str, Any] = {"state": JobState.PARKED.value, "error": error, "ended_at": at, "updated_at": at}
    if fence is not None:
        values["lease_fence"] = fence
    connection.execute(
        update(oma_jobs).where(oma_jobs.c.id == job_id).values(**values, lease_owner=None, lease_until=None)
    )
    contexts.set_summary(connection, context_id, build_summary(job_id, JobState.PARKED, at, error), at)
    message = f"parked: {sentence}"
    joblog.fail_running_steps(connection, job_id, sentence, at)
    joblog.change_job(connection, job_id, at, status="failed", completed_at=at, error_message=message)
    audit.append_audit(connection, [_audited(parking, sentence, at)])
    data = {"state": JobState.PARKED.value, "error": error}
    drafts = [*before, Draft(EventType.JOB_PARKED, message, data, level=LogLevel.ERROR)]
    events = record_events(connection, job_id, context_id, drafts, at)
    joblog.add_lines(connection, job_id, drafts, at)
    return events


def _audited(parking: Parking, sentence: str, at: datetime) -> AuditDraft:
    return AuditDraft(
        at=at,
        actor=parking.requested_by,
        action=AuditAction.RUN_PARKED,
        decision=JobState.PARKED.value,
        vm_name=parking.vm_name,
        context_id=parking.context_id,
        job_id=parking.job_id,
        detail={"sentence": sentence, "issue_ids": list(parking.error["issue_ids"])},
    )
