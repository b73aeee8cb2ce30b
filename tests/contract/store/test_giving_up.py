"""A run is given up by a person's word: its fence is raised, and it ends only as it was judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from database.tables import oma_issues, oma_jobs, oma_leaks, vm_disks
from oma.domain.actions import ActionKind
from oma.domain.errors import ConcurrentChange
from oma.domain.issues import Issue
from oma.domain.leaks import Leak, LeakKind
from oma.domain.remains import Remains, RunGivenUp
from oma.domain.resolving import FENCE, IssueResolved, Resolution
from oma.domain.states import JobState
from tests.contract.store.conftest import Store
from tests.contract.store.test_resuming import LATER, park
from tests.contract.store.world import context_id, uid, volume_id

pytestmark = pytest.mark.rule("5-unknown-revert")


async def parked(store: Store) -> tuple[Issue, Remains]:
    run = await park(store, (ActionKind.DETACH_VOLUME, None))
    (issue,) = await store.reader.list_issues(job_id=run.job.id)
    remains = await store.reader.find_remains(run.job.id)
    assert remains is not None
    return issue, remains


def said(issue: Issue) -> IssueResolved:
    return IssueResolved(issue.id, Resolution.RESYNC, "It is lost.", "anna", LATER, "Given up.", {}, ())


def ends(issue: Issue, remains: Remains) -> IssueResolved:
    given_up = RunGivenUp(remains.volume_ids, "It ended.", "Copy it.", remains.fence)
    return replace(said(issue), ends=given_up)


async def begin_replication(store: Store, remains: Remains) -> None:
    await store.sql(
        "INSERT INTO replication_jobs (id, vm_context_id, status, updated_at) VALUES "
        f"('repl-new', '{remains.context_id}', 'running', '2026-03-01 09:00:00.000000')"
    )


async def test_the_first_word_raises_the_fence_and_keeps_everything_else(store: Store) -> None:
    issue, before = await parked(store)
    settled = await store.journal.resolve_issue(replace(said(issue), fences=True))
    remains = await store.reader.find_remains(before.job_id)
    assert remains is not None
    assert remains.fence > before.fence
    assert remains == replace(before, fence=remains.fence)
    assert settled.issue.evidence[FENCE] == remains.fence
    assert [one["state"] for one in await store.rows(oma_issues, id=issue.id)] == ["open"]


async def test_no_fence_is_raised_of_a_run_that_is_at_work(store: Store) -> None:
    issue, remains = await parked(store)
    await store.sql("UPDATE oma_jobs SET state = 'running'")
    with pytest.raises(ConcurrentChange, match="no longer parked"):
        await store.journal.resolve_issue(replace(said(issue), fences=True))
    (job,) = await store.rows(oma_jobs, id=remains.job_id)
    assert job["lease_fence"] == remains.fence


async def test_what_it_claimed_is_known_without_its_plan(store: Store) -> None:
    _issue, remains = await parked(store)
    assert volume_id("pgtest1") in remains.volume_ids
    assert remains.context_id == context_id("pgtest1")


async def test_it_does_not_end_where_it_got_another_fence_meanwhile(store: Store) -> None:
    issue, remains = await parked(store)
    await store.journal.resolve_issue(replace(said(issue), fences=True))
    with pytest.raises(ConcurrentChange, match="at work again"):
        await store.journal.resolve_issue(ends(issue, remains))


async def test_it_does_not_end_under_a_replication_that_was_not_judged(store: Store) -> None:
    issue, remains = await parked(store)
    await begin_replication(store, remains)
    with pytest.raises(ConcurrentChange, match="repl-new"):
        await store.journal.resolve_issue(ends(issue, remains))
    assert [one["state"] for one in await store.rows(oma_jobs)] == ["parked"]


async def test_one_that_was_judged_to_be_dead_counts_as_long_as_it_stays_as_it_was(store: Store) -> None:
    issue, remains = await parked(store)
    await begin_replication(store, remains)
    dead = tuple(one for one in (await store.inventory.get_records(remains.context_id)).replications if one.is_open)
    word = ends(issue, remains)
    assert word.ends is not None
    word = replace(word, ends=replace(word.ends, dead=dead))
    await store.sql("UPDATE replication_jobs SET updated_at = '2026-03-01 10:00:00.000000' WHERE id = 'repl-new'")
    with pytest.raises(ConcurrentChange, match="repl-new"):
        await store.journal.resolve_issue(word)
    await store.sql("UPDATE replication_jobs SET updated_at = '2026-03-01 09:00:00.000000' WHERE id = 'repl-new'")
    settled = await store.journal.resolve_issue(word)
    assert settled.job_state is JobState.FAILED


async def test_a_volume_that_is_gone_is_tracked_with_the_end(store: Store) -> None:
    issue, remains = await parked(store)
    word = ends(issue, remains)
    assert word.ends is not None
    target = {"volume_id": remains.volume_ids[0]}
    leak = Leak(
        uid("leak", "1"),
        remains.context_id,
        remains.vm_name,
        remains.job_id,
        LeakKind.VOLUME_GONE,
        target,
        "It is gone.",
        "It is lost.",
        LATER,
    )
    await store.journal.resolve_issue(replace(word, ends=replace(word.ends, leaks=(leak,))))
    assert [one["target"] for one in await store.rows(oma_leaks, job_id=remains.job_id)] == [target]
    changed = [one["disk_change_id"] for one in await store.rows(vm_disks, vm_context_id=remains.context_id)]
    assert set(changed) == {""}
