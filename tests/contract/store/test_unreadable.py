"""Rows that no value can be made of: their run is parked with an issue, and every other run is served."""

from __future__ import annotations

import pytest

from database.tables import job_steps, job_tracking, oma_audit, oma_issues, oma_jobs, vm_replication_contexts
from oma.domain.changes import ActionStarted, Change, JobReleased, StepStarted
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.resolving import IssueResolved, Resolution
from oma.domain.states import JobState, Phase
from oma.ports import ContextFilter, JobFilter
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_action, build_queued, context_id, uid

EXPIRED = -5.0
UNCOUNTED = "json_object('at', 'detach-attached-volumes/0')"


def overgrown(key: str, value: str) -> str:
    """The request says of its recoveries what is written as JSON, and can't be reckoned with."""
    last = f'"at": "detach-attached-volumes/0", "count": 1, "{key}": {value}'
    return f"""UPDATE oma_jobs SET request = replace(request, '{{"vm', '{{"recoveries": {{{last}}}, "vm')
        WHERE vm_name = 'bad'"""


BAD = {
    "an unknown kind": ("UPDATE oma_actions SET kind = 'teleport_volume'", "teleport_volume"),
    "an unknown phase": ("UPDATE oma_actions SET phase = 'wash-up'", "wash-up"),
    "JSON that is none": ("UPDATE oma_actions SET target = '{\"volume_id\": '", "oma_actions"),
    "JSON of another shape": ("UPDATE oma_actions SET target = '[1, 2]'", "oma_actions"),
    "an impossible state": ("UPDATE oma_actions SET state = 'HALF_DONE'", "HALF_DONE"),
    "a plan that is none": ("UPDATE oma_jobs SET plan = '{}' WHERE vm_name = 'bad'", "KeyError"),
    "a count of its recoveries of another shape": (
        "UPDATE oma_jobs SET request = json_set(request, '$.recoveries', json_array(1)) WHERE vm_name = 'bad'",
        "the run",
    ),
    "recoveries without their count": (
        f"UPDATE oma_jobs SET request = json_set(request, '$.recoveries', {UNCOUNTED}) WHERE vm_name = 'bad'",
        "the run",
    ),
    "a count of its recoveries that no number is": (overgrown("count", "1e999"), "the run"),
    "a number in its request that can't be stored again": (overgrown("outlived", "1e999"), "the run"),
    "a trial that ends after the last day": (overgrown("tried_at", '"9999-12-31T23:59:59+00:00"'), "the run"),
    "a request that is none": ("UPDATE oma_jobs SET request = 'null' WHERE vm_name = 'bad'", "the run"),
}


async def two_runs(store: Store) -> tuple[str, str]:
    """One whose daemon died in the middle, and a younger one that waits."""
    await store.seed("bad", "good")
    await store.journal.queue_job(build_queued("bad", at=NOW))
    await store.journal.queue_job(build_queued("good", at=NOW.replace(minute=1)))
    old = await store.journal.claim_job("dead", EXPIRED)
    assert old is not None
    started: list[Change] = [StepStarted(Phase.DETACH, "Detaching.")]
    started.append(ActionStarted(build_action(old.job.id), "Detach."))
    await store.journal.apply(old.lease, started, NOW)
    return old.job.id, uid("job", "good")


@pytest.mark.parametrize("bad", BAD)
async def test_its_run_is_parked_and_the_next_one_claimed(store: Store, bad: str) -> None:
    bad_id, good_id = await two_runs(store)
    statement, word = BAD[bad]
    await store.sql(statement)

    claimed = await store.journal.claim_job("oma-1", 30)

    assert claimed is not None
    assert claimed.job.id == good_id
    (issue,) = await store.rows(oma_issues)
    assert (issue["job_id"], issue["kind"], issue["state"]) == (bad_id, "unbelievable_journal", "open")
    assert word in issue["title"]
    (tracked,) = await store.rows(job_tracking, id=bad_id)
    assert tracked["status"] == "failed"
    assert tracked["error_message"].startswith("parked: The journal of the clean-up of bad can't be read")
    types = [event.type for event in store.announced if event.job_id == bad_id]
    assert types[-2:] == [EventType.ISSUE_OPENED, EventType.JOB_PARKED]
    assert await store.journal.claim_job("oma-1", 30) is None


