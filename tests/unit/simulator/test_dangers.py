"""Where CloudStack's database and the hypervisor part: kept devices, replaced files, stragglers, stops that do not."""

from __future__ import annotations

import pytest

from ossea.simulator.model import (
    ContentReverted,
    DeviceAppeared,
    DeviceGone,
    Effect,
    Model,
    RevertStarted,
    Settings,
    VolumeErased,
    seeding,
)
from ossea.simulator.model.catalog import HOST_ID
from ossea.simulator.model.entities import Volume
from tests.unit.simulator.cloud import MIB, OMA, S1, V1, V2, VM, Cloud


def row(cloud: Cloud, volume_id: str = V1) -> Volume:
    return cloud.model.world.volumes.rows[volume_id]


def devices(cloud: Cloud) -> list[tuple[str, str]]:
    """Since the last look: which guest saw the device of the first volume come or go."""
    cloud.pass_time(0)
    kinds = (DeviceAppeared, DeviceGone)
    seen = [(type(one).__name__, one.vm_id) for one in cloud.effects if isinstance(one, kinds) and one.volume_id == V1]
    cloud.effects.clear()
    return seen


def release(cloud: Cloud) -> None:
    seeding.release_device(cloud.model.world, row(cloud))


# Detached in the database, there for the guest


def test_a_kept_device_outlives_its_detach_until_it_is_released() -> None:
    cloud = Cloud().put(V1, OMA)
    cloud.set_volume(V1, keeps_device=True)
    devices(cloud)
    cloud.done("detachVolume", id=V1)
    assert "virtualmachineid" not in cloud.volume()
    assert cloud.refusal("detachVolume", id=V1) == (431, "The specified volume is not attached to a VM.")
    assert devices(cloud) == []
    assert row(cloud).is_shown_to(OMA)
    release(cloud)
    assert devices(cloud) == [("DeviceGone", OMA)]
    assert not row(cloud).is_shown_to(OMA)
    cloud.put(V1, OMA).done("detachVolume", id=V1)
    assert devices(cloud)[-1] == ("DeviceGone", OMA)


def test_two_guests_may_see_a_volume_whose_device_was_kept() -> None:
    cloud = Cloud().put(V1, OMA)
    cloud.set_volume(V1, keeps_device=True)
    cloud.done("detachVolume", id=V1)
    cloud.put(V1, VM)
    assert row(cloud).is_shown_to(OMA)
    assert row(cloud).is_shown_to(VM)
    devices(cloud)
    release(cloud)
    assert devices(cloud) == [("DeviceGone", OMA)]
    assert row(cloud).is_shown_to(VM)
    cloud.done("detachVolume", id=V1)
    assert devices(cloud) == [("DeviceGone", VM)]


def test_a_volume_that_comes_back_to_who_kept_it_is_there_once() -> None:
    cloud = Cloud().put(V1, OMA)
    cloud.set_volume(V1, keeps_device=True)
    cloud.done("detachVolume", id=V1)
    cloud.put(V1, OMA)
    release(cloud)
    devices(cloud)
    cloud.done("detachVolume", id=V1)
    assert devices(cloud) == [("DeviceGone", OMA)]
    assert not row(cloud).is_shown_to(OMA)


def test_by_hand_a_volume_is_detached_in_the_database_only() -> None:
    cloud = Cloud().put(V1, OMA)
    devices(cloud)
    cloud.set_volume(V1, keeps_device=True, vm_id=None)
    assert "virtualmachineid" not in cloud.volume()
    assert devices(cloud) == []


def test_an_erased_volume_leaves_every_guest() -> None:
    cloud = Cloud().put(V1, OMA)
    cloud.set_volume(V1, keeps_device=True)
    cloud.done("detachVolume", id=V1)
    devices(cloud)
    cloud.call("deleteVolume", id=V1)
    assert devices(cloud) == [("DeviceGone", OMA)]


# Reverts


def reverts(cloud: Cloud) -> list[bool]:
    return [one.replaces for one in cloud.effects if isinstance(one, RevertStarted | ContentReverted)]


def test_a_revert_overwrites_in_place_or_replaces_the_file() -> None:
    cloud = Cloud()
    cloud.done("revertSnapshot", id=S1)
    assert reverts(cloud) == [False, False]
    assert row(cloud).file_number == 1
    newer = Cloud(revert_mode="replace")
    job = newer.start("revertSnapshot", id=S1)
    assert row(newer).file_number == 2, "the old file is gone from the beginning"
    newer.pass_time(5)
    assert newer.job(job)["jobstatus"] == 1
    assert reverts(newer) == [True, True]


