"""The journal of operations: `volume_operations` as other programs read it, beside our own columns.

Functions of a connection; each is one transaction's work and may be run again after a rollback. State is changed by
guarded updates: a row that somebody else changed is an error with a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row

from database.tables import (
    volume_daemon_operations,
)
from volume_daemon.models import OperationError, OperationStatus, OperationType
from volume_daemon.server import queries
from volume_daemon.server.queries import OWN, PUBLIC
from volume_daemon.server.records import Entry, Filter, Order, RecordedExport, Stage, Tracking
from volume_daemon.server.refusals import fenced, key_reused

EPOCH = datetime.fromtimestamp(0, UTC)
TYPES, STATUSES = frozenset(OperationType), frozenset(OperationStatus)
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What reading a damaged value may raise; the last two: a time or number beyond all bounds, JSON nested too deep."""
REVOKED = "revoked"
"""In the place of the content's hash: the order was taken back before it came in (`revoking`)."""


class JournalConflict(Exception):
    """An operation's row is not as we left it: another daemon works on the same database."""


def accept(connection: Connection, order: Order, now: datetime) -> tuple[Entry, bool]:
    """The operation of this order, and whether it is new; the same key twice gives the same operation.

    Raises `Problem` `fenced` or `idempotency_key_reused`.
    """
    raise_fence(connection, order.volume_id, order.fence, now)
    found = find_entry(connection, order.id)
    if found is not None:
        if found.content_hash == REVOKED:
            return found, False
        if not found.journaled or found.content_hash != order.content_hash:
            raise key_reused(order.id)
        return _with_fence(connection, found, order.fence), False
    entry = build_entry(order, now)
    insert_entry(connection, entry, now)
    return entry, True


