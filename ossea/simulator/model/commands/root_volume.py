"""The rule that attaching and detaching a ROOT volume share (`VolumeApiServiceImpl.validateRootVolumeDetachAttach`)."""

from __future__ import annotations

from ossea.simulator.model.entities import Vm, VmState
from ossea.simulator.model.errors import refused


def check_root_volume(vm: Vm) -> None:
    """Only while the VM is Stopped; CloudStack's text names Destroyed too, but its condition refuses it."""
    if vm.state != VmState.STOPPED:
        raise refused("Root volume detach can happen only when vm is in states: Stopped or Destroyed")
