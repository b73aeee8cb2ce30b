"""What the store tells of life and death: JobLog rows of others, the last run of ours, issues about the world."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from database.tables import failover_jobs, job_steps, job_tracking, log_events, oma_events, oma_issues
from oma.domain.changes import Change, JobEnded, StatusRestored
from oma.domain.errors import OmaError
from oma.domain.events import EventType
from oma.domain.issues import DESTROYED_VM_HOLDS_VOLUME, Issue
from oma.domain.records import NEVER, VmRecords
from oma.domain.states import JobState
from oma.workflow.doubt import earliest
from tests.contract.store.conftest import Store
from tests.contract.store.world import (
    NOW,
    build_issue,
    build_queued,
    context_id,
    failover_id,
    uid,
)

pytestmark = pytest.mark.rule("2-times")

NAME = "pgtest1"


async def records_of(store: Store) -> VmRecords:
    return await store.inventory.get_records(context_id(NAME))


async def add_job(store: Store, job_id: str, **more: Any) -> None:
    values = {
        "id": job_id,
        "job_type": "cleanup",
        "operation": "rollback",
        "status": "running",
        "context_id": context_id(NAME),
        "job_category": "failover",
        "started_at": NOW - timedelta(hours=1),
        **more,
    }
    await store.door.write(lambda connection: connection.execute(insert(job_tracking).values(**values)))


async def test_a_rollback_that_runs_on_the_vm_is_seen_with_its_last_sign(store: Store) -> None:
    await store.seed(NAME, "pgtest2")
    await add_job(store, "rollback-1")
    await add_job(store, "silent")
    line = NOW - timedelta(minutes=3)

    def add(connection: Connection) -> None:
        connection.execute(insert(log_events).values(job_id="rollback-1", level="INFO", message="on", ts=line))
        connection.execute(
            insert(job_steps).values(job_id="rollback-1", name="detach", seq=1, status="failed", started_at=NOW)
        )
        connection.execute(
            update(job_steps).where(job_steps.c.job_id == "rollback-1").values(started_at=line - timedelta(hours=1))
        )

    await store.door.write(add)
    rollback, silent = (await records_of(store)).running_jobs
    assert (rollback.job_id, rollback.operation, rollback.last_activity_at) == ("rollback-1", "rollback", line)
    assert (rollback.step_names, rollback.failed_step_names) == (("detach",), ("detach",))
    assert (silent.job_id, silent.last_activity_at) == ("silent", NOW - timedelta(hours=1))
    assert (await store.inventory.get_records(context_id("pgtest2"))).running_jobs == ()


@pytest.mark.parametrize(
    "row",
    [
        {"status": "completed"},
        {"status": "pending"},
        {"context_id": "ctx-other"},
        {"context_id": None},
        {"job_category": "discovery"},
    ],
)
async def test_what_does_not_run_here_is_not_seen(store: Store, row: dict[str, Any]) -> None:
    await store.seed(NAME)
    await add_job(store, "job-1", **row)
    assert (await records_of(store)).running_jobs == ()


async def test_an_open_failovers_own_row_is_judged_by_it_and_a_closed_ones_is_not(store: Store) -> None:
    await store.seed(NAME)
    assert (await records_of(store)).running_jobs == ()
    await store.door.write(lambda connection: connection.execute(update(failover_jobs).values(status="failed")))
    assert [job.job_id for job in (await records_of(store)).running_jobs] == [failover_id(NAME)]


async def test_our_own_runs_never_count(store: Store) -> None:
    await store.seed(NAME)
    await store.journal.queue_job(build_queued(NAME))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    assert [row["status"] for row in await store.rows(job_tracking, id=claimed.job.id)] == ["running"]
    assert (await records_of(store)).running_jobs == ()


async def run(store: Store, number: int, state: JobState) -> None:
    at = NOW + timedelta(minutes=number)
    await store.journal.queue_job(build_queued(NAME, job_id=uid("run", number), at=at))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    changes: list[Change] = [
        StatusRestored(context_id(NAME), "failed_over_test", "Back."),
        JobEnded(state, "End.", error={}),
    ]
    await store.journal.apply(claimed.lease, changes, at)


async def test_the_newest_run_decides_whether_the_last_one_failed(store: Store) -> None:
    await store.seed(NAME)
    assert not (await records_of(store)).last_run_failed
    told = []
    for number, state in enumerate([JobState.FAILED, JobState.COMPLETED, JobState.CANCELLED, JobState.PARKED]):
        await run(store, number, state)
        told.append((await records_of(store)).last_run_failed)
    assert told == [True, False, False, True]


def world_issue(cause: str = "vm-1", issue_id: str = "issue-1") -> Issue:
    issue = build_issue(None, NAME, f"{context_id(NAME)}/{cause}/destroyed")
    return replace(issue, id=issue_id, kind=DESTROYED_VM_HOLDS_VOLUME)


async def test_an_issue_about_the_world_does_not_ask_for_a_resolution(store: Store) -> None:
    await store.seed(NAME)
    assert list(await store.journal.open_world_issues([world_issue()], NOW)) == ["issue-1"]
    records = await records_of(store)
    assert (records.open_issue_ids, records.world_issue_ids) == ((), ("issue-1",))
    assert [issue.id for issue in await store.reader.list_issues(context_id=context_id(NAME))] == ["issue-1"]
    await store.journal.queue_job(build_queued(NAME))


async def test_an_issue_about_a_run_still_does(store: Store) -> None:
    await store.seed(NAME)

    await store.journal.open_world_issues([build_issue(None, NAME)], NOW)
    assert len((await records_of(store)).open_issue_ids) == 1
    with pytest.raises(OmaError, match="has an open issue"):
        await store.journal.queue_job(build_queued(NAME))


async def test_one_cause_is_one_issue_and_one_event(store: Store) -> None:
    await store.seed(NAME)
    later = NOW + timedelta(hours=1)
    await store.journal.open_world_issues([world_issue()], NOW)
    again = await store.journal.open_world_issues(
        [world_issue(issue_id="issue-2"), world_issue("vm-2", "issue-3")], later
    )
    assert list(again) == ["issue-1", "issue-3"]
    opened = [row["data"]["issue_id"] for row in await store.rows(oma_events, type=EventType.ISSUE_OPENED.value)]
    assert opened == ["issue-1", "issue-3"]
    assert [event.type for event in store.announced] == [EventType.ISSUE_OPENED, EventType.ISSUE_OPENED]


async def test_it_is_closed_with_evidence_where_its_cause_is_gone(store: Store) -> None:
    await store.seed(NAME)
    await store.journal.open_world_issues([world_issue("vm-1", "issue-1"), world_issue("vm-2", "issue-2")], NOW)
    kept = [f"{context_id(NAME)}/vm-2/destroyed"]
    later = NOW + timedelta(hours=1)
    closed = await store.journal.close_world_issues(context_id(NAME), kept, "Gone.", {"volumes": {"v": None}}, later)
    assert list(closed) == ["issue-1"]
    (row,) = await store.rows(oma_issues, id="issue-1")
    assert (row["state"], row["open_cause"], row["resolution"], row["notes"]) == ("resolved", None, "MOOT", "Gone.")
    assert row["resolved_at"] == later
    assert row["evidence"]["resolved_by"] == {"volumes": {"v": None}}
    assert (await records_of(store)).world_issue_ids == ("issue-2",)
    (event,) = await store.rows(oma_events, type=EventType.ISSUE_RESOLVED.value)
    assert event["data"]["issue_id"] == "issue-1"
    assert list(await store.journal.close_world_issues(context_id(NAME), kept, "Gone.", {}, later)) == []
    # The same cause may come back.
    assert list(await store.journal.open_world_issues([world_issue("vm-1", "issue-4")], later)) == ["issue-4"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE failover_jobs SET created_at = '{at}'",
        "UPDATE job_steps SET started_at = '{at}'",
        "UPDATE log_events SET ts = '{at}'",
        "UPDATE replication_jobs SET completed_at = '{at}'",
    ],
)
async def test_a_time_in_the_future_settles_nothing_and_is_told(store: Store, statement: str) -> None:
    await store.seed(NAME)
    assert (await records_of(store)).doubtful_times == ()
    ahead = datetime.now(UTC) + timedelta(hours=3)
    await store.sql(statement.format(at=ahead.strftime("%Y-%m-%d %H:%M:%S")))

    records = await records_of(store)

    (doubt,) = records.doubtful_times
    assert (doubt.earliest, doubt.latest) == (NEVER, ahead.replace(microsecond=0))
    assert "ahead of the database's clock" in doubt.why
    assert earliest(records, doubt.latest) == NEVER


async def test_a_clock_that_is_a_little_ahead_is_no_future(store: Store) -> None:
    await store.seed(NAME)
    ahead = datetime.now(UTC) + timedelta(seconds=2)
    await store.sql(f"UPDATE replication_jobs SET completed_at = '{ahead:%Y-%m-%d %H:%M:%S}'")
    assert (await records_of(store)).doubtful_times == ()