def test_a_replacing_revert_without_effect_replaces_nothing() -> None:
    cloud = Cloud(revert_mode="replace")
    cloud.fault("revertSnapshot", "job_no_effect")
    cloud.done("revertSnapshot", id=S1)
    assert row(cloud).file_number == 1
    assert reverts(cloud) == [False]


def test_a_killed_driver_replaces_the_file_once_more() -> None:
    cloud = Cloud(revert_mode="replace")
    cloud.start("revertSnapshot", id=S1)
    cloud.pass_time(1)
    again = Model(Settings(), driven=True)
    again.load(cloud.model.dump(), cloud.now)
    assert [one.replaces for one in again.unfinished() if isinstance(one, RevertStarted)] == [True]


def test_a_revert_under_a_running_vm_succeeds_without_effect_on_such_servers() -> None:
    cloud = Cloud(revert_under_running_vm="no_effect").put(V1, VM, 0)
    cloud.set_vm(VM, "Running")
    cloud.pass_time(0)
    cloud.effects.clear()
    assert cloud.done("revertSnapshot", id=S1)["snapshot"]["id"] == S1
    assert [type(one) for one in cloud.effects] == [RevertStarted]
    assert [one.fraction for one in cloud.effects if isinstance(one, RevertStarted)] == [0.0]
    assert cloud.volume()["state"] == "Ready"
    assert Cloud().put(V1, VM).set_vm(VM, "Running").refusal("revertSnapshot", id=S1)[0] == 431
    assert cloud.set_vm(VM, "Starting").refusal("revertSnapshot", id=S1)[0] == 431


def test_a_revert_cut_by_a_restart_stays_so_until_somebody_edits_the_database() -> None:
    cloud = Cloud()
    cloud.start("revertSnapshot", id=S1)
    cloud.model.restart(cloud.now, "fail")
    cloud.pass_time(1_000_000)
    assert cloud.volume()["state"] == "RevertSnapshotting"
    assert cloud.refusal("revertSnapshot", id=S1) == (431, "The volume is not in Ready state.")
    assert cloud.refusal("attachVolume", id=V1, virtualmachineid=OMA)[0] == 431
    cloud.set_volume(V1, state="Ready")
    cloud.done("revertSnapshot", id=S1)


@pytest.mark.parametrize("command", ["attachVolume", "detachVolume"])
def test_a_restart_loses_a_volume_whose_job_ran_and_it_never_comes_back(command: str) -> None:
    cloud = Cloud()
    if command == "detachVolume":
        cloud.put(V1, VM)
    words = {"id": V1, **({"virtualmachineid": VM} if command == "attachVolume" else {})}
    cloud.start(command, **words)
    cloud.model.restart(cloud.now, "fail_and_lose_volumes")
    cloud.pass_time(1_000)
    assert cloud.call("listVolumes", id=V1) == {}
    assert not any(isinstance(one, VolumeErased) for one in cloud.effects), "its bytes are there"


# Late detach jobs


def test_a_late_detach_takes_the_volume_off_whatever_holds_it_then() -> None:
    cloud = Cloud().put(V1, OMA)
    cloud.fault("detachVolume", "job_late", delay_s=600)
    late = cloud.start("detachVolume", id=V1)
    cloud.pass_time(10)
    cloud.done("detachVolume", id=V1)
    cloud.put(V1, VM)
    devices(cloud)
    cloud.pass_time(595)
    assert cloud.job(late)["jobstatus"] == 1
    assert "virtualmachineid" not in cloud.volume()
    assert devices(cloud) == [("DeviceGone", VM)]


def test_a_late_job_does_not_stand_in_its_vms_way() -> None:
    cloud = Cloud().put(V1, VM)
    cloud.fault("detachVolume", "job_late", delay_s=600)
    late = cloud.start("detachVolume", id=V1)
    cloud.put(V2, VM)
    assert cloud.job(late)["jobstatus"] == 0
    assert cloud.volume(V1)["jobid"] == late


def test_a_late_job_survives_the_simulators_process() -> None:
    cloud = Cloud().put(V1, VM)
    cloud.fault("detachVolume", "job_late", delay_s=600)
    late = cloud.start("detachVolume", id=V1)
    again = Model(Settings())
    again.load(cloud.model.dump(), cloud.now)
    again.advance(cloud.now + 700)
    assert again.submit("queryAsyncJobResult", {"jobid": late}, cloud.now + 700)["jobstatus"] == 1
    assert again.world.volumes.rows[V1].vm_id is None


