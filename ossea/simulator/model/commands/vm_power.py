"""startVirtualMachine and stopVirtualMachine, which stand in the VM's queue."""

from __future__ import annotations

from typing import Any

from ossea.simulator.model.catalog import HOST_ID
from ossea.simulator.model.commands.base import AsyncCommand, Order, named_vm
from ossea.simulator.model.entities import Job, StopBehaviour, Vm, VmState
from ossea.simulator.model.errors import failed, refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import vm_json
from ossea.simulator.model.world import World

_OVER = frozenset({VmState.STOPPED, VmState.DESTROYED, VmState.EXPUNGING, VmState.ERROR})


class VmCommand(AsyncCommand):
    """What the commands on one VM share."""

    instance_type = "VirtualMachine"
    required = ("id",)

    def accept(self, world: World, params: Params) -> Order:
        return Order(named_vm(world, params).id)

    def undo(self, world: World, job: Job) -> None:
        vm = world.vms.rows[job.instance_id or ""]
        vm.state = job.params.get("was", vm.state)
        world.vms.touch(vm)

    @staticmethod
    def vm(world: World, job: Job) -> Vm:
        return world.vms.rows[job.instance_id or ""]


class StartVirtualMachine(VmCommand):
    name = "startVirtualMachine"
    java_class = "org.apache.cloudstack.api.command.admin.vm.StartVMCmdByAdmin"
    event = "VM.START"
    doing = "starting Vm. Vm Id:"
    optional = ("hostid",)

    def check(self, world: World, job: Job) -> str | None:
        vm = world.live_vm(job.instance_id or "")
        if vm is None:
            raise refused(f"unable to find a virtual machine with id {job.instance_id}")
        if vm.state == VmState.RUNNING:
            raise refused(f"The virtual machine {vm.id} ({vm.display_name}) is already running")
        return vm.id

    def begin(self, world: World, job: Job) -> None:
        vm = self.vm(world, job)
        if vm.state != VmState.STOPPED:
            raise failed(f"Unable to start VM {vm.instance_name}: it is {vm.state}")
        if not any(volume.device_id == 0 for volume in world.volumes_on(vm.id)):
            raise failed(f"Unable to start VM {vm.instance_name}: it has no ROOT volume")
        job.params["was"] = vm.state
        vm.state = VmState.STARTING
        world.vms.touch(vm)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        vm = self.vm(world, job)
        vm.state = VmState.RUNNING
        vm.host_id = HOST_ID
        world.vms.touch(vm)
        return {"virtualmachine": vm_json(world, vm)}


class StopVirtualMachine(VmCommand):
    """Stopping what is over already is a success that changes nothing (`VirtualMachineManagerImpl.advanceStop`)."""

    name = "stopVirtualMachine"
    java_class = "org.apache.cloudstack.api.command.admin.vm.StopVMCmdByAdmin"
    event = "VM.STOP"
    doing = "stopping Vm. Vm Id:"
    optional = ("forced",)

    def accept(self, world: World, params: Params) -> Order:
        return Order(named_vm(world, params).id, {"forced": params.flag("forced")})

    def check(self, world: World, job: Job) -> str | None:
        vm = world.live_vm(job.instance_id or "")
        if vm is None:
            raise refused(f"unable to find a virtual machine with id {job.instance_id}")
        return vm.id

    def begin(self, world: World, job: Job) -> None:
        vm = self.vm(world, job)
        if vm.state in _OVER:
            job.params["over"] = True
            return
        if vm.state != VmState.RUNNING and not job.params["forced"]:
            raise failed(f"Failed to stop VM {vm.instance_name}: it is {vm.state}")
        if not job.params["forced"]:
            _check_agent(world, vm)
            if vm.stop == StopBehaviour.HANGS:
                job.params["hangs_s"] = world.settings.agent_wait_s * world.settings.time_scale
        job.params["was"] = vm.state
        vm.state = VmState.STOPPING
        world.vms.touch(vm)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        vm = self.vm(world, job)
        if "hangs_s" in job.params:
            if vm.state == VmState.STOPPING:  # nobody has stopped it by force meanwhile
                self.undo(world, job)
            raise failed(f"Failed to stop VM {vm.instance_name}: the host's agent did not answer in time")
        if not job.params.get("over"):
            vm.state = VmState.STOPPED
            vm.host_id = None
            world.vms.touch(vm)
        return {"virtualmachine": vm_json(world, vm)}


def _check_agent(world: World, vm: Vm) -> None:
    """An unforced stop needs a host that answers and a guest that obeys."""
    host = world.hosts.find(vm.host_id or "")
    if host is not None and host.state != "Up":
        raise failed(f"Failed to stop VM {vm.instance_name}: host {host.name} is {host.state}")
    if vm.stop == StopBehaviour.REFUSES:
        raise failed(f"Failed to stop VM {vm.instance_name}: the hypervisor did not shut it down")
