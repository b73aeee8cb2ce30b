"""What a restart finds open in the journal, and what of it cannot be gone on with.

Functions of a connection. A row that makes no sense (damaged, or put there by something else) ends by itself, with a
reason; it keeps none of the others back. Where CloudStack may have been asked it is condemned first: it stays open, its
volume's lane with it, until the call can do nothing any more (#14214).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import MAXYEAR, datetime
from typing import Any

from sqlalchemy import Column, Table, insert, select, update
from sqlalchemy.engine import Connection

from database.tables import volume_daemon_operations, volume_operation_history, volume_operations
from volume_daemon.models import FaultKind, OperationError, OperationStatus, OperationType
from volume_daemon.server.journal import TYPES, UNREADABLE, find_entry
from volume_daemon.server.queries import OWN, PUBLIC
from volume_daemon.server.records import Entry, Stage

CHANGES = frozenset({OperationType.CREATE, OperationType.ATTACH, OperationType.DETACH, OperationType.DELETE})


def find_contradiction(entry: Entry) -> str | None:
    """Why an open operation's row cannot be one that we wrote; None where it can."""
    if entry.type not in CHANGES:
        return f"nothing is known of the type {entry.type.value!r}"
    if entry.type is not OperationType.CREATE and entry.volume_id is None:
        return "it names no volume"
    if entry.type is OperationType.ATTACH and entry.vm_id is None:
        return "it is to attach and names no VM"
    if entry.status not in {OperationStatus.PENDING, OperationStatus.EXECUTING}:
        return f"it is open, and its status is {entry.status.value!r}"
    if entry.stage is Stage.SENT and None in {entry.request_id, entry.sent_at, entry.expires_at}:
        return "it was sent, and under which id or until when is not noted"
    if entry.stage is Stage.SENT and any(
        at is not None and at.year == MAXYEAR for at in (entry.sent_at, entry.expires_at)
    ):
        return "it was sent, and at a time that no clock shows"
    return None


def list_open(connection: Connection) -> tuple[list[Entry], dict[str, str]]:
    """What a restart goes on with, in the order of acceptance; and the ids of rows that make no sense, with the reason.

    Each row is read by itself, so that one keeps none of the others back. One that was condemned and can be read since
    is among the former, condemned still.
    """
    query = select(OWN.operation_id).where(OWN.stage != Stage.ENDED.value).order_by(OWN.seq)
    readable: list[Entry] = []
    senseless: dict[str, str] = {}
    for operation_id in connection.execute(query).scalars().all():
        try:
            entry = find_entry(connection, operation_id)
        except UNREADABLE as error:
            senseless[operation_id] = f"it cannot be read: {type(error).__name__}"
            continue
        why = "it has no row in volume_operations" if entry is None else find_contradiction(entry)
        if entry is not None and why is None:
            readable.append(entry)
        else:
            senseless[operation_id] = str(why)
    return readable, senseless


def condemn(connection: Connection, operation_id: str, why: str, now: datetime) -> Entry:
    """What is left of a row that makes no sense: ended where CloudStack was certainly not asked, else still open.

    What cannot be read is emptied, so that the operation can be listed and told. Doing it twice changes nothing.
    """
    own = _salvage(connection, volume_daemon_operations, OWN.operation_id, operation_id, now)
    public = _salvage(connection, volume_operations, PUBLIC.id, operation_id, now)
    if own["stage"] == Stage.ENDED.value:
        stage = Stage.ENDED
    else:
        stage = Stage.ACCEPTED if own["stage"] == Stage.ACCEPTED.value else Stage.SENT
    type_, request = public.get("type"), public.get("request")
    entry = Entry(
        id=operation_id,
        type=OperationType(type_) if type_ in TYPES else OperationType.UNKNOWN,
        status=OperationStatus.EXECUTING,
        volume_id=own["volume_id"] or public.get("volume_id") or None,
        vm_id=public.get("vm_id"),
        request=request if isinstance(request, dict) else {},
        created_at=public.get("created_at") or now,
        updated_at=now,
        stage=stage,
        error=_unreadable(why),
        request_id=own["request_id"] or operation_id,
        remote_job_id=own["remote_job_id"],
        queue_vm_id=own["queue_vm_id"],
        sent_at=own["sent_at"] or now,
        expires_at=own["expires_at"],
    )
    if stage is Stage.ACCEPTED:
        entry = entry.ended(OperationStatus.FAILED, now)
        end(connection, entry)
    elif stage is Stage.SENT:
        _write(connection, entry, updated_at=now)
    try:
        find_entry(connection, operation_id)
    except UNREADABLE:
        nothing = {"exports": None, "tracking": None}
        connection.execute(update(volume_daemon_operations).where(OWN.operation_id == operation_id).values(**nothing))
    return entry


def is_condemned(connection: Connection, operation_id: str) -> bool:
    """Asked when the answer to a COMMIT was lost."""
    return connection.execute(select(OWN.error).where(OWN.operation_id == operation_id)).scalar() is not None


def end(connection: Connection, entry: Entry) -> None:
    """The end of a condemned operation. Its type is not written: it may be one that the table does not take."""
    before = connection.execute(select(PUBLIC.status).where(PUBLIC.id == entry.id)).scalar()
    _write(connection, entry, updated_at=entry.updated_at, completed_at=entry.completed_at)
    if before is not None and before != entry.status.value:
        connection.execute(
            insert(volume_operation_history).values(
                operation_id=entry.id,
                previous_status=before,
                new_status=entry.status.value,
                details=entry.error.as_json() if entry.error else None,
                changed_at=entry.updated_at,
            )
        )


def has_ended(connection: Connection, operation_id: str) -> bool:
    """Asked when the answer to a COMMIT was lost."""
    stage = connection.execute(select(OWN.stage).where(OWN.operation_id == operation_id)).scalar()
    return stage == Stage.ENDED.value


def _write(connection: Connection, entry: Entry, **times: datetime | None) -> None:
    own = {
        "stage": entry.stage.value,
        "request_id": entry.request_id,
        "sent_at": entry.sent_at,
        "ended_at": entry.completed_at,
        "error": entry.error.as_json() if entry.error else None,
    }
    connection.execute(update(volume_daemon_operations).where(OWN.operation_id == entry.id).values(**own))
    public = {"status": entry.status.value, "error": entry.error.text if entry.error else None, **times}
    connection.execute(update(volume_operations).where(PUBLIC.id == entry.id).values(**public))


def _unreadable(why: str) -> OperationError:
    text = f"The journal's row of this operation makes no sense ({why}); what it did is unknown."
    return OperationError("journal_unreadable", FaultKind.FAILED, text)


def _salvage(
    connection: Connection, table: Table, key: Column[Any], operation_id: str, now: datetime
) -> Mapping[str, Any]:
    """The row's values, each read by itself; what can't be read is emptied, there too. Empty: there is no row."""
    values: dict[str, Any] = {}
    emptied: dict[str, Any] = {}
    for column in table.columns:
        try:
            row = connection.execute(select(column).where(key == operation_id)).first()
        except UNREADABLE:
            emptied[column.name] = None if column.nullable else now  # all that may not be empty is times
        else:
            if row is None:
                return {}
            values[column.name] = row[0]
    if emptied:
        connection.execute(update(table).where(key == operation_id).values(**emptied))
    return values | emptied
