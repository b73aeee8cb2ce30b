"""Whether a VM is as it ought to be: one sentence per fault, none where all is well."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from database.tables import (
    cbt_history,
    device_mappings,
    failover_jobs,
    job_steps,
    job_tracking,
    nbd_exports,
    oma_actions,
    oma_issues,
    oma_jobs,
    ossea_volumes,
    vm_disks,
)
from oma.demo.judging import find_violations
from oma.demo.ledger import (
    Cloud,
    Ledger,
    hash_device,
    list_changes,
    read_cloud,
    read_ledger,
    read_text,
    until_unmarked,
)
from oma.demo.rows import export_file, export_text
from oma.demo.story import Disk, Export, SeededVm
from oma.demo.world import World
from oma.domain.actions import ActionKind, build_request_id
from oma.domain.jobs import OPERATION
from oma.domain.records import CLEANUP_REQUIRED, READY_FOR_FAILOVER
from oma.domain.states import PHASES, ActionState, JobState

ORDER: Final = ("stopVirtualMachine", "detachVolume", "revertSnapshot", "deleteSnapshot", "attachVolume")
"""Nothing of a later kind is sent before everything of the earlier ones."""
ENDED_WELL: Final = frozenset({ActionState.EXECUTED, ActionState.SKIPPED})
TURNED_BACK: Final = frozenset({JobState.FAILED, JobState.CANCELLED})
"""Ends of a run whose actions may have been undone."""
THROTTLED: Final = 429
"""CloudStack's code for one call too many."""
POWER: Final = ("stopVirtualMachine", "startVirtualMachine", "destroyVirtualMachine")


async def faults_of_a_cleaned_vm(
    world: World, vm: SeededVm, *, after_call: int, test_vm_state: str = "Destroyed"
) -> list[str]:
    """Content, attachments, snapshots, devices, exports, rows, and the journal against the cloud's own log.

    `test_vm_state`: what has to become of the VM that the failover made.
    """
    stack = world.stack
    await until_unmarked(stack, vm)
    cloud, ledger, calls = await asyncio.gather(
        read_cloud(stack), read_ledger(stack, vm), list_changes(stack, vm, after_call)
    )
    per_disk = await asyncio.gather(*(_faults_of_a_home_disk(world, disk, cloud, ledger) for disk in vm.disks))
    return [
        *(fault for faults in per_disk for fault in faults),
        *_test_vm_faults(vm, cloud, test_vm_state),
        *_change_id_faults(vm, ledger),
        *_reset_faults(vm, ledger),
        *_step_faults(ledger),
        *journal_faults(ledger, calls),
        *_order_faults(calls),
        *_needless_faults(vm, calls, test_vm_state),
        *map(str, await find_violations(world, [vm])),
    ]


async def faults_of_a_parked_vm(world: World, vm: SeededVm, *, status: str = CLEANUP_REQUIRED) -> list[str]:
    """Nothing is lost: snapshots kept, status kept back, an open issue with guidance, the JobLog says so."""
    stack = world.stack
    cloud, ledger = await asyncio.gather(read_cloud(stack), read_ledger(stack, vm))
    faults = [f"snapshot of {disk.name} is gone" for disk in vm.disks if not cloud.has_snapshot(disk.snapshot_id)]
    faults += [
        f"tracking of {row['volume_name']} was cleared" for row in ledger.of(ossea_volumes) if not row["snapshot_id"]
    ]
    if ledger.context["current_status"] != status:
        faults.append(f"the status is {ledger.context['current_status']}, not {status}")
    issues = [row for row in ledger.of(oma_issues) if row["state"] == "open"]
    if not issues or not all(issue["guidance"] for issue in issues):
        faults.append(f"{len(issues)} open issues with guidance")
    violations = await find_violations(world, [vm], taken=status != CLEANUP_REQUIRED)
    return faults + joblog_faults(ledger) + [str(one) for one in violations]


