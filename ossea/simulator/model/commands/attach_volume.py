"""attachVolume: checks and slots of `VolumeApiServiceImpl.attachVolumeToVM` and `getDeviceId`."""

from __future__ import annotations

from typing import Any

from ossea.simulator.model.commands.base import AsyncCommand, Order, named_vm, named_volume
from ossea.simulator.model.commands.root_volume import check_root_volume
from ossea.simulator.model.entities import DATADISK, ROOT, Job, Vm, VmState, Volume, VolumeState
from ossea.simulator.model.errors import failed, refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import volume_json
from ossea.simulator.model.world import World

_CD_ROM_SLOT = 3
_ATTACHABLE = frozenset({VolumeState.ALLOCATED, VolumeState.READY, VolumeState.UPLOADED})


class AttachVolume(AsyncCommand):
    name = "attachVolume"
    java_class = "org.apache.cloudstack.api.command.admin.volume.AttachVolumeCmdByAdmin"
    instance_type = "Volume"
    event = "VOLUME.ATTACH"
    required = ("id", "virtualmachineid")
    optional = ("deviceid",)

    def accept(self, world: World, params: Params) -> Order:
        volume = named_volume(world, params)
        vm = named_vm(world, params, "virtualmachineid")
        return Order(volume.id, {"vm": vm.id, "device": params.find_int("deviceid")})

    def check(self, world: World, job: Job) -> str | None:
        volume = world.live_volume(job.instance_id or "")
        if volume is None or volume.type not in {ROOT, DATADISK}:
            raise refused(f"Please specify a volume with the valid type: {ROOT} or {DATADISK}")
        if volume.vm_id is not None:
            raise refused("Please specify a volume that is not attached to any VM.")
        if volume.state == VolumeState.DESTROY:
            raise refused("Please specify a volume that is not destroyed.")
        vm = world.live_vm(job.params["vm"])
        if vm is None:
            raise refused("Please specify a valid User VM.")
        if vm.state not in {VmState.RUNNING, VmState.STOPPED}:
            raise refused("Please specify a VM that is either running or stopped.")
        if vm.zone_id != volume.zone_id:
            raise refused("Please specify a VM that is in the same zone as the volume.")
        _check_slot(world, vm, volume, job.params["device"])
        if world.vm_snapshots_of(vm.id):
            raise refused("Unable to attach volume, please specify a VM that does not have VM snapshots")
        if volume.state not in _ATTACHABLE:
            raise refused("Volume state must be in Allocated, Ready or in Uploaded state")
        return vm.id

    def begin(self, world: World, job: Job) -> None:
        volume = world.live_volume(job.instance_id or "")
        vm = world.live_vm(job.params["vm"])
        if volume is None or vm is None or volume.vm_id is not None or volume.state not in _ATTACHABLE:
            raise failed(f"Failed to attach volume: {job.instance_id} to VM: {job.params['vm']}; its state has changed")
        if vm.state not in {VmState.RUNNING, VmState.STOPPED}:
            raise failed(f"Failed to attach volume: {volume.id} to VM: {vm.id}; the VM is {vm.state}")
        job.params["slot"] = _free_slot(world, vm, job.params["device"])
        job.params["was"] = volume.state
        volume.state = VolumeState.ATTACHING
        world.volumes.touch(volume)

    def apply(self, world: World, job: Job) -> None:
        world.show_device(world.volumes.rows[job.instance_id or ""], job.params["vm"], job.id)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        volume = world.volumes.rows[job.instance_id or ""]
        volume.state = VolumeState.READY
        world.attach(volume, job.params["vm"], job.params["slot"])
        return {"volume": volume_json(world, volume)}

    def undo(self, world: World, job: Job) -> None:
        volume = world.volumes.rows[job.instance_id or ""]
        if volume.state == VolumeState.ATTACHING:
            volume.state = job.params["was"]
        world.volumes.touch(volume)


def _check_slot(world: World, vm: Vm, volume: Volume, device: int | None) -> None:
    there = world.volumes_on(vm.id)
    if device == 0:
        check_root_volume(vm)
        if any(other.device_id == 0 for other in there):
            raise refused("Vm already has root volume attached to it")
        if volume.state == VolumeState.UPLOADED:
            raise refused("No support for Root volume attach in state Uploaded")
        return
    most = world.settings.max_data_disks
    if sum(other.type == DATADISK for other in there) >= most:
        raise refused(
            f"The specified VM already has the maximum number of data disks ({most}) attached."
            " Please specify another VM."
        )


def _free_slot(world: World, vm: Vm, device: int | None) -> int:
    """Slots 1, 2, 4 …; 0 is the root disk's, 3 the CD-ROM's."""
    last = world.settings.max_data_disks + 1
    used = {other.device_id for other in world.volumes_on(vm.id)}
    if device is None:
        free = next((slot for slot in range(1, last + 1) if slot != _CD_ROM_SLOT and slot not in used), None)
        if free is None:
            raise failed(f"All device Ids are used by vm {vm.number}")
        return free
    if device < 0 or device > last or device == _CD_ROM_SLOT:
        raise failed(f"deviceId should be 1,2,4-{last}")
    if device in used:
        raise failed(f"deviceId {device} is used by vm {vm.number}")
    return device
