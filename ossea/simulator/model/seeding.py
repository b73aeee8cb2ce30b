"""Entities put in, changed and taken out by hand, as the admin API does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from ossea.simulator.model.catalog import ACCOUNT, DISK_OFFERING_ID, HOST_ID, ZONE_ID
from ossea.simulator.model.effects import CopyStarted, SnapshotErased, VolumeCreated
from ossea.simulator.model.entities import (
    Host,
    Project,
    Snapshot,
    SnapshotState,
    StopBehaviour,
    Vm,
    VmSnapshot,
    VmState,
    Volume,
    VolumeState,
)
from ossea.simulator.model.history import seed_history
from ossea.simulator.model.rows import (
    SeedFault,
    check_fields,
    new_id,
    read_choice,
    read_flag,
    read_moment,
    read_project,
    read_text,
    to_moment,
)
from ossea.simulator.model.tagging import drop_tags_of
from ossea.simulator.model.world import World

_CONTENTLESS = frozenset({SnapshotState.ALLOCATED, SnapshotState.ERROR})
_ON_A_HOST = frozenset({VmState.RUNNING, VmState.STOPPING, VmState.MIGRATING})
_HOST_STATES = (
    "Up",
    "Down",
    "Disconnected",
    "Alert",
    "Connecting",
    "Creating",
    "Error",
    "Rebalancing",
    "Removed",
)
_STOPS = tuple(str(stop) for stop in StopBehaviour)
_MOMENTS = frozenset({"created", "attached", "removed", "destroyed_at"})
_VM_FIELDS = {
    "account",
    "created",
    "destroyed_at",
    "display_name",
    "events",
    "host_id",
    "id",
    "name",
    "project_id",
    "started",
    "state",
    "stop",
    "zone_id",
}
_VOLUME_FIELDS = {
    "account",
    "created",
    "device_id",
    "fill",
    "format",
    "id",
    "keeps_device",
    "name",
    "project_id",
    "size_bytes",
    "state",
    "vm_id",
    "zone_id",
}


def add_host(world: World, row: Mapping[str, Any]) -> str:
    """`id?, name, state? (Up)`."""
    check_fields(row, "host", {"id", "name", "state"})
    host_id = new_id(world, row, world.hosts.rows)
    host = Host(host_id, read_text(row, "name", "host"), read_choice(row, "state", "host", _HOST_STATES))
    world.hosts.add(host)
    return host_id


def add_project(world: World, row: Mapping[str, Any]) -> str:
    """`id?, name`."""
    check_fields(row, "project", {"id", "name"})
    project = Project(new_id(world, row, world.projects.rows), read_text(row, "name", "project"))
    world.projects.add(project)
    return project.id


def add_vm(world: World, row: Mapping[str, Any]) -> str:
    """`id?, name, display_name?, state? (Running), zone_id?, created?, host_id?, destroyed_at?, stop?, project_id?,
    account?, started?, events?`.
    """
    check_fields(row, "vm", _VM_FIELDS)
    name = read_text(row, "name", "vm")
    state = str(row.get("state", VmState.RUNNING))
    vm = Vm(
        new_id(world, row, world.vms.rows),
        name,
        str(row.get("display_name") or name),
        state,
        str(row.get("zone_id", ZONE_ID)),
        read_moment(row, "created", world.now),
        world.next_number(),
        _host(world, str(row.get("host_id", HOST_ID))) if state in _ON_A_HOST else None,
        stop=read_choice(row, "stop", "vm", _STOPS),
        project_id=read_project(world, row, "vm"),
        account=str(row.get("account", ACCOUNT)),
    )
    if state == VmState.DESTROYED:
        vm.destroyed_at = read_moment(row, "destroyed_at", world.now)
        world.expunge_due[vm.id] = vm.destroyed_at + world.settings.expunge_delay_s
    seed_history(world, vm, row)
    world.vms.add(vm)
    return vm.id


def _host(world: World, host_id: str) -> str:
    if world.hosts.find(host_id) is None:
        raise SeedFault(f"vm: host_id {host_id} names no host")
    return host_id


def add_volume(world: World, row: Mapping[str, Any]) -> str:
    """`id?, name, size_bytes, vm_id?, device_id?, state? (Ready), fill?, zone_id?, created?, format?, keeps_device?,
    project_id? (its VM's), account?`.
    """
    check_fields(row, "volume", _VOLUME_FIELDS)
    size = row.get("size_bytes")
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise SeedFault("volume: size_bytes must be a whole number above 0")
    volume = Volume(
        id=new_id(world, row, world.volumes.rows),
        name=read_text(row, "name", "volume"),
        size_bytes=size,
        state=str(row.get("state", VolumeState.READY)),
        zone_id=str(row.get("zone_id", ZONE_ID)),
        disk_offering_id=DISK_OFFERING_ID,
        created=read_moment(row, "created", world.now),
        format=str(row.get("format", "QCOW2")),
        keeps_device=read_flag(row, "keeps_device", "volume", default=False),
        project_id=read_project(world, row, "volume"),
        account=str(row.get("account", ACCOUNT)),
    )
    vm_id = row.get("vm_id")
    vm = None if vm_id is None else world.live_vm(vm_id)
    if vm_id is not None and vm is None:
        raise SeedFault(f"volume: vm_id {vm_id} names no VM")
    if vm is not None and "project_id" not in row:
        volume.project_id = vm.project_id
    world.add_volume(volume)
    world.effects.append(VolumeCreated(world.now, None, volume.id, size, None, row.get("fill")))
    if vm_id is not None:
        put_on_vm(world, volume, vm_id, row.get("device_id"))
    return volume.id


def add_snapshot(world: World, row: Mapping[str, Any]) -> str:
    """`id?, volume_id, name, state? (BackedUp), created?, size_bytes?, revertable?, account? (its volume's)`.

    It keeps the content that the volume has at this moment.
    """
    known = {"id", "volume_id", "name", "state", "created", "size_bytes", "revertable", "account"}
    check_fields(row, "snapshot", known)
    volume = world.live_volume(str(row.get("volume_id")))
    if volume is None:
        raise SeedFault(f"snapshot: volume_id {row.get('volume_id')} names no volume")
    state = str(row.get("state", SnapshotState.BACKED_UP))
    snapshot = Snapshot(
        new_id(world, row, world.snapshots.rows),
        volume.id,
        read_text(row, "name", "snapshot"),
        state,
        read_moment(row, "created", world.now),
        int(row.get("size_bytes") or volume.size_bytes),
        has_content=state not in _CONTENTLESS,
        revertable=bool(row.get("revertable", True)),
        account=str(row.get("account", volume.account)),
    )
    world.add_snapshot(snapshot)
    if snapshot.has_content:
        world.effects.append(CopyStarted(world.now, None, snapshot.id, volume.id))
    return snapshot.id


def add_vm_snapshot(world: World, vm_id: str) -> str:
    if world.live_vm(vm_id) is None:
        raise SeedFault(f"vm_id {vm_id} names no VM")
    row = VmSnapshot(world.new_id(), vm_id, f"vm-snapshot-{world.next_number()}", "Ready", world.now)
    world.add_vm_snapshot(row)
    return row.id


def put_on_vm(world: World, volume: Volume, vm_id: str, device_id: int | None) -> None:
    """Attach without a job: the row and the guest's device."""
    used = {other.device_id for other in world.volumes_on(vm_id)}
    if device_id is None:
        device_id = next(slot for slot in range(1, 10_000) if slot != 3 and slot not in used)  # noqa: PLR2004  CD-ROM
    elif device_id in used:
        raise SeedFault(f"volume: device_id {device_id} is used on VM {vm_id}")
    world.attach(volume, vm_id, device_id)
    world.show_device(volume, vm_id, None)


