"""attachVolume and detachVolume: who is refused with which words, and what becomes of the volume."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ossea.simulator.model import DeviceAppeared, DeviceGone
from tests.unit.simulator.cloud import OMA, S1, V1, V2, VM, Cloud

Before = Callable[[Cloud], object]


def fill_slots(cloud: Cloud) -> None:
    cloud.model.settings = cloud.model.settings.patched({"max_data_disks": 1})
    cloud.put(V2, VM)


ATTACH_REFUSED: list[tuple[str, Before, dict[str, object], int, str]] = [
    ("attached", lambda c: c.put(V1, OMA), {}, 431, "Please specify a volume that is not attached to any VM."),
    (
        "destroyed",
        lambda c: c.set_volume(V1, state="Destroy"),
        {},
        431,
        "Please specify a volume that is not destroyed.",
    ),
    (
        "VM in transition",
        lambda c: c.set_vm(VM, "Starting"),
        {},
        431,
        "Please specify a VM that is either running or stopped.",
    ),
    (
        "VM destroyed",
        lambda c: c.set_vm(VM, "Destroyed"),
        {},
        431,
        "Please specify a VM that is either running or stopped.",
    ),
    (
        "other zone",
        lambda c: c.set_volume(V1, zone_id="elsewhere"),
        {},
        431,
        "Please specify a VM that is in the same zone as the volume.",
    ),
    (
        "no free slot",
        fill_slots,
        {},
        431,
        "The specified VM already has the maximum number of data disks (1) attached. Please specify another VM.",
    ),
    (
        "VM snapshots",
        lambda c: c.add_vm_snapshot(VM),
        {},
        431,
        "Unable to attach volume, please specify a VM that does not have VM snapshots",
    ),
    (
        "volume busy",
        lambda c: c.set_volume(V1, state="Snapshotting"),
        {},
        431,
        "Volume state must be in Allocated, Ready or in Uploaded state",
    ),
    (
        "root on a running VM",
        lambda c: c.set_vm(VM, "Running"),
        {"deviceid": 0},
        431,
        "Root volume detach can happen only when vm is in states: Stopped or Destroyed",
    ),
    (
        "second root",
        lambda c: c.put(V2, VM, 0),
        {"deviceid": 0},
        431,
        "Vm already has root volume attached to it",
    ),
    ("the CD-ROM's slot", lambda _: None, {"deviceid": 3}, 530, "deviceId should be 1,2,4-65"),
    ("used slot", lambda c: c.put(V2, VM, 5), {"deviceid": 5}, 530, "deviceId 5 is used by vm 2"),
]


@pytest.mark.parametrize(
    ("before", "params", "code", "text"), [row[1:] for row in ATTACH_REFUSED], ids=[row[0] for row in ATTACH_REFUSED]
)
def test_attach_is_refused_inside_the_job(before: Before, params: dict[str, object], code: int, text: str) -> None:
    cloud = Cloud()
    before(cloud)
    was = cloud.model.world.volumes.rows[V1].state
    assert cloud.refusal("attachVolume", id=V1, virtualmachineid=VM, **params) == (code, text)
    assert cloud.model.world.volumes.rows[V1].state == was


def test_attach_takes_its_time_and_shows_the_device_before_it_ends() -> None:
    cloud = Cloud()
    job = cloud.start("attachVolume", id=V1, virtualmachineid=OMA)
    cloud.pass_time(2.9)
    assert cloud.job(job)["jobstatus"] == 0
    assert cloud.volume()["state"] == "Attaching"
    assert cloud.volume()["jobid"] == job
    assert "virtualmachineid" not in cloud.volume()
    assert cloud.effects == [DeviceAppeared(cloud.effects[0].at, job, V1, OMA, "b3bb93101b594f6297e8")]
    cloud.pass_time(0.1)
    assert cloud.job(job)["jobstatus"] == 1
    volume = cloud.volume()
    assert (volume["state"], volume["virtualmachineid"], volume["deviceid"], volume["type"]) == (
        "Ready",
        OMA,
        1,
        "DATADISK",
    )
    assert "jobid" not in volume


def test_slots_leave_the_cd_rom_out() -> None:
    cloud = Cloud()
    added = cloud.model.seed(cloud.now, volumes=[{"name": f"v{n}", "size_bytes": 512} for n in range(4)])["volumes"]
    for volume_id in added:
        cloud.put(volume_id, VM)
    assert [cloud.volume(volume_id)["deviceid"] for volume_id in added] == [1, 2, 4, 5]


def test_device_0_makes_a_root_until_it_is_detached() -> None:
    cloud = Cloud()
    cloud.put(V1, VM, 0)
    assert cloud.volume()["type"] == "ROOT"
    cloud.done("detachVolume", id=V1)
    volume = cloud.volume()
    assert volume["type"] == "DATADISK"
    assert "virtualmachineid" not in volume
    assert "deviceid" not in volume


DETACH_REFUSED: list[tuple[str, Before, str]] = [
    ("free", lambda _: None, "The specified volume is not attached to a VM."),
    (
        "VM snapshots",
        lambda c: c.put(V1, VM).add_vm_snapshot(VM),
        "Unable to detach volume, please specify a VM that does not have VM snapshots",
    ),
    (
        "VM in transition",
        lambda c: c.put(V1, VM).set_vm(VM, "Stopping"),
        "Please specify a VM that is either running or stopped.",
    ),
    (
        "root of a running VM",
        lambda c: c.put(V1, VM, 0).set_vm(VM, "Running"),
        "Root volume detach can happen only when vm is in states: Stopped or Destroyed",
    ),
    (
        "root of a destroyed VM",
        lambda c: c.put(V1, VM, 0).set_vm(VM, "Destroyed"),
        "Root volume detach can happen only when vm is in states: Stopped or Destroyed",
    ),
]


@pytest.mark.parametrize(
    ("before", "text"), [row[1:] for row in DETACH_REFUSED], ids=[row[0] for row in DETACH_REFUSED]
)
def test_detach_is_refused_inside_the_job(before: Before, text: str) -> None:
    cloud = Cloud()
    before(cloud)
    assert cloud.refusal("detachVolume", id=V1) == (431, text)


@pytest.mark.parametrize("state", ["Running", "Stopped", "Destroyed"])
def test_a_data_disk_is_detached_from_a_vm_that_is(state: str) -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    cloud.set_vm(VM, state)
    cloud.done("detachVolume", id=V1)
    assert "virtualmachineid" not in cloud.volume()
    assert any(isinstance(effect, DeviceGone) and effect.vm_id == VM for effect in cloud.effects)


def test_detach_by_vm_and_device() -> None:
    cloud = Cloud()
    cloud.put(V1, VM, 4)
    cloud.done("detachVolume", virtualmachineid=VM, deviceid=4)
    assert "virtualmachineid" not in cloud.volume()


def test_there_is_no_detaching_state() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    cloud.start("detachVolume", id=V1)
    cloud.pass_time(1)
    assert cloud.volume()["state"] == "Ready"
    assert cloud.volume()["jobstatus"] == 0


def test_a_straggling_detach_takes_the_volume_off_whatever_holds_it_by_then() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    cloud.put(V2, VM)
    cloud.start("detachVolume", id=V2)
    straggler = cloud.start("detachVolume", id=V1)
    cloud.set_volume(V1, vm_id=OMA)
    cloud.pass_time(60)
    assert cloud.job(straggler)["jobstatus"] == 1
    assert "virtualmachineid" not in cloud.volume(V1)


def test_a_race_lost_in_the_queue_is_530() -> None:
    cloud = Cloud()
    cloud.put(V2, VM)
    cloud.start("detachVolume", id=V2)
    late = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    cloud.set_volume(V1, vm_id=OMA)
    cloud.pass_time(60)
    assert cloud.job(late)["jobresult"]["errorcode"] == 530
    assert cloud.volume(V1)["virtualmachineid"] == OMA


def test_unknown_and_missing_ids_are_refused_by_the_call() -> None:
    cloud = Cloud()
    error = cloud.error("detachVolume", id="00000000-0000-4000-8000-00000000ffff")
    assert (error.errorcode, error.cserrorcode) == (431, 9999)
    assert "Invalid parameter id value=00000000-0000-4000-8000-00000000ffff due to incorrect long value" in error.text
    assert "entity does not exist" in error.text
    error = cloud.error("attachVolume", id=V1)
    assert error.errorcode == 431
    assert error.text == "Unable to execute API command attachvolume due to missing parameter virtualmachineid"


def test_a_snapshot_is_not_a_volume() -> None:
    assert Cloud().error("detachVolume", id=S1).errorcode == 431
