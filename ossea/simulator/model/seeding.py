"""Entities put in, changed and taken out by hand, as the admin API does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_type_hints

from ossea.simulator.model.catalog import DISK_OFFERING_ID, HOST_ID, ZONE_ID
from ossea.simulator.model.effects import CopyStarted, SnapshotErased, VolumeCreated
from ossea.simulator.model.entities import (
    Snapshot,
    SnapshotState,
    Vm,
    VmSnapshot,
    VmState,
    Volume,
    VolumeState,
)
from ossea.simulator.model.world import World


class SeedFault(ValueError):
    """A row that cannot be put in; the text names the field and says what is allowed."""


_CONTENTLESS = frozenset({SnapshotState.ALLOCATED, SnapshotState.ERROR})


def add_vm(world: World, row: Mapping[str, Any]) -> str:
    """`id?, name, display_name?, state? (Running), zone_id?, created?`."""
    _known(row, "vm", {"id", "name", "display_name", "state", "zone_id", "created"})
    vm_id = _new_id(world, row, world.vms.rows)
    name = _text(row, "name", "vm")
    state = str(row.get("state", VmState.RUNNING))
    vm = Vm(
        vm_id,
        name,
        str(row.get("display_name") or name),
        state,
        str(row.get("zone_id", ZONE_ID)),
        _moment(row, world.now),
        world.next_number(),
        HOST_ID if state == VmState.RUNNING else None,
    )
    if state == VmState.DESTROYED:
        vm.destroyed_at = world.now
        world.expunge_due[vm.id] = world.now + world.settings.expunge_delay_s
    world.vms.add(vm)
    return vm_id


def add_volume(world: World, row: Mapping[str, Any]) -> str:
    """`id?, name, size_bytes, vm_id?, device_id?, state? (Ready), fill?, zone_id?, created?, format?`."""
    known = {"id", "name", "size_bytes", "vm_id", "device_id", "state", "fill", "zone_id", "created", "format"}
    _known(row, "volume", known)
    size = row.get("size_bytes")
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise SeedFault("volume: size_bytes must be a whole number above 0")
    volume = Volume(
        id=_new_id(world, row, world.volumes.rows),
        name=_text(row, "name", "volume"),
        size_bytes=size,
        state=str(row.get("state", VolumeState.READY)),
        zone_id=str(row.get("zone_id", ZONE_ID)),
        disk_offering_id=DISK_OFFERING_ID,
        created=_moment(row, world.now),
        format=str(row.get("format", "QCOW2")),
    )
    vm_id = row.get("vm_id")
    if vm_id is not None and world.live_vm(vm_id) is None:
        raise SeedFault(f"volume: vm_id {vm_id} names no VM")
    world.add_volume(volume)
    world.effects.append(VolumeCreated(world.now, None, volume.id, size, None, row.get("fill")))
    if vm_id is not None:
        put_on_vm(world, volume, vm_id, row.get("device_id"))
    return volume.id


def add_snapshot(world: World, row: Mapping[str, Any]) -> str:
    """`id?, volume_id, name, state? (BackedUp), created?, size_bytes?, revertable?`.

    It keeps the content that the volume has at this moment.
    """
    _known(row, "snapshot", {"id", "volume_id", "name", "state", "created", "size_bytes", "revertable"})
    volume = world.live_volume(str(row.get("volume_id")))
    if volume is None:
        raise SeedFault(f"snapshot: volume_id {row.get('volume_id')} names no volume")
    state = str(row.get("state", SnapshotState.BACKED_UP))
    snapshot = Snapshot(
        _new_id(world, row, world.snapshots.rows),
        volume.id,
        _text(row, "name", "snapshot"),
        state,
        _moment(row, world.now),
        int(row.get("size_bytes") or volume.size_bytes),
        has_content=state not in _CONTENTLESS,
        revertable=bool(row.get("revertable", True)),
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
    """Fields as they stand; `vm_id` and `device_id` attach or (null) detach, guest's device included."""
    attachment = {"vm_id", "device_id"}
    vm_id = changes.get("vm_id", volume.vm_id)
    if vm_id is not None and world.live_vm(vm_id) is None:
        raise SeedFault(f"volume: vm_id {vm_id} names no VM")
    _patch(volume, {name: value for name, value in changes.items() if name not in attachment}, "volume")
    world.volumes.touch(volume)
    if not attachment & set(changes):
        return
    world.hide_device(volume, None)
    world.detach(volume)
    if vm_id is not None:
        put_on_vm(world, volume, vm_id, changes.get("device_id"))


def patch_vm(world: World, vm: Vm, changes: Mapping[str, Any]) -> None:
    _patch(vm, changes, "vm")
    if "state" in changes:
        vm.host_id = HOST_ID if vm.state == VmState.RUNNING else None
        vm.destroyed_at = world.now if vm.state == VmState.DESTROYED else None
        world.expunge_due.pop(vm.id, None)
        if vm.destroyed_at is not None:
            world.expunge_due[vm.id] = world.now + world.settings.expunge_delay_s
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
    world.effects.append(SnapshotErased(world.now, None, snapshot.id))


def _patch(entity: Vm | Volume | Snapshot, changes: Mapping[str, Any], what: str) -> None:
    hints = get_type_hints(type(entity))
    for name, value in changes.items():
        if name not in hints or name == "id":
            raise SeedFault(f"{what}: unknown field {name}; known are {', '.join(sorted(hints))}")
        given = _to_moment(value) if name in {"created", "attached", "removed"} and value is not None else value
        if not isinstance(given, hints[name]) and not (isinstance(given, int) and hints[name] is float):
            raise SeedFault(f"{what}: {name} cannot be {value!r}")
        setattr(entity, name, given)


def _known(row: Mapping[str, Any], what: str, known: set[str]) -> None:
    unknown = sorted(set(row) - known)
    if unknown:
        raise SeedFault(f"{what}: unknown field {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def _text(row: Mapping[str, Any], name: str, what: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise SeedFault(f"{what}: {name} must be a text")
    return value


def _new_id(world: World, row: Mapping[str, Any], taken: Mapping[str, Any]) -> str:
    value = row.get("id")
    if value is None:
        return world.new_id()
    if not isinstance(value, str) or value != value.lower():
        raise SeedFault(f"id {value!r} must be a lower-case text")
    if value in taken:
        raise SeedFault(f"id {value} is taken")
    return value


def _moment(row: Mapping[str, Any], now: float) -> float:
    value = row.get("created")
    return now if value is None else _to_moment(value)


def _to_moment(value: object) -> float:
    """Unix seconds, or RFC 3339 with an offset."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise SeedFault(f"{value!r} is no time; give Unix seconds or RFC 3339") from None
    if moment.tzinfo is None:
        raise SeedFault(f"{value!r} has no offset from UTC")
    return moment.timestamp()
