"""Writes of many callers in one commit, and a COMMIT whose answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from oma.domain.changes import ActionEnded, ActionStarted, JobReleased, Noted
from oma.domain.errors import ConcurrentChange, LeaseLost
from oma.domain.events import Event
from oma.domain.jobs import ClaimedJob
from oma.domain.states import ActionState, LogLevel
from oma.store import SqlJournalStore
from oma.store.events import stand
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_action, build_queued, uid


async def begin(store: Store, *names: str) -> list[ClaimedJob]:
    await store.seed(*names, disks=1)
    await asyncio.gather(*(store.journal.queue_job(build_queued(name)) for name in names))
    claimed = await asyncio.gather(*(store.journal.claim_job("oma-1", 30) for _ in names))
    return [one for one in claimed if one is not None]


async def test_many_runs_queue_claim_and_write_at_once(store: Store) -> None:
    names = [f"vm-{number:02}" for number in range(20)]
    claimed = await begin(store, *names)
    assert sorted(one.job.vm_name for one in claimed) == names

    events = await asyncio.gather(
        *(
            store.journal.apply(
                one.lease, [ActionStarted(build_action(one.job.id), "Detach."), Noted(LogLevel.INFO, "on")], NOW
            )
            for one in claimed
        )
    )

    numbers = [event.seq for some in events for event in some]
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 40))
    assert await store.reader.last_event_seq() == max(numbers)
    for one in claimed:
        assert [action.job_id for action in await store.reader.list_actions(one.job.id)] == [one.job.id]


async def test_who_is_refused_takes_nobody_along(store: Store) -> None:
    first, second, third = await begin(store, "a", "b", "c")
    await store.journal.apply(third.lease, [JobReleased("stop")], NOW)

    answers = await asyncio.gather(
        store.journal.apply(first.lease, [ActionStarted(build_action(first.job.id), "Detach.")], NOW),
        store.journal.apply(
            second.lease,
            [
                ActionStarted(build_action(second.job.id), "Detach."),
                ActionEnded(uid("unknown"), ActionState.EXECUTED, "?"),
            ],
            NOW,
        ),
        store.journal.apply(third.lease, [Noted(LogLevel.INFO, "still here")], NOW),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [list, ConcurrentChange, LeaseLost]
    assert len(await store.reader.list_actions(first.job.id)) == 1
    assert await store.reader.list_actions(second.job.id) == []
    stored = [event.seq for event in await store.reader.list_events(0, None, 1000)]
    assert stored == list(range(1, len(stored) + 1))


async def test_events_are_found_again_by_number_and_content(store: Store) -> None:
    (claimed,) = await begin(store, "a")
    events = list(await store.journal.apply(claimed.lease, [Noted(LogLevel.INFO, "on")], NOW))
    (event,) = events
    of_others = Event(event.seq, event.at, uid("another job"), event.context_id, event.type, event.sentence)
    of_later = Event(event.seq + 1, event.at, event.job_id, event.context_id, event.type, event.sentence)

    def look(connection: Connection) -> list[bool]:
        return [stand(connection, some) for some in (events, [], [of_others], [of_later])]

    assert await store.door.read(look) == [True, True, False, False]


class ForgetfulDoor:
    """Does the write, or undoes it, and has lost the answer either way: it asks, and writes again where it must."""

    def __init__(self, store: Store, *, committed: bool) -> None:
        self._door = store.door
        self._committed = committed
        self.writes = 0

    async def read(self, fn: Callable[[Connection], Any]) -> Any:
        return await self._door.read(fn)

    async def write(
        self, fn: Callable[[Connection], Any], *, confirm: Callable[[Connection], bool] | None = None
    ) -> Any:
        assert confirm is not None
        self.writes += 1
        if self._committed:
            result = await self._door.write(fn)
        else:
            result = await self._undo(fn)
        if await self._door.read(confirm):
            return result
        self.writes += 1
        return await self._door.write(fn)

    async def _undo(self, fn: Callable[[Connection], Any]) -> Any:
        kept: list[Any] = []

        def write(connection: Connection) -> None:
            kept.append(fn(connection))
            raise InterruptedError

        try:
            await self._door.write(write)
        except InterruptedError:
            return kept[0]

    async def check(self) -> str:
        return await self._door.check()


async def test_a_lost_answer_is_read_back_and_nothing_is_written_twice(store: Store) -> None:
    (claimed,) = await begin(store, "a")
    for committed, writes in ((True, 1), (False, 2)):
        door = ForgetfulDoor(store, committed=committed)
        before = await store.reader.last_event_seq()

        (event,) = await SqlJournalStore(door).apply(claimed.lease, [Noted(LogLevel.INFO, "once")], NOW)

        assert door.writes == writes
        assert await store.reader.list_events(before, None, 10) == [event]


async def test_a_lost_answer_to_a_claim(store: Store) -> None:
    await store.seed("a", "b", disks=1)
    for name in ("a", "b"):
        await store.journal.queue_job(build_queued(name))

    kept = await SqlJournalStore(ForgetfulDoor(store, committed=True)).claim_job("oma-1", 30)
    undone = await SqlJournalStore(ForgetfulDoor(store, committed=False)).claim_job("oma-1", 30)

    assert kept is not None
    assert undone is not None
    assert {kept.job.vm_name, undone.job.vm_name} == {"a", "b"}
    assert await store.journal.renew_leases("oma-1", 30) != []
    assert await store.reader.count_jobs() == {"parked": 0, "queued": 0, "running": 2}
