"""A parked job goes back to the queue: what force settles, what is released, what stands in the way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from database.tables import job_steps, job_tracking, oma_actions, oma_issues, oma_jobs, oma_leaks
from oma.domain.actions import Action, ActionKind
from oma.domain.audit import AuditAction
from oma.domain.changes import (
    ActionEnded,
    ActionStarted,
    IssueOpened,
    JobEnded,
    JobResumed,
    LeakTracked,
    StepEnded,
    StepStarted,
)
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.issues import Issue
from oma.domain.jobs import ClaimedJob, CleanupRequest
from oma.domain.leaks import Leak, LeakKind
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.domain.words import SILENT, Words
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_action, build_issue, build_queued, context_id, uid

LATER = NOW + timedelta(minutes=5)
FORCE = Words(force=True, resume=True, reason="the snapshot is locked by a backup")
EXPORT = {"system": "Volume Daemon", "code": "nbd_reload_failed", "text": "no answer to SIGHUP"}


async def park(
    store: Store, *failed: tuple[ActionKind, dict[str, str] | None], name: str = "pgtest1", words: Words = SILENT
) -> ClaimedJob:
    """A run whose actions of these kinds failed, each with an open issue."""
    await store.seed(name)
    await store.journal.queue_job(build_queued(name, request=CleanupRequest(name, words=words).as_json()))
    run = await store.journal.claim_job("oma-1", 30)
    assert run is not None
    changes: list[Any] = [StepStarted(Phase.SNAPSHOTS, "Begins.")]
    for number, (kind, upstream) in enumerate(failed, 1):
        action = build_action(run.job.id, number, kind=kind, phase=Phase.SNAPSHOTS)
        error = {"code": "cleanup_failed", "unknown": False, "upstream": upstream}
        changes += [
            ActionStarted(action, "Begins."),
            ActionEnded(action.id, ActionState.EXECUTION_FAILED, "Failed.", {"state": "there"}, error),
            IssueOpened(issue_of(run, action, upstream), "Opened."),
        ]
    changes += [
        StepEnded(Phase.SNAPSHOTS, StepStatus.FAILED, "Failed."),
        JobEnded(JobState.PARKED, "Parked.", error={"detail": "Failed."}),
    ]
    await store.journal.apply(run.lease, changes, NOW)
    return run


def issue_of(run: ClaimedJob, action: Action, upstream: dict[str, str] | None) -> Issue:
    issue = build_issue(run.job.id, run.job.vm_name, cause=action.id)
    return replace(issue, kind=action.kind.value, action_id=action.id, error=upstream)


def resumed(run: ClaimedJob, words: Words = FORCE, key: str | None = None) -> JobResumed:
    return JobResumed(run.job.id, "operator", words, key, LATER, "Goes on.")


async def actions(store: Store, run: ClaimedJob) -> dict[ActionKind, Action]:
    return {action.kind: action for action in await store.reader.list_actions(run.job.id)}


async def test_force_settles_the_issues_it_passes_and_releases_their_actions(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None), (ActionKind.ATTACH_VOLUME, EXPORT))

    job = await store.journal.resume_job(resumed(run))

    assert (job.state, job.error, job.ended_at) == (JobState.QUEUED, None, None)
    assert job.request.words == Words(force=True, reason=FORCE.reason)
    rows = await store.rows(oma_issues)
    assert {(row["state"], row["resolution"], row["notes"], row["actor"], row["open_cause"]) for row in rows} == {
        ("resolved", "FORCED", FORCE.reason, "operator", None)
    }
    assert {row["resolved_at"] for row in rows} == {LATER}
    for action in (await actions(store, run)).values():
        assert (action.state, action.attempt, action.remote_id) == (ActionState.PLANNED, 2, None)
        assert action.evidence == {"state": "there"}
    (tracked,) = await store.rows(job_tracking, id=run.job.id)
    assert (tracked["status"], tracked["error_message"], tracked["completed_at"]) == ("running", None, None)
    (step,) = await store.rows(job_steps, job_id=run.job.id)
    assert (step["status"], step["error_message"]) == ("running", None)
    assert store.announced[-1].type is EventType.JOB_RESUMED
    claimed = await store.journal.claim_job("oma-2", 30)
    assert claimed is not None
    assert claimed.job.id == run.job.id
    assert claimed.recovered


async def test_resuming_is_audited_with_every_word_and_issue(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    before = len((await store.reader.list_audit(50, None)).items)
    await store.journal.resume_job(resumed(run))
    entries = [entry.draft for entry in (await store.reader.list_audit(50, None)).items[::-1]][before:]
    assert [(one.action, one.decision) for one in entries] == [
        (AuditAction.RUN_RESUMED, "queued"),
        (AuditAction.WORD_SPOKEN, "force"),
        (AuditAction.WORD_SPOKEN, "resume"),
        (AuditAction.ISSUE_RESOLVED, "FORCED"),
    ]
    assert {one.reason for one in entries} == {FORCE.reason}


@pytest.mark.parametrize(
    ("kind", "upstream"),
    [
        (ActionKind.REVERT_SNAPSHOT, None),
        (ActionKind.DETACH_VOLUME, None),
        (ActionKind.RESET_RECORDS, None),
        (ActionKind.ATTACH_VOLUME, None),
        (ActionKind.ATTACH_VOLUME, {"system": "Volume Daemon", "code": "device_not_found", "text": "no link"}),
    ],
)
async def test_any_other_open_issue_stops_it_and_nothing_is_written(
    store: Store, kind: ActionKind, upstream: dict[str, str] | None
) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None), (kind, upstream))
    before = await store.rows(oma_issues), await store.rows(oma_actions), await store.rows(oma_jobs)

    with pytest.raises(OmaError) as raised:
        await store.journal.resume_job(resumed(run))

    assert raised.value.code is Code.NEEDS_RESOLUTION
    assert raised.value.fields["issue_ids"] == [uid("issue", run.job.id, uid("action", run.job.id, 2))]
    assert (await store.rows(oma_issues), await store.rows(oma_actions), await store.rows(oma_jobs)) == before


async def test_without_force_an_open_issue_stops_it(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    with pytest.raises(OmaError) as raised:
        await store.journal.resume_job(resumed(run, Words(resume=True)))
    assert raised.value.code is Code.NEEDS_RESOLUTION


async def test_settled_issues_let_it_go_on_and_a_revert_is_never_released(store: Store) -> None:
    run = await park(store, (ActionKind.DESTROY_VM, None), (ActionKind.REVERT_SNAPSHOT, None))
    await store.sql("UPDATE oma_issues SET state = 'resolved', open_cause = NULL")
    job = await store.journal.resume_job(resumed(run, Words(resume=True)))
    assert job.state is JobState.QUEUED
    assert not job.request.words.force
    found = await actions(store, run)
    assert found[ActionKind.DESTROY_VM].state is ActionState.PLANNED
    assert found[ActionKind.REVERT_SNAPSHOT].state is ActionState.EXECUTION_FAILED


async def test_the_next_attempt_starts_where_the_release_left_it(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    await store.journal.resume_job(resumed(run))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    (action,) = claimed.actions
    await store.journal.apply(
        claimed.lease, [ActionStarted(replace(action, state=ActionState.STARTED), "Again.")], LATER
    )
    (row,) = await store.rows(oma_actions)
    assert (row["id"], row["state"], row["attempt"]) == (action.id, "STARTED", 2)
    assert action.request_id not in (action.id, build_action(run.job.id).id)


async def test_who_is_not_parked_is_not_resumed(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    await store.journal.resume_job(resumed(run))
    with pytest.raises(OmaError) as queued:
        await store.journal.resume_job(resumed(run))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.journal.apply(claimed.lease, [JobEnded(JobState.COMPLETED, "Done.", result={})], LATER)
    with pytest.raises(OmaError) as ended:
        await store.journal.resume_job(resumed(run))
    with pytest.raises(OmaError) as unknown:
        await store.journal.resume_job(replace(resumed(run), job_id=uid("nobody")))
    assert [one.value.code for one in (queued, ended, unknown)] == [
        Code.CLEANUP_IN_PROGRESS,
        Code.INVALID_REQUEST,
        Code.JOB_NOT_FOUND,
    ]


async def test_the_same_call_twice_resumes_once(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    await store.journal.resume_job(resumed(run, key="key-1"))
    again = await store.journal.resume_job(resumed(run, key="key-1"))
    assert again.state is JobState.QUEUED
    with pytest.raises(OmaError):
        await store.journal.resume_job(resumed(run, key="key-2"))
    found = await store.reader.find_job_resumed_by(context_id("pgtest1"), "key-1")
    assert found is not None
    assert found.id == run.job.id
    assert await store.reader.find_job_resumed_by(context_id("pgtest1"), "key-2") is None


async def test_the_same_call_again_does_not_resume_a_run_that_was_parked_again(store: Store) -> None:
    """Its answer was lost, and what stands in the way by now is another issue, which nobody has looked at."""
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    await store.journal.resume_job(resumed(run, key="key-1"))
    await park_again(store)
    again = await store.journal.resume_job(resumed(run, key="key-1"))
    assert again.state is JobState.PARKED
    assert {row["state"] for row in await store.rows(oma_issues, id=uid("issue", run.job.id, "second"))} == {"open"}
    assert (await store.journal.resume_job(resumed(run, key="key-2"))).state is JobState.QUEUED


async def test_a_key_is_for_one_wording(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    await store.journal.resume_job(resumed(run, key="key-1"))
    for words in (Words(resume=True), replace(FORCE, reason="another reason")):
        with pytest.raises(OmaError) as raised:
            await store.journal.resume_job(resumed(run, words, key="key-1"))
        assert raised.value.code is Code.IDEMPOTENCY_KEY_REUSED


async def test_force_that_was_said_for_a_live_vm_is_said_for_failures_after_a_forced_resume(store: Store) -> None:
    live = Words(force=True, destination_vm_id=uid("vm"), reason="given up")
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None), words=live)
    assert not run.job.request.words.passes_failures
    with pytest.raises(OmaError):
        await store.journal.resume_job(resumed(run, Words(resume=True)))
    job = await store.journal.resume_job(resumed(run))
    assert job.request.words.passes_failures


async def test_a_word_that_was_said_before_keeps_its_own_reason(store: Store) -> None:
    said = Words(end_holders=True, reason="hung since midnight")
    run = await park(store, (ActionKind.STOP_VM, None), words=said)
    job = await store.journal.resume_job(resumed(run))
    words = job.request.words
    assert (words.end_holders, words.reason, words.force_reason) == (True, said.reason, FORCE.reason)
    assert Words.from_json(words.as_json()) == words


async def test_two_resumes_at_once_are_one(store: Store) -> None:
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    answers = await asyncio.gather(
        *(store.journal.resume_job(resumed(run, key=f"key-{number}")) for number in range(6)), return_exceptions=True
    )
    codes = [one.code for one in answers if isinstance(one, OmaError)]
    assert codes == [Code.CLEANUP_IN_PROGRESS] * 5
    entries = (await store.reader.list_audit(50, None)).items
    assert sum(entry.draft.action is AuditAction.RUN_RESUMED for entry in entries) == 1


async def park_again(store: Store) -> None:
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    (action,) = claimed.actions
    issue = replace(
        build_issue(claimed.job.id, claimed.job.vm_name, cause="second"),
        kind=ActionKind.DELETE_SNAPSHOT.value,
        action_id=action.id,
    )
    await store.journal.apply(
        claimed.lease, [IssueOpened(issue, "Opened."), JobEnded(JobState.PARKED, "Parked.", error={"detail": "x"})], NOW
    )


async def test_a_leak_is_tracked_in_the_transaction_of_its_action(store: Store) -> None:
    await store.seed("pgtest1")
    await store.journal.queue_job(build_queued("pgtest1"))
    run = await store.journal.claim_job("oma-1", 30)
    assert run is not None
    action = build_action(run.job.id, kind=ActionKind.DELETE_SNAPSHOT, phase=Phase.SNAPSHOTS)
    leak = Leak(
        uid("leak"),
        run.job.context_id,
        "pgtest1",
        run.job.id,
        LeakKind.SNAPSHOT_KEPT,
        {"snapshot_id": "s"},
        "It is kept.",
        "locked",
        LATER,
    )
    await store.journal.apply(run.lease, [ActionStarted(action, "Begins.")], NOW)
    with pytest.raises(Exception, match=r"EXECUTED|cannot become|no action"):
        await store.journal.apply(
            run.lease,
            [LeakTracked(leak, "Left."), ActionEnded(uid("nothing"), ActionState.SKIPPED, "Passed.")],
            LATER,
        )
    assert await store.rows(oma_leaks) == []

    events = await store.journal.apply(
        run.lease, [ActionEnded(action.id, ActionState.SKIPPED, "Passed."), LeakTracked(leak, "Left.")], LATER
    )

    assert [event.type for event in events] == [EventType.ACTION_SKIPPED, EventType.LEAK_TRACKED]
    assert await store.reader.list_leaks(context_id=run.job.context_id) == [leak]
    assert await store.reader.list_leaks(job_id=uid("another")) == []
