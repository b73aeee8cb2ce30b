"""The epoch of a database, and what is parked while it is older than the world; on both servers."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from database.tables import job_tracking, oma_audit, oma_events, oma_issues, oma_jobs, oma_sequences
from oma.domain.actions import ActionKind, Target
from oma.domain.audit import AuditAction
from oma.domain.changes import ActionEnded, ActionStarted, JobEnded
from oma.domain.epochs import FENCE_STRIDE, Older, Witness
from oma.domain.errors import Code, ConcurrentChange, LeaseLost, OmaError
from oma.domain.events import EventType
from oma.domain.issues import DATABASE_OLDER, UNBELIEVABLE, Issue
from oma.domain.jobs import Job
from oma.domain.leaks import LeakKind
from oma.domain.states import ActionState, JobState
from oma.store.epoch_store import SqlEpochs
from oma.store.leases import lock_leased_job
from oma.store.sequences import EVENTS, take_numbers
from tests.contract.store.conftest import Store, open_store
from tests.contract.store.world import build_action, build_issue, build_queued
from tests.mariadb import MariaDb

WAITERS = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
DEADLOCKS = "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLDER = Older("The database is older than the world.", (Witness("the state directory", "oma:9", 70),))


def common(cause: str = "database/older") -> Issue:
    return replace(
        build_issue(None, cause=cause), action_id=None, context_id=None, vm_name="all VMs", kind=DATABASE_OLDER
    )


def own(job: Job) -> Issue:
    issue = build_issue(job.id, job.vm_name, f"{job.id}/restored")
    return replace(issue, id=f"own-{job.id}"[:64], action_id=None, context_id=job.context_id, kind="restored_database")


async def test_the_first_start_begins_at_one_and_each_adds_one(store: Store, other: Store) -> None:
    assert (await SqlEpochs(store.door).read()).number == 0
    assert await SqlEpochs(store.door).raise_epoch("oma", "a", AT) == 1
    assert await SqlEpochs(other.door).raise_epoch("oma", "b", AT) == 2
    assert (await SqlEpochs(store.door).read()).number == 2


async def test_all_in_flight_is_parked_once_and_nothing_is_claimed(store: Store, other: Store) -> None:
    await store.seed("one", "two")
    running = await store.journal.queue_job(build_queued("one"))
    queued = await store.journal.queue_job(build_queued("two"))
    claimed = await store.journal.claim_job("a", 30)
    assert claimed is not None
    epochs = SqlEpochs(store.door, store.announced.extend)
    issue_id = await epochs.mark_older(OLDER, common(), AT)
    assert {row["state"] for row in await store.rows(oma_jobs)} == {"parked"}
    for job in (running, queued):
        (row,) = await store.rows(oma_jobs, id=job.id)
        assert (row["error"]["issue_id"], row["lease_owner"]) == (issue_id, None)
        (log,) = await store.rows(job_tracking, id=job.id)
        assert log["status"] == "failed"
        assert log["error_message"].startswith("parked: ")
    await store.seed("three")
    late = await store.journal.queue_job(build_queued("three"))
    assert await other.journal.claim_job("b", 30) is None, "also what was queued by somebody who had not heard of it"
    await epochs.mark_older(OLDER, common(), AT)
    (row,) = await store.rows(oma_jobs, id=late.id)
    assert row["state"] == "parked"
    with pytest.raises(LeaseLost):
        await store.journal.apply(claimed.lease, (), AT)
    events = len(await store.rows(oma_events))
    assert await epochs.mark_older(OLDER, replace(common(), id="another"), AT) == issue_id
    assert len(await store.rows(oma_events)) == events, "found again, nothing new is told"
    assert len(await store.rows(oma_issues)) == 1
    with pytest.raises(OmaError) as error:
        await epochs.raise_epoch("oma", "a", AT)
    assert error.value.code is Code.DATABASE_OLDER_THAN_WORLD


async def test_accepted_it_goes_on_above_all_that_was_seen(store: Store) -> None:
    await store.seed("one")
    job = await store.journal.queue_job(build_queued("one"))
    epochs = SqlEpochs(store.door)
    issue_id = await epochs.mark_older(OLDER, common(), AT)
    assert await epochs.accept("looked at it", "cli:root", own, AT) == (9, 1)
    assert await epochs.raise_epoch("oma", "a", AT) == 10
    (fence,) = await store.rows(oma_sequences, name="fence")
    assert fence["value"] >= FENCE_STRIDE
    assert (await epochs.read()).written >= 70, "the witness is not ahead of it any more"
    (settled,) = await store.rows(oma_issues, id=issue_id)
    assert (settled["state"], settled["resolution"], settled["actor"]) == ("resolved", "ACCEPTED", "cli:root")
    (parked,) = await store.rows(oma_jobs, id=job.id)
    assert (parked["state"], parked["error"]["issue_id"]) == ("parked", f"own-{job.id}"[:64])
    audited = [row["action"] for row in await store.rows(oma_audit)]
    wanted = (AuditAction.DATABASE_OLDER, AuditAction.RUN_PARKED, AuditAction.RESTORE_ACCEPTED)
    assert audited[-3:] == [one.value for one in wanted]
    with pytest.raises(OmaError):
        await epochs.accept("again", "cli:root", own, AT)


async def test_the_issue_of_a_run_names_what_it_had_begun_by_the_copy(store: Store) -> None:
    await store.seed("one")
    job = await store.journal.queue_job(build_queued("one"))
    claimed = await store.journal.claim_job("a", 30)
    assert claimed is not None
    begun, over = build_action(job.id), replace(build_action(job.id), id="over", seq=2)
    await store.journal.apply(claimed.lease, (ActionStarted(begun, "on"), ActionStarted(over, "off")), AT)
    await store.journal.apply(claimed.lease, (ActionEnded(over.id, ActionState.EXECUTED, "It is off."),), AT)
    epochs = SqlEpochs(store.door)
    await epochs.mark_older(OLDER, common(), AT)
    await epochs.accept("looked at it", "cli:root", own, AT)
    (issue,) = await store.rows(oma_issues, job_id=job.id)
    assert issue["evidence"]["action_ids"] == [begun.id]
    assert issue["evidence"]["uncertain"] == [f"{begun.words} is STARTED"]


async def test_a_marker_is_taken_off_after_the_end_of_its_run_and_only_then(store: Store) -> None:
    await store.seed("one")
    job = await store.journal.queue_job(build_queued("one"))
    claimed = await store.journal.claim_job("a", 30)
    assert claimed is not None
    action = replace(build_action(job.id), kind=ActionKind.CLEAR_MARKER, target=Target(volume_ids=("v",)), intent_at=AT)
    ended = ActionEnded(action.id, ActionState.EXECUTED, "It is off.")
    later = AT + timedelta(minutes=2)
    await store.journal.apply(claimed.lease, (ActionStarted(action, "off"),), AT)
    assert await store.journal.list_unmarkings(later) == []
    with pytest.raises(ConcurrentChange):
        await store.journal.end_unmarking(job.id, ended, "j-1", later)
    await store.journal.apply(claimed.lease, (JobEnded(JobState.CANCELLED, "over", error={"detail": "x"}),), AT)
    assert await store.journal.list_unmarkings(AT) == [], "not before its time"
    assert [one.id for one in await store.journal.list_unmarkings(later)] == [action.id]
    await store.journal.end_unmarking(job.id, ended, "j-1", later)
    await store.journal.end_unmarking(job.id, ended, "j-1", later)
    (done,) = [one for one in await store.reader.list_actions(job.id) if one.id == action.id]
    assert (done.state, done.remote_id) == (ActionState.EXECUTED, "j-1")
    assert await store.journal.list_unmarkings(later) == []


async def test_a_marker_that_stays_is_tracked_as_a_leak_once(store: Store) -> None:
    await store.seed("one")
    job = await store.journal.queue_job(build_queued("one"))
    claimed = await store.journal.claim_job("a", 30)
    assert claimed is not None
    action = replace(build_action(job.id), kind=ActionKind.CLEAR_MARKER, target=Target(volume_ids=("v",)), intent_at=AT)
    over = JobEnded(JobState.CANCELLED, "over", error={"detail": "x"})
    await store.journal.apply(claimed.lease, (ActionStarted(action, "off"), over), AT)
    left = ActionEnded(action.id, ActionState.EXECUTION_FAILED, "It stays.")
    await store.journal.end_unmarking(job.id, left, None, AT)
    await store.journal.end_unmarking(job.id, left, None, AT)
    (leak,) = await store.reader.list_leaks(job_id=job.id)
    assert (leak.kind, leak.target["volume_ids"], leak.sentence) == (LeakKind.MARKER_KEPT, ["v"], "It stays.")
    told = [one.type for one in store.announced if one.job_id == job.id][-2:]
    assert told == [EventType.ACTION_FAILED, EventType.LEAK_TRACKED]
    assert await store.journal.list_unmarkings(AT + timedelta(days=1)) == []


async def test_a_run_that_cannot_be_read_keeps_none_of_the_others_from_being_parked(store: Store) -> None:
    await store.seed("one", "two", "three")
    torn = await store.journal.queue_job(build_queued("one"))
    whole = await store.journal.queue_job(build_queued("two"))
    later = await store.journal.queue_job(build_queued("three"))
    await spoil(store, torn.id)
    epochs = SqlEpochs(store.door)
    issue_id = await epochs.mark_older(OLDER, common(), AT)
    assert {row["id"]: row["state"] for row in await store.rows(oma_jobs)} == dict.fromkeys(
        (torn.id, whole.id, later.id), "parked"
    )
    await spoil(store, later.id)
    assert await epochs.accept("looked at it", "cli:root", own, AT) == (9, 1), "the door out stands open"
    found = {row["job_id"]: row["kind"] for row in await store.rows(oma_issues) if row["id"] != issue_id}
    assert found == {torn.id: UNBELIEVABLE, later.id: UNBELIEVABLE, whole.id: "restored_database"}


async def spoil(store: Store, job_id: str) -> None:
    """What a half-restored table leaves."""
    await store.sql(f"UPDATE oma_jobs SET plan = '[]' WHERE id = '{job_id}'")


@pytest.mark.mariadb
async def test_what_runs_and_what_parks_it_wait_for_each_other_in_one_order(
    mariadb_empty: str, mariadb_server: MariaDb
) -> None:
    store, other = await open_store(mariadb_empty), await open_store(mariadb_empty)

    def ask(query: str) -> int:
        return int(str(mariadb_server.execute(query)[0][-1]))

    try:
        await store.seed("one")
        await store.journal.queue_job(build_queued("one"))
        claimed = await store.journal.claim_job("a", 30)
        assert claimed is not None
        lease, loop, before = claimed.lease, asyncio.get_running_loop(), ask(DEADLOCKS)
        parking: list[Future[str]] = []

        def go_on(connection: Connection) -> None:
            lock_leased_job(connection, lease)
            if not parking:
                marked = SqlEpochs(other.door).mark_older(OLDER, common(), AT)
                parking.append(asyncio.run_coroutine_threadsafe(marked, loop))
                while not ask(WAITERS):
                    pass
            take_numbers(connection, EVENTS)

        await store.door.write(go_on)
        assert await asyncio.wrap_future(parking[0])
        assert ask(DEADLOCKS) == before
        (row,) = await store.rows(oma_jobs)
        assert row["state"] == "parked"
        assert row["lease_fence"] > lease.fence, "whoever runs it has lost it"
    finally:
        await store.door.close()
        await other.door.close()