def patch_volume(world: World, volume: Volume, changes: Mapping[str, Any]) -> None:
    """Fields as they stand; `vm_id` and `device_id` attach or (null) detach, guest's device included.

    The device stays where `keeps_device` is, or becomes, true.
    """
    attachment = {"vm_id", "device_id"}
    vm_id = changes.get("vm_id", volume.vm_id)
    if vm_id is not None and world.live_vm(vm_id) is None:
        raise SeedFault(f"volume: vm_id {vm_id} names no VM")
    _patch(volume, {name: value for name, value in changes.items() if name not in attachment}, "volume")
    world.volumes.touch(volume)
    if not attachment & set(changes):
        return
    if not volume.keeps_device:
        world.hide_device(volume, None)
    world.detach(volume)
    if vm_id is not None:
        put_on_vm(world, volume, vm_id, changes.get("device_id"))


def release_device(world: World, volume: Volume) -> None:
    """Guests that kept the device lose it, and detaching takes it away again from now on."""
    world.release_device(volume)


def patch_host(world: World, host: Host, changes: Mapping[str, Any]) -> None:
    if "state" in changes:
        read_choice(changes, "state", "host", _HOST_STATES)
    _patch(host, changes, "host")
    world.hosts.touch(host)


def patch_vm(world: World, vm: Vm, changes: Mapping[str, Any]) -> None:
    """Fields as they stand; a new state brings its host and the hour of its expunge with it. No event is written."""
    if "stop" in changes:
        read_choice(changes, "stop", "vm", _STOPS)
    if changes.get("host_id") is not None:
        _host(world, str(changes["host_id"]))
    _patch(vm, changes, "vm")
    if "state" in changes:
        if vm.state not in _ON_A_HOST:
            vm.host_id = None
        elif vm.host_id is None:
            vm.host_id = HOST_ID
    if {"state", "destroyed_at"} & set(changes):
        world.expunge_due.pop(vm.id, None)
        if vm.state != VmState.DESTROYED:
            vm.destroyed_at = None
        else:
            if vm.destroyed_at is None or "destroyed_at" not in changes:
                vm.destroyed_at = world.now
            world.expunge_due[vm.id] = vm.destroyed_at + world.settings.expunge_delay_s
    world.vms.touch(vm)