def test_a_restart_ends_a_late_job_for_good() -> None:
    cloud = Cloud().put(V1, VM)
    cloud.fault("detachVolume", "job_late", delay_s=600)
    cloud.start("detachVolume", id=V1)
    cloud.model.restart(cloud.now, "fail")
    cloud.pass_time(1_000)
    assert cloud.volume()["virtualmachineid"] == VM


@pytest.mark.parametrize(("holder", "gone"), [(VM, [("DeviceGone", VM)]), (OMA, [])])
def test_after_a_restart_the_hypervisor_goes_on_at_the_vm_that_it_was_told(holder: str, gone: object) -> None:
    cloud = Cloud().put(V1, VM)
    cloud.fault("detachVolume", "job_stuck", delay_s=600)
    cloud.start("detachVolume", id=V1)
    cloud.model.restart(cloud.now, "fail")
    cloud.set_volume(V1, vm_id=holder)
    devices(cloud)
    cloud.pass_time(700)
    assert devices(cloud) == gone


def test_a_detach_marked_failed_still_takes_the_volume_off_later() -> None:
    cloud = Cloud().put(V1, OMA)
    cloud.fault("detachVolume", "job_fail_applied", delay_s=600)
    assert cloud.refusal("detachVolume", id=V1)[0] == 530
    cloud.set_volume(V1, vm_id=VM)
    devices(cloud)
    cloud.pass_time(600)
    assert "virtualmachineid" not in cloud.volume()
    assert devices(cloud) == [("DeviceGone", VM)]


# VM snapshots


@pytest.mark.parametrize(
    ("command", "words", "text"),
    [
        (
            "attachVolume",
            {"id": V2, "virtualmachineid": VM},
            "Unable to attach volume, please specify a VM that does not have VM snapshots",
        ),
        ("detachVolume", {"id": V1}, "Unable to detach volume, please specify a VM that does not have VM snapshots"),
        (
            "revertSnapshot",
            {"id": S1},
            "Unable to revert snapshot for VM, please remove VM snapshots before reverting VM from snapshot",
        ),
    ],
)
def test_a_vm_snapshot_is_in_the_way(command: str, words: dict[str, str], text: str) -> None:
    cloud = Cloud().put(V1, VM).add_vm_snapshot(VM)
    assert cloud.refusal(command, **words) == (431, text)
    assert cloud.volume(V1)["virtualmachineid"] == VM


# Stops, and what else does not go away


def running(stop: str) -> Cloud:
    cloud = Cloud().put(V1, VM, 0)
    cloud.set_vm(VM, "Running")
    seeding.patch_vm(cloud.model.world, cloud.model.world.vms.rows[VM], {"stop": stop})
    return cloud


def test_a_vm_that_does_not_shut_down_stops_by_force_only() -> None:
    cloud = running("refuses")
    assert cloud.refusal("stopVirtualMachine", id=VM)[0] == 530
    assert cloud.vm()["state"] == "Running"
    assert cloud.done("stopVirtualMachine", id=VM, forced="true")["virtualmachine"]["state"] == "Stopped"


def test_a_stop_that_hangs_fails_after_the_agents_wait() -> None:
    cloud = running("hangs")
    job = cloud.start("stopVirtualMachine", id=VM)
    cloud.pass_time(1_799)
    assert (cloud.job(job)["jobstatus"], cloud.vm()["state"]) == (0, "Stopping")
    cloud.pass_time(1)
    assert cloud.job(job)["jobresult"]["errorcode"] == 530
    assert cloud.vm()["state"] == "Running"
    assert cloud.vm()["hostid"] == HOST_ID


def test_force_overtakes_a_stop_that_hangs() -> None:
    cloud = running("hangs")
    hung = cloud.start("stopVirtualMachine", id=VM)
    cloud.pass_time(60)
    cloud.done("stopVirtualMachine", id=VM, forced="true")
    assert cloud.vm()["state"] == "Stopped"
    assert cloud.job(hung)["jobstatus"] == 0
    cloud.pass_time(1_800)
    assert cloud.job(hung)["jobstatus"] == 2
    assert cloud.vm()["state"] == "Stopped"


