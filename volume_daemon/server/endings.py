"""The journal of ended holders: what is about to be ended is committed before the first signal, the outcome after.

Functions of a connection; each is one transaction's work and may be run again after a rollback.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from database.tables import volume_daemon_holder_ends
from volume_daemon.holders.ended import EndedTree
from volume_daemon.holders.report import ProcessId
from volume_daemon.server.journal import is_fence_raised, raise_fence
from volume_daemon.server.refusals import key_reused

ENDS = volume_daemon_holder_ends.c


@dataclass(frozen=True, slots=True)
class EndOrder:
    """Holders that somebody wants ended, each as it was seen."""

    id: str
    volume_id: str
    holders: tuple[ProcessId, ...]
    reason: str
    fence: int | None = None

    @property
    def content_hash(self) -> str:
        """What two requests of one key must share."""
        content = [self.volume_id, [one.as_json() for one in self.holders], self.reason]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find_outcome(connection: Connection, order: EndOrder) -> tuple[EndedTree, ...] | None:
    """What an earlier request of the same key did; None: there was none, or its outcome is not known.

    Raises `Problem` `idempotency_key_reused`.
    """
    query = select(ENDS.content_hash, ENDS.outcome).where(ENDS.request_id == order.id)
    row = connection.execute(query).first()
    if row is None:
        return None
    if row.content_hash != order.content_hash:
        raise key_reused(order.id)
    return None if row.outcome is None else tuple(EndedTree.parse(one) for one in row.outcome)


def save_intent(connection: Connection, order: EndOrder, trees: list[dict[str, Any]], now: datetime) -> None:
    """Before the first signal; again for a request whose outcome is not known. Raises `Problem` `fenced`."""
    raise_fence(connection, order.volume_id, order.fence, now)
    known = connection.execute(select(ENDS.seq).where(ENDS.request_id == order.id)).first()
    if known is not None:
        connection.execute(update(volume_daemon_holder_ends).where(ENDS.request_id == order.id).values(trees=trees))
        return
    connection.execute(
        insert(volume_daemon_holder_ends).values(
            request_id=order.id,
            volume_id=order.volume_id,
            content_hash=order.content_hash,
            reason=order.reason,
            trees=trees,
            asked_at=now,
        )
    )


def is_intended(connection: Connection, order: EndOrder, trees: list[dict[str, Any]]) -> bool:
    """Whether just these trees are journaled; asked when the answer to a COMMIT was lost."""
    query = select(ENDS.trees).where(ENDS.request_id == order.id)
    is_journaled = connection.execute(query).scalar() == trees
    return is_journaled and is_fence_raised(connection, order.volume_id, order.fence)


def has_outcome(connection: Connection, order: EndOrder, ended: tuple[EndedTree, ...]) -> bool:
    """Whether this outcome is journaled; asked when the answer to a COMMIT was lost."""
    query = select(ENDS.outcome).where(ENDS.request_id == order.id)
    return bool(connection.execute(query).scalar() == [one.as_json() for one in ended])


def save_outcome(connection: Connection, order: EndOrder, ended: tuple[EndedTree, ...], now: datetime) -> None:
    connection.execute(
        update(volume_daemon_holder_ends)
        .where(ENDS.request_id == order.id)
        .values(outcome=[one.as_json() for one in ended], ended_at=now)
    )
