"""One transaction for a new job, and one active job per VM and per volume."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from database.tables import (
    job_tracking,
    log_events,
    oma_events,
    oma_jobs,
    oma_volume_claims,
    vm_replication_contexts,
)
from oma.domain.changes import IssueOpened, JobEnded
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.events import EventType
from oma.domain.states import JobState
from oma.store import jobs
from tests.contract.store.conftest import Store
from tests.contract.store.world import (
    NOW,
    build_issue,
    build_plan,
    build_queued,
    context_id,
    failover_id,
    uid,
    volume_id,
)


async def status_of(store: Store, name: str) -> str:
    context = await store.inventory.find_context(context_id(name))
    assert context is not None
    return context.current_status


async def test_queueing_writes_job_claims_status_joblog_and_event_together(store: Store) -> None:
    await store.seed("pgtest1")
    queued = build_queued("pgtest1")

    job = await store.journal.queue_job(queued)

    assert job.state is JobState.QUEUED
    assert job.plan == queued.plan
    assert (job.id, job.vm_name, job.created_at, job.requested_by) == (queued.job_id, "pgtest1", NOW, "operator")
    assert await store.reader.find_job(job.id) == job
    context = await store.inventory.find_context(context_id("pgtest1"))
    assert context is not None
    assert (context.current_status, context.last_status_change) == ("cleanup_required", NOW)
    claims = await store.rows(oma_volume_claims)
    assert {row["volume_id"] for row in claims} == {volume_id("pgtest1", 0), volume_id("pgtest1", 1)}
    (tracked,) = await store.rows(job_tracking, id=job.id)
    assert tracked["job_type"] == "cleanup"
    assert tracked["operation"] == "failed-execution-cleanup"
    assert (tracked["status"], tracked["job_category"]) == ("pending", "failover")
    assert (tracked["context_id"], tracked["owner"], tracked["percent_complete"]) == (
        context_id("pgtest1"),
        "operator",
        0,
    )
    assert tracked["metadata"]["vm_name"] == "pgtest1"
    (event,) = await store.reader.list_events(0, job.id, 10)
    assert (event.type, event.sentence, event.at) == (EventType.JOB_QUEUED, queued.sentence, NOW)
    assert store.announced == [event]
    page = await store.reader.list_log(job.id, 10, None)
    assert [line.message for line in page.items] == [queued.sentence]


async def test_a_second_run_of_the_vm_is_told_which_job_holds_it(store: Store) -> None:
    await store.seed("pgtest1")
    first = await store.journal.queue_job(build_queued("pgtest1"))
    await store.journal.claim_job("oma-1", 30)
    again = build_queued("pgtest1", plan=build_plan("pgtest1", former_status="cleanup_required"), job_id=uid("second"))

    with pytest.raises(OmaError) as refused:
        await store.journal.queue_job(again)

    assert refused.value.code is Code.CLEANUP_IN_PROGRESS
    assert (refused.value.fields["job_id"], refused.value.fields["holder"]) == (first.id, "oma-1")
    assert await store.reader.find_job(uid("second")) is None


async def test_a_volume_is_in_one_job_only_and_the_refusal_leaves_no_trace(store: Store) -> None:
    await store.seed("pgtest1", "pgtest2")
    first = await store.journal.queue_job(build_queued("pgtest1"))
    plan = build_plan("pgtest2")
    plan = replace(plan, volumes=(*plan.volumes, build_plan("pgtest1").volumes[1]))

    with pytest.raises(OmaError) as refused:
        await store.journal.queue_job(build_queued("pgtest2", plan=plan))

    assert refused.value.code is Code.CLEANUP_IN_PROGRESS
    assert refused.value.fields["job_id"] == first.id
    assert await status_of(store, "pgtest2") == "failed_over_test"
    job_id = uid("job", "pgtest2")
    assert await store.reader.find_job(job_id) is None
    for table in (job_tracking, oma_jobs):
        assert await store.rows(table, id=job_id) == []
    for table in (log_events, oma_events, oma_volume_claims):
        assert await store.rows(table, job_id=job_id) == []


@pytest.mark.rule("2-handshake")
async def test_a_status_that_somebody_changed_meanwhile_is_seen(store: Store) -> None:
    await store.seed("pgtest1", status="replicating")

    with pytest.raises(ConcurrentChange):
        await store.journal.queue_job(build_queued("pgtest1"))

    assert await status_of(store, "pgtest1") == "replicating"
    assert (await store.reader.count_jobs())["queued"] == 0
    assert await store.reader.last_event_seq() == 0


async def test_a_vm_that_needs_cleaning_already_can_be_queued(store: Store) -> None:
    await store.seed("pgtest1", status="cleanup_required")

    job = await store.journal.queue_job(
        build_queued("pgtest1", plan=build_plan("pgtest1", former_status="cleanup_required"))
    )

    assert job.plan.former_status == "cleanup_required"
    assert await status_of(store, "pgtest1") == "cleanup_required"


async def test_a_context_that_is_gone_is_a_concurrent_change(store: Store) -> None:
    with pytest.raises(ConcurrentChange):
        await store.journal.queue_job(build_queued("pgtest1"))


async def test_an_open_issue_has_to_be_resolved_first(store: Store) -> None:
    await store.seed("pgtest1")
    job = await store.journal.queue_job(build_queued("pgtest1"))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.journal.apply(
        claimed.lease,
        [IssueOpened(build_issue(job.id), "Issue opened."), JobEnded(JobState.PARKED, "Parked.")],
        NOW,
    )
    again = build_queued("pgtest1", plan=build_plan("pgtest1", former_status="cleanup_required"), job_id=uid("second"))

    with pytest.raises(OmaError) as refused:
        await store.journal.queue_job(again)

    assert refused.value.code is Code.NEEDS_RESOLUTION
    assert refused.value.fields["job_id"] == job.id
    assert refused.value.fields["issue_ids"] == [build_issue(job.id).id]


async def test_the_same_key_and_body_is_the_same_job_and_another_body_is_refused(store: Store) -> None:
    await store.seed("pgtest1")
    first = await store.journal.queue_job(build_queued("pgtest1", key="key-1"))

    again = await store.journal.queue_job(build_queued("pgtest1", key="key-1", job_id=uid("second")))
    with pytest.raises(OmaError) as refused:
        await store.journal.queue_job(build_queued("pgtest1", key="key-1", job_id=uid("third"), request_hash="hash-2"))

    assert again.id == first.id
    assert refused.value.code is Code.IDEMPOTENCY_KEY_REUSED
    assert await store.reader.find_job_by_key("key-1") == (first, "hash-1")
    # Another spelling is another key, trailing blanks included.
    assert await store.reader.find_job_by_key("KEY-1") is None
    assert await store.reader.find_job_by_key("key-1 ") is None


async def test_a_key_that_another_daemon_used_a_moment_ago_is_told_as_the_key(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.seed("pgtest1", "pgtest2")
    first = await store.journal.queue_job(build_queued("pgtest1", key="key-1"))
    find, looks = jobs.find_job_by_key, iter([None])

    def find_too_early(*args: Any, **more: Any) -> Any:
        return next(looks, find(*args, **more))

    monkeypatch.setattr(jobs, "find_job_by_key", find_too_early)
    with pytest.raises(OmaError) as refused:
        await store.journal.queue_job(build_queued("pgtest2", key="key-1", request_hash="hash-2"))

    assert refused.value.code is Code.IDEMPOTENCY_KEY_REUSED
    assert refused.value.fields["job_id"] == first.id
    assert [row["id"] for row in await store.rows(oma_jobs)] == [first.id]


@pytest.mark.rule("6-one-run")
async def test_two_daemons_that_queue_one_vm_at_once_get_one_job(store: Store, other: Store) -> None:
    await store.seed("pgtest1")

    answers = await asyncio.gather(
        store.journal.queue_job(build_queued("pgtest1", job_id=uid("one"))),
        other.journal.queue_job(build_queued("pgtest1", job_id=uid("two"))),
        return_exceptions=True,
    )

    (refused,) = [answer for answer in answers if isinstance(answer, Exception)]
    assert isinstance(refused, OmaError)
    assert refused.code is Code.CLEANUP_IN_PROGRESS
    assert (await store.reader.count_jobs())["queued"] == 1


async def test_an_ended_run_gives_the_vm_and_its_volumes_free(store: Store) -> None:
    await store.seed("pgtest1")
    await store.journal.queue_job(build_queued("pgtest1"))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.journal.apply(claimed.lease, [JobEnded(JobState.FAILED, "It failed.")], NOW)

    plan = build_plan("pgtest1", former_status="cleanup_required")
    second = await store.journal.queue_job(build_queued("pgtest1", plan=plan, job_id=uid("second")))

    assert second.state is JobState.QUEUED
    claims = await store.rows(oma_volume_claims)
    assert {row["job_id"] for row in claims} == {second.id}


async def test_names_in_any_script_survive(store: Store) -> None:
    name = "сервер-1 / db #7 🚑"
    await store.seed(name)

    job = await store.journal.queue_job(build_queued(name))

    found = await store.reader.find_job(job.id)
    assert found is not None
    assert (found.vm_name, found.plan.vm_name) == (name, name)
    (tracked,) = await store.rows(job_tracking, id=job.id)
    assert tracked["metadata"]["vm_name"] == name
    (failover,) = (await store.inventory.get_records(context_id(name))).failovers
    assert (failover.job_id, failover.source_vm_name) == (failover_id(name), name)


async def test_a_changed_job_of_the_vm_does_not_stop_the_queueing(store: Store) -> None:
    """Only the status is shaken hands on here; the reset is guarded by the job as well."""
    await store.seed("pgtest1")
    await store.door.write(
        lambda connection: connection.execute(update(vm_replication_contexts).values(current_job_id=None))
    )

    assert (await store.journal.queue_job(build_queued("pgtest1"))).state is JobState.QUEUED
