"""Orders that their giver takes back: what CloudStack has not been asked for never happens, also where it comes later.

A function of a connection; one transaction's work, which may be run again after a rollback. An order that is on its way
here, from a process that stands still, is met by what was written here: its own id is taken.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.engine import Connection

from volume_daemon.models import OperationStatus
from volume_daemon.server import journal
from volume_daemon.server.journal import REVOKED
from volume_daemon.server.records import Entry, Order, Stage
from volume_daemon.server.refusals import key_reused


def revoke(connection: Connection, order: Order, now: datetime, *, is_decided: bool = False) -> Entry:
    """The operation as it stands from now on: cancelled where CloudStack had not been asked, else as it is.

    `is_decided`: it needs nothing of CloudStack, and is being carried out on the OMA. The fence is remembered as with
    any order. Raises `Problem` `fenced`, `idempotency_key_reused`.
    """
    journal.raise_fence(connection, order.volume_id, order.fence, now)
    found = journal.find_entry(connection, order.id)
    if found is None:
        return _insert(connection, order, now)
    if not found.journaled or found.volume_id != order.volume_id or found.type is not order.type:
        raise key_reused(order.id)
    if found.stage is not Stage.ACCEPTED or is_decided:
        return found
    cancelled = found.ended(OperationStatus.CANCELLED, now)
    journal.mark_cancelled(connection, cancelled)
    return cancelled


def is_revoked(connection: Connection, order: Order) -> bool:
    """Asked when the answer to a COMMIT was lost."""
    found = journal.find_entry(connection, order.id)
    is_settled = found is not None and found.stage is not Stage.ACCEPTED
    return is_settled and journal.is_fence_raised(connection, order.volume_id, order.fence)


def _insert(connection: Connection, order: Order, now: datetime) -> Entry:
    entry = replace(
        journal.build_entry(order, now),
        status=OperationStatus.CANCELLED,
        stage=Stage.ENDED,
        completed_at=now,
        content_hash=REVOKED,
    )
    journal.insert_entry(connection, entry, now)
    return entry