def patch_snapshot(world: World, snapshot: Snapshot, changes: Mapping[str, Any]) -> None:
    volume_id = changes.get("volume_id")
    if volume_id is not None and world.volumes.find(volume_id) is None:
        raise SeedFault(f"snapshot: volume_id {volume_id} names no volume")
    if volume_id is not None:
        world.move_snapshot(snapshot, volume_id)
    _patch(snapshot, {name: value for name, value in changes.items() if name != "volume_id"}, "snapshot")
    world.snapshots.touch(snapshot)


def forget_volume(world: World, volume: Volume) -> None:
    """Soft-deleted, as servers of the 4.11 era do at a restart: in no list any more, though its bytes are there."""
    volume.state = VolumeState.DESTROY
    volume.removed = world.now
    world.volumes.touch(volume)


def forget_snapshot(world: World, snapshot: Snapshot) -> None:
    """Gone from all lists, its bytes too."""
    snapshot.state = SnapshotState.DESTROYED
    snapshot.removed = world.now
    snapshot.has_content = False
    world.snapshots.touch(snapshot)
    drop_tags_of(world, snapshot.id)
    world.effects.append(SnapshotErased(world.now, None, snapshot.id))


def _patch(entity: Host | Vm | Volume | Snapshot, changes: Mapping[str, Any], what: str) -> None:
    hints = get_type_hints(type(entity))
    for name, value in changes.items():
        if name not in hints or name == "id":
            raise SeedFault(f"{what}: unknown field {name}; known are {', '.join(sorted(hints))}")
        given = to_moment(value) if name in _MOMENTS and value is not None else value
        if not isinstance(given, hints[name]) and not (isinstance(given, int) and hints[name] is float):
            raise SeedFault(f"{what}: {name} cannot be {value!r}")
        setattr(entity, name, given)
