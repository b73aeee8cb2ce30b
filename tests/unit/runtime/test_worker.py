"""The worker: claims by lease, keeps leases, never runs a job twice, gives back what it can't finish."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from oma.domain.actions import Action, ActionKind, Target
from oma.domain.errors import Code, LeaseLost, OmaError
from oma.domain.events import Event
from oma.domain.jobs import ClaimedJob
from oma.domain.states import ActionState, JobState, Phase
from oma.runtime.worker import Worker, WorkerPorts
from oma.workflow.leases import LeaseTimes
from tests.unit.runtime.fakes import CountingIds, FakeClock, FakeJournal, Runs


class Bench:
    def __init__(self, max_jobs: int = 10) -> None:
        self.journal = FakeJournal()
        self.runs = Runs(self.journal)
        self.published: list[Event] = []
        self.wake = asyncio.Event()
        journal: Any = self.journal
        ports = WorkerPorts(journal, journal, FakeClock(), CountingIds(), self.publish)
        self.worker = Worker(ports, self.runs.run, owner="me", max_jobs=max_jobs, lease_s=30, wake=self.wake)

    def publish(self, events: Iterable[Event]) -> None:
        self.published += events

    async def claim_one(self, job_id: str) -> ClaimedJob:
        self.journal.add(job_id)
        await self.worker.claim()
        return await asyncio.wait_for(self.runs.begun.get(), 5)

    async def settled(self, running: int) -> None:
        """Until so many runs are left."""
        async with asyncio.timeout(5):
            while self.worker.running != running:
                self.wake.clear()
                await self.wake.wait()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_jobs_run_beside_each_other_up_to_the_limit():
    bench = Bench(max_jobs=2)
    for name in "abc":
        bench.journal.add(name)
    assert await bench.worker.claim() == "Claimed 2 jobs; 2 run."
    first = await bench.runs.begun.get()
    await bench.runs.begun.get()
    assert bench.worker.running == 2
    bench.runs.end(first)
    await bench.settled(1)
    assert bench.wake.is_set()
    await bench.worker.claim()
    assert (await bench.runs.begun.get()).job.id == "c"


async def test_nothing_queued_is_nothing_said(bench: Bench):
    assert await bench.worker.claim() is None


async def test_a_finished_run_is_forgotten_without_a_cancel(bench: Bench):
    claimed = await bench.claim_one("a")
    bench.runs.end(claimed)
    await bench.settled(0)
    await bench.worker.renew()
    assert bench.journal.jobs["a"].state is JobState.COMPLETED
    assert bench.runs.cancelled == []


async def test_a_lost_lease_ends_the_run_at_once(bench: Bench):
    await bench.claim_one("a")
    kept = await bench.claim_one("b")
    bench.journal.take_over("a", "another daemon")
    await bench.worker.renew()
    assert bench.runs.cancelled == ["a/1"]
    assert bench.worker.running == 1
    assert bench.journal.jobs["a"].lease_owner == "another daemon"
    bench.runs.end(kept)


async def test_a_run_whose_job_somebody_else_has_ended_meanwhile_ends_too(bench: Bench):
    """It stood still past its lease, and waits for a renewal that never comes."""
    await bench.claim_one("a")
    bench.journal.take_over("a", "another daemon")
    ended = replace(bench.journal.jobs["a"], state=JobState.COMPLETED, lease_owner=None)
    bench.journal.jobs["a"] = ended
    await bench.worker.renew()
    assert bench.runs.cancelled == ["a/1"]
    assert bench.journal.jobs["a"] is ended


async def test_a_lease_is_counted_from_before_it_was_asked_for():
    bench = Bench()
    now = [100.0]
    times = LeaseTimes(lambda: now[0])
    journal: Any = bench.journal
    ports = WorkerPorts(journal, journal, FakeClock(), CountingIds(), bench.publish)
    worker = Worker(ports, bench.runs.run, owner="me", max_jobs=1, lease_s=30, wake=bench.wake, times=times)
    bench.worker = worker
    bench.journal.after_renewal = lambda: now.__setitem__(0, now[0] + 7)
    bench.journal.add("a")
    await worker.claim()
    claimed = await bench.runs.begun.get()
    assert times.left_s("a") == 30
    now[0] = 120
    assert times.left_s("a") == 10
    await worker.renew()
    assert (now[0], times.left_s("a")) == (127, 23), "the renewal took 7 s, which count"
    bench.runs.end(claimed)
    await bench.settled(0)
    assert times.left_s("a") is None


async def test_a_run_that_was_told_of_its_lost_lease_leaves_the_job_alone(bench: Bench):
    claimed = await bench.claim_one("a")
    bench.journal.take_over("a", "another daemon")
    bench.runs.end(claimed, LeaseLost("fence 2"))
    await bench.settled(0)
    await bench.worker.renew()
    assert bench.journal.jobs["a"].state is JobState.RUNNING
    assert bench.journal.jobs["a"].lease_owner == "another daemon"
    assert bench.journal.issues == []


async def test_our_own_job_come_back_never_runs_twice(bench: Bench):
    await bench.claim_one("a")
    bench.journal.lapse("a")
    await bench.worker.claim()
    again = await bench.runs.begun.get()
    assert (again.recovered, again.lease.fence) == (True, 2)
    assert bench.runs.cancelled == ["a/1"]
    assert bench.worker.running == 1
    bench.runs.end(again)
    await bench.settled(0)


async def test_a_run_broken_off_by_the_database_goes_back_to_the_queue(bench: Bench):
    claimed = await bench.claim_one("a")
    bench.journal.down = True
    bench.runs.end(claimed, OmaError(Code.DATABASE_UNAVAILABLE, "away"))
    await bench.settled(0)
    with pytest.raises(OmaError):
        await bench.worker.renew()
    bench.journal.down = False
    await bench.worker.renew()
    assert bench.journal.jobs["a"].state is JobState.QUEUED
    await bench.worker.claim()
    assert (await bench.runs.begun.get()).recovered


async def test_a_job_taken_over_meanwhile_is_not_given_back_by_us(bench: Bench):
    claimed = await bench.claim_one("a")
    bench.runs.end(claimed, OmaError(Code.DATABASE_UNAVAILABLE, "away"))
    await bench.settled(0)
    bench.journal.after_renewal = lambda: bench.journal.take_over("a", "another daemon")
    await bench.worker.renew()
    assert bench.journal.jobs["a"].state is JobState.RUNNING
    assert bench.journal.jobs["a"].lease_owner == "another daemon"
    assert bench.published == []
    assert bench.journal.refused == []


async def test_a_fault_of_ours_parks_the_job_with_an_issue(bench: Bench):
    claimed = await bench.claim_one("a")
    bench.runs.end(claimed, KeyError("nobody foresaw this"))
    await bench.settled(0)
    job = bench.journal.jobs["a"]
    assert job.state is JobState.PARKED
    assert job.error is not None
    assert job.error["code"] == "cleanup_failed"
    (issue,) = bench.journal.issues
    assert job.error["issue_id"] == issue.id
    assert "nobody foresaw this" not in str(job.error)
    (summary,) = bench.journal.summaries
    assert summary is not None
    assert (summary["status"], summary["replica"]) == ("parked", "unknown")
    assert summary["next"] == job.error["next"]
    assert [event.sentence for event in bench.published] == ["IssueOpened", "JobEnded"]


async def test_a_fault_of_ours_names_every_action_whose_end_nobody_saw(bench: Bench):
    """As the journal has them by then; what has ended well is not named."""
    claimed = await bench.claim_one("a")
    target = Target(volume_id="v-1", volume_name="disk-1", vm_id="vm-1")
    words: dict[str, Any] = {"job_id": "a", "phase": Phase.DETACH, "kind": ActionKind.DETACH_VOLUME, "target": target}
    states = {"begun": ActionState.STARTED, "failed": ActionState.EXECUTION_FAILED, "done": ActionState.EXECUTED}
    bench.journal.actions = [
        Action(id=name, seq=seq, state=state, **words) for seq, (name, state) in enumerate(states.items(), 1)
    ]
    bench.runs.end(claimed, KeyError("nobody foresaw this"))
    await bench.settled(0)
    fault, *named = bench.journal.issues
    assert (fault.kind, fault.action_id) == ("internal_error", None)
    assert [(one.kind, one.action_id) for one in named] == [("detach_volume", "begun"), ("detach_volume", "failed")]
    assert all(one.guidance and one.target["volume_id"] == "v-1" for one in named)
    error = bench.journal.jobs["a"].error
    assert error is not None
    assert error["issue_ids"] == [one.id for one in (fault, *named)]


async def test_a_fault_while_the_database_is_away_is_met_again_and_parked_then(bench: Bench):
    claimed = await bench.claim_one("a")
    bench.journal.down = True
    bench.runs.end(claimed, KeyError("x"))
    await bench.settled(0)
    bench.journal.down = False
    await bench.worker.renew()
    assert bench.journal.jobs["a"].state is JobState.QUEUED


async def test_a_drain_waits_for_the_safe_point(bench: Bench):
    claimed = await bench.claim_one("a")
    drained = asyncio.create_task(bench.worker.drain(5))
    await asyncio.sleep(0)
    bench.journal.add("b")
    assert await bench.worker.claim() is None
    bench.runs.end(claimed)
    assert await drained == "1 of 1 runs reached a safe point."
    assert bench.journal.jobs["b"].state is JobState.QUEUED


async def test_a_run_that_is_too_late_gives_its_lease_back(bench: Bench):
    await bench.claim_one("a")
    assert await bench.worker.drain(0) == "0 of 1 runs reached a safe point."
    assert bench.runs.cancelled == ["a/1"]
    assert (bench.journal.jobs["a"].state, bench.journal.jobs["a"].lease_owner) == (JobState.QUEUED, None)


async def test_a_drain_with_the_database_away_ends_all_the_same(bench: Bench):
    await bench.claim_one("a")
    bench.journal.down = True
    assert await bench.worker.drain(0) == "0 of 1 runs reached a safe point."


async def test_an_idle_worker_drains_at_once(bench: Bench):
    assert await bench.worker.drain(0) == "No job was running."


async def test_a_run_that_cannot_be_read_any_more_keeps_no_other_from_being_given_back(bench: Bench):
    torn, whole = await bench.claim_one("a"), await bench.claim_one("b")
    bench.journal.torn = {"a"}
    for claimed in (torn, whole):
        bench.runs.end(claimed, OmaError(Code.INTERNAL_ERROR, "broken off"))
    await bench.settled(0)
    await bench.worker.renew()
    assert {name: job.state for name, job in bench.journal.jobs.items()} == dict.fromkeys("ab", JobState.QUEUED)


async def test_a_lost_run_that_cannot_be_read_is_ended_and_so_are_the_others(bench: Bench):
    await bench.claim_one("a")
    await bench.claim_one("b")
    bench.journal.torn = {"a"}
    for job_id in "ab":
        bench.journal.take_over(job_id, "another daemon")
    await bench.worker.renew()
    assert bench.runs.cancelled == ["a/1", "b/2"]


async def test_a_drain_takes_the_claim_that_is_under_way_with_it(bench: Bench):
    bench.journal.add("a")
    bench.journal.claim_gate = asyncio.Event()
    claiming = asyncio.create_task(bench.worker.claim())
    await asyncio.sleep(0)
    draining = asyncio.create_task(bench.worker.drain(5))
    await asyncio.sleep(0)
    bench.journal.claim_gate.set()
    claimed = await asyncio.wait_for(bench.runs.begun.get(), 5)
    bench.runs.end(claimed)
    await claiming
    assert await draining == "1 of 1 runs reached a safe point."
