"""Markers that are taken off after a run has ended: the one kind of action whose proof comes under no lease."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy import select
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_actions, oma_jobs
from oma.domain.actions import Action, ActionKind
from oma.domain.changes import ActionEnded
from oma.domain.errors import ConcurrentChange
from oma.domain.events import Event, EventType
from oma.domain.leaks import Leak, LeakKind
from oma.domain.states import ActionState, JobState, LogLevel, Phase
from oma.store import joblog, leaks
from oma.store.actions import build_action, end_action, get_row
from oma.store.events import Draft, record_events
from oma.store.unreadable import build_readable

ENDED: Final = (JobState.COMPLETED.value, JobState.FAILED.value, JobState.CANCELLED.value)
AT_ONCE: Final = 100


def list_unmarkings(connection: Connection, before: datetime) -> list[Action]:
    """Those of ended runs whose intent is older, the oldest first."""
    table = oma_actions.c
    query = (
        select(oma_actions)
        .join_from(oma_actions, oma_jobs, oma_jobs.c.id == table.job_id)
        .where(
            table.state == ActionState.STARTED.value,
            table.kind == ActionKind.CLEAR_MARKER.value,
            table.intent_at < before,
            oma_jobs.c.state.in_(ENDED),
        )
        .order_by(table.intent_at, table.id)
        .limit(AT_ONCE)
    )
    return build_readable(connection, query, oma_actions, build_action)


def end_unmarking(
    connection: Connection, job_id: str, ended: ActionEnded, remote_id: str | None, at: datetime
) -> list[Event]:
    """One that is not proven but given up is tracked as a leak. Raises `ConcurrentChange` for anything but a marker of
    an ended run.
    """
    columns = (oma_jobs.c.state, oma_jobs.c.context_id, oma_jobs.c.vm_name)
    query = select(*columns).where(oma_jobs.c.id == job_id).with_for_update()
    job = connection.execute(query).mappings().first()
    row = get_row(connection, job_id, ended.action_id)
    if job is None or job["state"] not in ENDED or row["kind"] != ActionKind.CLEAR_MARKER.value:
        raise ConcurrentChange(f"action {ended.action_id} is no marker of a run that has ended")
    if row["state"] != ActionState.STARTED.value:
        return []
    told = {"evidence": ended.evidence, "sentence": ended.sentence, "remote_id": remote_id or row["remote_id"]}
    end_action(connection, job_id, ended.action_id, ended.state, at, **told)
    data = {
        "action_id": ended.action_id,
        "kind": row["kind"],
        "phase": row["phase"],
        "state": ended.state.value,
        "evidence": ended.evidence,
        "error": None,
    }
    gone = ended.state is ActionState.EXECUTED
    kind, level = (EventType.ACTION_EXECUTED, LogLevel.INFO) if gone else (EventType.ACTION_FAILED, LogLevel.WARN)
    drafts = [Draft(kind, ended.sentence, data, level, Phase(row["phase"]))]
    if not gone:
        leak = _build_leak(job, row, ended.sentence, at)
        leaks.track_leak(connection, leak, at)
        drafts.append(leaks.build_draft(leak, f"Left behind: {leak.sentence}"))
    events = record_events(connection, job_id, job["context_id"], drafts, at)
    joblog.add_lines(connection, job_id, drafts, at)
    return events


def _build_leak(job: RowMapping, action: RowMapping, sentence: str, at: datetime) -> Leak:
    return Leak(
        id=str(uuid5(NAMESPACE_OID, action["id"])),
        context_id=job["context_id"],
        vm_name=job["vm_name"],
        job_id=action["job_id"],
        kind=LeakKind.MARKER_KEPT,
        target=action["target"] or {},
        sentence=sentence,
        reason="",
        since=at,
    )