def joblog_faults(ledger: Ledger) -> list[str]:
    """The JobLog says of the run that it parked."""
    logged = [row for row in ledger.of(job_tracking) if row["operation"] == OPERATION]
    if [row["status"] for row in logged] != ["failed"]:
        return [f"the JobLog says {[row['status'] for row in logged]}"]
    if not str(logged[0]["error_message"]).startswith("parked: "):
        return [f"the JobLog's error is {logged[0]['error_message']!r}"]
    return []


async def faults_of_an_undone_vm(world: World, vm: SeededVm, *, stayed: Sequence[str] = ()) -> list[str]:
    """The run went back: every volume but those that `stayed` is home without an export, nothing is lost, no issue."""
    stack = world.stack
    cloud, ledger = await asyncio.gather(read_cloud(stack), read_ledger(stack, vm))
    faults = [f"snapshot of {disk.name} is gone" for disk in vm.disks if not cloud.has_snapshot(disk.snapshot_id)]
    for disk in vm.disks:
        wanted = vm.test_vm_id if disk.volume_id in stayed else stack.oma_vm_id
        if cloud.volume(disk.volume_id)["vm_id"] != wanted:
            faults.append(f"{disk.name} is on {cloud.volume(disk.volume_id)['vm_id']}, not on {wanted}")
    exports = [row["export_name"] for row in ledger.of(nbd_exports)]
    if exports:
        faults.append(f"content that is not proven is exported: {exports}")
    if ledger.context["current_status"] != CLEANUP_REQUIRED:
        faults.append(f"the status is {ledger.context['current_status']}, not {CLEANUP_REQUIRED}")
    faults += [f"an open issue says {row['title']!r}" for row in ledger.of(oma_issues) if row["state"] == "open"]
    undone = [row["state"] for row in ledger.of(oma_actions) if row["kind"] == ActionKind.DETACH_VOLUME.value]
    if not undone or set(undone) != {ActionState.ROLLED_BACK.value}:
        faults.append(f"the detaches are {undone}")
    logged = [row for row in ledger.of(job_tracking) if row["operation"] == OPERATION]
    if [row["status"] for row in logged] != ["failed"] or str(logged[0]["error_message"]).startswith("parked"):
        faults.append(f"the JobLog says {[(row['status'], row['error_message']) for row in logged]}")
    violations = await find_violations(world, [vm])
    return faults + await content_faults(world, vm, world.found) + [str(one) for one in violations]


async def content_faults(world: World, vm: SeededVm, expected: dict[str, str]) -> list[str]:
    """Volumes whose bytes are not the expected ones, by hash."""
    hashes = await asyncio.gather(*(world.stack.admin.volume_hash(volume_id) for volume_id in vm.volume_ids))
    names = {disk.volume_id: disk.name for disk in vm.disks}
    return [
        f"content of {names[volume_id]} is not the {_kind(world, volume_id, expected)} one"
        for volume_id, found in zip(vm.volume_ids, hashes, strict=True)
        if found != expected[volume_id]
    ]


def _kind(world: World, volume_id: str, expected: dict[str, str]) -> str:
    return "snapshot's" if expected[volume_id] == world.good[volume_id] else "former"


async def _faults_of_a_home_disk(world: World, disk: Disk, cloud: Cloud, ledger: Ledger) -> list[str]:
    stack = world.stack
    faults: list[str] = []
    content, device = await asyncio.gather(stack.admin.volume_hash(disk.volume_id), hash_device(stack, disk.link))
    if content != world.good[disk.volume_id]:
        faults.append(f"content of {disk.name} is not the snapshot's")
    if device != world.good[disk.volume_id]:
        faults.append(f"the OMA reads {'nothing' if device is None else 'other content'} from {disk.link}")
    volume = cloud.volume(disk.volume_id)
    if volume["vm_id"] != stack.oma_vm_id or volume["type"] != "DATADISK" or volume["state"] != "Ready":
        faults.append(f"{disk.name} is {volume['state']} {volume['type']} on {volume['vm_id']}")
    if cloud.has_snapshot(disk.snapshot_id):
        faults.append(f"snapshot of {disk.name} is still there")
    faults += [f"{one}, which was not used, is gone" for one in disk.listed_ids[1:] if not cloud.has_snapshot(one)]
    return faults + _row_faults(world, disk, ledger) + await _export_faults(world, disk, ledger)


