"""`oma_actions`: every call that changes the world, its intent first. Transitions are those of `ACTION_TRANSITIONS`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, and_, bindparam, insert, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_actions, oma_jobs
from oma.domain.actions import Action, ActionKind, Target
from oma.domain.errors import ConcurrentChange
from oma.domain.forcing import is_passable
from oma.domain.states import ACTION_TRANSITIONS, ActionState, JobState, Phase
from oma.store import jobs
from oma.store.batches import group, rows_for
from oma.store.unreadable import UNREADABLE, told

REMEMBERED_KINDS: Final = frozenset(kind.value for kind in (ActionKind.DETACH_VOLUME, ActionKind.STOP_VM))
UNDONE_STATES: Final = frozenset(
    state.value for state in (ActionState.EXECUTED, ActionState.ROLLED_BACK, ActionState.ROLLBACK_FAILED)
)
TIMED_JOBS: Final = 20
"""Runs that tell how long things take here: recent ones, and few enough to be read for every plan."""


_LOCKED: Final = select(oma_actions).where(oma_actions.c.id == bindparam("action_id")).with_for_update()
"""Asked by every write about an action, so it is built once."""
_OF_JOB: Final = (
    select(oma_actions).where(oma_actions.c.job_id == bindparam("job")).order_by(oma_actions.c.seq, oma_actions.c.id)
)
_CHANGE: Final = update(oma_actions).where(
    and_(oma_actions.c.id == bindparam("action"), oma_actions.c.state == bindparam("former"))
)
_INSERT: Final = insert(oma_actions)


def _select_proven() -> Select[Any]:
    partial = jobs.select_partial().subquery("partial")
    return (
        select(partial.c.context_id, oma_actions)
        .join_from(partial, oma_actions, oma_actions.c.job_id == partial.c.id)
        .where(oma_actions.c.state == ActionState.EXECUTED.value)
        .order_by(partial.c.created_at, partial.c.id, oma_actions.c.seq, oma_actions.c.id)
    )


def _select_undone() -> Select[Any]:
    gone_back, table = jobs.select_gone_back().subquery("gone_back"), oma_actions.c
    return (
        select(gone_back.c.context_id, oma_actions)
        .join_from(gone_back, oma_actions, table.job_id == gone_back.c.id)
        .where(and_(table.kind.in_(sorted(REMEMBERED_KINDS)), table.state.in_(sorted(UNDONE_STATES))))
        .order_by(gone_back.c.created_at, gone_back.c.id, table.seq, table.id)
    )


_PROVEN: Final = _select_proven()
_UNDONE: Final = _select_undone()


def list_actions(connection: Connection, job_id: str) -> list[Action]:
    try:
        return [build_action(row) for row in connection.execute(_OF_JOB, {"job": job_id}).mappings()]
    except UNREADABLE as error:
        raise told(f"the run {job_id}", error) from error


def list_proven(connection: Connection, context_ids: Iterable[str]) -> dict[str, list[Action]]:
    """Context → the EXECUTED actions of its partial runs since its last complete one, oldest first.

    Raises `OmaError` `internal_error` where one of them can't be read: a run must not take it for not there.
    """
    return _by_context(connection, _PROVEN, context_ids)


def _by_context(connection: Connection, query: Select[Any], context_ids: Iterable[str]) -> dict[str, list[Action]]:
    try:
        rows = rows_for(connection, query, context_ids)
        grouped = group(((row["context_id"], build_action(row)) for row in rows), lambda pair: str(pair[0]))
    except UNREADABLE as error:
        raise told("an earlier run", error) from error
    return {context_id: [action for _context, action in pairs] for context_id, pairs in grouped.items()}


def list_undone(connection: Connection, context_ids: Iterable[str]) -> dict[str, list[Action]]:
    """Context → what its failed and cancelled runs detached and stopped since its last complete one, oldest first.

    Raises as `list_proven` does.
    """
    return _by_context(connection, _UNDONE, context_ids)


def list_timed(connection: Connection) -> list[Action]:
    """EXECUTED actions of the newest completed runs, with their times and targets only."""
    done, table = oma_jobs.c, oma_actions.c
    newest = (
        select(done.id)
        .where(done.state == JobState.COMPLETED.value)
        .order_by(done.created_at.desc(), done.id.desc())
        .limit(TIMED_JOBS)
        .subquery("newest")
    )
    query = (
        select(
            table.id,
            table.job_id,
            table.phase,
            table.seq,
            table.kind,
            table.target,
            table.intent_at,
            table.ended_at,
        )
        .join_from(newest, oma_actions, table.job_id == newest.c.id)
        .where(table.state == ActionState.EXECUTED.value)
    )
    try:
        return [_build_timed(row) for row in connection.execute(query).mappings()]
    except UNREADABLE:
        # An estimate is worth less than the plan that it stands in.
        return []


def _build_timed(row: RowMapping) -> Action:
    return Action(
        id=row["id"],
        job_id=row["job_id"],
        phase=Phase(row["phase"]),
        seq=row["seq"],
        kind=ActionKind(row["kind"]),
        target=Target.from_json(row["target"]),
        state=ActionState.EXECUTED,
        intent_at=row["intent_at"],
        ended_at=row["ended_at"],
    )


def start_action(connection: Connection, action: Action, sentence: str, at: datetime) -> None:
    """Inserts the intent, or starts the action again under a higher attempt."""
    if action.state is not ActionState.STARTED:
        raise ConcurrentChange(f"the intent of action {action.id} is to be STARTED, not {action.state.value}")
    row = _find(connection, action.job_id, action.id)
    if row is None:
        _insert(connection, action, sentence, at)
        return
    former = ActionState(row["state"])
    if ActionState.STARTED not in ACTION_TRANSITIONS[former]:
        raise _not_allowed(action.id, former, ActionState.STARTED)
    again = row["attempt"] + (0 if former is ActionState.PLANNED else 1)
    if action.attempt < again:
        raise ConcurrentChange(f"action {action.id} is at attempt {row['attempt']} already, asked was {action.attempt}")
    _change(connection, action.id, former, at, **_values(action, sentence))


def skip_action(connection: Connection, action: Action, sentence: str, at: datetime) -> None:
    """Inserts it in its end state, or skips one that was only planned."""
    if action.state is not ActionState.SKIPPED:
        raise ConcurrentChange(f"action {action.id} is to be SKIPPED, not {action.state.value}")
    row = _find(connection, action.job_id, action.id)
    if row is None:
        _insert(connection, action, sentence, at)
        return
    former = ActionState(row["state"])
    if ActionState.SKIPPED not in ACTION_TRANSITIONS[former]:
        raise _not_allowed(action.id, former, ActionState.SKIPPED)
    _change(connection, action.id, former, at, **_values(action, sentence))


def release_failed(connection: Connection, job_id: str, at: datetime) -> list[str]:
    """Failed actions that may be done again are planned for another attempt, and keep what is known of the last one.

    Those are the kinds of which each attempt is as good as the first (`oma.domain.forcing`); returns their ids.
    """
    table = oma_actions.c
    query = (
        select(oma_actions)
        .where(and_(table.job_id == job_id, table.state == ActionState.EXECUTION_FAILED.value))
        .order_by(table.seq, table.id)
        .with_for_update()
    )
    released: list[str] = []
    for row in connection.execute(query).mappings().all():
        if not is_passable(ActionKind(row["kind"]), (row["error"] or {}).get("upstream")):
            continue
        fresh = {"attempt": row["attempt"] + 1, "remote_id": None, "sent_at": None, "ended_at": None}
        _change(connection, row["id"], ActionState.EXECUTION_FAILED, at, state=ActionState.PLANNED.value, **fresh)
        released.append(row["id"])
    return released


def change_started(connection: Connection, job_id: str, action_id: str, at: datetime, **values: Any) -> RowMapping:
    """Sets something on an action that is STARTED, which keeps saying what it is about; returns its row as it was."""
    row = get_row(connection, job_id, action_id)
    former = ActionState(row["state"])
    if former is not ActionState.STARTED:
        raise ConcurrentChange(f"action {action_id} is {former.value}, no longer STARTED")
    _change(connection, action_id, former, at, **values)
    return row


def keep_evidence(connection: Connection, job_id: str, action_id: str, evidence: dict[str, Any], at: datetime) -> None:
    """What was learnt of an action whose state stays as it is."""
    row = get_row(connection, job_id, action_id)
    _change(connection, action_id, ActionState(row["state"]), at, evidence=evidence)


def end_action(
    connection: Connection, job_id: str, action_id: str, state: ActionState, at: datetime, **values: Any
) -> RowMapping:
    """The proven outcome; returns the row as it was."""
    row = get_row(connection, job_id, action_id)
    former = ActionState(row["state"])
    if state not in ACTION_TRANSITIONS[former]:
        raise _not_allowed(action_id, former, state)
    _change(connection, action_id, former, at, state=state.value, ended_at=at, **values)
    return row


def get_row(connection: Connection, job_id: str, action_id: str) -> RowMapping:
    row = _find(connection, job_id, action_id)
    if row is None:
        raise ConcurrentChange(f"job {job_id} has no action {action_id}")
    return row


def _find(connection: Connection, job_id: str, action_id: str) -> RowMapping | None:
    row = connection.execute(_LOCKED, {"action_id": action_id}).mappings().first()
    if row is not None and row["job_id"] != job_id:
        raise ConcurrentChange(f"action {action_id} belongs to job {row['job_id']}, not to {job_id}")
    return row


def _change(connection: Connection, action_id: str, former: ActionState, at: datetime, **values: Any) -> None:
    """The row was read under a lock that lasts to the commit, so that its state is still the one that was judged."""
    connection.execute(_CHANGE, {"action": action_id, "former": former.value, "updated_at": at, **values})


def _insert(connection: Connection, action: Action, sentence: str, at: datetime) -> None:
    fixed = {
        "id": action.id,
        "job_id": action.job_id,
        "phase": action.phase.value,
        "seq": action.seq,
        "kind": action.kind.value,
        "target": action.target.as_json(),
        "updated_at": at,
    }
    connection.execute(_INSERT, {**fixed, **_values(action, sentence)})


def _values(action: Action, sentence: str) -> dict[str, Any]:
    return {
        "state": action.state.value,
        "attempt": action.attempt,
        "remote_id": action.remote_id,
        "intent_at": action.intent_at,
        "expires_at": action.expires_at,
        "sent_at": action.sent_at,
        "ended_at": action.ended_at,
        "evidence": action.evidence,
        "error": action.error,
        "sentence": sentence,
    }


def _not_allowed(action_id: str, former: ActionState, state: ActionState) -> ConcurrentChange:
    return ConcurrentChange(f"action {action_id} is {former.value}; it cannot become {state.value}")


def build_action(row: RowMapping) -> Action:
    return Action(
        id=row["id"],
        job_id=row["job_id"],
        phase=Phase(row["phase"]),
        seq=row["seq"],
        kind=ActionKind(row["kind"]),
        target=Target.from_json(row["target"]),
        state=ActionState(row["state"]),
        attempt=row["attempt"],
        remote_id=row["remote_id"],
        intent_at=row["intent_at"],
        expires_at=row["expires_at"],
        sent_at=row["sent_at"],
        ended_at=row["ended_at"],
        evidence=row["evidence"] or {},
        error=row["error"],
        sentence=row["sentence"],
    )
