"""Leases of a daemon that is known to be dead run out at once, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from oma.domain.changes import Noted
from oma.domain.errors import LeaseLost
from oma.domain.states import LogLevel, Phase
from oma.store.supervision import SqlSupervision
from tests.contract.store.conftest import Store
from tests.contract.store.test_leases import claim, queue
from tests.contract.store.world import NOW

pytestmark = pytest.mark.rule("6-one-run")


async def test_only_holders_of_living_leases_are_owners(store: Store) -> None:
    peers = SqlSupervision(store.door)
    await queue(store, "a", "b", "c")
    assert await peers.list_owners() == []
    await claim(store, "oma-2")
    await claim(store, "oma-1")
    await claim(store, "oma-0", lease_s=-5.0)

    assert await peers.list_owners() == ["oma-1", "oma-2"]


async def test_the_jobs_of_the_dead_are_free_at_once_and_counted_as_taken_over(store: Store, other: Store) -> None:
    peers = SqlSupervision(other.door)
    await queue(store, "a", "b", "c")
    dead = [await claim(store, "oma-1"), await claim(store, "oma-1")]
    living = await claim(store, "oma-2")
    assert await other.journal.claim_job("oma-3", 30) is None

    assert await peers.end_leases("oma-1") == 2

    again = [await claim(other, "oma-3"), await claim(other, "oma-3")]
    assert {one.job.id for one in again} == {one.job.id for one in dead}
    assert all(one.recovered and one.recoveries == 1 for one in again)
    assert await other.journal.claim_job("oma-3", 30) is None
    assert await peers.list_owners() == ["oma-2", "oma-3"]
    assert await peers.end_leases("oma-1") == 0, "a second time finds nothing"
    await store.journal.apply(living.lease, [Noted(LogLevel.INFO, "Still here.", Phase.DETACH)], NOW)
    with pytest.raises(LeaseLost):
        await store.journal.apply(dead[0].lease, [Noted(LogLevel.INFO, "Not dead?", Phase.DETACH)], NOW)


async def test_claims_that_share_a_commit_take_different_jobs(store: Store) -> None:
    names = [f"vm-{number:02}" for number in range(8)]
    await queue(store, *names)

    claims = await asyncio.gather(*(store.journal.claim_job("oma-1", 30) for _ in range(10)))

    taken = [one for one in claims if one is not None]
    assert sorted(one.job.vm_name for one in taken) == names
    assert len({one.lease.fence for one in taken}) == len(names)
