"""Who works on a job: claims, fences, leases that run out by the database's clock."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from database.tables import job_tracking, log_events, oma_events, oma_jobs
from oma.domain.changes import ActionStarted, JobEnded, JobReleased, Noted, StepStarted
from oma.domain.errors import LeaseLost
from oma.domain.events import EventType
from oma.domain.jobs import ClaimedJob, Lease
from oma.domain.states import JobState, LogLevel, Phase
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_action, build_queued, uid

pytestmark = pytest.mark.rule("6-one-run")

EXPIRED = -5.0
"""A lease that has run out when it is given."""


async def queue(store: Store, *names: str) -> None:
    for place, name in enumerate(names):
        await store.seed(name)
        at = NOW.replace(minute=place)
        await store.journal.queue_job(build_queued(name, at=at))


async def claim(store: Store, owner: str = "oma-1", lease_s: float = 30.0) -> ClaimedJob:
    claimed = await store.journal.claim_job(owner, lease_s)
    assert claimed is not None
    return claimed


async def test_the_oldest_job_is_claimed_first_and_none_is_none(store: Store) -> None:
    await queue(store, "a", "b")

    first, second = await claim(store), await claim(store)

    assert [first.job.vm_name, second.job.vm_name] == ["a", "b"]
    assert second.lease.fence > first.lease.fence
    assert not first.recovered
    assert (first.steps, first.actions) == ((), ())
    assert await store.journal.claim_job("oma-1", 30) is None


async def test_a_claim_begins_the_job_and_tells_it(store: Store) -> None:
    await queue(store, "a")

    claimed = await claim(store)

    assert claimed.job.state is JobState.RUNNING
    assert (claimed.job.lease_owner, claimed.job.lease_fence) == ("oma-1", claimed.lease.fence)
    assert claimed.job.started_at is not None
    (tracked,) = await store.rows(job_tracking, id=claimed.job.id)
    assert tracked["status"] == "running"
    assert tracked["started_at"] == claimed.job.started_at
    assert [event.type for event in store.announced] == [EventType.JOB_QUEUED, EventType.JOB_STARTED]
    assert await store.reader.list_events(0, claimed.job.id, 10) == store.announced


async def test_a_running_lease_is_not_taken(store: Store, other: Store) -> None:
    await queue(store, "a")
    await claim(store)

    assert await other.journal.claim_job("oma-2", 30) is None


async def test_a_lease_that_ran_out_is_taken_over_with_all_that_was_journaled(store: Store, other: Store) -> None:
    await queue(store, "a")
    old = await claim(store, lease_s=EXPIRED)
    action = build_action(old.job.id)
    await store.journal.apply(
        old.lease, [StepStarted(Phase.DETACH, "Detaching."), ActionStarted(action, "Detach.")], NOW
    )

    new = await claim(other, "oma-2")

    assert new.job.id == old.job.id
    assert new.lease.fence > old.lease.fence
    assert new.recovered
    assert [step.phase for step in new.steps] == [Phase.DETACH]
    assert [found.id for found in new.actions] == [action.id]
    assert new.job.started_at == old.job.started_at


async def test_a_stale_fence_writes_nothing(store: Store, other: Store) -> None:
    await queue(store, "a")
    old = await claim(store, lease_s=EXPIRED)
    new = await claim(other, "oma-2")
    before = await store.reader.last_event_seq()

    with pytest.raises(LeaseLost):
        await store.journal.apply(
            old.lease,
            [Noted(LogLevel.INFO, "I am still here"), JobEnded(JobState.COMPLETED, "Done.")],
            NOW,
        )

    job = await store.reader.find_job(new.job.id)
    assert job is not None
    assert (job.state, job.lease_owner) == (JobState.RUNNING, "oma-2")
    assert await store.reader.last_event_seq() == before
    lines = await store.rows(log_events, job_id=job.id)
    assert "I am still here" not in [line["message"] for line in lines]


@pytest.mark.parametrize("change", ["owner", "fence", "job"])
async def test_every_part_of_the_lease_counts(store: Store, change: str) -> None:
    await queue(store, "a")
    lease = (await claim(store)).lease
    wrong = {
        "owner": Lease(lease.job_id, "OMA-1", lease.fence),
        "fence": Lease(lease.job_id, lease.owner, lease.fence + 1),
        "job": Lease(uid("nobody"), lease.owner, lease.fence),
    }[change]

    with pytest.raises(LeaseLost):
        await store.journal.apply(wrong, [Noted(LogLevel.INFO, "hello")], NOW)


async def test_who_ended_or_released_a_job_holds_it_no_longer(store: Store) -> None:
    await queue(store, "a", "b")
    first, second = await claim(store), await claim(store)
    await store.journal.apply(first.lease, [JobEnded(JobState.COMPLETED, "Done.")], NOW)
    await store.journal.apply(second.lease, [JobReleased("The daemon stops.")], NOW)

    for lease in (first.lease, second.lease):
        with pytest.raises(LeaseLost):
            await store.journal.apply(lease, [Noted(LogLevel.INFO, "hello")], NOW)


async def test_a_released_job_goes_back_to_the_queue_and_is_gone_on_with(store: Store) -> None:
    await queue(store, "a")
    first = await claim(store)
    await store.journal.apply(first.lease, [JobReleased("The daemon stops.")], NOW)
    job = await store.reader.find_job(first.job.id)
    assert job is not None
    assert (job.state, job.lease_owner) == (JobState.QUEUED, None)
    (tracked,) = await store.rows(job_tracking, id=job.id)
    assert tracked["status"] == "pending"

    again = await claim(store, "oma-2")

    assert again.recovered
    assert again.lease.fence > first.lease.fence


async def test_renewing_prolongs_the_owners_leases_only(store: Store, other: Store) -> None:
    await queue(store, "a", "b", "c")
    lost = await claim(store, lease_s=EXPIRED)
    theirs = await claim(other, "oma-2")
    assert theirs.job.id == lost.job.id
    mine = [await claim(store), await claim(store)]

    held = await store.journal.renew_leases("oma-1", 60)

    assert list(held) == [claimed.job.id for claimed in mine]
    assert await other.journal.renew_leases("oma-2", 60) == [theirs.job.id]
    assert await other.journal.renew_leases("oma-3", 60) == []


async def test_a_lease_that_ran_out_untaken_can_be_renewed(store: Store, other: Store) -> None:
    await queue(store, "a")
    claimed = await claim(store, lease_s=EXPIRED)

    assert await store.journal.renew_leases("oma-1", 60) == [claimed.job.id]
    assert await other.journal.claim_job("oma-2", 30) is None
    await store.journal.apply(claimed.lease, [Noted(LogLevel.INFO, "on")], NOW)


async def test_two_daemons_that_claim_at_once_never_share_a_job(store: Store, other: Store) -> None:
    names = [f"vm-{number}" for number in range(12)]
    await queue(store, *names)

    async def claim_all(side: Store, owner: str) -> list[ClaimedJob]:
        claimed: list[ClaimedJob] = []
        while (one := await side.journal.claim_job(owner, 30)) is not None:
            claimed.append(one)
        return claimed

    mine, theirs = await asyncio.gather(claim_all(store, "oma-1"), claim_all(other, "oma-2"))

    jobs = [claimed.job.id for claimed in (*mine, *theirs)]
    fences = [claimed.lease.fence for claimed in (*mine, *theirs)]
    assert sorted(jobs) == sorted(uid("job", name) for name in names)
    assert len(set(fences)) == len(fences)


async def test_events_of_two_daemons_are_numbered_in_the_order_of_their_commits(store: Store, other: Store) -> None:
    await queue(store, "a", "b")
    first, second = await claim(store), await claim(other, "oma-2")
    seen: list[int] = []
    done = asyncio.Event()

    async def write(side: Store, lease: Lease) -> list[int]:
        mine: list[int] = []
        for number in range(20):
            events = await side.journal.apply(
                lease, [Noted(LogLevel.INFO, f"{number}a"), Noted(LogLevel.INFO, f"{number}b")], NOW
            )
            mine += [event.seq for event in events]
        return mine

    async def follow() -> None:
        last = 0
        while True:
            ended = done.is_set()
            for event in await store.reader.list_events(last, None, 1000):
                last = event.seq
                seen.append(event.seq)
            if ended:
                return

    follower = asyncio.create_task(follow())
    mine, theirs = await asyncio.gather(write(store, first.lease), write(other, second.lease))
    done.set()
    await follower

    assert mine == sorted(mine)
    assert theirs == sorted(theirs)
    assert not set(mine) & set(theirs)
    # A follower that asks only for what comes after its last number has missed none.
    assert seen == await store.door.read(
        lambda connection: list(connection.execute(select(oma_events.c.seq).order_by(oma_events.c.seq)).scalars())
    )


async def test_the_fence_of_a_later_job_is_higher_whatever_job_it_is(store: Store) -> None:
    """The Volume Daemon compares the fences of different jobs on one volume."""
    await queue(store, "a")
    first = await claim(store)
    await store.journal.apply(first.lease, [JobReleased("stop")], NOW)
    again = await claim(store)
    await store.journal.apply(again.lease, [JobEnded(JobState.FAILED, "no")], NOW)
    await queue(store, "b")

    assert (await claim(store)).lease.fence > again.lease.fence
    stored = await store.rows(oma_jobs, id=first.job.id)
    assert stored[0]["lease_owner"] is None
