"""What a run writes: guarded, all or nothing, mirrored in the JobLog, told by events."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from database.tables import job_steps, job_tracking, oma_actions, oma_issues, oma_jobs, oma_volume_claims
from oma.domain.changes import (
    ActionEnded,
    ActionOverdue,
    ActionSent,
    ActionSkipped,
    ActionStarted,
    IssueOpened,
    JobEnded,
    Noted,
    PlanSaved,
    PointOfNoReturnPassed,
    StepEnded,
    StepStarted,
)
from oma.domain.errors import ConcurrentChange
from oma.domain.events import EventType
from oma.domain.jobs import ClaimedJob
from oma.domain.states import ACTION_TRANSITIONS, ActionState, JobState, LogLevel, Phase, StepStatus
from tests.contract.store.conftest import Store
from tests.contract.store.world import (
    NOW,
    build_action,
    build_issue,
    build_plan,
    build_queued,
    skipped,
    uid,
    volume_id,
)

LATER = NOW + timedelta(seconds=7, microseconds=1)


@pytest.fixture
async def run(store: Store) -> ClaimedJob:
    await store.seed("pgtest1")
    await store.journal.queue_job(build_queued("pgtest1"))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    return claimed


async def joblog(store: Store, job_id: str) -> dict[str, Any]:
    (row,) = await store.rows(job_tracking, id=job_id)
    return row


async def test_events_come_back_numbered_and_are_what_is_stored(store: Store, run: ClaimedJob) -> None:
    before = await store.reader.last_event_seq()

    events = await store.journal.apply(
        run.lease,
        [StepStarted(Phase.ANALYZE, "Looking."), Noted(LogLevel.WARN, "Odd.", Phase.ANALYZE, {"n": 1})],
        LATER,
    )

    assert [event.seq for event in events] == [before + 1, before + 2]
    assert [event.type for event in events] == [EventType.STEP_STARTED, EventType.NOTED]
    assert {event.at for event in events} == {LATER}
    assert list(events) == await store.reader.list_events(before, run.job.id, 10)
    assert events[1].data == {"n": 1}
    assert await store.reader.list_events(before, uid("another job"), 10) == []


async def test_each_sentence_is_a_line_of_the_joblog_at_its_step(store: Store, run: ClaimedJob) -> None:
    await store.journal.apply(
        run.lease,
        [
            StepStarted(Phase.ANALYZE, "Looking."),
            Noted(LogLevel.WARN, "Odd.", Phase.ANALYZE, {"n": 1}),
            Noted(LogLevel.DEBUG, "Of no phase."),
            StepEnded(Phase.ANALYZE, StepStatus.FAILED, "It broke."),
        ],
        LATER,
    )

    lines = (await store.reader.list_log(run.job.id, 50, None)).items[-4:]

    assert [(line.message, line.level, line.phase) for line in lines] == [
        ("Looking.", "INFO", Phase.ANALYZE),
        ("Odd.", "WARN", Phase.ANALYZE),
        ("Of no phase.", "DEBUG", None),
        ("It broke.", "ERROR", Phase.ANALYZE),
    ]
    assert lines[1].attrs == {"event": "noted", "n": 1}
    assert {line.at for line in lines} == {LATER}


async def test_one_step_row_per_phase_whatever_the_attempts(store: Store, run: ClaimedJob) -> None:
    await store.journal.apply(run.lease, [StepStarted(Phase.DETACH, "First.")], NOW)
    await store.journal.apply(run.lease, [StepEnded(Phase.DETACH, StepStatus.FAILED, "No.")], LATER)
    (failed,) = await store.reader.list_steps(run.job.id)
    assert (failed.seq, failed.status, failed.error_message) == (2, StepStatus.FAILED, "No.")
    assert (failed.started_at, failed.completed_at) == (NOW, LATER)
    assert failed.duration_s == 7.000001

    await store.journal.apply(run.lease, [StepStarted(Phase.DETACH, "Second.")], LATER)
    (running,) = await store.reader.list_steps(run.job.id)
    assert (running.status, running.completed_at, running.error_message) == (StepStatus.RUNNING, None, None)
    assert running.metadata["attempts"] == 2

    await store.journal.apply(
        run.lease, [StepEnded(Phase.DETACH, StepStatus.COMPLETED, "Done.", {"detached": 2})], LATER
    )
    (done,) = await store.reader.list_steps(run.job.id)
    assert (done.status, done.metadata["detached"], done.metadata["attempts"]) == (StepStatus.COMPLETED, 2, 2)
    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert job.phase is Phase.DETACH


async def test_a_skipped_step_needs_no_start_and_the_percentage_only_grows(store: Store, run: ClaimedJob) -> None:
    await store.journal.apply(run.lease, [StepEnded(Phase.SNAPSHOTS, StepStatus.SKIPPED, "Nothing tracked.")], LATER)
    assert (await joblog(store, run.job.id))["percent_complete"] == 60
    await store.journal.apply(run.lease, [StepStarted(Phase.ANALYZE, "Again.")], LATER)
    await store.journal.apply(run.lease, [StepEnded(Phase.ANALYZE, StepStatus.COMPLETED, "Fine.")], LATER)

    assert (await joblog(store, run.job.id))["percent_complete"] == 60
    rows = await store.rows(job_steps, job_id=run.job.id)
    by_seq = {row["seq"]: row for row in rows}
    assert (by_seq[3]["status"], by_seq[3]["started_at"], by_seq[3]["completed_at"]) == ("skipped", LATER, LATER)
    assert by_seq[3]["name"] == "cleanup-snapshots"
    assert by_seq[1]["status"] == "completed"


async def test_the_life_of_an_action(store: Store, run: ClaimedJob) -> None:
    action = build_action(run.job.id)
    await store.journal.apply(run.lease, [ActionStarted(action, "Detach it.")], NOW)
    (found,) = await store.reader.list_actions(run.job.id)
    assert found == replace(action, sentence="Detach it.")

    await store.journal.apply(run.lease, [ActionSent(action.id, "op-1", "Sent.")], LATER)
    await store.journal.apply(
        run.lease, [ActionOverdue(action.id, {"code": "volume_daemon_timeout", "detail": "late"}, "Late.")], LATER
    )
    (found,) = await store.reader.list_actions(run.job.id)
    assert (found.state, found.remote_id, found.sent_at) == (ActionState.STARTED, "op-1", LATER)
    assert found.sentence == "Detach it."
    assert found.error == {"code": "volume_daemon_timeout", "detail": "late"}

    events = await store.journal.apply(
        run.lease, [ActionEnded(action.id, ActionState.EXECUTED, "Gone.", {"vm_id": None})], LATER
    )
    (found,) = await store.reader.list_actions(run.job.id)
    assert (found.state, found.ended_at, found.sentence) == (ActionState.EXECUTED, LATER, "Gone.")
    assert (found.evidence, found.error) == ({"vm_id": None}, None)
    assert (events[0].type, events[0].data["action_id"]) == (EventType.ACTION_EXECUTED, action.id)


async def test_the_overdue_event_carries_the_error_itself(store: Store, run: ClaimedJob) -> None:
    action = build_action(run.job.id)
    error = {"code": "volume_daemon_timeout", "detail": "late", "phase": "detach-attached-volumes"}
    await store.journal.apply(run.lease, [ActionStarted(action, "Detach it.")], NOW)

    (event,) = await store.journal.apply(run.lease, [ActionOverdue(action.id, error, "Late.")], LATER)

    assert event.type is EventType.ACTION_OVERDUE
    assert error.items() <= event.data.items()


async def test_a_failed_action_is_started_again_under_a_higher_attempt(store: Store, run: ClaimedJob) -> None:
    action = build_action(run.job.id)
    await store.journal.apply(run.lease, [ActionStarted(action, "1"), ActionSent(action.id, "op-1", "s")], NOW)
    (failed,) = await store.journal.apply(
        run.lease, [ActionEnded(action.id, ActionState.EXECUTION_FAILED, "No.", error={"code": "530"})], NOW
    )
    assert failed.type is EventType.ACTION_FAILED

    with pytest.raises(ConcurrentChange):
        await store.journal.apply(run.lease, [ActionStarted(action, "the same attempt")], LATER)
    await store.journal.apply(run.lease, [ActionStarted(replace(action, attempt=2, intent_at=LATER), "2")], LATER)

    (found,) = await store.reader.list_actions(run.job.id)
    assert (found.state, found.attempt, found.intent_at) == (ActionState.STARTED, 2, LATER)
    assert (found.remote_id, found.sent_at, found.ended_at, found.error) == (None, None, None, None)


async def test_a_skipped_action_is_kept_with_its_evidence(store: Store, run: ClaimedJob) -> None:
    action = skipped(build_action(run.job.id))

    (event,) = await store.journal.apply(run.lease, [ActionSkipped(action, "Detached already.")], LATER)

    assert event.type is EventType.ACTION_SKIPPED
    (found,) = await store.reader.list_actions(run.job.id)
    assert (found.state, found.evidence) == (ActionState.SKIPPED, {"found": "detached already"})
    with pytest.raises(ConcurrentChange):
        await store.journal.apply(run.lease, [ActionStarted(replace(action, state=ActionState.STARTED), "x")], LATER)


@pytest.mark.parametrize("former", list(ActionState))
async def test_only_the_transitions_of_the_table_are_written(
    store: Store, run: ClaimedJob, former: ActionState
) -> None:
    for number, state in enumerate(ActionState):
        action = build_action(run.job.id, number + 1)
        await store.journal.apply(run.lease, [ActionStarted(action, "start")], NOW)
        await store.sql(f"UPDATE oma_actions SET state = '{former.value}' WHERE id = '{action.id}'")
        change = (
            ActionStarted(replace(action, attempt=2), "again")
            if state is ActionState.STARTED
            else ActionEnded(action.id, state, "ended")
        )
        allowed = state in ACTION_TRANSITIONS[former]
        if allowed:
            await store.journal.apply(run.lease, [change], LATER)
        else:
            with pytest.raises(ConcurrentChange):
                await store.journal.apply(run.lease, [change], LATER)
        (row,) = await store.rows(oma_actions, id=action.id)
        assert row["state"] == (state if allowed else former).value


async def test_what_was_sent_or_is_late_must_be_started(store: Store, run: ClaimedJob) -> None:
    action = build_action(run.job.id)
    await store.journal.apply(run.lease, [ActionSkipped(skipped(action), "no")], NOW)
    for change in (ActionSent(action.id, "op", "s"), ActionOverdue(action.id, {}, "s")):
        with pytest.raises(ConcurrentChange):
            await store.journal.apply(run.lease, [change], LATER)


async def test_an_action_of_another_job_is_not_touched(store: Store, run: ClaimedJob) -> None:
    await store.seed("other")
    await store.journal.queue_job(build_queued("other"))
    theirs = await store.journal.claim_job("oma-1", 30)
    assert theirs is not None
    action = build_action(run.job.id)
    await store.journal.apply(run.lease, [ActionStarted(action, "mine")], NOW)

    with pytest.raises(ConcurrentChange):
        await store.journal.apply(theirs.lease, [ActionEnded(action.id, ActionState.EXECUTED, "x")], NOW)
    with pytest.raises(ConcurrentChange):
        await store.journal.apply(theirs.lease, [ActionSent(uid("unknown"), "op", "x")], NOW)

    (found,) = await store.reader.list_actions(run.job.id)
    assert found.state is ActionState.STARTED


async def test_a_refused_change_takes_everything_of_its_transaction_with_it(store: Store, run: ClaimedJob) -> None:
    before = await store.reader.last_event_seq()
    lines = len((await store.reader.list_log(run.job.id, 50, None)).items)
    action = build_action(run.job.id)

    with pytest.raises(ConcurrentChange):
        await store.journal.apply(
            run.lease,
            [
                StepStarted(Phase.DETACH, "Detaching."),
                ActionStarted(action, "Detach."),
                IssueOpened(build_issue(run.job.id), "Issue."),
                PointOfNoReturnPassed("Passed."),
                ActionEnded(uid("unknown"), ActionState.EXECUTED, "Not ours."),
            ],
            LATER,
        )

    assert await store.reader.list_steps(run.job.id) == []
    assert await store.reader.list_actions(run.job.id) == []
    assert await store.reader.list_issues() == []
    assert await store.reader.last_event_seq() == before
    assert len((await store.reader.list_log(run.job.id, 50, None)).items) == lines
    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert (job.phase, job.reverted) == (None, False)
    # The lease still stands, and the numbers go on without a gap.
    (event,) = await store.journal.apply(run.lease, [Noted(LogLevel.INFO, "on")], LATER)
    assert event.seq == before + 1


async def test_the_plan_is_replaced_and_its_new_volumes_are_claimed(store: Store, run: ClaimedJob) -> None:
    plan = build_plan("pgtest1", disks=3)

    (event,) = await store.journal.apply(run.lease, [PlanSaved(plan, "Judged again.")], LATER)

    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert (job.plan, job.plan_digest) == (plan, plan.digest)
    assert event.data["plan_digest"] == plan.digest
    claims = await store.rows(oma_volume_claims)
    assert {row["volume_id"] for row in claims} == {volume_id("pgtest1", disk) for disk in range(3)}


async def test_a_plan_with_a_volume_of_another_job_is_refused(store: Store, run: ClaimedJob) -> None:
    await store.seed("other")
    await store.journal.queue_job(build_queued("other"))
    plan = build_plan("pgtest1")
    plan = replace(plan, volumes=(*plan.volumes, build_plan("other").volumes[0]))

    with pytest.raises(ConcurrentChange):
        await store.journal.apply(run.lease, [PlanSaved(plan, "Judged again.")], LATER)


async def test_the_point_of_no_return_is_remembered(store: Store, run: ClaimedJob) -> None:
    await store.journal.apply(run.lease, [PointOfNoReturnPassed("Passed.")], LATER)

    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert job.reverted


async def test_one_open_issue_per_cause(store: Store, run: ClaimedJob) -> None:
    first = build_issue(run.job.id)
    second = replace(first, id=uid("another"), evidence={"errorcode": 431}, opened_at=LATER, title="Again")
    await store.journal.apply(run.lease, [IssueOpened(first, "Opened.")], NOW)

    (event,) = await store.journal.apply(run.lease, [IssueOpened(second, "Opened again.")], LATER)

    (issue,) = await store.reader.list_issues(job_id=run.job.id)
    assert issue == replace(first, evidence={"errorcode": 431}, title="Again")
    assert event.data["issue_id"] == first.id
    other = replace(first, id=uid("other cause"), cause="revert/2", opened_at=NOW - timedelta(hours=1))
    await store.journal.apply(run.lease, [IssueOpened(other, "Opened.")], NOW)
    assert [one.id for one in await store.reader.list_issues(context_id=first.context_id)] == [other.id, first.id]


async def test_completed(store: Store, run: ClaimedJob) -> None:
    result = {"message": "done", "replica": "ready"}

    (event,) = await store.journal.apply(run.lease, [JobEnded(JobState.COMPLETED, "Done.", result=result)], LATER)

    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert (job.state, job.result, job.error, job.ended_at) == (JobState.COMPLETED, result, None, LATER)
    assert job.lease_owner is None
    assert event.type is EventType.JOB_COMPLETED
    row = await joblog(store, job.id)
    assert (row["status"], row["percent_complete"], row["completed_at"]) == ("completed", 100, LATER)
    assert await store.rows(oma_volume_claims) == []


async def test_parked_keeps_the_vm_and_reads_failed_in_the_joblog(store: Store, run: ClaimedJob) -> None:
    await store.journal.apply(run.lease, [StepStarted(Phase.SNAPSHOTS, "Reverting.")], NOW)
    error = {"code": "cleanup_failed", "detail": "The revert failed."}

    await store.journal.apply(
        run.lease,
        [IssueOpened(build_issue(run.job.id), "Issue."), JobEnded(JobState.PARKED, "Parked.", error=error)],
        LATER,
    )

    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert (job.state, job.error) == (JobState.PARKED, error)
    row = await joblog(store, job.id)
    assert (row["status"], row["error_message"]) == ("failed", "parked: The revert failed.")
    (step,) = await store.reader.list_steps(job.id)
    assert (step.status, step.error_message) == (StepStatus.FAILED, "The revert failed.")
    (kept,) = await store.rows(oma_jobs)
    assert kept["active_context_id"] == job.context_id
    assert len(await store.rows(oma_volume_claims)) == 2
    records = await store.inventory.get_records(job.context_id)
    assert (records.active_job_id, records.active_job_holder) == (job.id, "parked")
    assert records.open_issue_ids == (build_issue(job.id).id,)
    assert await store.journal.claim_job("oma-1", 30) is None


async def test_failed_and_cancelled(store: Store, run: ClaimedJob) -> None:
    await store.journal.apply(run.lease, [JobEnded(JobState.CANCELLED, "Cancelled by the operator.")], LATER)

    row = await joblog(store, run.job.id)
    assert (row["status"], row["canceled_at"]) == ("cancelled", LATER)
    assert row["error_message"] == "Cancelled by the operator."


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
async def test_a_run_ends_in_an_end_state_only(store: Store, run: ClaimedJob, state: JobState) -> None:
    with pytest.raises(ConcurrentChange):
        await store.journal.apply(run.lease, [JobEnded(state, "?")], LATER)


async def test_a_partial_run_is_not_all_done(store: Store, run: ClaimedJob) -> None:
    await store.journal.apply(run.lease, [StepEnded(Phase.DETACH, StepStatus.SKIPPED, "s")], NOW)
    await store.journal.apply(run.lease, [JobEnded(JobState.COMPLETED, "Part.", result={"partial": True})], LATER)

    row = await joblog(store, run.job.id)
    assert (row["status"], row["percent_complete"]) == ("completed", 40)


async def test_issue_rows_keep_their_times(store: Store, run: ClaimedJob) -> None:
    issue = build_issue(run.job.id)
    await store.journal.apply(run.lease, [IssueOpened(issue, "Opened.")], LATER)

    (row,) = await store.rows(oma_issues)
    assert (row["opened_at"], row["due_at"]) == (issue.opened_at, issue.due_at)
    assert (row["state"], row["open_cause"]) == ("open", issue.cause)
