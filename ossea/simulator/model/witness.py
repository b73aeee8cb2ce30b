"""How things stood when a changing call came: what a judge needs to say whether it was allowed. Nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ossea.simulator.model.entities import JobStatus, VmState, Volume
from ossea.simulator.model.world import World

SNAPSHOT_COMMANDS = frozenset({"revertSnapshot", "deleteSnapshot"})
VOLUME_COMMANDS = frozenset({"attachVolume", "detachVolume"})
WITHOUT_GUEST = frozenset({VmState.STOPPED, VmState.DESTROYED, VmState.EXPUNGING})


@dataclass(frozen=True, slots=True)
class Sighting:
    """One moment, as CloudStack's database and the guests had it; None and empty where a call names no such thing."""

    volume_id: str | None = None
    snapshot_id: str | None = None
    vm_id: str | None = None
    """The VM that the call is about: named by it, or the volume's holder."""
    vm_state: str | None = None
    holder: str | None = None
    """The VM that has the volume, by CloudStack's database."""
    shown_on: tuple[str, ...] = ()
    """VMs whose running guest has the volume's device, whatever the database says."""
    held_volume_ids: tuple[str, ...] = ()
    """Volumes on `vm_id`, by the database."""
    touches: int = 0
    """How often a guest had been given the volume's device by then."""
    resource_ids: tuple[str, ...] = ()
    """What a command about tags names."""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Sighting:
        fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in row.items()}
        return cls(**fields)


def list_ends(world: World) -> dict[str, tuple[float, bool]]:
    """Job id → when it ended, and whether it succeeded; of every job that has, also where its row is gone."""
    ended = (job for job in world.jobs.rows.values() if job.ended is not None)
    told = {job.id: (job.ended or 0.0, job.status == JobStatus.SUCCEEDED) for job in ended}
    return {**world.forgotten_ends, **told}


def see(world: World, command: str, params: Mapping[str, str]) -> Sighting:
    """`command` as CloudStack writes it; parameter names in lower case."""
    entity_id = params.get("id")
    snapshot_id = entity_id if command in SNAPSHOT_COMMANDS else None
    volume_id = entity_id if command in VOLUME_COMMANDS else None
    if snapshot_id is not None:
        snapshot = world.snapshots.find(snapshot_id)
        volume_id = snapshot.volume_id if snapshot is not None else None
    volume = world.volumes.find(volume_id) if volume_id is not None else None
    vm_id = entity_id if command.endswith("VirtualMachine") else params.get("virtualmachineid")
    vm_id = vm_id or (volume.vm_id if volume is not None else None)
    vm = world.vms.find(vm_id) if vm_id is not None else None
    return Sighting(
        volume_id=volume_id,
        snapshot_id=snapshot_id,
        vm_id=vm_id,
        vm_state=vm.state if vm is not None else None,
        holder=volume.vm_id if volume is not None else None,
        shown_on=_shown_on(world, volume) if volume is not None else (),
        held_volume_ids=tuple(one.id for one in world.volumes_on(vm_id)) if vm_id is not None else (),
        touches=volume.touches if volume is not None else 0,
        resource_ids=tuple(filter(None, params.get("resourceids", "").split(","))),
    )


def _shown_on(world: World, volume: Volume) -> tuple[str, ...]:
    found = (world.vms.find(vm_id) for vm_id in (volume.device_on, volume.also_on) if vm_id is not None)
    return tuple(vm.id for vm in found if vm is not None and vm.state not in WITHOUT_GUEST)