def test_a_hung_stop_survives_the_simulators_process() -> None:
    cloud = running("hangs")
    cloud.start("stopVirtualMachine", id=VM)
    again = Model(Settings())
    again.load(cloud.model.dump(), cloud.now)
    job = again.submit("stopVirtualMachine", {"id": VM, "forced": "true"}, cloud.now)["jobid"]
    again.advance(cloud.now + 5)
    assert again.submit("queryAsyncJobResult", {"jobid": job}, cloud.now + 5)["jobstatus"] == 1


@pytest.mark.parametrize("state", ["Down", "Disconnected"])
def test_a_host_that_is_not_up_stops_nothing_unforced(state: str) -> None:
    cloud = running("normal")
    seeding.patch_host(cloud.model.world, cloud.model.world.hosts.rows[HOST_ID], {"state": state})
    assert [host["state"] for host in cloud.call("listHosts", id=cloud.vm()["hostid"])["host"]] == [state]
    code, text = cloud.refusal("stopVirtualMachine", id=VM)
    assert (code, text.endswith(f"host kvm-host-1 is {state}")) == (530, True)
    cloud.done("stopVirtualMachine", id=VM, forced="true")


def test_a_role_may_not_list_hosts_nor_see_where_a_vm_runs() -> None:
    cloud = Cloud(denied_commands=["listHosts"])
    error = cloud.error("listHosts")
    assert error.errorcode == 432
    assert error.text.startswith("The given command:listHosts does not exist or it is not available for user with id:")
    assert "hostid" not in cloud.vm(OMA)
    assert "listHosts" not in {api["name"] for api in cloud.call("listApis")["api"]}


@pytest.mark.parametrize(("command", "target"), [("deleteSnapshot", S1), ("destroyVirtualMachine", VM)])
def test_what_always_fails_fails_for_that_one_only(command: str, target: str) -> None:
    cloud = Cloud()
    cloud.model.seed(
        cloud.now,
        vms=[{"id": OMA.replace("a1", "a2"), "name": "x"}],
        snapshots=[{"id": S1.replace("c1", "c2"), "volume_id": V1, "name": "x"}],
    )
    before = cloud.snapshot(), cloud.vm()
    cloud.fault(command, "job_fail", times=None, match={"id": target}, errortext="not today")
    for _ in range(3):
        assert cloud.refusal(command, id=target) == (530, "not today")
    assert (cloud.snapshot(), cloud.vm()) == before
    cloud.done(command, id=S1.replace("c1", "c2") if command == "deleteSnapshot" else OMA.replace("a1", "a2"))


# A destroyed VM with our system disk


def destroyed(**fields: object) -> Cloud:
    cloud = Cloud()
    lost = [{"id": V1.replace("b3", "d3"), "name": "system", "size_bytes": MIB, "vm_id": GONE, "device_id": 0}]
    cloud.model.seed(cloud.now, vms=[{"id": GONE, "name": "gone", "state": "Destroyed", **fields}], volumes=lost)
    cloud.pass_time(0)
    cloud.effects.clear()
    return cloud


GONE = VM.replace("b1", "b2")
SYSTEM = V1.replace("b3", "d3")


def erased(effects: list[Effect]) -> list[str]:
    return [one.volume_id for one in effects if isinstance(one, VolumeErased)]


def test_a_destroyed_vm_keeps_its_root_until_it_is_recovered() -> None:
    cloud = destroyed()
    assert (cloud.volume(SYSTEM)["type"], cloud.volume(SYSTEM)["vmstate"]) == ("ROOT", "Destroyed")
    assert cloud.refusal("detachVolume", id=SYSTEM)[0] == 431
    cloud.call("recoverVirtualMachine", id=GONE)
    assert cloud.vm(GONE)["state"] == "Stopped"
    cloud.pass_time(200_000)
    cloud.done("detachVolume", id=SYSTEM)
    assert cloud.volume(SYSTEM)["type"] == "DATADISK"
    assert erased(cloud.effects) == []


def test_its_expunge_takes_the_root_and_its_bytes_at_the_hour() -> None:
    cloud = destroyed(destroyed_at=1_000_000.0 - 80_000)
    cloud.pass_time(6_399)
    assert erased(cloud.effects) == []
    cloud.pass_time(1)
    assert erased(cloud.effects) == [SYSTEM]
    assert cloud.call("listVolumes", id=SYSTEM) == {}
    assert cloud.call("listVirtualMachines", id=GONE) == {}
