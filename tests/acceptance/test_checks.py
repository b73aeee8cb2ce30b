"""The scenarios' own checks: each kind of damage is seen, so a scenario that passes has really been looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import pytest_asyncio
from sqlalchemy import Table, delete, update

from database.tables import (
    cbt_history,
    device_mappings,
    failover_jobs,
    job_steps,
    job_tracking,
    nbd_exports,
    oma_actions,
    ossea_volumes,
    vm_disks,
    vm_replication_contexts,
)
from oma.demo.checks import faults_of_a_cleaned_vm, faults_of_a_parked_vm
from oma.demo.ledger import differences, last_call, list_changes, read_ledger
from oma.demo.story import SeededVm
from oma.demo.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

Damage = Callable[[World, SeededVm], Awaitable[object]]


async def set_rows(world: World, table: Table, column: str, value: str, **values: object) -> None:
    await world.stack.door.write(
        lambda connection: connection.execute(update(table).where(table.c[column] == value).values(**values))
    )


async def write_a_byte(world: World, vm: SeededVm) -> None:
    await world.stack.admin.write(vm.disks[0].volume_id, offset=1 << 19, hex_bytes="00ff")


async def take_it_off(world: World, vm: SeededVm) -> None:
    await world.stack.admin.patch_volume(vm.disks[1].volume_id, vm_id=None, device_id=None)


async def leave_a_snapshot(world: World, vm: SeededVm) -> None:
    await world.stack.admin.patch_snapshot(vm.disks[0].snapshot_id, removed=None, state="BackedUp")


async def revive_the_test_vm(world: World, vm: SeededVm) -> None:
    await world.stack.admin.patch_vm(vm.test_vm_id, state="Stopped")


async def forget_an_action(world: World, vm: SeededVm) -> None:
    ledger = await read_ledger(world.stack, vm)
    action = next(row for row in ledger.of(oma_actions) if row["kind"] == "revert_snapshot")
    await world.stack.door.write(
        lambda connection: connection.execute(delete(oma_actions).where(oma_actions.c.id == action["id"]))
    )


async def take_a_detach_back(world: World, vm: SeededVm) -> None:
    ledger = await read_ledger(world.stack, vm)
    action = next(row for row in ledger.of(oma_actions) if row["kind"] == "detach_volume")
    await set_rows(world, oma_actions, "id", action["id"], state="ROLLED_BACK")


async def drop_the_export(world: World, vm: SeededVm) -> None:
    await world.stack.door.write(
        lambda connection: connection.execute(
            delete(nbd_exports).where(nbd_exports.c.volume_id == vm.disks[0].volume_id)
        )
    )


async def change_the_file(world: World, vm: SeededVm) -> None:
    path = world.stack.nbd_dir / f"migration-vol-{vm.disks[0].volume_id}.conf"
    path.write_text("[something-else]\n", encoding="utf-8")


DAMAGES: dict[str, tuple[Damage, str]] = {
    "bytes": (write_a_byte, "content of"),
    "attachment": (take_it_off, "is Ready DATADISK on None"),
    "device": (take_it_off, "the OMA reads nothing"),
    "snapshot": (leave_a_snapshot, "is still there"),
    "test VM": (revive_the_test_vm, "the test VM is Stopped"),
    "journal": (forget_an_action, "which no action has"),
    "way back": (take_a_detach_back, "actions that did not end well: detach_volume"),
    "export row": (drop_the_export, "export of"),
    "export file": (change_the_file, "something-else"),
    "tracking": (
        lambda world, vm: set_rows(
            world, ossea_volumes, "volume_id", vm.disks[0].volume_id, snapshot_id=vm.disks[0].snapshot_id
        ),
        "tracking of",
    ),
    "mapping": (
        lambda world, vm: set_rows(
            world, device_mappings, "volume_uuid", vm.disks[0].volume_id, operation_mode="failover"
        ),
        "mapping of",
    ),
    "status": (
        lambda world, vm: set_rows(
            world, vm_replication_contexts, "context_id", vm.context_id, current_status="cleanup_required"
        ),
        "the status is cleanup_required",
    ),
    "current job": (
        lambda world, vm: set_rows(
            world, vm_replication_contexts, "context_id", vm.context_id, current_job_id=vm.replication_id
        ),
        "with current job",
    ),
    "change id": (
        lambda world, vm: set_rows(world, vm_disks, "vm_context_id", vm.context_id, disk_change_id="52 de c0 d9/later"),
        "the change id of",
    ),
    "history of change ids": (
        lambda world, vm: world.stack.door.write(
            lambda connection: connection.execute(delete(cbt_history).where(cbt_history.c.job_id == vm.replication_id))
        ),
        "cbt_history has 0 rows",
    ),
    "failover": (
        lambda world, vm: set_rows(world, failover_jobs, "job_id", vm.failover_id, status="pending"),
        "is pending",
    ),
    "failover's JobLog": (
        lambda world, vm: set_rows(world, job_tracking, "id", vm.failover_id, status="running"),
        "the failover's JobLog",
    ),
    "failover's steps": (
        lambda world, vm: set_rows(world, job_steps, "job_id", vm.failover_id, status="running"),
        "steps still running",
    ),
}


@pytest_asyncio.fixture(loop_scope="session")
async def cleaned_vm(world: World, broken_vm: SeededVm) -> tuple[SeededVm, int]:
    before = await last_call(world.stack)
    assert (await world.stack.operator.clean_up(broken_vm.name)).status == 200
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []
    return broken_vm, before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", DAMAGES)
async def test_damage_after_a_clean_up_is_seen(world: World, cleaned_vm: tuple[SeededVm, int], kind: str) -> None:
    vm, before = cleaned_vm
    damage, words = DAMAGES[kind]

    await damage(world, vm)

    faults = await faults_of_a_cleaned_vm(world, vm, after_call=before)
    assert [fault for fault in faults if words in fault], faults


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_vm_that_was_not_cleaned_up_has_every_fault(world: World, broken_vm: SeededVm) -> None:
    faults = await faults_of_a_cleaned_vm(world, broken_vm, after_call=await last_call(world.stack))

    said = "; ".join(faults)
    assert [words for _, words in DAMAGES.values() if words not in said] == [
        "is Ready DATADISK on None",
        "which no action has",
        "actions that did not end well: detach_volume",
        "something-else",
        "the status is cleanup_required",
        "the change id of",
        "cbt_history has 0 rows",
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_trace_of_a_refused_run_is_seen(world: World, broken_vm: SeededVm) -> None:
    before, ledger = await last_call(world.stack), await read_ledger(world.stack, broken_vm)

    assert (await world.stack.operator.clean_up(broken_vm.name)).status == 200

    changed = differences(ledger, await read_ledger(world.stack, broken_vm))
    assert {fault.split()[2] for fault in changed} >= {"vm_replication_contexts", "ossea_volumes", "job_tracking"}
    sent = {call["command"] for call in await list_changes(world.stack, broken_vm, before)}
    assert sent == {
        "createTags",
        "deleteTags",
        "detachVolume",
        "revertSnapshot",
        "deleteSnapshot",
        "attachVolume",
        "destroyVirtualMachine",
    }
    assert await faults_of_a_parked_vm(world, broken_vm) != []
