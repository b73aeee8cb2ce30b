"""Start, stop, destroy, recover, deploy and expunge."""

from __future__ import annotations

import pytest

from ossea.simulator.model import VolumeCreated, VolumeErased
from ossea.simulator.model.catalog import SERVICE_OFFERING_ID, TEMPLATE_ID, ZONE_ID
from tests.unit.simulator.cloud import V1, V2, VM, Cloud


def test_start_and_stop() -> None:
    cloud = Cloud()
    cloud.put(V1, VM, 0)
    job = cloud.start("startVirtualMachine", id=VM)
    assert cloud.vm()["state"] == "Starting"
    assert cloud.vm()["jobid"] == job
    cloud.pass_time(6)
    assert cloud.vm()["state"] == "Running"
    assert cloud.refusal("startVirtualMachine", id=VM)[0] == 431
    assert cloud.done("stopVirtualMachine", id=VM)["virtualmachine"]["state"] == "Stopped"


def test_a_vm_without_a_root_does_not_start() -> None:
    assert Cloud().refusal("startVirtualMachine", id=VM)[0] == 530


@pytest.mark.parametrize("state", ["Stopped", "Destroyed"])
def test_stopping_what_is_over_succeeds_and_changes_nothing(state: str) -> None:
    cloud = Cloud()
    cloud.set_vm(VM, state)
    assert cloud.done("stopVirtualMachine", id=VM)["virtualmachine"]["state"] == state


def test_a_stuck_transition_is_stopped_only_by_force() -> None:
    cloud = Cloud()
    cloud.set_vm(VM, "Stopping")
    assert cloud.refusal("stopVirtualMachine", id=VM)[0] == 530
    assert cloud.done("stopVirtualMachine", id=VM, forced="true")["virtualmachine"]["state"] == "Stopped"


def test_destroy_takes_the_root_with_it_and_leaves_data_disks_attached() -> None:
    cloud = Cloud()
    cloud.put(V1, VM, 0)
    cloud.put(V2, VM)
    cloud.done("destroyVirtualMachine", id=VM)
    assert cloud.vm()["state"] == "Destroyed"
    assert cloud.call("listVolumes", id=V1) == {}
    assert [effect.volume_id for effect in cloud.effects if isinstance(effect, VolumeErased)] == [V1]
    assert cloud.volume(V2)["virtualmachineid"] == VM
    cloud.done("detachVolume", id=V2)


def test_expunge_frees_data_disks_after_a_day() -> None:
    cloud = Cloud()
    cloud.put(V2, VM)
    cloud.done("destroyVirtualMachine", id=VM)
    cloud.pass_time(86_399)
    assert cloud.volume(V2)["virtualmachineid"] == VM
    cloud.pass_time(2)
    assert "virtualmachineid" not in cloud.volume(V2)
    assert cloud.call("listVirtualMachines", id=VM) == {}


def test_recover_brings_the_vm_back_but_not_its_root() -> None:
    cloud = Cloud()
    cloud.put(V1, VM, 0)
    cloud.done("destroyVirtualMachine", id=VM)
    assert cloud.call("recoverVirtualMachine", id=VM)["virtualmachine"]["state"] == "Stopped"
    assert cloud.call("listVolumes", virtualmachineid=VM) == {}
    assert cloud.error("recoverVirtualMachine", id=VM).errorcode == 431
    cloud.pass_time(200_000)
    assert cloud.vm()["state"] == "Stopped"


def test_on_servers_that_clean_up_at_the_expunge_the_root_comes_back() -> None:
    cloud = Cloud(root_dies_at="expunge")
    cloud.put(V1, VM, 0)
    cloud.done("destroyVirtualMachine", id=VM)
    cloud.call("recoverVirtualMachine", id=VM)
    assert cloud.volume(V1)["type"] == "ROOT"
    cloud.done("destroyVirtualMachine", id=VM, expunge="true")
    assert cloud.call("listVolumes", id=V1) == {}


def test_deploy_makes_a_vm_with_a_root() -> None:
    cloud = Cloud()
    answer = cloud.call(
        "deployVirtualMachine",
        zoneid=ZONE_ID,
        serviceofferingid=SERVICE_OFFERING_ID,
        templateid=TEMPLATE_ID,
        name="pgtest2",
        startvm="false",
    )
    cloud.pass_time(8)
    assert cloud.job(answer["jobid"])["jobresult"]["virtualmachine"]["name"] == "pgtest2"
    root = cloud.call("listVolumes", virtualmachineid=answer["id"])["volume"]
    assert [(volume["type"], volume["deviceid"]) for volume in root] == [("ROOT", 0)]
    assert [type(effect) for effect in cloud.effects] == [VolumeCreated]
