"""A job that takes daemons with it is told from those that only died with it: suspects are tried few at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from database.tables import oma_jobs
from oma.domain.changes import JobReleased, StepStarted
from oma.domain.jobs import ClaimedJob
from oma.domain.states import Phase
from tests.contract.store.conftest import Store
from tests.contract.store.test_leases import queue
from tests.contract.store.world import NOW

LEASE_S = 30.0


async def claim_all(store: Store) -> dict[str, ClaimedJob]:
    """By VM, in the order in which they were to be had."""
    found: dict[str, ClaimedJob] = {}
    while (claimed := await store.journal.claim_job("oma-1", LEASE_S)) is not None:
        found[claimed.job.vm_name] = claimed
    return found


async def die(store: Store, *, after_s: float = 0.0) -> None:
    """The daemon dies so long after it claimed what it holds: its leases were renewed until then, and have run out."""
    for row in await store.rows(oma_jobs, state="running"):
        tried = (row["request"].get("recoveries") or {}).get("tried_at")
        died_at = (datetime.fromisoformat(tried) if tried else NOW) + timedelta(seconds=after_s)
        await _write(store, row["id"], lease_until=died_at - timedelta(days=1) + timedelta(seconds=LEASE_S))
        request = row["request"]
        if tried:
            moved = (datetime.fromisoformat(tried) - timedelta(days=1)).isoformat()
            request = {**request, "recoveries": {**request["recoveries"], "tried_at": moved}}
        await _write(store, row["id"], request=request)


async def _write(store: Store, job_id: str, **values: object) -> None:
    await store.door.write(
        lambda connection: connection.execute(update(oma_jobs).where(oma_jobs.c.id == job_id).values(**values))
    )


async def counts(store: Store) -> dict[str, int]:
    return {name: claimed.recoveries for name, claimed in (await claim_all(store)).items()}


async def suspects(store: Store, *names: str) -> None:
    """Jobs that four daemons in a row have died over; the fifth has claimed what it may."""
    await queue(store, *names)
    await claim_all(store)
    for times in range(1, 5):
        await die(store)
        assert await counts(store) == dict.fromkeys(names, times)
    await die(store)


async def test_jobs_that_died_together_often_are_tried_one_by_one(store: Store) -> None:
    await suspects(store, "a", "b", "c")
    assert await counts(store) == {"a": 5}
    assert await counts(store) == {}


async def test_whoever_is_tried_alone_and_dies_is_counted_alone(store: Store) -> None:
    await suspects(store, "a", "b")
    assert await counts(store) == {"a": 5}
    await die(store)
    assert await counts(store) == {"a": 6}


async def test_a_job_that_was_never_suspected_waits_for_none_of_them(store: Store) -> None:
    await suspects(store, "a", "b")
    await queue(store, "new")
    assert await counts(store) == {"a": 5, "new": 0}


async def test_a_trial_ends_with_the_lease_and_the_next_suspect_has_its_turn(store: Store) -> None:
    await suspects(store, "a", "b")
    (tried,) = (await claim_all(store)).values()
    row = (await store.rows(oma_jobs, id=tried.job.id))[0]
    began = datetime.fromisoformat(row["request"]["recoveries"]["tried_at"]) - timedelta(seconds=LEASE_S + 1)
    recoveries = {**row["request"]["recoveries"], "tried_at": began.isoformat()}
    await _write(store, tried.job.id, request={**row["request"], "recoveries": recoveries})
    assert await counts(store) == {"b": 5}


async def test_a_daemon_that_dies_long_after_it_took_a_job_did_not_die_of_it(store: Store) -> None:
    await queue(store, "a")
    await claim_all(store)
    await die(store)
    assert await counts(store) == {"a": 1}
    for _ in range(3):
        await die(store, after_s=20 * LEASE_S)
        assert await counts(store) == {"a": 1}


async def test_one_that_takes_its_time_over_it_is_found_out_all_the_same(store: Store) -> None:
    await queue(store, "a")
    await claim_all(store)
    found: list[int] = []
    for _ in range(12):
        await die(store, after_s=4 * LEASE_S)
        found += (await counts(store)).values()
    assert max(found) > 5


@pytest.mark.parametrize("damage", [{"outlived": 5000}, {"tried_at": "9999-12-31T23:59:59+00:00"}, {"tried_at": 7}])
async def test_one_whose_trial_makes_no_sense_stops_no_claim(store: Store, damage: dict[str, Any]) -> None:
    await suspects(store, "a", "b")
    (tried,) = (await claim_all(store)).values()
    (row,) = await store.rows(oma_jobs, id=tried.job.id)
    recoveries = {**row["request"]["recoveries"], **damage}
    await _write(store, tried.job.id, request={**row["request"], "recoveries": recoveries})
    await queue(store, "new")
    assert (await counts(store))["new"] == 0


async def test_a_trial_that_was_outlived_very_often_is_bounded(store: Store) -> None:
    await suspects(store, "a")
    (row,) = await store.rows(oma_jobs)
    recoveries = {**row["request"]["recoveries"], "outlived": 5000}
    await _write(store, row["id"], request={**row["request"], "recoveries": recoveries})
    assert await counts(store) == {"a": 5}


async def test_a_step_forward_clears_the_suspicion(store: Store) -> None:
    await suspects(store, "a", "b")
    (tried,) = (await claim_all(store)).values()
    await store.journal.apply(tried.lease, [StepStarted(Phase.DETACH, "Detaching.")], NOW)
    await die(store)
    assert (await counts(store))["a"] == 1


async def test_a_suspect_that_was_given_back_is_tried_anew(store: Store) -> None:
    await suspects(store, "a")
    (tried,) = (await claim_all(store)).values()
    await die(store, after_s=20 * LEASE_S)
    (tried,) = (await claim_all(store)).values()
    await store.journal.apply(tried.lease, [JobReleased("Stopped.")], NOW)
    assert await counts(store) == {"a": 5}
    await die(store)
    assert await counts(store) == {"a": 6}