def _row_faults(world: World, disk: Disk, ledger: Ledger) -> list[str]:
    faults: list[str] = []
    row = next(row for row in ledger.of(ossea_volumes) if row["volume_id"] == disk.volume_id)
    tracking = (row["snapshot_id"], row["snapshot_status"], row["snapshot_created_at"])
    if tracking != ("", "none", None):
        faults.append(f"tracking of {disk.name} is {tracking}")
    mappings = [row for row in ledger.of(device_mappings) if row["volume_uuid"] == disk.volume_id]
    wanted = (world.stack.oma_vm_id, "oma", str(world.stack.device_root / disk.link))
    found = [(row["vm_id"], row["operation_mode"], row["device_path"]) for row in mappings]
    if found != [wanted]:
        faults.append(f"mapping of {disk.name} is {found}")
    if any(row["ossea_snapshot_id"] for row in mappings):
        faults.append(f"mapping of {disk.name} still tracks a snapshot")
    return faults


async def _export_faults(world: World, disk: Disk, ledger: Ledger) -> list[str]:
    """The export that it had, same name, port and file; where it had to come home, else what existing daemons make."""
    stack = world.stack
    export = disk.story.export
    if export is None:
        if disk.is_good:
            return []
        export = Export(f"migration-vol-{disk.volume_id}")
    path, link = export_file(export, stack.nbd_dir), stack.device_root / disk.link
    rows = [row for row in ledger.of(nbd_exports) if disk.volume_id in (row["volume_id"], row["device_mapping_uuid"])]
    found = [(row["export_name"], row["port"], row["config_path"], row["device_path"]) for row in rows]
    if found != [(export.name, export.port, str(path), str(link))]:
        return [f"export of {disk.name} is {found}"]
    text = await read_text(path)
    if text != export_text(export, link):
        return [f"{path.name} holds {text!r}"]
    return []


def _test_vm_faults(vm: SeededVm, cloud: Cloud, wanted: str) -> list[str]:
    state = cloud.vm_state(vm.test_vm_id)
    if vm.story.test_vm is not None and state != wanted:
        return [f"the test VM is {state}, not {wanted}"]
    return []


def _change_id_faults(vm: SeededVm, ledger: Ledger) -> list[str]:
    """The next replication goes on from where the replica stands."""
    stored = {row["disk_id"]: row["disk_change_id"] for row in ledger.of(vm_disks)}
    faults = [
        f"the change id of {disk.name} is {stored.get(disk.disk_id)}"
        for disk in vm.disks
        if stored.get(disk.disk_id) != vm.change_id(disk)
    ]
    history = len(ledger.of(cbt_history))
    return faults + ([f"cbt_history has {history} rows"] if history != len(vm.disks) else [])


def _reset_faults(vm: SeededVm, ledger: Ledger) -> list[str]:
    faults: list[str] = []
    status, job_id = ledger.context["current_status"], ledger.context["current_job_id"]
    if (status, job_id) != (READY_FOR_FAILOVER, None):
        faults.append(f"the status is {status} with current job {job_id}")
    # What had finished keeps its end: a person ended the drill, the failover did not fail.
    kept, logged = (
        one if one == "completed" else "failed" for one in (vm.story.failover_status, vm.story.joblog_status)
    )
    faults += [
        f"failover {row['job_id']} is {row['status']}" for row in ledger.of(failover_jobs) if row["status"] != kept
    ]
    failover = [row for row in ledger.of(job_tracking) if row["id"] == vm.failover_id]
    if [row["status"] for row in failover] != [logged]:
        faults.append(f"the failover's JobLog is {[row['status'] for row in failover]}")
    running = [row["name"] for row in ledger.of(job_steps) if row["status"] == "running"]
    if running:
        faults.append(f"steps still running: {', '.join(running)}")
    return faults


