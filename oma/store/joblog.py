"""Our runs in the JobLog: `job_tracking`, `job_steps` and `log_events`, in the form that existing installations read.

There is one `job_steps` row per phase and job, `seq` 1 to 5; a later attempt of the phase sets the same row to running
again, and its `metadata` counts the attempts. `started_at` is always given, because installations differ in whether it
may be empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, bindparam, insert, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import job_steps, job_tracking, log_events
from oma.domain.changes import JobQueued, StepEnded
from oma.domain.jobs import OPERATION, Job, LogLine, Step
from oma.domain.states import PHASES, Phase, StepStatus, phase_seq
from oma.ports import Page
from oma.store.batches import IDS, group, rows_for
from oma.store.cursors import build_page, decode_cursor, encode_cursor
from oma.store.events import Draft

LOG_NAME = "log"
PERCENT_PER_PHASE = 100 // len(PHASES)

_JOB, _STEP = job_tracking.c, job_steps.c
_INSERT_JOB: Final = insert(job_tracking)
_CHANGE_JOB: Final = update(job_tracking).where(_JOB.id == bindparam("job"))
_RAISE_PERCENT: Final = update(job_tracking).where(
    and_(
        _JOB.id == bindparam("job"),
        or_(_JOB.percent_complete.is_(None), _JOB.percent_complete < bindparam("percent")),
    )
)
_INSERT_STEP: Final = insert(job_steps)
_CHANGE_STEP: Final = update(job_steps).where(_STEP.id == bindparam("step"))
_FAIL_STEPS: Final = update(job_steps).where(
    and_(_STEP.job_id == bindparam("job"), _STEP.status == StepStatus.RUNNING.value)
)
_FIND_STEP: Final = (
    select(job_steps).where(and_(_STEP.job_id == bindparam("job"), _STEP.seq == bindparam("place"))).with_for_update()
)
_STEPS: Final = select(job_steps).where(_STEP.job_id == bindparam("job")).order_by(_STEP.seq)
_STEPS_LOCKED: Final = (
    select(job_steps).where(_STEP.job_id.in_(IDS)).order_by(_STEP.job_id, _STEP.seq).with_for_update()
)
_STEP_IDS: Final = select(_STEP.name, _STEP.id).where(_STEP.job_id == bindparam("job")).with_for_update()
_INSERT_LINES: Final = insert(log_events)


def insert_job(connection: Connection, queued: JobQueued) -> None:
    metadata = {
        "vm_name": queued.plan.vm_name,
        "correlation_id": queued.correlation_id,
        "plan_digest": queued.plan.digest,
        "phases": queued.request.get("phases"),
    }
    values = {
        "id": queued.job_id,
        "job_type": "cleanup",
        "operation": OPERATION,
        "status": "pending",
        "metadata": metadata,
        "percent_complete": 0,
        "owner": queued.requested_by,
        "context_id": queued.plan.context_id,
        "job_category": "failover",
        "started_at": queued.at,
        "created_at": queued.at,
        "updated_at": queued.at,
    }
    connection.execute(_INSERT_JOB, values)


def change_job(connection: Connection, job_id: str, at: datetime, **values: Any) -> None:
    connection.execute(_CHANGE_JOB, {"job": job_id, "updated_at": at, **values})


def start_step(connection: Connection, job_id: str, phase: Phase, at: datetime) -> None:
    row = _find_step(connection, job_id, phase)
    if row is None:
        _insert_step(
            connection, job_id, phase, status=StepStatus.RUNNING.value, started_at=at, metadata={"attempts": 1}
        )
        return
    metadata = _metadata_of(row)
    attempts = int(metadata.get("attempts", 1)) + 1
    values = {
        "status": StepStatus.RUNNING.value,
        "completed_at": None,
        "error_message": None,
        "metadata": {**metadata, "attempts": attempts, "attempt_started_at": at},
    }
    connection.execute(_CHANGE_STEP, {"step": row["id"], **values})


def reopen_step(connection: Connection, job_id: str, phase: Phase) -> None:
    """The step in which a run was parked is running again; whoever takes the run up counts the attempt."""
    connection.execute(
        update(job_steps)
        .where(
            and_(
                job_steps.c.job_id == job_id,
                job_steps.c.seq == phase_seq(phase),
                job_steps.c.status == StepStatus.FAILED.value,
            )
        )
        .values(status=StepStatus.RUNNING.value, completed_at=None, error_message=None)
    )


def end_step(connection: Connection, job_id: str, ended: StepEnded, at: datetime) -> None:
    """Also raises the job's percentage, a fifth for each phase that is done."""
    phase, status, sentence, metadata = ended.phase, ended.status, ended.sentence, ended.metadata
    error = sentence if status is StepStatus.FAILED else None
    row = _find_step(connection, job_id, phase)
    if row is None:
        _insert_step(
            connection,
            job_id,
            phase,
            status=status.value,
            started_at=at,
            completed_at=at,
            error_message=error,
            metadata={**metadata, "sentence": sentence},
        )
    else:
        values = {
            "status": status.value,
            "completed_at": at,
            "error_message": error,
            "metadata": {**_metadata_of(row), **metadata, "sentence": sentence},
        }
        connection.execute(_CHANGE_STEP, {"step": row["id"], **values})
    if status in (StepStatus.COMPLETED, StepStatus.SKIPPED):
        _raise_percent(connection, job_id, PERCENT_PER_PHASE * phase_seq(phase))