async def test_its_step_fails_its_vm_says_so_and_the_audit_has_it(store: Store) -> None:
    bad_id, _good = await two_runs(store)
    await store.sql("UPDATE oma_jobs SET plan = '{}' WHERE vm_name = 'bad'")
    await store.journal.claim_job("oma-1", 30)

    (step,) = await store.rows(job_steps, job_id=bad_id)
    assert step["status"] == "failed"
    (context,) = await store.rows(vm_replication_contexts, context_id=context_id("bad"))
    assert context["last_operation_summary"]["replica"] == "unknown"
    (entry,) = await store.rows(oma_audit, action="run_parked", job_id=bad_id)
    (issue,) = await store.rows(oma_issues)
    assert entry["detail"]["issue_ids"] == [issue["id"]]


async def test_lists_leave_it_out_and_a_question_for_it_says_what_is_wrong(store: Store) -> None:
    bad_id, good_id = await two_runs(store)
    await store.sql("UPDATE oma_jobs SET plan = 'no JSON' WHERE vm_name = 'bad'")

    page = await store.reader.list_jobs(JobFilter(), 10, None)

    assert [job.id for job in page.items] == [good_id]
    with pytest.raises(OmaError) as raised:
        await store.reader.find_job(bad_id)
    assert raised.value.code is Code.INTERNAL_ERROR
    assert bad_id in raised.value.sentence


async def test_a_row_that_was_put_right_goes_on_by_a_persons_word(store: Store) -> None:
    bad_id, _good = await two_runs(store)
    await store.sql("UPDATE oma_actions SET kind = 'teleport_volume'")
    await store.journal.claim_job("oma-1", 30)
    (issue,) = await store.rows(oma_issues)

    await store.sql("UPDATE oma_actions SET kind = 'detach_volume'")
    resolved = IssueResolved(issue["id"], Resolution.APPLIED, "put right", "anna", NOW, "It can be read.", {}, ())
    settled = await store.journal.resolve_issue(resolved)
    again = await store.journal.claim_job("oma-1", 30)

    assert settled.resumed
    assert again is not None
    assert (again.job.id, again.job.state, len(again.actions)) == (bad_id, JobState.RUNNING, 1)


async def test_one_that_is_still_bad_is_parked_again_under_an_issue_of_its_own(store: Store) -> None:
    bad_id, _good = await two_runs(store)
    await store.sql("UPDATE oma_actions SET kind = 'teleport_volume'")
    await store.journal.claim_job("oma-1", 30)
    (issue,) = await store.rows(oma_issues)
    resolved = IssueResolved(issue["id"], Resolution.APPLIED, "I hope so", "anna", NOW, "It can be read.", {}, ())
    await store.journal.resolve_issue(resolved)

    assert await store.journal.claim_job("oma-1", 30) is None

    states = sorted(row["state"] for row in await store.rows(oma_issues))
    assert states == ["open", "resolved"]
    (row,) = await store.rows(oma_jobs, id=bad_id)
    assert row["state"] == JobState.PARKED.value


async def test_an_earlier_run_that_can_not_be_read_holds_up_its_own_vm_only(store: Store) -> None:
    bad_id, _good = await two_runs(store)
    await store.sql(f"UPDATE oma_actions SET state = 'ROLLED_BACK', target = 'no JSON' WHERE job_id = '{bad_id}'")
    await store.sql(f"UPDATE oma_jobs SET state = 'failed', active_context_id = NULL WHERE id = '{bad_id}'")

    listed = await store.inventory.list_records(ContextFilter(), 10, None)
    swept = await store.inventory.list_records_of([context_id("bad"), context_id("good")])

    assert [one.context.vm_name for one in listed.items] == ["good"]
    assert [one.context.vm_name for one in swept] == ["good"]
    with pytest.raises(OmaError) as raised:
        await store.inventory.get_records(context_id("bad"))
    assert raised.value.code is Code.INTERNAL_ERROR


async def test_whoever_holds_it_can_give_it_back_unread_and_the_next_claim_parks_it(store: Store) -> None:
    await store.seed("bad")
    job = await store.journal.queue_job(build_queued("bad", at=NOW))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.sql("UPDATE oma_jobs SET plan = '{\"half\": '")
    await store.journal.apply(claimed.lease, [JobReleased("It had broken off.")], NOW)
    assert await store.journal.claim_job("oma-1", 30) is None
    (issue,) = await store.rows(oma_issues)
    assert (issue["job_id"], issue["state"]) == (job.id, "open")
