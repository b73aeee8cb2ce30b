"""Recorded times with more than one meaning: the rows hold the later one; here is the other, for who needs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import overload

from oma.domain.records import VmRecords


@overload
def earliest(records: VmRecords, at: datetime) -> datetime: ...


@overload
def earliest(records: VmRecords, at: None) -> None: ...


def earliest(records: VmRecords, at: datetime | None) -> datetime | None:
    """The earliest meaning of a time that a row of these records holds; `at` itself where it has only one.

    For comparisons in which the later meaning would be the less dangerous one: whether a replication or a clean-up
    settles what came before it. A time in the future may have been any, so its earliest meaning is the beginning of
    time (`NEVER`): it settles nothing.
    """
    if at is None:
        return None
    return min((doubt.earliest for doubt in records.doubtful_times if doubt.latest == at), default=at)


def doubts(records: VmRecords) -> Iterator[str]:
    """A sentence for the plan about every time that was read as the more dangerous of its meanings, each once."""
    yield from dict.fromkeys(doubt.why for doubt in records.doubtful_times)


def utc(at: datetime) -> str:
    """As sentences write a time: to the second, in UTC."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
