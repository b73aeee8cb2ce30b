from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from database.door import Door
from database.errors import DatabaseUnavailable
from database.schema import upgrade
from tests.unit.volume_daemon.builders import NOW, OMA_ID, OPERATION_ID, VOLUME_ID, entry
from volume_daemon.models import OperationStatus, OperationType
from volume_daemon.server.records import Entry, Figures, Order, Stage
from volume_daemon.server.refusals import Problem
from volume_daemon.server.store import Store

ORDER = Order(OPERATION_ID, OperationType.ATTACH, VOLUME_ID, OMA_ID, {"vm_id": OMA_ID}, 3)


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


class UnsureDoor:
    """A database that commits, loses the answer, and is away when it is asked what became of it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.lost = 0
        self.writes = 0

    async def write(self, fn: Callable[..., Any], *, confirm: Callable[..., bool] | None = None) -> Any:
        self.writes += 1
        result = await self._door.write(fn, confirm=confirm)
        if self.lost:
            self.lost -= 1
            raise DatabaseUnavailable("the connection broke while it was committing", outcome_unknown=True)
        return result

    async def read(self, fn: Callable[..., Any]) -> Any:
        return await self._door.read(fn)


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


@pytest.fixture
async def unsure(tmp_path: Path) -> AsyncIterator[tuple[Store, UnsureDoor]]:
    url = f"sqlite:///{tmp_path / 'oma.db'}"
    await asyncio.to_thread(upgrade, url)
    door = await Door.open(url)
    doubtful = UnsureDoor(door)
    opened = Store(Figures(pause_min_s=0.0, pause_max_s=0.0), lambda: NOW)
    await opened.open(doubtful)  # type: ignore[arg-type]
    yield opened, doubtful
    await door.close()


def sent(accepted: Entry) -> Entry:
    return replace(
        accepted,
        stage=Stage.SENT,
        status=OperationStatus.EXECUTING,
        request_id=accepted.id,
        sent_at=NOW,
        expires_at=NOW,
    )


async def test_an_end_whose_commit_was_not_answered_is_looked_up_before_it_is_written_again(
    unsure: tuple[Store, UnsureDoor],
):
    """Written twice it would be a conflict: "another daemon works on this journal"."""
    opened, door = unsure
    accepted, _ = await opened.accept(ORDER)
    await opened.mark_sent(sent(accepted))
    door.lost, door.writes = 1, 0
    await opened.finish(sent(accepted).ended(OperationStatus.COMPLETED, NOW), None)
    assert door.writes == 1
    found = await opened.find_entry(OPERATION_ID)
    assert found is not None
    assert (found.stage, found.status) == (Stage.ENDED, OperationStatus.COMPLETED)


async def test_an_intent_whose_commit_was_not_answered_stands_once(unsure: tuple[Store, UnsureDoor]):
    opened, door = unsure
    accepted, _ = await opened.accept(ORDER)
    door.lost, door.writes = 1, 0
    await opened.mark_sent(sent(accepted))
    assert door.writes == 1


async def test_a_fence_is_known_from_every_order_that_carries_one(unsure: tuple[Store, UnsureDoor]):
    opened, _ = unsure
    accepted, _ = await opened.accept(ORDER)
    opened.check_fence(accepted)
    await opened.accept(replace(ORDER, id=VOLUME_ID, fence=4))
    with pytest.raises(Problem, match="lower than 4"):
        opened.check_fence(accepted)
    opened.check_fence(replace(accepted, fence=None))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("type", "cleanup", "nothing is known of the type 'cleanup'"),
        ("type", "", "nothing is known of the type ''"),
        ("status", "completed", "it is open, and its status is 'completed'"),
        ("created_at", "yesterday", "it cannot be read: ValueError"),
        ("volume_id", "", "it names no volume"),
        ("vm_id", None, "it is to attach and names no VM"),
    ],
)
async def test_a_row_that_makes_no_sense_ends_and_keeps_no_other_back(
    unsure: tuple[Store, UnsureDoor], column: str, value: str | None, words: str
):
    opened, door = unsure
    await opened.accept(ORDER)
    other, _ = await opened.accept(replace(ORDER, id=VOLUME_ID, fence=None))

    def damage(connection: Any) -> None:
        statement = f"UPDATE volume_operations SET {column} = :value WHERE id = :id"
        connection.execute(text(statement), {"value": value, "id": OPERATION_ID})

    await door.write(damage)
    assert await opened.list_open() == [other]
    assert await opened.list_open() == [other]

    def read(connection: Any) -> tuple[Any, ...]:
        rows = connection.execute(
            text(
                "SELECT status, p.error, stage FROM volume_operations p JOIN volume_daemon_operations o"
                " ON o.operation_id = p.id WHERE p.id = :id"
            ),
            {"id": OPERATION_ID},
        )
        return tuple(rows.one())

    status, error, stage = await door.read(read)
    assert (status, stage) == ("failed", "ended")
    assert words in error


async def test_a_sent_row_without_its_id_stays_open_first_of_all_until_its_call_is_over(
    unsure: tuple[Store, UnsureDoor],
):
    opened, _ = unsure
    other, _ = await opened.accept(replace(ORDER, id=VOLUME_ID, fence=None))
    accepted, _ = await opened.accept(ORDER)
    await opened.mark_sent(replace(sent(accepted), request_id=None))
    condemned, next_one = await opened.list_open()
    assert (condemned.id, condemned.is_condemned, condemned.request_id) == (OPERATION_ID, True, OPERATION_ID)
    assert (next_one, next_one.is_condemned) == (other, False)
    # Mended, so that it can be read, it is no whole row for that.
    assert [one.is_condemned for one in await opened.list_open()] == [False, True]
    await opened.end_condemned(condemned.ended(OperationStatus.FAILED, NOW))
    assert await opened.list_open() == [other]
