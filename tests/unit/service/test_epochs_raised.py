"""6-safety 6: the epoch goes on with the runs, so that a copy of the whole appliance is known by the tag alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from appliance.settings import Settings
from database.tables import oma_epochs, oma_sequences
from oma.domain.epochs import Witness
from oma.domain.states import JobState
from oma.ports import Fault
from oma.runtime.bootstrap import build_claim_loop
from oma.runtime.keeping import build_epoch_loop
from oma.service.epochs import RAISED_S, EpochKeeper
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import open_stage
from tests.unit.service.epoch_bench import Bench

pytestmark = pytest.mark.rule("6-epochs")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_stage() as stage:
        yield Bench.over(stage)


@dataclass
class Appliance:
    """A copy of database and state directory, made by one snapshot."""

    epoch: int
    events: int
    noted: Witness | None

    @classmethod
    async def copy(cls, bench: Bench) -> Appliance:
        (row,) = await bench.stage.rows(oma_epochs)
        sequences = {row["name"]: row["value"] for row in await bench.stage.rows(oma_sequences)}
        return cls(row["epoch"], sequences.get("events", 0), bench.note.noted)

    async def put_back(self, bench: Bench) -> None:
        await bench.restore(self.epoch)
        await bench.stage.sql(f"DELETE FROM oma_events WHERE seq > {self.events}")
        await bench.stage.sql(f"UPDATE oma_sequences SET value = {self.events} WHERE name = 'events'")
        bench.note.noted = self.noted


@dataclass
class Database:
    is_open: bool = True


@dataclass
class CountingWorker:
    claims: int = 0

    async def claim(self) -> str | None:
        self.claims += 1
        return None


async def turn_of_the_claims(bench: Bench, keeper: EpochKeeper) -> int:
    """How often jobs were claimed in one turn."""
    worker: Any = CountingWorker()
    database: Any = Database()
    stop = asyncio.Event()
    loop = build_claim_loop(Settings(), bench.stage.deps, database, worker, keeper)
    task = asyncio.create_task(loop.run(stop))
    await loop.first_turn.wait()
    stop.set()
    await task
    return int(worker.claims)


async def test_a_copy_of_the_whole_appliance_is_known_by_what_ran_since(bench: Bench) -> None:
    """The daemon ran on for days without a start; then database and state directory are as old as each other."""
    stage = bench.stage
    vm = await stage.add()
    keeper = bench.start()
    await keeper.run_once()
    await keeper.run_once()
    copy = await Appliance.copy(bench)
    bench.clock.ahead_s += 3 * 86_400
    job = await stage.submit(vm)
    await keeper.run_once()
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    await copy.put_back(bench)

    restored = bench.start()
    assert "older than the world" in str(await restored.run_once())
    assert not restored.is_open


async def test_a_run_that_the_copy_had_in_flight_is_not_gone_on_with(bench: Bench) -> None:
    """Nothing else began since; that it went on and ended is what the tag tells."""
    stage = bench.stage
    vm = await stage.add()
    keeper = bench.start()
    await keeper.run_once()
    job = await stage.submit(vm)
    await stage.claim()
    await keeper.run_once()
    copy = await Appliance.copy(bench)
    await stage.sql("UPDATE oma_jobs SET lease_until = '2000-01-01 00:00:00'")
    await stage.work()
    await stage.check(job.id)
    bench.clock.ahead_s += RAISED_S
    await keeper.run_once()
    await copy.put_back(bench)
    assert "older than the world" in str(await bench.start().run_once())


async def test_no_run_begins_under_an_old_epoch(bench: Bench) -> None:
    stage = bench.stage
    vm = await stage.add()
    keeper = bench.start()
    assert await turn_of_the_claims(bench, keeper) == 0, "not before the first comparison"
    await keeper.run_once()
    assert await turn_of_the_claims(bench, keeper) == 1
    bench.clock.ahead_s += RAISED_S
    assert await turn_of_the_claims(bench, keeper) == 1, "nothing was written, so there is nothing to tell apart"
    await stage.submit(vm)
    assert not keeper.wanted.is_set()
    assert await turn_of_the_claims(bench, keeper) == 0
    assert keeper.wanted.is_set(), "the comparison is not waited for longer than it takes"
    assert stage.commands() == []
    stage.deps.wake.clear()
    assert await keeper.run_once() == "Epoch oma:2 begins."
    assert stage.deps.wake.is_set()
    assert (bench.note.written[-1], await bench.tag()) == ("oma:2", "oma:2")
    assert await turn_of_the_claims(bench, keeper) == 1


async def test_whoever_waits_has_the_comparison_made_at_once(bench: Bench) -> None:
    database: Any = Database()
    keeper, stop = bench.start(), asyncio.Event()
    loop = build_epoch_loop((), bench.stage.deps, database, keeper)
    loop.interval_s = 3600
    task = asyncio.create_task(loop.run(stop))
    await loop.first_turn.wait()
    await bench.stage.submit(await bench.stage.add())
    bench.clock.ahead_s += RAISED_S
    bench.stage.deps.wake.clear()
    assert not await keeper.lets_begin()
    await bench.stage.deps.wake.wait()
    assert await keeper.lets_begin()
    stop.set()
    await task


async def test_while_runs_go_on_it_is_raised_now_and_then_only(bench: Bench) -> None:
    stage = bench.stage
    keeper = bench.start()
    await keeper.run_once()
    for number in range(3):
        await stage.submit(await stage.add(BrokenVm(f"vm-{number}")))
        assert await keeper.run_once() is None, number
    bench.clock.ahead_s += RAISED_S
    assert await keeper.run_once() == "Epoch oma:2 begins."
    bench.clock.ahead_s += RAISED_S
    assert await keeper.run_once() is None, "nothing was written since"


async def test_no_run_begins_while_the_tag_cannot_be_told(bench: Bench) -> None:
    stage = bench.stage
    vm = await stage.add()
    keeper = bench.start()
    await keeper.run_once()
    await stage.submit(vm)
    bench.clock.ahead_s += RAISED_S
    bench.answers["find_epoch"] = (Fault.FAILED, "530", "not now")
    assert "can't be told" in str(await keeper.run_once())
    assert keeper.is_open, "what runs goes on"
    assert await turn_of_the_claims(bench, keeper) == 0
    await keeper.run_once()
    assert await turn_of_the_claims(bench, keeper) == 1


async def test_a_tag_that_cannot_be_put_keeps_no_run_waiting(bench: Bench) -> None:
    stage = bench.stage
    vm = await stage.add()
    keeper = bench.start()
    await keeper.run_once()
    await stage.submit(vm)
    bench.clock.ahead_s += RAISED_S
    bench.answers["put_epoch"] = (Fault.REFUSED, "531", "not for you")
    assert "is not tagged with it: not for you" in str(await keeper.run_once())
    assert await turn_of_the_claims(bench, keeper) == 1


async def test_a_tag_that_is_ahead_is_seen_by_a_daemon_that_runs(bench: Bench) -> None:
    """A second appliance, made from a copy of this one, has begun to work."""
    stage = bench.stage
    vm = await stage.add()
    keeper = bench.start()
    await keeper.run_once()
    job = await stage.submit(vm)
    await stage.cloud.put_epoch(stage.world.oma_vm_id, "oma:2", "oma:1")
    bench.clock.ahead_s += RAISED_S
    assert "says oma:2" in str(await keeper.run_once())
    assert (await stage.job(job.id)).state is JobState.PARKED
