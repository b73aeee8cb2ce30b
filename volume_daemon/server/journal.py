"""The journal of operations: `volume_operations` as other programs read it, beside our own columns.

Functions of a connection; each is one transaction's work and may be run again after a rollback. State is changed by
guarded updates: a row that somebody else changed is an error with a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.sql import Select

from database.tables import (
    volume_daemon_fences,
    volume_daemon_operations,
    volume_operation_history,
    volume_operations,
)
from volume_daemon.models import OperationError, OperationStatus, OperationType
from volume_daemon.server.records import Entry, Filter, Order, RecordedExport, Stage, Tracking
from volume_daemon.server.refusals import fenced, key_reused

EPOCH = datetime.fromtimestamp(0, UTC)
TYPES, STATUSES = frozenset(OperationType), frozenset(OperationStatus)
PUBLIC, OWN = volume_operations.c, volume_daemon_operations.c


class JournalConflict(Exception):
    """An operation's row is not as we left it: another daemon works on the same database."""


def accept(connection: Connection, order: Order, now: datetime) -> tuple[Entry, bool]:
    """The operation of this order, and whether it is new; the same key twice gives the same operation.

    Raises `Problem` `fenced` or `idempotency_key_reused`.
    """
    raise_fence(connection, order.volume_id, order.fence, now)
    found = find_entry(connection, order.id)
    if found is not None:
        if not found.journaled or found.content_hash != order.content_hash:
            raise key_reused(order.id)
        return _with_fence(connection, found, order.fence), False
    entry = Entry(
        id=order.id,
        type=order.type,
        status=OperationStatus.PENDING,
        volume_id=order.volume_id,
        vm_id=order.vm_id,
        request=order.request,
        created_at=now,
        updated_at=now,
        content_hash=order.content_hash,
        fence=order.fence,
    )
    connection.execute(insert(volume_operations).values(id=entry.id, created_at=now, **_public(entry)))
    connection.execute(
        insert(volume_daemon_operations).values(
            operation_id=entry.id, content_hash=entry.content_hash, accepted_at=now, **_own(entry)
        )
    )
    return entry, True


def is_accepted(connection: Connection, order: Order) -> bool:
    """Whether the order stands in the journal, whoever wrote it."""
    found = find_entry(connection, order.id)
    return found is not None and found.content_hash == order.content_hash


def raise_fence(connection: Connection, volume_id: str | None, fence: int | None, now: datetime) -> None:
    """A higher fence is remembered, a lower one refused; without one nothing is checked."""
    if volume_id is None or fence is None:
        return
    table = volume_daemon_fences
    seen = connection.execute(select(table.c.fence).where(table.c.volume_id == volume_id)).scalar()
    if seen is None:
        connection.execute(insert(table).values(volume_id=volume_id, fence=fence, updated_at=now))
    elif fence < seen:
        raise fenced(volume_id, fence, seen)
    elif fence > seen:
        connection.execute(update(table).where(table.c.volume_id == volume_id).values(fence=fence, updated_at=now))


def _with_fence(connection: Connection, entry: Entry, fence: int | None) -> Entry:
    """A newer holder that asks for the same again takes it over."""
    if fence is None or fence == entry.fence:
        return entry
    connection.execute(update(volume_daemon_operations).where(OWN.operation_id == entry.id).values(fence=fence))
    return replace(entry, fence=fence)


def mark_sent(connection: Connection, entry: Entry) -> None:
    """The intent, before CloudStack is asked. Raises `Problem` `fenced` where a newer holder has spoken meanwhile."""
    if entry.volume_id is not None:
        fences = volume_daemon_fences.c
        seen = connection.execute(select(fences.fence).where(fences.volume_id == entry.volume_id)).scalar()
        held = connection.execute(select(OWN.fence).where(OWN.operation_id == entry.id)).scalar()
        if seen is not None and held is not None and held < seen:
            raise fenced(entry.volume_id, held, seen)
    _update(connection, entry, (Stage.ACCEPTED, Stage.SENT))


def mark(connection: Connection, entry: Entry) -> None:
    """Anything else that becomes known while an operation runs."""
    _update(connection, entry, (Stage.ACCEPTED, Stage.SENT))


def mark_ended(connection: Connection, entry: Entry) -> None:
    _update(connection, entry, (Stage.ACCEPTED, Stage.SENT))


def mark_cancelled(connection: Connection, entry: Entry) -> None:
    """Only what CloudStack has not been asked for."""
    _update(connection, entry, (Stage.ACCEPTED,))


def _update(connection: Connection, entry: Entry, stages: Sequence[Stage]) -> None:
    own = _own(entry)
    del own["fence"]  # a replay may have raised it
    changed = connection.execute(
        update(volume_daemon_operations)
        .where(OWN.operation_id == entry.id, OWN.stage.in_([stage.value for stage in stages]))
        .values(**own)
    )
    if changed.rowcount != 1:
        raise JournalConflict(entry.id)
    before = connection.execute(select(PUBLIC.status).where(PUBLIC.id == entry.id)).scalar()
    connection.execute(update(volume_operations).where(PUBLIC.id == entry.id).values(**_public(entry)))
    if before != entry.status.value:
        connection.execute(
            insert(volume_operation_history).values(
                operation_id=entry.id,
                previous_status=before,
                new_status=entry.status.value,
                details=entry.error.as_json() if entry.error else None,
                changed_at=entry.updated_at,
            )
        )


