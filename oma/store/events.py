"""`oma_events`: what happened, in the order in which it was committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, insert, select
from sqlalchemy.engine import Connection

from database.tables import oma_events
from oma.domain.events import Event, EventType
from oma.domain.states import LogLevel, Phase
from oma.store.sequences import EVENTS, take_numbers

_INSERT: Final = insert(oma_events)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a change tells: the event without its number, and where its line in the JobLog belongs."""

    type: EventType
    sentence: str
    data: dict[str, Any] = field(default_factory=dict)
    level: LogLevel = LogLevel.INFO
    phase: Phase | None = None


def record_events(
    connection: Connection, job_id: str | None, context_id: str | None, drafts: Sequence[Draft], at: datetime
) -> list[Event]:
    """Numbers the drafts in order and inserts them."""
    return record_events_of(connection, [(job_id, context_id, draft) for draft in drafts], at)


def record_events_of(
    connection: Connection, drafts: Sequence[tuple[str | None, str | None, Draft]], at: datetime
) -> list[Event]:
    """The same for several jobs: each draft with its job and context."""
    if not drafts:
        return []
    first = take_numbers(connection, EVENTS, len(drafts))
    events = [
        Event(
            seq=first + place,
            at=at,
            job_id=job_id,
            context_id=context_id,
            type=draft.type,
            sentence=draft.sentence,
            data=draft.data,
        )
        for place, (job_id, context_id, draft) in enumerate(drafts)
    ]
    connection.execute(
        _INSERT,
        [
            {
                "seq": event.seq,
                "at": event.at,
                "job_id": event.job_id,
                "context_id": event.context_id,
                "type": event.type.value,
                "sentence": event.sentence,
                "data": event.data,
            }
            for event in events
        ],
    )
    return events


def stand(connection: Connection, events: Sequence[Event]) -> bool:
    """Whether these events are in the database; numbers that were given back may carry somebody else's event."""
    if not events:
        return True
    last = events[-1]
    query = select(oma_events.c.job_id, oma_events.c.type, oma_events.c.sentence).where(oma_events.c.seq == last.seq)
    row = connection.execute(query).first()
    return row is not None and tuple(row) == (last.job_id, last.type.value, last.sentence)


def list_events(connection: Connection, after_seq: int, job_id: str | None, limit: int) -> list[Event]:
    query = select(oma_events).where(oma_events.c.seq > after_seq).order_by(oma_events.c.seq).limit(limit)
    if job_id is not None:
        query = query.where(oma_events.c.job_id == job_id)
    return [
        Event(
            seq=row["seq"],
            at=row["at"],
            job_id=row["job_id"],
            context_id=row["context_id"],
            type=EventType(row["type"]),
            sentence=row["sentence"],
            data=row["data"] or {},
        )
        for row in connection.execute(query).mappings()
    ]


def last_seq(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(oma_events.c.seq), 0))).scalar_one())
