from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from database.errors import DatabaseUnavailable
from tests.unit.volume_daemon.builders import entry
from volume_daemon.server.records import Figures
from volume_daemon.server.store import Store


class AwayDoor:
    """A database that is away for some calls."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.calls = 0

    async def write(self, _fn: Any, **_: Any) -> None:
        self.calls += 1
        if self.calls <= self.away:
            raise DatabaseUnavailable("gone", disk_full=False)

    read = write


async def store(door: AwayDoor) -> Store:
    opened = Store(Figures(pause_min_s=0.0), lambda: datetime.now(UTC))
    away, door.away = door.away, 0
    await opened.open(door)  # type: ignore[arg-type]
    door.away, door.calls = away, 0
    return opened


async def test_an_outcome_is_written_when_the_database_is_back():
    door = AwayDoor(3)
    await (await store(door)).finish(entry(), None)
    assert door.calls == 4


async def test_an_acceptance_is_not_promised_while_the_database_is_away():
    door = AwayDoor(1)
    with pytest.raises(DatabaseUnavailable):
        await (await store(door)).find_entry("x")
    assert door.calls == 1
