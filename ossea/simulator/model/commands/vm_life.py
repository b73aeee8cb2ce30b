"""deployVirtualMachine, destroyVirtualMachine and recoverVirtualMachine, and what expunging does.

Destroying leaves data disks attached until the VM is expunged and takes its ROOT volumes with it, at once or at the
expunge (setting `root_dies_at`; `VolumeOrchestrator.cleanupVolumes`).
"""

from __future__ import annotations

from typing import Any

from ossea.simulator.model import catalog
from ossea.simulator.model.commands.base import AsyncCommand, Order, SyncCommand, named_vm
from ossea.simulator.model.commands.vm_power import VmCommand
from ossea.simulator.model.commands.volumes import find_custom_id
from ossea.simulator.model.effects import Effect, VolumeCreated
from ossea.simulator.model.entities import ROOT, Job, Vm, VmState, Volume, VolumeState
from ossea.simulator.model.errors import invalid_entity, refused
from ossea.simulator.model.history import DEPLOYING, deploy_words
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import vm_json
from ossea.simulator.model.world import World

_GONE = frozenset({VmState.DESTROYED, VmState.EXPUNGING})
_KNOWN = {
    "zoneid": {row["id"] for row in catalog.ZONES},
    "serviceofferingid": {row["id"] for row in catalog.SERVICE_OFFERINGS},
    "templateid": {row["id"] for row in catalog.TEMPLATES},
}


class DeployVirtualMachine(AsyncCommand):
    name = "deployVirtualMachine"
    java_class = "org.apache.cloudstack.api.command.admin.vm.DeployVMCmdByAdmin"
    instance_type = "VirtualMachine"
    event = "VM.CREATE"
    required = ("zoneid", "serviceofferingid", "templateid")
    optional = ("name", "displayname", "startvm", "networkids", "rootdisksize", "customid")

    def accept(self, world: World, params: Params) -> Order:
        for name, known in _KNOWN.items():
            if params.get(name).lower() not in known:
                raise invalid_entity(params.command, name, params.get(name))
        vm_id = find_custom_id(params, world.vms.rows) or world.new_id()
        name = params.find("name") or f"VM-{vm_id}"
        vm = Vm(
            vm_id,
            name,
            params.find("displayname") or name,
            VmState.STOPPED,
            catalog.ZONE_ID,
            world.now,
            world.next_number(),
        )
        world.vms.add(vm)
        size_gb = params.find_int("rootdisksize") or catalog.ROOT_DISK_GIBIBYTES
        root = Volume(
            world.new_id(),
            f"ROOT-{vm.number}",
            size_gb << 30,
            VolumeState.ALLOCATED,
            catalog.ZONE_ID,
            None,
            world.now,
            ROOT,
        )
        world.add_volume(root)
        world.attach(root, vm.id, 0)
        world.log_event("VM.CREATE", "Created", DEPLOYING.format(vm.id), resource_id=vm.id)
        starts = params.flag("startvm", default=True)
        notes = {"start": starts, "root": root.id, "words": deploy_words(world, starts=starts)}
        return Order(vm.id, notes, {"id": vm.id})

    def check(self, world: World, job: Job) -> str | None:
        del world
        return job.instance_id

    def begin(self, world: World, job: Job) -> None:
        vm = world.vms.rows[job.instance_id or ""]
        vm.state = VmState.STARTING if job.params["start"] else VmState.STOPPED
        world.vms.touch(vm)
        root = world.volumes.rows[job.params["root"]]
        root.state = VolumeState.CREATING
        world.volumes.touch(root)
        world.effects.extend(self.again(world, job))

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        vm = world.vms.rows[job.instance_id or ""]
        root = world.volumes.rows[job.params["root"]]
        root.state = VolumeState.READY
        world.volumes.touch(root)
        if job.params["start"]:
            vm.state, vm.host_id = VmState.RUNNING, catalog.HOST_ID
        world.vms.touch(vm)
        return {"virtualmachine": vm_json(world, vm)}

    def undo(self, world: World, job: Job) -> None:
        vm = world.vms.rows[job.instance_id or ""]
        vm.state = VmState.ERROR
        world.vms.touch(vm)

    def describe(self, job: Job) -> str:
        return f"{job.params['words']} {job.instance_id}"

    def tells_end(self, job: Job) -> bool:
        """Only a deploy that starts the VM goes through `startVirtualMachine`, which logs its beginning and its end."""
        return bool(job.params["start"])

    def again(self, world: World, job: Job) -> list[Effect]:
        root = world.volumes.rows[job.params["root"]]
        return [VolumeCreated(world.now, job.id, root.id, root.size_bytes)]


class DestroyVirtualMachine(VmCommand):
    name = "destroyVirtualMachine"
    java_class = "org.apache.cloudstack.api.command.admin.vm.DestroyVMCmdByAdmin"
    event = "VM.DESTROY"
    doing = "destroying Vm. Vm Id:"
    optional = ("expunge",)

    def accept(self, world: World, params: Params) -> Order:
        return Order(named_vm(world, params).id, {"expunge": params.flag("expunge")})

    def check(self, world: World, job: Job) -> str | None:
        if world.live_vm(job.instance_id or "") is None:
            raise refused(f"unable to find a virtual machine with id {job.instance_id}")
        return None

    def begin(self, world: World, job: Job) -> None:
        vm = self.vm(world, job)
        if vm.state in _GONE:
            job.params["over"] = True
            return
        job.params["was"] = vm.state
        if vm.state != VmState.STOPPED:
            vm.state = VmState.STOPPING
            world.vms.touch(vm)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        vm = self.vm(world, job)
        if not job.params.get("over"):
            vm.state = VmState.DESTROYED
            vm.destroyed_at = world.now
            vm.host_id = None
            world.vms.touch(vm)
            world.expunge_due[vm.id] = world.now + world.settings.expunge_delay_s
            if world.settings.root_dies_at == "destroy":
                erase_root_volumes(world, vm)
        if job.params["expunge"]:
            expunge(world, vm)
        return {"virtualmachine": vm_json(world, vm)}


class RecoverVirtualMachine(SyncCommand):
    """Synchronous in CloudStack; ROOT volumes that died at the destroy stay dead."""

    name = "recoverVirtualMachine"
    required = ("id",)

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        vm = named_vm(world, params)
        if vm.removed is not None:
            raise refused(f"unable to find a virtual machine with id {vm.id}")
        if vm.state != VmState.DESTROYED:
            raise refused(f"Vm with id {vm.id} is not in the right state")
        vm.state = VmState.STOPPED
        vm.destroyed_at = None
        world.expunge_due.pop(vm.id, None)
        world.vms.touch(vm)
        return {"virtualmachine": vm_json(world, vm)}


def erase_root_volumes(world: World, vm: Vm) -> None:
    for volume in world.volumes_on(vm.id):
        if volume.type == ROOT:
            world.erase_volume(volume)


def expunge(world: World, vm: Vm) -> None:
    """The VM goes for good: its ROOT volumes with it, its data disks become free."""
    erase_root_volumes(world, vm)
    for volume in world.volumes_on(vm.id):
        world.hide_device(volume, None)
        world.detach(volume)
    vm.state = VmState.EXPUNGING
    vm.removed = world.now
    world.expunge_due.pop(vm.id, None)
    world.vms.touch(vm)
    world.log_event("VM.EXPUNGE", "Completed", f"Successfully completed expunging Vm. Vm Id: {vm.number}")