def is_written(connection: Connection, entry: Entry) -> bool:
    """Whether the entry's newest state stands in the journal: asked when the answer to a COMMIT was lost."""
    found = find_entry(connection, entry.id)
    if found is None or not found.journaled:
        return False
    return _written_part(found) == _written_part(entry)


def _written_part(entry: Entry) -> tuple[object, ...]:
    """Without the times of the public table, which some installations keep to the second."""
    call = (entry.attempt, entry.request_id, entry.remote_job_id, entry.expires_at)
    return (entry.stage, entry.status, *call, entry.exports, entry.tracking)


def find_entry(connection: Connection, operation_id: str) -> Entry | None:
    row = connection.execute(_query().where(PUBLIC.id == operation_id)).first()
    return _entry(row) if row is not None else None


def list_open(connection: Connection) -> list[Entry]:
    """What a restart goes on with, in the order of acceptance."""
    rows = connection.execute(_query().where(OWN.stage.in_(["accepted", "sent"])).order_by(OWN.seq))
    return [_entry(row) for row in rows]


def list_entries(connection: Connection, where: Filter) -> list[Entry]:
    """Newest first; also those of other generations of the daemon."""
    query = _query().order_by(PUBLIC.created_at.desc(), OWN.seq.desc()).limit(where.limit)
    if where.type is not None:
        query = query.where(PUBLIC.type == where.type.value)
    if where.status is not None:
        query = query.where(PUBLIC.status == where.status.value)
    if where.volume_id is not None:
        query = query.where(PUBLIC.volume_id == where.volume_id)
    if where.vm_id is not None:
        query = query.where(PUBLIC.vm_id == where.vm_id)
    return [_entry(row) for row in connection.execute(query)]


def find_recorded(connection: Connection, volume_id: str) -> tuple[tuple[RecordedExport, ...], Tracking | None]:
    """What the newest detaches of the volume took away: exports, and the mapping's tracking."""
    done = select(OWN.exports).where(OWN.volume_id == volume_id, OWN.exports.is_not(None))
    exports = connection.execute(done.order_by(OWN.seq.desc()).limit(1)).scalar()
    kept = select(OWN.tracking).where(OWN.volume_id == volume_id, OWN.tracking.is_not(None))
    tracking = connection.execute(kept.order_by(OWN.seq.desc()).limit(1)).scalar()
    return _exports(exports), Tracking.from_json(tracking) if tracking else None


def _query() -> Select[Any]:
    columns = [column for column in volume_daemon_operations.columns if column.name not in {"volume_id", "error"}]
    return select(
        *volume_operations.columns,
        *(column.label(f"own_{column.name}") for column in columns),
        OWN.error.label("own_error"),
    ).select_from(volume_operations.outerjoin(volume_daemon_operations, OWN.operation_id == PUBLIC.id))


def _public(entry: Entry) -> dict[str, Any]:
    return {
        "type": entry.type.value,
        "status": entry.status.value,
        "volume_id": entry.volume_id or "",
        "vm_id": entry.vm_id,
        "request": entry.request,
        "response": entry.response,
        "error": entry.error.text if entry.error else None,
        "updated_at": entry.updated_at,
        "completed_at": entry.completed_at,
    }


def _own(entry: Entry) -> dict[str, Any]:
    return {
        "volume_id": entry.volume_id or "",
        "stage": entry.stage.value,
        "fence": entry.fence,
        "attempt": entry.attempt,
        "request_id": entry.request_id,
        "remote_job_id": entry.remote_job_id,
        "queue_vm_id": entry.queue_vm_id,
        "sent_at": entry.sent_at,
        "expires_at": entry.expires_at,
        "ended_at": entry.completed_at,
        "exports": [export.as_json() for export in entry.exports] or None,
        "tracking": entry.tracking.as_json() if entry.tracking else None,
        "error": entry.error.as_json() if entry.error else None,
    }


def _entry(row: Row[Any]) -> Entry:
    journaled = row.own_operation_id is not None
    return Entry(
        id=row.id,
        type=OperationType(row.type) if row.type in TYPES else OperationType.UNKNOWN,
        status=OperationStatus(row.status) if row.status in STATUSES else OperationStatus.UNKNOWN,
        volume_id=row.volume_id or None,
        vm_id=row.vm_id or None,
        request=row.request if isinstance(row.request, dict) else {},
        created_at=row.created_at or EPOCH,
        updated_at=row.updated_at or row.created_at or EPOCH,
        stage=Stage(row.own_stage) if journaled else Stage.ENDED,
        content_hash=row.own_content_hash or "",
        fence=row.own_fence,
        response=row.response if isinstance(row.response, dict) else None,
        error=OperationError.parse(row.own_error) if row.own_error else None,
        error_text=row.error or None,
        completed_at=row.completed_at,
        attempt=row.own_attempt or 0,
        request_id=row.own_request_id,
        remote_job_id=row.own_remote_job_id,
        queue_vm_id=row.own_queue_vm_id,
        sent_at=row.own_sent_at,
        expires_at=row.own_expires_at,
        exports=_exports(row.own_exports),
        tracking=Tracking.from_json(row.own_tracking) if row.own_tracking else None,
        journaled=journaled,
    )


def _exports(data: Any) -> tuple[RecordedExport, ...]:
    return tuple(RecordedExport.from_json(item) for item in data or ())
