"""A cancel, and a run that goes back, as the database keeps them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from database.tables import oma_issues, oma_jobs, oma_volume_claims, vm_replication_contexts
from oma.domain.actions import ActionKind
from oma.domain.audit import AuditAction
from oma.domain.changes import (
    ActionEnded,
    ActionStarted,
    Change,
    IssueOpened,
    JobCancelled,
    JobEnded,
    OwnIssuesClosed,
    StepStarted,
    UndoingBegun,
)
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.jobs import ClaimedJob
from oma.domain.records import CLEANUP_REQUIRED
from oma.domain.states import ActionState, JobState, Phase
from oma.domain.undoing import CancelAsked, Undoing
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_action, build_issue, build_queued, context_id, uid, volume_id

LATER = NOW + timedelta(minutes=5)
ASKED = CancelAsked("eva", "wrong VM", LATER)
UNDOING = Undoing(JobState.FAILED, {"code": "cleanup_failed", "detail": "It failed."})


async def run_of(store: Store, name: str = "pgtest1") -> ClaimedJob:
    await store.seed(name)
    await store.journal.queue_job(build_queued(name))
    run = await store.journal.claim_job("oma-1", 30)
    assert run is not None
    return run


def cancelled(job_id: str) -> JobCancelled:
    return JobCancelled(job_id, ASKED, "eva cancelled the run.")


async def test_a_queued_run_ends_in_the_same_transaction_and_gives_its_vm_free(store: Store) -> None:
    await store.seed("pgtest1")
    queued = await store.journal.queue_job(build_queued("pgtest1"))
    job = await store.journal.cancel_job(cancelled(queued.id))
    assert (job.state, job.cancel) == (JobState.CANCELLED, ASKED)
    (row,) = await store.rows(oma_jobs)
    assert row["active_context_id"] is None
    assert await store.rows(oma_volume_claims) == []
    (context,) = await store.rows(vm_replication_contexts, context_id=context_id("pgtest1"))
    assert context["current_status"] == "failed_over_test"
    assert [event.type for event in store.announced[-3:]] == [
        EventType.CANCEL_ASKED,
        EventType.STATUS_RESTORED,
        EventType.JOB_CANCELLED,
    ]
    entries = [entry.draft.action for entry in (await store.reader.list_audit(50, None)).items[:2]]
    assert entries == [AuditAction.RUN_ENDED, AuditAction.CANCEL_ASKED]


async def test_a_running_one_only_learns_of_it_and_is_asked_once(store: Store) -> None:
    run = await run_of(store)
    assert await store.journal.find_cancel(run.job.id) is None
    job = await store.journal.cancel_job(cancelled(run.job.id))
    assert job.state is JobState.RUNNING
    told = len(store.announced)
    await store.journal.cancel_job(cancelled(run.job.id))
    assert len(store.announced) == told
    assert await store.journal.find_cancel(run.job.id) == ASKED
    await store.journal.apply(run.lease, [StepStarted(Phase.ANALYZE, "Begins.")], NOW)


async def test_that_it_goes_back_outlives_the_process_and_a_cancel(store: Store) -> None:
    run = await run_of(store)
    await store.journal.apply(run.lease, [UndoingBegun(UNDOING, "The run goes back.")], NOW)
    await store.journal.cancel_job(cancelled(run.job.id))
    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert (job.undoing, job.cancel) == (UNDOING, ASKED)


async def test_a_parked_one_that_can_turn_back_is_queued_with_its_issues_open_until_it_has(store: Store) -> None:
    run = await run_of(store)
    detach = build_action(run.job.id, 1, kind=ActionKind.DETACH_VOLUME, phase=Phase.DETACH)
    issue = build_issue(run.job.id, cause=detach.id)
    parked = JobEnded(JobState.PARKED, "Parked.", error={"detail": "Failed."})
    changes: list[Change] = [
        StepStarted(Phase.DETACH, "Begins."),
        ActionStarted(detach, "Begins."),
        IssueOpened(issue, "Opened."),
    ]
    await store.journal.apply(run.lease, [*changes, parked], NOW)
    job = await store.journal.cancel_job(cancelled(run.job.id))
    assert (job.state, job.error) == (JobState.QUEUED, None)
    again = await store.journal.claim_job("oma-2", 30)
    assert again is not None
    await store.journal.apply(again.lease, [OwnIssuesClosed("All is home.")], LATER)
    (row,) = await store.rows(oma_issues)
    assert (row["state"], row["resolution"], row["open_cause"]) == ("resolved", "UNDONE", None)
    assert (await store.reader.list_audit(50, None)).items[0].draft.action is AuditAction.ISSUE_RESOLVED


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.PARKED])
async def test_one_that_has_ended_or_can_only_go_forward_is_refused(store: Store, state: JobState) -> None:
    run = await run_of(store)
    revert = build_action(run.job.id, 1, kind=ActionKind.REVERT_SNAPSHOT, phase=Phase.SNAPSHOTS)
    await store.journal.apply(run.lease, [ActionStarted(revert, "Begins."), JobEnded(state, "Ended.")], NOW)
    told = len(store.announced)
    with pytest.raises(OmaError) as raised:
        await store.journal.cancel_job(cancelled(run.job.id))
    assert raised.value.code is Code.INVALID_REQUEST
    assert len(store.announced) == told


async def test_one_that_is_not_there(store: Store) -> None:
    with pytest.raises(OmaError) as raised:
        await store.journal.cancel_job(cancelled("nothing"))
    assert raised.value.code is Code.JOB_NOT_FOUND


async def test_what_a_failed_run_detached_stands_in_the_records_until_a_complete_one(store: Store) -> None:
    run = await run_of(store)
    detach = build_action(run.job.id, 1, kind=ActionKind.DETACH_VOLUME, phase=Phase.DETACH)
    ends: list[Change] = [
        ActionStarted(detach, "Begins."),
        ActionEnded(detach.id, ActionState.ROLLED_BACK, "Back."),
        JobEnded(JobState.FAILED, "Failed.", error={"detail": "Failed."}),
    ]
    await store.journal.apply(run.lease, ends, NOW)
    records = await store.inventory.get_records(context_id("pgtest1"))
    assert [(one.id, one.target.volume_id) for one in records.undone] == [(detach.id, volume_id("pgtest1"))]
    plan = replace(run.job.plan, former_status=CLEANUP_REQUIRED)
    await store.journal.queue_job(build_queued("pgtest1", plan=plan, job_id=uid("again"), at=LATER))
    complete = await store.journal.claim_job("oma-1", 30)
    assert complete is not None
    await store.journal.apply(complete.lease, [JobEnded(JobState.COMPLETED, "Done.", result={})], LATER)
    assert (await store.inventory.get_records(context_id("pgtest1"))).undone == ()
