"""Pauses: written once with their audit, kept for the next daemon, and heeded by every claim and every new job."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from database.tables import oma_audit, oma_controls, oma_issues, oma_jobs
from oma.domain.changes import JobReleased
from oma.domain.controls import ControlChange, PauseSubject, Scope
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.issues import JOB_STUCK, MOOT, Issue
from oma.domain.jobs import OPERATION
from oma.domain.states import JobState
from oma.store import SqlSupervision
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_issue, build_queued, context_id, uid

ALL = PauseSubject(Scope.ALL)
CLEANUPS = PauseSubject(Scope.OPERATION, OPERATION)
A = PauseSubject(Scope.VM, context_id("a"), "a")
B = PauseSubject(Scope.VM, context_id("b"), "b")
WIDE = "the array reboots; \u00e9\u00df\u6f22 \U0001f9ea"


def change(what: PauseSubject, reason: str | None = WIDE, at: datetime = NOW) -> ControlChange:
    return ControlChange(what, "operator", reason, at, "corr-1")


def supervise(store: Store) -> SqlSupervision:
    return SqlSupervision(store.door, store.announced.extend)


async def queue(store: Store, *names: str) -> None:
    for place, name in enumerate(names):
        await store.seed(name)
        await store.journal.queue_job(build_queued(name, at=NOW.replace(minute=place)))


async def claimed_names(store: Store) -> list[str]:
    found = []
    while (claimed := await store.journal.claim_job("oma-1", 30)) is not None:
        found.append(claimed.job.vm_name)
    return found


async def test_a_pause_is_kept_audited_and_told(store: Store, other: Store) -> None:
    made = await supervise(store).pause(change(A))

    assert await supervise(other).list_pauses() == [made]
    assert (made.reason, made.actor, made.since) == (WIDE, "operator", NOW)
    (entry,) = await store.rows(oma_audit)
    assert (entry["action"], entry["decision"], entry["context_id"]) == ("paused", "vm", context_id("a"))
    assert (entry["actor"], entry["reason"], entry["vm_name"]) == ("operator", WIDE, "a")
    assert [(event.type, event.context_id, event.sentence) for event in store.announced] == [
        (EventType.PAUSED, context_id("a"), f"The VM a is paused by operator: {WIDE}")
    ]
    assert await store.reader.list_events(0, None, 10) == store.announced


async def test_pausing_again_takes_the_new_reason_and_keeps_the_beginning(store: Store) -> None:
    await supervise(store).pause(change(ALL))
    later = NOW + timedelta(minutes=1)
    again = await supervise(store).pause(change(ALL, "and the network too", later))

    assert (again.since, again.reason) == (NOW, "and the network too")
    assert await supervise(store).list_pauses() == [again]
    assert len(await store.rows(oma_audit)) == 2


async def test_two_daemons_pause_the_same_at_once(store: Store, other: Store) -> None:
    await asyncio.gather(*(supervise(one).pause(change(ALL)) for one in (store, other, store, other)))

    (row,) = await store.rows(oma_controls)
    assert (row["scope"], row["subject"], row["lifted_at"]) == ("all", "", None)
    assert len(await store.rows(oma_audit)) == 4


async def test_lifting_ends_it_once_and_says_so(store: Store) -> None:
    made = await supervise(store).pause(change(CLEANUPS))
    assert await supervise(store).lift(change(CLEANUPS, None, NOW + timedelta(minutes=1))) == made
    assert await supervise(store).lift(change(CLEANUPS)) is None
    assert await supervise(store).list_pauses() == []
    assert [row["action"] for row in await store.rows(oma_audit)] == ["paused", "pause_lifted"]
    assert store.announced[-1].type is EventType.PAUSE_LIFTED

    again = await supervise(store).pause(change(CLEANUPS, at=NOW + timedelta(minutes=2)))
    assert again.since == NOW + timedelta(minutes=2)
    assert await supervise(store).list_pauses() == [again]


@pytest.mark.parametrize(("what", "left"), [(ALL, []), (CLEANUPS, []), (A, ["b"]), (B, ["a"])])
async def test_what_is_paused_is_not_claimed(store: Store, what: PauseSubject, left: list[str]) -> None:
    await queue(store, "a", "b")
    await supervise(store).pause(change(what))
    assert await claimed_names(store) == left

    await supervise(store).lift(change(what))
    assert await claimed_names(store) == [name for name in ("a", "b") if name not in left]


async def test_a_dead_daemons_job_is_not_taken_over_under_a_pause(store: Store, other: Store) -> None:
    await queue(store, "a")
    assert await store.journal.claim_job("oma-1", -5.0) is not None
    await supervise(store).pause(change(A))
    assert await other.journal.claim_job("oma-2", 30) is None

    await supervise(store).lift(change(A))
    taken = await other.journal.claim_job("oma-2", 30)
    assert taken is not None
    assert taken.recovered


@pytest.mark.parametrize("what", [ALL, CLEANUPS, A])
async def test_no_job_is_queued_under_a_pause(store: Store, what: PauseSubject) -> None:
    await store.seed("a")
    await supervise(store).pause(change(what))

    with pytest.raises(OmaError) as raised:
        await store.journal.queue_job(build_queued("a"))

    assert raised.value.code is Code.PAUSED
    assert WIDE in raised.value.sentence
    assert what.lift_command in raised.value.fields["next"]
    assert raised.value.fields["evidence"]["reason"] == WIDE
    assert await store.rows(oma_jobs) == []


async def test_another_vms_hold_is_nothing_to_this_one(store: Store) -> None:
    await store.seed("a")
    await supervise(store).pause(change(B))
    assert (await store.journal.queue_job(build_queued("a"))).state is JobState.QUEUED


# What the watcher reads and writes


async def test_slow_jobs_are_those_that_nobody_ended_or_paused(store: Store) -> None:
    await queue(store, "a", "b", "c")
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    watch = supervise(store)
    begun = claimed.job.started_at
    assert begun is not None

    slow = await watch.list_slow_jobs(NOW + timedelta(hours=1))
    assert [(one.vm_name, one.state) for one in slow] == [("b", JobState.QUEUED), ("c", JobState.QUEUED)]
    assert [one.since for one in slow] == [NOW.replace(minute=1), NOW.replace(minute=2)]

    await watch.pause(change(B))
    late = begun + timedelta(hours=2)
    assert [one.vm_name for one in await watch.list_slow_jobs(late)] == ["a", "c"]
    await watch.lift(change(B, at=begun + timedelta(hours=1)))
    (_a, held, _c) = await watch.list_slow_jobs(late)
    assert (held.vm_name, held.since) == ("b", begun + timedelta(hours=1))

    released = begun + timedelta(minutes=30)
    await store.journal.apply(claimed.lease, [JobReleased("The daemon drains.")], released)
    (first, *_) = await watch.list_slow_jobs(late)
    assert (first.vm_name, first.state, first.since, first.holder) == ("a", JobState.QUEUED, released, None)


def stuck(cause: str) -> Issue:
    return replace(build_issue(None, "a", cause), id=uid(cause), kind=JOB_STUCK, action_id=None)


async def test_the_watchers_issues_open_once_and_close_themselves(store: Store) -> None:
    await store.seed("a")
    watch = supervise(store)
    assert await watch.settle_watched(JOB_STUCK, [stuck("x"), stuck("y")], [], "It ended.", NOW) == (2, 0)
    known = replace(stuck("x"), id=uid("another id"))
    assert await watch.settle_watched(JOB_STUCK, [known], ["y"], "It ended.", NOW) == (0, 0)
    assert await watch.settle_watched(JOB_STUCK, [], ["y"], "It ended.", NOW) == (0, 1)

    (row,) = await store.rows(oma_issues, id=uid("x"))
    assert (row["state"], row["resolution"], row["notes"], row["open_cause"]) == ("resolved", MOOT, "It ended.", None)
    assert [issue.cause for issue in await store.reader.list_issues()] == ["y"]
    assert [event.type for event in store.announced] == [
        EventType.ISSUE_OPENED,
        EventType.ISSUE_OPENED,
        EventType.ISSUE_RESOLVED,
    ]


async def test_the_watchers_issues_block_no_run_and_leave_other_kinds_alone(store: Store) -> None:
    await store.seed("a")
    watch = supervise(store)
    await watch.settle_watched(JOB_STUCK, [stuck("x")], [], "It ended.", NOW)
    records = await store.inventory.get_records(context_id("a"))
    assert (records.open_issue_ids, records.world_issue_ids) == ((), ())
    await store.journal.close_world_issues(context_id("a"), [], "Gone.", {}, NOW)
    assert [issue.cause for issue in await store.reader.list_issues()] == ["x"]

    assert (await store.journal.queue_job(build_queued("a"))).state is JobState.QUEUED
    with pytest.raises(ValueError, match="no kind"):
        await watch.settle_watched("revert_snapshot", [], [], "It ended.", NOW)
