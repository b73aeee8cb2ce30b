"""The invariants (`oma.demo.invariants`) asked of a running stack, by the simulator's log and state and the rows."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.engine import Connection

from database.tables import nbd_exports
from oma.demo.invariants import (
    Call,
    Ended,
    History,
    Journal,
    Rest,
    Violation,
    VmFacts,
    VolumeAtRest,
    VolumeFacts,
    judge,
    judge_rest,
    read_journal,
)
from oma.demo.ledger import GONE
from oma.demo.story import Disk, Place, SeededVm
from oma.demo.world import World
from oma.domain.world import MARK_KEY
from ossea.simulator.model.entities import JobStatus
from ossea.simulator.model.witness import SNAPSHOT_COMMANDS, Sighting

PERSONS_COMMAND: Final = "recoverVirtualMachine"
"""No run ever sends it; a person follows the guidance with it, under no id."""


async def find_violations(
    world: World, vms: Sequence[SeededVm], *, taken: bool = False, after_call: int = 0
) -> list[Violation]:
    """Everything that must never have been done to these VMs or left of them; empty is good.

    They are at rest. `taken`: somebody else wrote their status. `after_call`: the last one before they were seeded.
    """
    history = await read_history(world, vms, after_call)
    if taken:
        history = replace(history, taken=frozenset(vm.context_id for vm in vms))
    return judge(history)


async def find_rest_violations(world: World, vms: Sequence[SeededVm], *, after_call: int = 0) -> list[Violation]:
    """How the newest runs of these VMs were left, although a person goes on with them."""
    return judge_rest(await read_history(world, vms, after_call))


async def read_history(world: World, vms: Sequence[SeededVm], after_call: int = 0) -> History:
    """Of these VMs: everything but the calls that the journal gives to another one's run, and those that no journal has
    and that are about another one alone: they are held against that one.
    """
    stack = world.stack
    calls, state = await asyncio.gather(stack.admin.calls(after_call, changes_only=True), stack.admin.state())
    # Read last: what was sent just now for another VM stands in it by then.
    journal, exported = await stack.door.read(_read)
    places = await asyncio.gather(*(_look(world, disk, state, journal, exported) for vm in vms for disk in vm.disks))
    return History(
        oma_vm_id=stack.oma_vm_id,
        vms=[_facts(world, vm) for vm in vms],
        calls=_read_calls(world, calls, state["jobs"], journal, {vm.context_id for vm in vms}),
        ends={job_id: _end(job) for job_id, job in state["jobs"].items() if job["ended"] is not None},
        journal=journal,
        rest=_rest(state, dict(place for place in places if place is not None)),
        known=frozenset(str(row["volume_id"]) for row in journal.volumes),
    )


def _read(connection: Connection) -> tuple[Journal, frozenset[str]]:
    """The journal, and the volumes that have an export."""
    rows = connection.execute(select(nbd_exports.c.volume_id, nbd_exports.c.device_mapping_uuid)).all()
    return read_journal(connection), frozenset(str(one) for row in rows for one in row)


def _facts(world: World, vm: SeededVm) -> VmFacts:
    return VmFacts(
        context_id=vm.context_id,
        name=vm.name,
        volumes=tuple(
            VolumeFacts(
                volume_id=disk.volume_id,
                name=disk.name,
                good=world.good[disk.volume_id],
                disk_id=disk.disk_id,
                change_id=vm.change_id(disk),
                snapshot_ids=disk.snapshot_ids,
                needs_revert=True if disk.story.place in {Place.TEST_VM, Place.NOWHERE} else None,
            )
            for disk in vm.disks
        ),
        test_vm_id=vm.test_vm_id if vm.story.test_vm is not None else None,
        test_vm_goes=vm.story.test_vm is not None and vm.story.job_type == "test" and vm.story.recorded,
    )


def _read_calls(
    world: World,
    entries: Sequence[Mapping[str, Any]],
    jobs: Mapping[str, Any],
    journal: Journal,
    contexts: Collection[str],
) -> list[Call]:
    """Those that are not another VM's. A call whose log died with the simulator is known by its job."""
    logged = {str(entry["jobid"]) for entry in entries if "jobid" in entry}
    since = min((_seconds(entry["at"]) for entry in entries), default=0.0)
    found = [_call(entry) for entry in entries]
    found += [
        _call_of_job(job_id, job, journal)
        for job_id, job in jobs.items()
        if job_id not in logged and job["created"] > since
    ]
    found = [one for one in found if one.command != PERSONS_COMMAND or one.request_id]
    return [
        replace(one, number=number)
        for number, one in enumerate(sorted(found, key=lambda one: one.at), start=1)
        if _may_be_of(world, one, journal, contexts)
    ]


