"""CloudStack's event log as a VM's past: what a seeded VM went through, events put in by hand, a purge.

`deployVirtualMachine` writes `VM.CREATE` events only. On old servers one of them says "starting Vm" even where
`startvm` is false: `DeployVMCmd.getEventDescription` had no other text for the job that was scheduled (setting
`deploy_says_starting`). That a VM was started by its own deploy shows in "Started" and "Completed" with that text
(`UserVmManagerImpl.startVirtualMachine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ossea.simulator.model.entities import Event, Vm, VmState
from ossea.simulator.model.rows import SeedFault, check_fields, read_flag, read_moment, read_text
from ossea.simulator.model.world import World

DEPLOYING = "Successfully created entity for deploying Vm. Vm Id: {}"

_FIELDS = {"type", "created", "state", "description", "level"}


def deploy_words(world: World, *, starts: bool) -> str:
    return "starting Vm. Vm Id:" if starts or world.settings.deploy_says_starting else "deploying Vm. Vm Id:"


def seed_history(world: World, vm: Vm, row: Mapping[str, Any]) -> None:
    """`events?` are exactly these; without them what led to the VM's state: made, and where `started?` also started.

    `started` is true by default for a VM that runs. Times between making and destroying are the VM's `created`.
    """
    events = row.get("events")
    if events is None:
        _write_default(world, vm, started=read_flag(row, "started", "vm", default=vm.state == VmState.RUNNING))
        return
    if not isinstance(events, list):
        raise SeedFault("vm: events must be a list")
    for event in events:
        add_event(world, {"created": vm.created, **event, "vm_id": vm.id})


def add_event(world: World, row: Mapping[str, Any]) -> str:
    """`vm_id` (or `resource_id`), `type`, `created?`, `state?` (Completed), `description?`, `level?` (INFO)."""
    check_fields(row, "event", {*_FIELDS, "vm_id", "resource_id"})
    resource_id = read_text(row, "vm_id" if "vm_id" in row else "resource_id", "event")
    kind = read_text(row, "type", "event")
    state = str(row.get("state", "Completed"))
    text = str(row.get("description", f"{kind} {resource_id}"))
    created = read_moment(row, "created", world.now)
    event = Event(world.new_id(), kind, str(row.get("level", "INFO")), state, text, created, resource_id)
    world.add_event(event)
    return event.id


def purge_events(world: World, resource_id: str | None = None) -> int:
    """Events of one entity go, or all of them, as `event.purge.delay` does with old ones; answers how many."""
    gone = [*world.events.rows.values()] if resource_id is None else world.events_of(resource_id)
    for event in gone:
        world.drop_event(event)
    return len(gone)


def _write_default(world: World, vm: Vm, *, started: bool) -> None:
    scheduled = f"Scheduled async job for {deploy_words(world, starts=False)} {{}}"
    steps = [("VM.CREATE", "Created", DEPLOYING, vm.created), ("VM.CREATE", "Scheduled", scheduled, vm.created)]
    if started:
        steps.append(("VM.START", "Completed", "Successfully completed starting Vm. Vm Id: {}", vm.created))
    if started and vm.state in {VmState.STOPPED, VmState.DESTROYED}:
        steps.append(("VM.STOP", "Completed", "Successfully completed stopping Vm. Vm Id: {}", vm.created))
    if vm.destroyed_at is not None:
        steps.append(("VM.DESTROY", "Completed", "Successfully completed destroying Vm. Vm Id: {}", vm.destroyed_at))
    for kind, state, text, created in steps:
        row = {"vm_id": vm.id, "type": kind, "state": state, "description": text.format(vm.id), "created": created}
        add_event(world, row)
