"""`oma_controls`: what a person has paused, and how that keeps jobs from being claimed."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, insert, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_controls, oma_jobs
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.controls import ControlChange, Pause, PauseSubject, Scope
from oma.domain.errors import ConcurrentChange
from oma.domain.events import Event, EventType
from oma.store import audit
from oma.store.events import Draft, record_events

table = oma_controls.c

_IN_FORCE: Final = (
    select(oma_controls).where(table.lifted_at.is_(None)).order_by(table.since, table.scope, table.subject)
)


def list_pauses(connection: Connection) -> list[Pause]:
    """Those in force, oldest first."""
    return [_build(row) for row in connection.execute(_IN_FORCE).mappings()]


def list_lifts(connection: Connection) -> list[tuple[PauseSubject, datetime]]:
    """When the last pause of each subject was lifted, where none is in force."""
    query = select(oma_controls).where(table.lifted_at.is_not(None))
    return [(_subject(row), row["lifted_at"]) for row in connection.execute(query).mappings()]


def is_not_paused() -> ColumnElement[bool]:
    """About a row of `oma_jobs`: nothing that covers it is paused."""
    covering = or_(
        table.scope == Scope.ALL.value,
        and_(table.scope == Scope.OPERATION.value, table.subject == oma_jobs.c.operation),
        and_(table.scope == Scope.VM.value, table.subject == oma_jobs.c.context_id),
    )
    return ~exists(select(table.scope).where(table.lifted_at.is_(None), covering).correlate(oma_jobs))


def pause(connection: Connection, change: ControlChange) -> tuple[Pause, list[Event]]:
    """A pause in force takes the new reason and keeps its beginning.

    The audit comes first: its sequence stays locked to the commit, so that two people pause one after the other.
    """
    audit.append_audit(connection, [_audited(change, AuditAction.PAUSED)])
    known = connection.execute(select(oma_controls).where(_is(change.what)).with_for_update()).mappings().first()
    again = known is not None and known["lifted_at"] is None
    found = Pause(change.what, change.reason or "", change.actor, known["since"] if known and again else change.at)
    values = {
        "vm_name": change.what.vm_name,
        "reason": found.reason,
        "actor": found.actor,
        "since": found.since,
        "lifted_at": None,
        "updated_at": change.at,
    }
    if known is None:
        connection.execute(
            insert(oma_controls).values(scope=change.what.scope.value, subject=change.what.subject, **values)
        )
    else:
        connection.execute(update(oma_controls).where(_is(change.what)).values(**values))
    return found, _tell(connection, change, EventType.PAUSED, found.sentence, {"pause": found.as_json()})


def lift(connection: Connection, change: ControlChange) -> tuple[Pause | None, list[Event]]:
    """The pause that was lifted; None where there was none, and then nothing is written.

    Raises `ConcurrentChange` where somebody else has just lifted it.
    """
    in_force = and_(_is(change.what), table.lifted_at.is_(None))
    row = connection.execute(select(oma_controls).where(in_force)).mappings().first()
    if row is None:
        return None, []
    audit.append_audit(connection, [_audited(change, AuditAction.PAUSE_LIFTED)])
    written = connection.execute(update(oma_controls).where(in_force).values(lifted_at=change.at, updated_at=change.at))
    if written.rowcount == 0:
        raise ConcurrentChange(f"the pause of {change.what.words} was lifted by somebody else")
    found = _build(row)
    said = f": {change.reason}" if change.reason else ""
    sentence = f"{change.actor} lifted the pause of {found.what.words}{said}"
    return found, _tell(connection, change, EventType.PAUSE_LIFTED, sentence, {"pause": found.as_json()})


def _is(what: PauseSubject) -> ColumnElement[bool]:
    return and_(table.scope == what.scope.value, table.subject == what.subject)


def _subject(row: RowMapping) -> PauseSubject:
    return PauseSubject(Scope(row["scope"]), row["subject"], row["vm_name"])


def _build(row: RowMapping) -> Pause:
    return Pause(_subject(row), row["reason"], row["actor"], row["since"])


def _audited(change: ControlChange, action: AuditAction) -> AuditDraft:
    what = change.what
    return AuditDraft(
        at=change.at,
        actor=change.actor,
        action=action,
        decision=what.scope.value,
        vm_name=what.vm_name or "",
        context_id=what.subject if what.scope is Scope.VM else None,
        reason=change.reason,
        detail={"subject": what.subject, "correlation_id": change.correlation_id},
    )


def _tell(
    connection: Connection, change: ControlChange, kind: EventType, sentence: str, data: dict[str, object]
) -> list[Event]:
    context_id = change.what.subject if change.what.scope is Scope.VM else None
    return record_events(connection, None, context_id, [Draft(kind, sentence, data)], change.at)