def _step_faults(ledger: Ledger) -> list[str]:
    """The newest run stands in the JobLog with its five steps."""
    runs = [row for row in ledger.of(job_tracking) if row["operation"] == OPERATION]
    if not runs:
        return ["the JobLog has no row of the clean-up"]
    newest = max(runs, key=lambda row: row["created_at"])
    steps = sorted((row for row in ledger.of(job_steps) if row["job_id"] == newest["id"]), key=lambda row: row["seq"])
    faults: list[str] = []
    if newest["status"] != "completed":
        faults.append(f"the JobLog says {newest['status']}")
    if [(row["seq"], row["name"]) for row in steps] != [(seq, phase.value) for seq, phase in enumerate(PHASES, 1)]:
        faults.append(f"the steps are {[row['name'] for row in steps]}")
    if any(row["status"] not in ("completed", "skipped") for row in steps):
        faults.append(f"the steps ended {[row['status'] for row in steps]}")
    return faults


def journal_faults(ledger: Ledger, calls: Sequence[dict[str, Any]]) -> list[str]:
    """Every changing call that CloudStack got stands in our journal under its own id, and none came twice."""
    ids = [str(call["params"].get("customjobid")) for call in calls]
    journaled = {
        build_request_id(row["id"], ActionKind(row["kind"]), attempt)
        for row in ledger.of(oma_actions)
        for attempt in range(1, row["attempt"] + 1)
    }
    faults = [
        f"{call['command']} was sent under {one}, which no action has"
        for call, one in zip(calls, ids, strict=True)
        if one not in journaled
    ]
    # A call above the account's limit is thrown back unseen, and comes again as it is.
    taken = [one for call, one in zip(calls, ids, strict=True) if call.get("errorcode") != THROTTLED]
    faults += [f"{one} was sent {taken.count(one)} times" for one in sorted(set(taken)) if taken.count(one) > 1]
    back = {row["id"] for row in ledger.of(oma_jobs) if row["state"] in TURNED_BACK}
    found = [(row["kind"], row["state"], row["job_id"] in back) for row in ledger.of(oma_actions)]
    undone = ENDED_WELL | {ActionState.ROLLED_BACK}
    bad = [kind for kind, state, turned in found if state not in (undone if turned else ENDED_WELL)]
    if bad:
        faults.append(f"actions that did not end well: {', '.join(bad)}")
    return faults


def _order_faults(calls: Sequence[dict[str, Any]]) -> list[str]:
    """Detached before reverted, reverted before deleted, deleted before attached."""
    places = [ORDER.index(call["command"]) for call in calls if call["command"] in ORDER]
    return [] if places == sorted(places) else [f"CloudStack was asked in the order {[ORDER[one] for one in places]}"]


def _needless_faults(vm: SeededVm, calls: Sequence[dict[str, Any]], test_vm_state: str) -> list[str]:
    """What CloudStack must not have got: an expunge, power for a VM that stays, anything about a disk that was good."""
    faults = [f"CloudStack was asked to expunge by {call['command']}" for call in calls if _expunges(call)]
    if test_vm_state != "Destroyed":
        faults += [f"CloudStack got {call['command']}" for call in calls if call["command"] in POWER]
    good = {disk.volume_id for disk in vm.disks if disk.is_good}
    faults += [
        f"{call['command']} was sent for a disk that never left the OMA"
        for call in calls
        if call["command"] in ORDER and call["params"].get("id") in good
    ]
    return faults


def _expunges(call: dict[str, Any]) -> bool:
    return "expunge" in call["command"].lower() or str(call["params"].get("expunge", "false")).lower() != "false"
