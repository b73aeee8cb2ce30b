"""What a run writes into the existing records: tracking, the reset, the status put back."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, update

from database.tables import (
    device_mappings,
    failover_jobs,
    job_steps,
    job_tracking,
    ossea_volumes,
    vm_replication_contexts,
)
from oma.domain.changes import JobEnded, RecordsReset, StatusRestored, TrackingCleared
from oma.domain.errors import ConcurrentChange
from oma.domain.jobs import ClaimedJob
from oma.domain.states import JobState
from tests.contract.store.conftest import Store
from tests.contract.store.world import (
    NOW,
    build_queued,
    context_id,
    failover_id,
    seed_failover,
    snapshot_id,
    volume_id,
)

NAME = "pgtest1"
VOLUMES = (volume_id(NAME, 0), volume_id(NAME, 1))


@pytest.fixture
async def run(store: Store) -> ClaimedJob:
    await store.seed(NAME, "neighbour")
    await store.journal.queue_job(build_queued(NAME))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    return claimed


async def reset_of(store: Store, **more: Any) -> RecordsReset:
    records = await store.inventory.get_records(context_id(NAME))
    return RecordsReset(
        **{
            "context_id": context_id(NAME),
            "observed_job_id": records.context.current_job_id,
            "new_status": "ready_for_failover",
            "failover_ids": tuple(failover.id for failover in records.failovers if failover.is_open),
            "joblog_ids": (failover_id(NAME),),
            "volume_ids": VOLUMES,
            "summary": {"replica": "ready"},
            "sentence": "Reset.",
            **more,
        }
    )


async def test_tracking_is_cleared_in_all_three_places(store: Store, run: ClaimedJob) -> None:
    change = TrackingCleared(
        context_id(NAME), VOLUMES, (snapshot_id(NAME, 0), snapshot_id(NAME, 1)), "Tracking cleared."
    )

    (event,) = await store.journal.apply(run.lease, [change], NOW)

    for row in await store.rows(ossea_volumes, vm_context_id=context_id(NAME)):
        assert (row["snapshot_id"], row["snapshot_status"], row["snapshot_created_at"]) == ("", "none", None)
    for one in VOLUMES:
        (mapping,) = await store.rows(device_mappings, volume_uuid=one)
        assert (mapping["ossea_snapshot_id"], mapping["snapshot_status"]) == ("", "none")
        assert mapping["snapshot_created_at"] is None
    (failover,) = await store.rows(failover_jobs, vm_context_id=context_id(NAME))
    assert failover["ossea_snapshot_id"] == ""
    assert event.data["former"] == {volume_id(NAME, disk): [snapshot_id(NAME, disk)] for disk in range(2)}
    records = await store.inventory.get_records(context_id(NAME))
    assert {volume.snapshot_id for volume in records.volumes} == {None}
    # Nobody else's tracking is touched.
    neighbour = await store.inventory.get_records(context_id("neighbour"))
    assert {volume.snapshot_id for volume in neighbour.volumes} == {snapshot_id("neighbour", n) for n in range(2)}
    assert neighbour.failovers[0].ossea_snapshot_id == snapshot_id("neighbour", 0)


async def test_the_reset_clears_what_a_new_mapping_still_tracks(store: Store, run: ClaimedJob) -> None:
    """A volume that comes home after its tracking was cleared gets a mapping that may remember its snapshot."""
    change = TrackingCleared(context_id(NAME), VOLUMES, (snapshot_id(NAME, 0),), "Tracking cleared.")
    await store.journal.apply(run.lease, [change], NOW)
    reborn = update(device_mappings).where(device_mappings.c.volume_uuid == VOLUMES[0])
    reborn = reborn.values(ossea_snapshot_id=snapshot_id(NAME, 0), snapshot_status="ready", snapshot_created_at=NOW)
    await store.door.write(lambda connection: connection.execute(reborn))

    await store.journal.apply(run.lease, [await reset_of(store)], NOW)

    (mapping,) = await store.rows(device_mappings, volume_uuid=VOLUMES[0])
    assert (mapping["ossea_snapshot_id"], mapping["snapshot_status"]) == ("", "none")
    assert mapping["snapshot_created_at"] is None


async def test_a_failover_keeps_a_snapshot_that_was_not_among_the_cleared(store: Store, run: ClaimedJob) -> None:
    change = TrackingCleared(context_id(NAME), VOLUMES, (snapshot_id(NAME, 1),), "Cleared.")

    await store.journal.apply(run.lease, [change], NOW)

    (failover,) = await store.rows(failover_jobs, vm_context_id=context_id(NAME))
    assert failover["ossea_snapshot_id"] == snapshot_id(NAME, 0)


async def test_the_reset_writes_all_of_it(store: Store, run: ClaimedJob) -> None:
    await store.door.write(
        lambda connection: connection.execute(
            update(failover_jobs).where(failover_jobs.c.job_id == failover_id(NAME)).values(error_message="timed out")
        )
    )
    before = await store.rows(job_tracking)

    await store.journal.apply(
        run.lease,
        [await reset_of(store), JobEnded(JobState.COMPLETED, "Done.", result={"replica": "ready"})],
        NOW,
    )

    (context,) = await store.rows(vm_replication_contexts, context_id=context_id(NAME))
    assert (context["current_status"], context["current_job_id"]) == ("ready_for_failover", None)
    assert context["last_operation_summary"] == {"replica": "ready"}
    assert (context["last_status_change"], context["updated_at"]) == (NOW, NOW)
    (failover,) = await store.rows(failover_jobs, vm_context_id=context_id(NAME))
    assert (failover["status"], failover["completed_at"]) == ("failed", NOW)
    assert failover["error_message"] == f"timed out; ended by the clean-up job {run.job.id}"
    (tracked,) = await store.rows(job_tracking, id=failover_id(NAME))
    assert (tracked["status"], tracked["completed_at"]) == ("failed", NOW)
    assert run.job.id in tracked["error_message"]
    (step,) = await store.rows(job_steps, job_id=failover_id(NAME))
    assert (step["status"], step["completed_at"]) == ("failed", NOW)
    assert {row["status"] for row in await store.rows(ossea_volumes, vm_context_id=context_id(NAME))} == {"attached"}
    # No row of any job goes, and the neighbour's failover is as it was.
    assert len(await store.rows(job_tracking)) == len(before)
    neighbour = await store.inventory.get_records(context_id("neighbour"))
    assert (neighbour.context.current_status, neighbour.failovers[0].status) == ("failed_over_test", "pending")
    assert neighbour.joblog[0].status == "running"
    assert {volume.status for volume in neighbour.volumes} == {"detached"}


@pytest.mark.parametrize("status", ["", "executing"])
async def test_open_failovers_of_odd_statuses_end_too(store: Store, run: ClaimedJob, status: str) -> None:
    """Existing installations write values that the enumeration lacks."""
    await store.door.write(
        lambda connection: connection.exec_driver_sql(f"UPDATE failover_jobs SET status = '{status}'")
    )

    await store.journal.apply(run.lease, [await reset_of(store)], NOW)

    assert [row["status"] for row in await store.rows(failover_jobs, vm_context_id=context_id(NAME))] == ["failed"]


async def test_ended_joblog_rows_stay_as_they_are(store: Store, run: ClaimedJob) -> None:
    await store.door.write(
        lambda connection: connection.execute(
            update(job_tracking)
            .where(job_tracking.c.id == failover_id(NAME))
            .values(status="cancelled", error_message="by hand")
        )
    )

    await store.journal.apply(run.lease, [await reset_of(store)], NOW)

    (tracked,) = await store.rows(job_tracking, id=failover_id(NAME))
    assert (tracked["status"], tracked["error_message"]) == ("cancelled", "by hand")


def change_status(connection) -> None:
    connection.execute(update(vm_replication_contexts).values(current_status="failed_over_test"))


def change_job(connection) -> None:
    connection.execute(update(vm_replication_contexts).values(current_job_id=None))


def begin_failover(connection) -> None:
    seed_failover(connection, NAME, "failover-new")


def end_failover(connection) -> None:
    connection.execute(update(failover_jobs).values(status="completed"))


def remove_context(connection) -> None:
    connection.execute(delete(vm_replication_contexts).where(vm_replication_contexts.c.context_id == context_id(NAME)))


@pytest.mark.parametrize("meanwhile", [change_status, change_job, begin_failover, end_failover, remove_context])
async def test_whatever_somebody_wrote_meanwhile_stops_the_reset_whole(
    store: Store, run: ClaimedJob, meanwhile: Any
) -> None:
    change = await reset_of(store)
    await store.door.write(meanwhile)
    tables = (vm_replication_contexts, failover_jobs, job_tracking, job_steps, ossea_volumes)
    before = [await store.rows(table) for table in tables]

    with pytest.raises(ConcurrentChange):
        await store.journal.apply(run.lease, [change, JobEnded(JobState.COMPLETED, "Done.")], NOW)

    assert [await store.rows(table) for table in tables] == before
    job = await store.reader.find_job(run.job.id)
    assert job is not None
    assert job.state is JobState.RUNNING


async def test_the_status_is_put_back(store: Store, run: ClaimedJob) -> None:
    (event,) = await store.journal.apply(
        run.lease, [StatusRestored(context_id(NAME), "failed_over_test", "Put back.")], NOW
    )

    context = await store.inventory.find_context(context_id(NAME))
    assert context is not None
    assert context.current_status == "failed_over_test"
    assert event.data["restored"] is True


async def test_a_status_that_is_no_longer_ours_stays(store: Store, run: ClaimedJob) -> None:
    await store.door.write(
        lambda connection: connection.execute(update(vm_replication_contexts).values(current_status="replicating"))
    )

    (event,) = await store.journal.apply(
        run.lease, [StatusRestored(context_id(NAME), "failed_over_test", "Put back.")], NOW
    )

    context = await store.inventory.find_context(context_id(NAME))
    assert context is not None
    assert context.current_status == "replicating"
    assert (event.data["restored"], event.data["found"]) == (False, "replicating")


@pytest.mark.parametrize(
    "change",
    [
        TrackingCleared(context_id("neighbour"), (volume_id("neighbour"),), (), "x"),
        StatusRestored(context_id("neighbour"), "failed", "x"),
        RecordsReset(context_id("neighbour"), None, "failed", (), (), (), {}, "x"),
    ],
)
async def test_a_job_writes_its_own_vm_only(store: Store, run: ClaimedJob, change: Any) -> None:
    before = await store.inventory.get_records(context_id("neighbour"))

    with pytest.raises(ConcurrentChange):
        await store.journal.apply(run.lease, [change], NOW)

    after = await store.inventory.get_records(context_id("neighbour"))
    assert (after.context, after.volumes, after.failovers) == (before.context, before.volumes, before.failovers)
