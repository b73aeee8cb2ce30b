"""What an ended run leaves in the VM's records, and what later plans read of how long it took."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from database.tables import vm_replication_contexts
from oma.domain.changes import ActionEnded, ActionStarted, JobEnded
from oma.domain.jobs import ClaimedJob
from oma.domain.states import ActionState, JobState
from tests.contract.store.conftest import Store, sent_statements
from tests.contract.store.world import NOW, build_action, build_queued, context_id

NAME = "pgtest1"
LATER = NOW + timedelta(seconds=7)
OURS = "failed-execution-cleanup"


@pytest.fixture
async def run(store: Store) -> ClaimedJob:
    await store.seed(NAME)
    await store.journal.queue_job(build_queued(NAME))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    return claimed


async def summary(store: Store) -> object:
    (context,) = await store.rows(vm_replication_contexts, context_id=context_id(NAME))
    return context["last_operation_summary"]


@pytest.mark.parametrize(
    ("former", "kept"),
    [
        (f'{{"operation": "{OURS}", "completed_at": "then", "replica": "ready"}}', {"completed_at": "then"}),
        ('{"operation": "live-failover", "completed_at": "then"}', {}),
        ("[1]", {}),
        (None, {}),
    ],
)
async def test_the_summary_is_replaced_but_for_the_last_complete_clean_up(
    store: Store, run: ClaimedJob, former: str | None, kept: dict[str, str]
) -> None:
    value = "NULL" if former is None else f"'{former}'"
    await store.sql(f"UPDATE vm_replication_contexts SET last_operation_summary={value}")
    told = {"operation": OURS, "status": "parked", "replica": "unknown"}
    await store.journal.apply(run.lease, [JobEnded(JobState.PARKED, "Parked.", summary=told)], LATER)
    assert await summary(store) == {**told, **kept}
    (context,) = await store.rows(vm_replication_contexts, context_id=context_id(NAME))
    assert (context["current_status"], context["updated_at"]) == ("cleanup_required", LATER)


async def test_an_end_without_a_summary_leaves_it_alone(store: Store, run: ClaimedJob) -> None:
    await store.sql("""UPDATE vm_replication_contexts SET last_operation_summary='{"a": 1}'""")
    await store.journal.apply(run.lease, [JobEnded(JobState.FAILED, "No.")], LATER)
    assert await summary(store) == {"a": 1}


async def test_times_are_those_of_proven_actions_of_completed_runs_in_one_question(
    store: Store, run: ClaimedJob
) -> None:
    proven, failed = build_action(run.job.id, 1), build_action(run.job.id, 2)
    started = [ActionStarted(replace(one, intent_at=NOW), "Sent.") for one in (proven, failed)]
    await store.journal.apply(run.lease, started, NOW)
    ends = [
        ActionEnded(proven.id, ActionState.EXECUTED, "Done."),
        ActionEnded(failed.id, ActionState.EXECUTION_FAILED, "No."),
    ]
    await store.journal.apply(run.lease, ends, LATER)
    assert await store.reader.list_timed_actions() == []
    await store.journal.apply(run.lease, [JobEnded(JobState.COMPLETED, "Done.")], LATER)
    with sent_statements() as statements:
        (timed,) = await store.reader.list_timed_actions()
    assert (timed.id, timed.kind, timed.target) == (proven.id, proven.kind, proven.target)
    assert (timed.intent_at, timed.ended_at) == (NOW, LATER)
    assert len([one for one, _ in statements if one.startswith("SELECT")]) == 1
