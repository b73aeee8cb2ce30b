"""A person settles issues: the issue, its action, the audit and the run change together, or nothing does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from database.tables import cbt_history, oma_actions, oma_audit, oma_issues, oma_jobs, vm_disks
from oma.domain.actions import Action, ActionKind
from oma.domain.changes import ResyncDemanded
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.events import EventType
from oma.domain.resolving import RESOLVED, ActionMark, IssueResolved, Resolution, Settled
from oma.domain.states import ActionState, JobState
from oma.ports import IssueFilter
from oma.workflow.awaited import awaits_copy
from tests.contract.store.conftest import Store
from tests.contract.store.test_resuming import LATER, park
from tests.contract.store.world import NOW, build_queued, context_id, volume_id

REVERT, DETACH = ActionKind.REVERT_SNAPSHOT, ActionKind.DETACH_VOLUME


async def settle(store: Store, action: Action, state: ActionState, **more: Any) -> Settled:
    issue_id = more.pop("issue_id", None)
    if issue_id is None:
        listed = await store.reader.list_issues(job_id=action.job_id)
        (issue_id,) = [one.id for one in listed if one.action_id == action.id]
    said = {"resolution": "APPLIED", "notes": "seen", "actor": "anna"}
    marked = replace(action, state=state, evidence={**action.evidence, RESOLVED: said}, sentence="anna said it")
    resolved = IssueResolved(
        issue_id=issue_id,
        resolution=Resolution.APPLIED,
        notes="I looked",
        actor="anna",
        at=LATER,
        sentence="It is there.",
        evidence={"state": "there"},
        marks=(ActionMark(marked, action.state),),
    )
    return await store.journal.resolve_issue(replace(resolved, **more))


async def test_the_last_issue_puts_the_run_back_into_the_queue(store: Store) -> None:
    run = await park(store, (REVERT, None), (DETACH, None))
    revert, detach = await store.reader.list_actions(run.job.id)
    first = await settle(store, revert, ActionState.MANUAL_MARKED_AS_EXECUTED)
    assert (first.resumed, first.job_state, len(first.open_issue_ids)) == (False, JobState.PARKED, 1)
    second = await settle(store, detach, ActionState.MANUAL_MARKED_AS_ROLLED_BACK)
    assert (second.resumed, second.job_state, second.open_issue_ids) == (True, JobState.QUEUED, ())
    states = [one["state"] for one in await store.rows(oma_actions, job_id=run.job.id)]
    assert sorted(states) == ["MANUAL_MARKED_AS_EXECUTED", "MANUAL_MARKED_AS_ROLLED_BACK"]
    (job,) = await store.rows(oma_jobs, id=run.job.id)
    assert (job["state"], job["error"], job["ended_at"]) == ("queued", None, None)
    issues = await store.rows(oma_issues, job_id=run.job.id)
    assert {(one["state"], one["resolution"], one["notes"], one["actor"]) for one in issues} == {
        ("resolved", "APPLIED", "I looked", "anna")
    }
    audited = [(one["action"], one["decision"], one["actor"]) for one in await store.rows(oma_audit)][-3:]
    assert audited == [
        ("issue_resolved", "APPLIED", "anna"),
        ("issue_resolved", "APPLIED", "anna"),
        ("run_resumed", "queued", "anna"),
    ]
    told = [event.type for event in store.announced][-3:]
    assert told == [EventType.ISSUE_RESOLVED, EventType.ISSUE_RESOLVED, EventType.JOB_RESUMED]
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    assert claimed.job.id == run.job.id


async def test_an_action_that_changed_meanwhile_undoes_everything(store: Store) -> None:
    run = await park(store, (REVERT, None))
    (revert,) = await store.reader.list_actions(run.job.id)
    stale = replace(revert, state=ActionState.STARTED)
    with pytest.raises(ConcurrentChange):
        await settle(store, stale, ActionState.MANUAL_MARKED_AS_EXECUTED)
    assert [one["state"] for one in await store.rows(oma_issues, job_id=run.job.id)] == ["open"]
    assert [one["state"] for one in await store.rows(oma_jobs, id=run.job.id)] == ["parked"]


async def test_two_people_at_once_settle_it_once(store: Store, other: Store) -> None:
    run = await park(store, (REVERT, None))
    (revert,) = await store.reader.list_actions(run.job.id)
    (issue,) = await store.reader.list_issues(job_id=run.job.id)
    done = await asyncio.gather(
        settle(store, revert, ActionState.MANUAL_MARKED_AS_EXECUTED, issue_id=issue.id),
        settle(other, revert, ActionState.MANUAL_MARKED_AS_EXECUTED, issue_id=issue.id),
        return_exceptions=True,
    )
    assert {type(one) for one in done} == {Settled, ConcurrentChange}


async def test_an_issue_of_a_run_at_work_is_not_settled_and_an_unknown_one_not_found(store: Store) -> None:
    run = await park(store, (REVERT, None))
    (revert,) = await store.reader.list_actions(run.job.id)
    await store.sql(f"UPDATE oma_jobs SET state = 'running' WHERE id = '{run.job.id}'")
    with pytest.raises(OmaError) as raised:
        await settle(store, revert, ActionState.MANUAL_MARKED_AS_EXECUTED)
    assert raised.value.code is Code.CLEANUP_IN_PROGRESS
    with pytest.raises(OmaError) as raised:
        await settle(store, revert, ActionState.MANUAL_MARKED_AS_EXECUTED, issue_id="nobody")
    assert raised.value.code is Code.ISSUE_NOT_FOUND


async def test_issues_are_read_in_pages_and_by_urgency(store: Store) -> None:
    run = await park(store, (REVERT, None), (DETACH, None))
    first = await store.reader.list_issue_page(IssueFilter(state="open", job_id=run.job.id), 1, None)
    assert first.next_cursor is not None
    second = await store.reader.list_issue_page(IssueFilter(state="open"), 1, first.next_cursor)
    assert second.next_cursor is None
    assert len({one.id for one in (*first.items, *second.items)}) == 2
    await store.sql(f"UPDATE oma_issues SET severity = 'other' WHERE id = '{first.items[0].id}'")
    found = await store.reader.find_next_issue()
    assert found is not None
    assert found.id == second.items[0].id
    assert await store.reader.find_issue(found.id) == found
    assert await store.reader.find_issue(found.id.upper() + " ") is None
    nothing = await store.reader.list_issue_page(IssueFilter(q="no such title"), 5, None)
    assert nothing.items == ()


@pytest.mark.rule("5-unknown-revert")
async def test_a_resync_empties_the_change_id_and_says_why_in_the_history(store: Store) -> None:
    await store.seed("pgtest1")
    await store.journal.queue_job(build_queued("pgtest1"))
    run = await store.journal.claim_job("oma-1", 30)
    assert run is not None
    before = await store.rows(vm_disks, vm_context_id=context_id("pgtest1"))
    known = len(await store.rows(cbt_history))
    change = ResyncDemanded(context_id("pgtest1"), (volume_id("pgtest1"),), "To be copied whole.")
    await store.journal.apply(run.lease, [change], NOW)
    after = await store.rows(vm_disks, vm_context_id=context_id("pgtest1"))
    assert [row["disk_change_id"] for row in after] == ["", *(row["disk_change_id"] for row in before[1:])]
    assert len(await store.rows(cbt_history)) == known + 1
    records = await store.inventory.get_records(context_id("pgtest1"))
    awaited = [awaits_copy(records, volume.volume_id) is not None for volume in records.volumes]
    assert awaited == [volume.volume_id == volume_id("pgtest1") for volume in records.volumes]
    foreign = ResyncDemanded(context_id("other"), (volume_id("pgtest1"),), "To be copied whole.")
    with pytest.raises(ConcurrentChange):
        await store.journal.apply(run.lease, [foreign], NOW)
