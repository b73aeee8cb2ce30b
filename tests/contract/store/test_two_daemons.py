"""Two daemons on one database, with the real worker each: a VM is never run by both at once, whoever stands still."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from database.tables import log_events, oma_jobs
from oma.domain.changes import JobEnded, Noted
from oma.domain.errors import LeaseLost
from oma.domain.jobs import ClaimedJob
from oma.domain.states import JobState, LogLevel
from oma.runtime.clock import RandomIds, SystemClock
from oma.runtime.worker import Worker, WorkerPorts
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_queued

pytestmark = pytest.mark.rule("6-one-run")

JOBS = 12
STEPS = 3
LEASE_S = 300.0


class Daemon:
    """One of the two. While it does not `go` it stands as a stopped process does, with its runs in the middle."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.store = store
        self.goes = asyncio.Event()
        self.began: set[str] = set()
        self.standing: set[str] = set()
        self.turned_away: set[str] = set()
        self.wrote: dict[str, list[int]] = defaultdict(list)
        """Job → the fences under which it was written."""
        ports = WorkerPorts(store.journal, store.reader, SystemClock(), RandomIds(), lambda _: None)
        wake = asyncio.Event()
        self.worker = Worker(ports, self.run, owner=name, max_jobs=JOBS // 2, lease_s=LEASE_S, wake=wake)

    async def run(self, claimed: ClaimedJob) -> str:
        """Writes a line, stands until it may go on, writes more and ends the job."""
        lease = claimed.lease
        self.began.add(lease.job_id)
        try:
            for step in range(STEPS):
                line = Noted(LogLevel.INFO, f"{self.name} at fence {lease.fence}, step {step}.")
                await self.store.journal.apply(lease, [line], NOW)
                self.wrote[lease.job_id].append(lease.fence)
                self.standing.add(lease.job_id)
                await self.goes.wait()
            await self.store.journal.apply(lease, [JobEnded(JobState.COMPLETED, "Done.")], NOW)
        except LeaseLost:
            self.turned_away.add(lease.job_id)
            raise
        finally:
            self.standing.discard(lease.job_id)
        return "done"

    async def until_its_runs_stand(self) -> None:
        async with asyncio.timeout(60):
            while len(self.standing) < self.worker.running:  # noqa: ASYNC110  the runs tell nobody
                await asyncio.sleep(0)

    async def until_idle(self) -> None:
        async with asyncio.timeout(60):
            while self.worker.running:  # noqa: ASYNC110  the worker tells the loop that claims
                await asyncio.sleep(0)


async def test_a_job_is_never_written_by_a_daemon_that_lost_it(store: Store, other: Store) -> None:
    names = [f"vm{number}" for number in range(JOBS)]
    await store.seed(*names)
    for name in names:
        await store.journal.queue_job(build_queued(name, at=NOW))
    one, two = Daemon("one", store), Daemon("two", other)

    await asyncio.gather(*(daemon.worker.claim() for daemon in (one, two)))
    await asyncio.gather(*(daemon.until_its_runs_stand() for daemon in (one, two)))
    assert not one.began & two.began, "nobody has what the other has"
    assert len(one.began | two.began) == JOBS

    two.goes.set()
    await two.until_idle()
    assert not two.turned_away
    lost = set(one.began)
    await store.sql("UPDATE oma_jobs SET lease_until = '2000-01-01 00:00:00' WHERE lease_owner = 'one'")
    two.goes.clear()
    await two.worker.claim()
    await two.until_its_runs_stand()
    assert lost < two.began, "the lease of whoever stands still has run out"

    one.goes.set()
    await one.until_idle()
    two.goes.set()
    await two.until_idle()

    assert one.turned_away == lost
    assert all(one.wrote[job_id] == one.wrote[job_id][:1] for job_id in lost), "nothing after it woke"
    states = {row["id"]: row["state"] for row in await store.rows(oma_jobs)}
    assert set(states.values()) == {JobState.COMPLETED.value}
    for job_id in lost:
        assert max(one.wrote[job_id]) < min(two.wrote[job_id])
        lines = [row["message"] for row in await store.rows(log_events, job_id=job_id)]
        assert sum(line.startswith("one at fence") for line in lines) == 1
        assert sum(line.startswith("two at fence") for line in lines) == STEPS
