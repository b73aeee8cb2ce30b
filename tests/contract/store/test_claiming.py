"""Many claims at once are one transaction; it goes past jobs that can't be had, whatever page they stand on."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from database.tables import job_tracking, log_events, oma_jobs
from oma.domain.jobs import ClaimedJob
from oma.domain.states import JobState
from oma.store.leases import CANDIDATES
from tests.contract.store.conftest import Store
from tests.contract.store.test_leases import queue

NAMES = [f"vm-{number:03}" for number in range(CANDIDATES + 10)]


async def claim(store: Store, wanted: int) -> list[ClaimedJob]:
    answers = await asyncio.gather(*(store.journal.claim_job("oma-1", 30.0) for _ in range(wanted)))
    return [one for one in answers if one is not None]


async def test_more_than_a_page_is_claimed_together_oldest_first(store: Store) -> None:
    await queue(store, *NAMES)

    first = await claim(store, CANDIDATES + 3)
    rest = await claim(store, CANDIDATES)

    assert [one.job.vm_name for one in (*first, *rest)] == NAMES
    fences = [one.lease.fence for one in (*first, *rest)]
    assert fences == sorted(set(fences))
    assert {row["state"] for row in await store.rows(oma_jobs)} == {JobState.RUNNING.value}
    assert {row["lease_fence"] for row in await store.rows(oma_jobs)} == set(fences)


async def test_each_is_told_of_in_the_joblog_and_in_the_order_of_the_events(store: Store) -> None:
    await queue(store, "a", "b", "c")

    claimed = await claim(store, 5)

    assert [one.job.vm_name for one in claimed] == ["a", "b", "c"]
    for one in claimed:
        (row,) = await store.rows(job_tracking, id=one.job.id)
        assert (row["status"], row["started_at"]) == ("running", one.job.started_at)
        lines = [line["message"] for line in await store.rows(log_events, job_id=one.job.id)]
        assert lines[-1] == f"oma-1 began the clean-up of {one.job.vm_name}."
    events = [event for event in await store.reader.list_events(0, None, 100) if event.type.value == "job_started"]
    assert [event.job_id for event in events] == [one.job.id for one in claimed]


async def test_one_that_cannot_be_read_is_parked_and_the_others_are_claimed(store: Store) -> None:
    await queue(store, *NAMES[:6])
    bad = "UPDATE oma_jobs SET plan = '{}' WHERE vm_name IN ('vm-001', 'vm-004')"
    await store.door.write(lambda connection: connection.execute(text(bad)))

    claimed = await claim(store, 10)

    assert [one.job.vm_name for one in claimed] == ["vm-000", "vm-002", "vm-003", "vm-005"]
    parked = {row["vm_name"] for row in await store.rows(oma_jobs, state="parked")}
    assert parked == {"vm-001", "vm-004"}
