"""The existing records, read: exact names, whole pages, a fixed number of queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from database.tables import (
    device_mappings,
    failover_jobs,
    log_events,
    ossea_volumes,
    replication_jobs,
    vm_disks,
    vm_replication_contexts,
)
from oma.domain.changes import ActionEnded, ActionStarted, JobEnded, StatusRestored
from oma.domain.errors import Code, OmaError
from oma.domain.records import RivalFailover, VmRecords
from oma.domain.states import ActionState, JobState
from oma.ports import ContextFilter, Page
from tests.contract.store.conftest import Store, sent_statements
from tests.contract.store.world import (
    NOW,
    OMA_VM,
    build_action,
    build_plan,
    build_queued,
    context_id,
    failover_id,
    seed_failover,
    snapshot_id,
    uid,
    volume_id,
)


async def test_everything_about_one_vm(store: Store) -> None:
    await store.seed("pgtest1", "neighbour")

    records = await store.inventory.get_records(context_id("pgtest1"))

    context = records.context
    assert (context.vm_name, context.vcenter_host, context.current_status) == ("pgtest1", "vc-1", "failed_over_test")
    assert context.last_status_change == NOW - timedelta(hours=2)
    assert [volume.volume_id for volume in records.volumes] == [volume_id("pgtest1", 0), volume_id("pgtest1", 1)]
    assert [volume.snapshot_id for volume in records.volumes] == [snapshot_id("pgtest1", n) for n in range(2)]
    assert records.volumes[0].snapshot_created_at == NOW - timedelta(hours=2)
    assert [disk.disk_id for disk in records.disks] == ["disk-2000", "disk-2001"]
    assert [disk.ossea_volume_id for disk in records.disks] == [volume.id for volume in records.volumes]
    assert {mapping.volume_uuid for mapping in records.mappings} == {volume_id("pgtest1", n) for n in range(2)}
    assert {mapping.operation_mode for mapping in records.mappings} == {"failover"}
    (failover,) = records.failovers
    assert (failover.job_id, failover.status, failover.job_type) == (failover_id("pgtest1"), "pending", "test")
    assert failover.created_at == NOW - timedelta(hours=2)
    (joblog,) = records.joblog
    assert (joblog.job_id, joblog.status, joblog.step_names) == (
        failover_id("pgtest1"),
        "running",
        ("virtio-driver-injection",),
    )
    assert joblog.last_activity_at == NOW - timedelta(minutes=100)
    (replication,) = records.replications
    assert (replication.status, replication.completed_at) == ("completed", NOW - timedelta(hours=4))
    (config,) = records.configs
    assert (config.oma_vm_id, config.is_active) == (OMA_VM, True)
    assert "hidden" not in repr(records)
    assert (records.shared_volume_ids, records.open_issue_ids, records.active_job_id) == ((), (), None)
    assert records.read_at is not None
    assert records.read_at.utcoffset() == timedelta(0)


async def test_an_unknown_context(store: Store) -> None:
    await store.seed("pgtest1")

    with pytest.raises(OmaError) as refused:
        await store.inventory.get_records("ctx-none")
    assert refused.value.code is Code.VM_NOT_FOUND
    assert await store.inventory.find_context("ctx-none") is None
    assert await store.inventory.find_context(context_id("pgtest1").upper()) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("pgtest1", "PGtest1"),
        ("pgtest1", "pgtest1 "),
        ("pgtest1 ", "pgtest1"),
        ("PhilB Test machine", "PhilB  Test machine"),
        ("сервер-1", "Сервер-1"),
        ("\u0439", "\u0438\u0306"),
        ("straße", "STRASSE"),
    ],
)
async def test_a_near_name_is_not_the_name_but_is_shown(store: Store, asked: str, stored: str) -> None:
    await store.seed(stored, "something else")

    found, near = await store.inventory.list_contexts_named(asked)

    assert list(found) == []
    assert list(near) == [stored]


async def test_a_name_is_found_letter_by_letter_in_every_vcenter(store: Store) -> None:
    name = "db/prod #7 сервер"
    await store.seed(name)
    await store.door.write(
        lambda connection: connection.execute(
            insert(vm_replication_contexts).values(
                context_id="ctx-2", vm_name=name, vcenter_host="vc-0", current_status="failed"
            )
        )
    )

    found, near = await store.inventory.list_contexts_named(name)

    assert [context.context_id for context in found] == ["ctx-2", context_id(name)]
    assert list(near) == []


async def test_quotes_and_wildcards_in_a_name_are_letters(store: Store) -> None:
    await store.seed("50%_'; DROP TABLE x; --", "50 percent")

    found, _near = await store.inventory.list_contexts_named("50%_'; DROP TABLE x; --")
    page = await store.inventory.list_records(ContextFilter(q="%_"), 10, None)

    assert [context.vm_name for context in found] == ["50%_'; DROP TABLE x; --"]
    assert [records.context.vm_name for records in page.items] == ["50%_'; DROP TABLE x; --"]


async def pages(store: Store, where: ContextFilter, limit: int) -> list[Page[VmRecords]]:
    found = [await store.inventory.list_records(where, limit, None)]
    while found[-1].next_cursor is not None:
        found.append(await store.inventory.list_records(where, limit, found[-1].next_cursor))
    return found


async def test_pages_hold_every_vm_once_in_one_order(store: Store) -> None:
    names = ["a", "A ", "b", "сервер", "Zeta", "zeta 2", "é", "z" * 255, "ß"]
    for place, name in enumerate(names):
        await store.seed(name, disks=1, vcenter=f"vc-{place}")

    for limit in (1, 2, 4, 9, 50):
        found = await pages(store, ContextFilter(), limit)
        seen = [records.context.vm_name for page in found for records in page.items]
        assert sorted(seen) == sorted(names)
        assert all(len(page.items) == limit for page in found[:-1])
        assert all(page.items for page in found)


async def test_a_vm_that_goes_between_two_pages_skips_none_of_the_others(store: Store) -> None:
    await store.seed(*(f"vm-{number}" for number in range(6)), disks=1)
    first = await store.inventory.list_records(ContextFilter(), 2, None)
    await store.door.write(
        lambda connection: connection.execute(
            vm_replication_contexts.delete().where(vm_replication_contexts.c.vm_name == "vm-1")
        )
    )

    second = await store.inventory.list_records(ContextFilter(), 2, first.next_cursor)

    assert [records.context.vm_name for records in second.items] == ["vm-2", "vm-3"]


async def test_filters(store: Store) -> None:
    await store.seed("Web-1", "web-2", disks=1)
    await store.seed("СЕРВЕР-1", disks=1, status="ready_for_failover")

    async def names(where: ContextFilter) -> list[str]:
        page = await store.inventory.list_records(where, 50, None)
        return [records.context.vm_name for records in page.items]

    assert sorted(await names(ContextFilter(q="WEB"))) == ["Web-1", "web-2"]
    assert await names(ContextFilter(q="сервер")) == ["СЕРВЕР-1"]
    assert await names(ContextFilter(status="ready_for_failover")) == ["СЕРВЕР-1"]
    assert await names(ContextFilter(status="ready_for_failover", q="web")) == []
    assert await names(ContextFilter(status="no such status")) == []


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "bnVsbA", "WzFd", "WyJqb2JzIiwiYSIsImIiXQ", "й", "a" * 5000])
async def test_a_bad_cursor_names_its_field(store: Store, cursor: str) -> None:
    await store.seed("pgtest1")

    with pytest.raises(OmaError) as refused:
        await store.inventory.list_records(ContextFilter(), 10, cursor)
    assert refused.value.code is Code.INVALID_REQUEST
    assert refused.value.fields["field"] == "cursor"


async def test_the_number_of_queries_does_not_depend_on_the_number_of_vms(store: Store) -> None:
    await store.seed(*(f"vm-{number:02}" for number in range(2)), disks=3)
    with sent_statements() as few:
        await store.inventory.list_records(ContextFilter(), 50, None)
    await store.seed(*(f"vm-{number:02}" for number in range(2, 30)), disks=3)
    with sent_statements() as many:
        page = await store.inventory.list_records(ContextFilter(), 50, None)

    assert len(page.items) == 30
    assert len(many) == len(few)
    assert len([one for one, _parameters in many if one.startswith("SELECT")]) <= 22


async def test_no_vm_at_all_is_an_empty_page(store: Store) -> None:
    assert await store.inventory.list_records(ContextFilter(), 10, None) == Page((), None)


async def test_failovers_newest_first_and_old_open_ones_too(store: Store) -> None:
    await store.seed("pgtest1")

    def add(connection) -> None:
        connection.execute(update(failover_jobs).values(created_at=NOW - timedelta(days=400)))
        for number in range(60):
            seed_failover(
                connection,
                "pgtest1",
                f"failover-{number}",
                status="failed",
                created_at=NOW - timedelta(days=60 - number),
            )

    await store.door.write(add)

    records = await store.inventory.get_records(context_id("pgtest1"))

    assert records.newest_failover is not None
    assert records.newest_failover.job_id == "failover-59"
    times = [failover.created_at for failover in records.failovers]
    assert times == sorted(times, key=lambda at: at or NOW, reverse=True)
    assert records.failovers[-1].job_id == failover_id("pgtest1")
    assert records.failovers[-1].is_open
    assert len(records.failovers) == 51
    assert {row.job_id for row in records.joblog} == {failover.job_id for failover in records.failovers}


async def test_a_clock_that_was_once_ahead_makes_no_failover_the_newest(store: Store) -> None:
    await store.seed("pgtest1")

    def add(connection) -> None:
        connection.execute(update(failover_jobs).values(status="failed", created_at=NOW + timedelta(days=3000)))
        seed_failover(connection, "pgtest1", "today", created_at=NOW)

    await store.door.write(add)

    records = await store.inventory.get_records(context_id("pgtest1"))

    assert [failover.job_id for failover in records.failovers] == ["today", failover_id("pgtest1")]


async def test_failovers_of_others_at_that_time_are_read_where_a_test_vm_has_no_record(store: Store) -> None:
    await store.seed("web-1", "WEB 1", "later")

    def add(connection) -> None:
        for name, at in (("web-1", 0), ("WEB 1", 100), ("later", 3 * 3600)):
            of_this = failover_jobs.c.job_id == failover_id(name)
            found = {"created_at": NOW + timedelta(seconds=at), "destination_vm_id": None}
            connection.execute(update(failover_jobs).where(of_this).values(**found))

    await store.door.write(add)

    records = await store.inventory.get_records(context_id("web-1"))
    assert records.rivals == (RivalFailover("WEB 1", None),)

    recorded = update(failover_jobs).where(failover_jobs.c.job_id == failover_id("web-1"))
    await store.door.write(lambda connection: connection.execute(recorded.values(destination_vm_id="vm-1")))
    assert (await store.inventory.get_records(context_id("web-1"))).rivals == ()
    assert (await store.inventory.get_records(context_id("WEB 1"))).rivals == (RivalFailover("web-1", "vm-1"),)


async def test_the_last_completed_replication_is_there_behind_any_number_of_failed_ones(store: Store) -> None:
    await store.seed("pgtest1")

    def add(connection) -> None:
        for number in range(40):
            connection.execute(
                insert(replication_jobs).values(
                    id=f"failed-{number}",
                    vm_context_id=context_id("pgtest1"),
                    status="failed",
                    updated_at=NOW + timedelta(minutes=number),
                )
            )
        connection.execute(
            insert(replication_jobs).values(
                id="open", vm_context_id=context_id("pgtest1"), status="replicating", updated_at=NOW - timedelta(days=9)
            )
        )

    await store.door.write(add)

    replications = (await store.inventory.get_records(context_id("pgtest1"))).replications

    assert replications[0].id == "failed-39"
    assert {one.status for one in replications} == {"failed", "completed", "replicating"}
    assert [one.id for one in replications if one.is_open] == ["open"]
    assert len(replications) == 12


async def test_the_last_sign_of_life_is_a_line_or_a_step_whichever_is_younger(store: Store) -> None:
    await store.seed("pgtest1")
    young = NOW - timedelta(minutes=1)
    await store.door.write(
        lambda connection: connection.execute(
            insert(log_events).values(job_id=failover_id("pgtest1"), level="INFO", message="on", ts=young)
        )
    )

    (joblog,) = (await store.inventory.get_records(context_id("pgtest1"))).joblog

    assert joblog.last_activity_at == young


async def test_a_volume_that_two_contexts_claim(store: Store) -> None:
    await store.seed("pgtest1", "pgtest2", "pgtest3")
    mine = await store.inventory.get_records(context_id("pgtest1"))
    assert mine.shared_volume_ids == ()

    def claim(connection) -> None:
        connection.execute(
            insert(ossea_volumes).values(
                vm_context_id=context_id("pgtest2"), volume_id=volume_id("pgtest1", 1), volume_name="x"
            )
        )
        connection.execute(
            insert(vm_disks).values(
                vm_context_id=context_id("pgtest3"), disk_id="disk-2009", ossea_volume_id=mine.volumes[0].id
            )
        )

    await store.door.write(claim)

    shared = (await store.inventory.get_records(context_id("pgtest1"))).shared_volume_ids
    assert set(shared) == {volume_id("pgtest1", 0), volume_id("pgtest1", 1)}
    assert (await store.inventory.get_records(context_id("pgtest2"))).shared_volume_ids == (volume_id("pgtest1", 1),)
    assert (await store.inventory.get_records(context_id("pgtest3"))).shared_volume_ids == ()


async def test_known_volumes_of_any_vm(store: Store) -> None:
    await store.seed("pgtest1")
    await store.door.write(
        lambda connection: connection.execute(
            insert(device_mappings).values(id="m", volume_uuid="only-mapped", device_path="/dev/x", vm_id="v")
        )
    )

    known = await store.inventory.list_known_volume_ids(["unknown", "only-mapped", volume_id("pgtest1", 1)])

    assert list(known) == ["only-mapped", volume_id("pgtest1", 1)]
    # The case of an id says nothing, neither CloudStack's nor the row's.
    await store.sql("UPDATE device_mappings SET volume_uuid = 'Only-Mapped' WHERE id = 'm'")
    spelled = ["ONLY-MAPPED", volume_id("pgtest1", 1).upper()]
    assert list(await store.inventory.list_known_volume_ids(spelled)) == spelled
    assert await store.inventory.list_known_volume_ids([]) == []


async def test_what_partial_runs_have_proven_since_the_last_whole_one(store: Store) -> None:
    await store.seed("pgtest1")

    async def run(number: int, result: dict[str, Any], state: JobState = JobState.COMPLETED) -> str:
        job_id = uid("run", number)
        at = NOW + timedelta(minutes=number)
        plan = build_plan("pgtest1")
        await store.journal.queue_job(build_queued("pgtest1", plan=plan, job_id=job_id, at=at))
        claimed = await store.journal.claim_job("oma-1", 30)
        assert claimed is not None
        done, failed = build_action(job_id, 1), build_action(job_id, 2)
        await store.journal.apply(
            claimed.lease,
            [
                ActionStarted(done, "1"),
                ActionEnded(done.id, ActionState.EXECUTED, "1"),
                ActionStarted(failed, "2"),
                ActionEnded(failed.id, ActionState.EXECUTION_FAILED, "2"),
                StatusRestored(context_id("pgtest1"), "failed_over_test", "so that the next can be queued"),
                JobEnded(state, "End.", result=result),
            ],
            at,
        )
        return done.id

    await run(1, {"partial": True})
    await run(2, {"replica": "ready"})
    third = await run(3, {"partial": True})
    await run(4, {}, JobState.FAILED)
    fifth = await run(5, {"partial": True})

    proven = (await store.inventory.get_records(context_id("pgtest1"))).proven

    assert [action.id for action in proven] == [third, fifth]
    assert {action.state for action in proven} == {ActionState.EXECUTED}