def build_entry(order: Order, now: datetime) -> Entry:
    """A new operation, as it is accepted."""
    return Entry(
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


def insert_entry(connection: Connection, entry: Entry, now: datetime) -> None:
    connection.execute(queries.INSERT_PUBLIC, {"id": entry.id, "created_at": now, **_public(entry)})
    accepted = {"operation_id": entry.id, "content_hash": entry.content_hash, "accepted_at": now}
    connection.execute(queries.INSERT_OWN, {**accepted, **_own(entry)})


def is_accepted(connection: Connection, order: Order) -> bool:
    """Whether the order stands in the journal, whoever wrote it, and the fence that it carries."""
    found = find_entry(connection, order.id)
    if found is None or found.content_hash != order.content_hash:
        return False
    is_taken_over = order.fence is None or (found.fence is not None and found.fence >= order.fence)
    return is_taken_over and is_fence_raised(connection, order.volume_id, order.fence)


def is_fence_raised(connection: Connection, volume_id: str | None, fence: int | None) -> bool:
    """Whether a lower fence than this one is refused from now on; asked when the answer to a COMMIT was lost."""
    if volume_id is None or fence is None:
        return True
    seen = connection.execute(queries.SEEN_FENCE, {"volume": volume_id}).scalar()
    return seen is not None and seen >= fence


def raise_fence(connection: Connection, volume_id: str | None, fence: int | None, now: datetime) -> None:
    """A higher fence is remembered, a lower one refused; without one nothing is checked."""
    if volume_id is None or fence is None:
        return
    seen = connection.execute(queries.SEEN_FENCE, {"volume": volume_id}).scalar()
    if seen is None:
        connection.execute(queries.INSERT_FENCE, {"volume_id": volume_id, "fence": fence, "updated_at": now})
    elif fence < seen:
        raise fenced(volume_id, fence, seen)
    elif fence > seen:
        connection.execute(queries.RAISE_FENCE, {"volume": volume_id, "fence": fence, "updated_at": now})


def _with_fence(connection: Connection, entry: Entry, fence: int | None) -> Entry:
    """A newer holder that asks for the same again takes it over."""
    if fence is None or fence == entry.fence:
        return entry
    connection.execute(update(volume_daemon_operations).where(OWN.operation_id == entry.id).values(fence=fence))
    return replace(entry, fence=fence)


def mark_sent(connection: Connection, entry: Entry) -> None:
    """The intent, before CloudStack is asked. Raises `Problem` `fenced` where a newer holder has spoken meanwhile."""
    if entry.volume_id is not None:
        seen = connection.execute(queries.SEEN_FENCE, {"volume": entry.volume_id}).scalar()
        held = connection.execute(queries.HELD_FENCE, {"operation": entry.id}).scalar()
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
    which = {"operation": entry.id, "stages": [stage.value for stage in stages]}
    changed = connection.execute(queries.CHANGE_OWN, {**which, **own})
    if changed.rowcount != 1:
        raise JournalConflict(entry.id)
    before = connection.execute(queries.PUBLIC_STATUS, {"operation": entry.id}).scalar()
    connection.execute(queries.CHANGE_PUBLIC, {"operation": entry.id, **_public(entry)})
    if before != entry.status.value:
        told = {
            "operation_id": entry.id,
            "previous_status": before,
            "new_status": entry.status.value,
            "details": entry.error.as_json() if entry.error else None,
            "changed_at": entry.updated_at,
        }
        connection.execute(queries.INSERT_HISTORY, told)


def is_written(connection: Connection, entry: Entry) -> bool:
    """Whether the entry's newest state stands in the journal: asked when the answer to a COMMIT was lost."""
    found = find_entry(connection, entry.id)
    if found is None or not found.journaled:
        return False
    return _written_part(found) == _written_part(entry)


def _written_part(entry: Entry) -> tuple[object, ...]:
    """Without the times of the public table, which some installations keep to the second."""
    call = (entry.request_id, entry.remote_job_id, entry.expires_at)
    return (entry.stage, entry.status, *call, entry.exports, entry.tracking)


def find_entry(connection: Connection, operation_id: str) -> Entry | None:
    row = connection.execute(queries.FIND_ENTRY, {"operation": operation_id}).first()
    return _entry(row) if row is not None else None


def list_entries(connection: Connection, where: Filter) -> list[Entry]:
    """Newest first; also those of other generations of the daemon."""
    query = queries.ENTRIES.order_by(PUBLIC.created_at.desc(), OWN.seq.desc()).limit(where.limit)
    if where.type is not None:
        query = query.where(PUBLIC.type == where.type.value)
    if where.status is not None:
        query = query.where(PUBLIC.status == where.status.value)
    if where.volume_id is not None:
        query = query.where(PUBLIC.volume_id == where.volume_id)
    if where.vm_id is not None:
        query = query.where(PUBLIC.vm_id == where.vm_id)
    try:
        return [_entry(row) for row in connection.execute(query)]
    except UNREADABLE:
        ids = connection.execute(query.with_only_columns(PUBLIC.id)).scalars().all()
        return [entry for id_ in ids if (entry := _find_unless_damaged(connection, id_)) is not None]


def _find_unless_damaged(connection: Connection, operation_id: str) -> Entry | None:
    """One that has ended and cannot be read hides none of the others; one that is open must not be left out."""
    try:
        return find_entry(connection, operation_id)
    except UNREADABLE:
        stage = connection.execute(select(OWN.stage).where(OWN.operation_id == operation_id)).scalar()
        if stage not in {None, Stage.ENDED.value}:
            raise
        return None


def find_recorded(connection: Connection, volume_id: str) -> tuple[tuple[RecordedExport, ...], Tracking | None]:
    """What the newest detaches of the volume took away: exports, and the mapping's tracking."""
    exports = connection.execute(queries.DETACHED_EXPORTS, {"volume": volume_id}).scalar()
    tracking = connection.execute(queries.DETACHED_TRACKING, {"volume": volume_id}).scalar()
    return _exports(exports), _tracking(tracking)


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
        request_id=row.own_request_id,
        remote_job_id=row.own_remote_job_id,
        queue_vm_id=row.own_queue_vm_id,
        sent_at=row.own_sent_at,
        expires_at=row.own_expires_at,
        exports=_exports(row.own_exports),
        tracking=_tracking(row.own_tracking),
        journaled=journaled,
    )


def _exports(data: Any) -> tuple[RecordedExport, ...]:
    """Without what is damaged: such an export comes back as the daemon makes one by itself."""
    whole = [item for item in data or () if isinstance(item, dict) and item.get("name") and item.get("port")]
    return tuple(RecordedExport.from_json(item) for item in whole)


def _tracking(data: Any) -> Tracking | None:
    return Tracking.from_json(data) if isinstance(data, dict) and data.get("mapping_id") else None