def _raise_percent(connection: Connection, job_id: str, percent: int) -> None:
    """Never downwards: a resumed run looks again at what it has behind it."""
    connection.execute(_RAISE_PERCENT, {"job": job_id, "percent": percent, "percent_complete": percent})


def fail_running_steps(connection: Connection, job_id: str, reason: str, at: datetime) -> None:
    """A run that ends badly leaves no step running."""
    values = {"status": StepStatus.FAILED.value, "completed_at": at, "error_message": reason}
    connection.execute(_FAIL_STEPS, {"job": job_id, **values})


def begin_jobs(connection: Connection, begun: Sequence[tuple[Job, Draft]], at: datetime) -> None:
    """These jobs run from now on, or again; each with what is told of it."""
    if not begun:
        return
    values = {"status": "running", "completed_at": None, "error_message": None, "updated_at": at}
    connection.execute(_CHANGE_JOB, [{"job": job.id, "started_at": job.started_at, **values} for job, _draft in begun])
    connection.execute(_INSERT_LINES, [_line(job.id, draft, None, at) for job, draft in begun])


def _line(job_id: str, draft: Draft, step_id: int | None, at: datetime) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "step_id": step_id,
        "level": draft.level.value,
        "message": draft.sentence,
        "attrs": {"event": draft.type.value, **draft.data},
        "ts": at,
    }


def add_lines(connection: Connection, job_id: str, drafts: Sequence[Draft], at: datetime) -> None:
    """One line for each sentence, at the step that it belongs to."""
    if not drafts:
        return
    steps: dict[str, int] = {}
    if any(draft.phase is not None for draft in drafts):
        # A locking read also sees the steps that a former holder committed after this transaction's snapshot.
        steps = {row.name: row.id for row in connection.execute(_STEP_IDS, {"job": job_id})}
    places = [None if draft.phase is None else steps.get(draft.phase.value) for draft in drafts]
    lines = [_line(job_id, draft, place, at) for draft, place in zip(drafts, places, strict=True)]
    connection.execute(_INSERT_LINES, lines)


def list_steps(connection: Connection, job_id: str) -> list[Step]:
    return _build_steps(connection.execute(_STEPS, {"job": job_id}).mappings())


def list_steps_of(connection: Connection, job_ids: Iterable[str]) -> dict[str, list[Step]]:
    """Job → its steps, by a locking read."""
    found = group(rows_for(connection, _STEPS_LOCKED, job_ids), lambda row: str(row["job_id"]))
    return {job_id: _build_steps(rows) for job_id, rows in found.items()}


def _build_steps(rows: Iterable[RowMapping]) -> list[Step]:
    names = {phase.value for phase in PHASES}
    return [
        Step(
            phase=Phase(row["name"]),
            seq=row["seq"],
            status=StepStatus(row["status"]),
            started_at=row["started_at"],
            completed_at=row["completed_at"],
            error_message=row["error_message"] or None,
            metadata=_metadata_of(row),
        )
        for row in rows
        if row["name"] in names
    ]


def list_log(connection: Connection, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
    """Oldest first."""
    query = (
        select(log_events, job_steps.c.name.label("step_name"))
        .outerjoin(job_steps, job_steps.c.id == log_events.c.step_id)
        .where(log_events.c.job_id == job_id)
        .order_by(log_events.c.id)
        .limit(limit + 1)
    )
    if cursor is not None:
        (after,) = decode_cursor(LOG_NAME, cursor, (int,))
        query = query.where(log_events.c.id > after)
    rows = list(connection.execute(query).mappings())
    page = build_page(rows, limit, lambda row: encode_cursor(LOG_NAME, int(row["id"])))
    return Page(tuple(_build_line(row) for row in page.items), page.next_cursor)


def _build_line(row: RowMapping) -> LogLine:
    names = {phase.value for phase in PHASES}
    attrs = row["attrs"]
    return LogLine(
        id=row["id"],
        job_id=row["job_id"],
        phase=Phase(row["step_name"]) if row["step_name"] in names else None,
        level=row["level"] or "INFO",
        message=row["message"] or "",
        attrs=attrs if isinstance(attrs, dict) else {},
        at=row["ts"],
    )


def _find_step(connection: Connection, job_id: str, phase: Phase) -> RowMapping | None:
    return connection.execute(_FIND_STEP, {"job": job_id, "place": phase_seq(phase)}).mappings().first()


def _insert_step(connection: Connection, job_id: str, phase: Phase, **values: Any) -> None:
    fixed = {"job_id": job_id, "name": phase.value, "seq": phase_seq(phase)}
    connection.execute(_INSERT_STEP, {**fixed, **values})


def _metadata_of(row: RowMapping) -> dict[str, Any]:
    metadata = row["metadata"]
    return metadata if isinstance(metadata, dict) else {}