def _may_be_of(world: World, call: Call, journal: Journal, contexts: Collection[str]) -> bool:
    action = journal.find_action(call.request_id)
    if action is not None:
        return journal.jobs[action.job_id].context_id in contexts
    named = (call.volume_id, call.snapshot_id, call.vm_id, *call.seen.resource_ids)
    owners = {world.owners.get(one) for one in named if one not in {None, world.stack.oma_vm_id}}
    return not owners or None in owners or not owners.isdisjoint(contexts)


def _call(entry: Mapping[str, Any]) -> Call:
    params = {str(name).lower(): str(value) for name, value in entry["params"].items()}
    return Call(
        number=0,
        at=_seconds(entry["at"]),
        command=str(entry["command"]),
        request_id=params.get("customjobid", ""),
        params=params,
        job_id=entry.get("jobid"),
        seen=Sighting.from_json(entry.get("seen") or {}),
    )


def _call_of_job(job_id: str, job: Mapping[str, Any], journal: Journal) -> Call:
    """What a job tells of its call. Its id is ours where the journal has it; what else came came under none."""
    given = job["params"]
    return Call(
        number=0,
        at=float(job["created"]),
        command=str(job["command"]),
        request_id=job_id if journal.find_action(job_id) is not None or "tags" not in given else "",
        params={f"tags[{at}].key": str(tag["key"]) for at, tag in enumerate(given.get("tags", ()))},
        job_id=job_id,
        seen=_seen_by(job),
    )


def _seen_by(job: Mapping[str, Any]) -> Sighting:
    if "tags" in job["params"]:
        return Sighting(resource_ids=tuple(job["params"]["ids"]))
    instance = job["instance_id"]
    if job["command"] in SNAPSHOT_COMMANDS:
        return Sighting(snapshot_id=instance)
    match job["instance_type"]:
        case "Snapshot":
            return Sighting(snapshot_id=instance)
        case "Volume":
            return Sighting(volume_id=instance)
        case "VirtualMachine":
            return Sighting(vm_id=instance)
        case _:
            return Sighting()


def _seconds(at: Any) -> float:
    return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else float(at)


def _end(job: Mapping[str, Any]) -> Ended:
    return Ended(float(job["ended"]), succeeded=job["status"] == JobStatus.SUCCEEDED)


async def _look(
    world: World, disk: Disk, state: Mapping[str, Any], journal: Journal, exported: Collection[str]
) -> tuple[str, VolumeAtRest] | None:
    """By all sides; None of one that CloudStack has no more."""
    row = state["volumes"].get(disk.volume_id)
    if row is None or row["removed"] is not None:
        return None
    stack = world.stack
    modes = {row["volume_uuid"]: row["operation_mode"] for row in journal.mappings}
    return disk.volume_id, VolumeAtRest(
        vm_id=row["vm_id"],
        shown_on_oma=await asyncio.to_thread((stack.device_root / disk.link).exists),
        content=await stack.admin.volume_hash(disk.volume_id),
        mode=modes.get(disk.volume_id),
        exported=disk.volume_id in exported,
    )


def _rest(state: Mapping[str, Any], volumes: Mapping[str, VolumeAtRest]) -> Rest:
    return Rest(
        volumes=volumes,
        vm_states={row["id"]: row["state"] for row in state["vms"].values() if row["removed"] is None},
        snapshot_ids=frozenset(
            row["id"] for row in state["snapshots"].values() if row["removed"] is None and row["state"] not in GONE
        ),
        marks={tag["resource_id"]: tag["value"] for tag in state["tags"].values() if tag["key"] == MARK_KEY},
    )
