"""detachVolume: `VolumeApiServiceImpl.detachVolumeFromVM` checks before queueing, then never again.

What holds the volume is not looked at again, so that a straggler takes it off whatever holds it by then
(apache/cloudstack#14214). A volume that keeps its device is free by the database only (#3290, #13014).
"""

from __future__ import annotations

from typing import Any

from ossea.simulator.model.commands.base import AsyncCommand, Order, named_vm, named_volume
from ossea.simulator.model.commands.root_volume import check_root_volume
from ossea.simulator.model.entities import ROOT, Job, VmState
from ossea.simulator.model.errors import failed, refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import volume_json
from ossea.simulator.model.world import World

_DETACHABLE_FROM = frozenset({VmState.RUNNING, VmState.STOPPED, VmState.DESTROYED})


class DetachVolume(AsyncCommand):
    name = "detachVolume"
    java_class = "org.apache.cloudstack.api.command.admin.volume.DetachVolumeCmdByAdmin"
    instance_type = "Volume"
    event = "VOLUME.DETACH"
    optional = ("id", "deviceid", "virtualmachineid")

    def accept(self, world: World, params: Params) -> Order:
        if params.find("id") is not None:
            volume = named_volume(world, params)
            both = params.find("deviceid") is not None or params.find("virtualmachineid") is not None
            return Order(volume.id, {"both": both})
        device = params.find_int("deviceid")
        if device is None or params.find("virtualmachineid") is None:
            return Order(None)
        vm = named_vm(world, params, "virtualmachineid")
        there = [volume for volume in world.volumes_on(vm.id) if volume.device_id == device]
        return Order(there[0].id) if there else Order(None, {"nothing": True})

    def check(self, world: World, job: Job) -> str | None:
        if job.params.get("nothing"):
            raise failed("Index: 0, Size: 0")
        if job.instance_id is None or job.params.get("both"):
            raise refused("Please provide either a volume id, or a tuple(device id, instance id)")
        volume = world.live_volume(job.instance_id)
        if volume is None:
            raise refused(f"Unable to find volume with ID: {job.instance_id}")
        if volume.vm_id is None:
            raise refused("The specified volume is not attached to a VM.")
        vm = world.live_vm(volume.vm_id)
        if vm is None or vm.state not in _DETACHABLE_FROM:
            raise refused("Please specify a VM that is either running or stopped.")
        if volume.type == ROOT:
            check_root_volume(vm)
        if world.vm_snapshots_of(vm.id):
            raise refused("Unable to detach volume, please specify a VM that does not have VM snapshots")
        return vm.id

    def begin(self, world: World, job: Job) -> None:
        volume = world.live_volume(job.instance_id or "")
        if volume is None or volume.vm_id is None:
            raise failed("Unexpected exception")
        job.params["begun_on"] = volume.vm_id

    def apply(self, world: World, job: Job) -> None:
        volume = world.volumes.rows[job.instance_id or ""]
        if job.orphaned and volume.device_on != job.params.get("begun_on"):
            return  # the hypervisor works on alone, at the VM that it was told
        if not volume.keeps_device:
            world.hide_device(volume, job.id)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        volume = world.volumes.rows[job.instance_id or ""]
        if volume.vm_id is not None:
            world.detach(volume)
        return {"volume": volume_json(world, volume)}
