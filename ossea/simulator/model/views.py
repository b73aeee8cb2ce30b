"""Entities as CloudStack's lists show them; null fields are left out."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ossea.simulator.model import catalog
from ossea.simulator.model.entities import (
    Event,
    Job,
    JobStatus,
    Snapshot,
    SnapshotState,
    Tag,
    Vm,
    VmSnapshot,
    Volume,
    VolumeState,
)
from ossea.simulator.model.ownership import owner_json
from ossea.simulator.model.world import World

_DISK_OFFERING_NAMES = {row["id"]: (row["name"], row["displaytext"]) for row in catalog.DISK_OFFERINGS}


def stamp(moment: float) -> str:
    """CloudStack's time: `2026-01-01T00:00:00+0000`, whole seconds."""
    return _stamp(int(moment))


@lru_cache(maxsize=20_000)
def _stamp(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


def volume_json(world: World, volume: Volume) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": volume.id,
        "name": volume.name,
        "zoneid": volume.zone_id,
        "zonename": catalog.ZONE_NAME,
        "type": volume.type,
        "provisioningtype": "thin",
        "size": volume.size_bytes,
        "created": stamp(volume.created),
        "state": volume.state,
        **owner_json(world, volume),
        "storagetype": "shared",
        "hypervisor": "KVM",
        "destroyed": volume.state in {VolumeState.DESTROY, VolumeState.EXPUNGED},
        "isextractable": True,
        "displayvolume": True,
        "quiescevm": False,
        "path": volume.id,
    }
    if volume.disk_offering_id is not None:
        name, text = _DISK_OFFERING_NAMES.get(volume.disk_offering_id, ("", ""))
        item.update(diskofferingid=volume.disk_offering_id, diskofferingname=name, diskofferingdisplaytext=text)
    if volume.state != VolumeState.ALLOCATED:
        item["storage"] = "primary-1"
    if volume.vm_id is not None:
        item.update(_attachment(world, volume, volume.vm_id))
    return _with_tags_and_job(world, volume.id, item)


def _attachment(world: World, volume: Volume, vm_id: str) -> dict[str, Any]:
    vm = world.vms.find(vm_id)
    part: dict[str, Any] = {"virtualmachineid": vm_id, "deviceid": volume.device_id}
    if vm is not None:
        part.update(vmname=vm.name, vmdisplayname=vm.display_name, vmstate=vm.state)
    if volume.attached is not None:
        part["attached"] = stamp(volume.attached)
    return part


def snapshot_json(world: World, snapshot: Snapshot) -> dict[str, Any]:
    volume = world.volumes.find(snapshot.volume_id)
    item: dict[str, Any] = {
        "id": snapshot.id,
        "name": snapshot.name,
        "volumeid": snapshot.volume_id,
        "created": stamp(snapshot.created),
        "state": snapshot.state,
        "snapshottype": "MANUAL",
        "intervaltype": "MANUAL",
        "physicalsize": snapshot.size_bytes if snapshot.has_content else 0,
        "virtualsize": snapshot.size_bytes,
        "revertable": snapshot.revertable and snapshot.state == SnapshotState.BACKED_UP,
        "zoneid": catalog.ZONE_ID,
        **owner_json(world, snapshot),
    }
    if volume is not None:
        item.update(volumename=volume.name, volumetype=volume.type, zoneid=volume.zone_id)
    return _with_tags_and_job(world, snapshot.id, item)


def vm_json(world: World, vm: Vm) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": vm.id,
        "name": vm.name,
        "displayname": vm.display_name,
        "instancename": vm.instance_name,
        "state": vm.state,
        "created": stamp(vm.created),
        "zoneid": vm.zone_id,
        "zonename": catalog.ZONE_NAME,
        **owner_json(world, vm),
        "userid": catalog.USER_ID,
        "username": catalog.ACCOUNT,
        "haenable": False,
        "templateid": catalog.TEMPLATE_ID,
        "templatename": "blank",
        "templatedisplaytext": "Empty template for replicated VMs",
        "passwordenabled": False,
        "serviceofferingid": catalog.SERVICE_OFFERING_ID,
        "serviceofferingname": "Medium Instance",
        "cpunumber": 2,
        "cpuspeed": 1000,
        "memory": 2048,
        "guestosid": catalog.OS_TYPE_ID,
        "rootdevicetype": "ROOT",
        "rootdeviceid": 0,
        "hypervisor": "KVM",
        "isdynamicallyscalable": False,
        "displayvm": True,
        "securitygroup": [],
        "affinitygroup": [],
        "nic": [_nic(vm)],
    }
    host = world.hosts.find(vm.host_id or "")
    if host is not None and not world.settings.denies("listHosts"):  # ordinary roles don't see where it runs
        item.update(hostid=host.id, hostname=host.name)
    return _with_tags_and_job(world, vm.id, item)


def _nic(vm: Vm) -> dict[str, Any]:
    low = vm.number % 250 + 2
    return {
        "id": f"00000000-0000-4000-8000-{vm.number:012x}",
        "networkid": catalog.NETWORK_ID,
        "networkname": "test-network",
        "netmask": "255.255.255.0",
        "gateway": "10.1.1.1",
        "ipaddress": f"10.1.1.{low}",
        "traffictype": "Guest",
        "type": "Isolated",
        "isdefault": True,
        "macaddress": f"02:00:4c:00:{vm.number >> 8 & 255:02x}:{vm.number & 255:02x}",
        "secondaryip": [],
    }


def vm_snapshot_json(world: World, row: VmSnapshot) -> dict[str, Any]:
    vm = world.vms.find(row.vm_id)
    return {
        "id": row.id,
        "name": row.name,
        "displayname": row.name,
        "state": row.state,
        "virtualmachineid": row.vm_id,
        "virtualmachinename": "" if vm is None else vm.name,
        "zoneid": catalog.ZONE_ID,
        "type": "Disk",
        "current": True,
        "created": stamp(row.created),
        **owner_json(world, row),
    }


def tag_json(world: World, tag: Tag) -> dict[str, Any]:
    return {
        "key": tag.key,
        "value": tag.value,
        "resourcetype": tag.resource_type,
        "resourceid": tag.resource_id,
        **owner_json(world, tag),
    }


def event_json(world: World, event: Event) -> dict[str, Any]:
    """Old servers do not say whose event it is."""
    with_resource = world.settings.event_resource
    return {
        "id": event.id,
        "username": catalog.ACCOUNT,
        "type": event.type,
        "level": event.level,
        "description": event.description,
        "created": stamp(event.created),
        "state": event.state,
        **({"resourceid": event.resource_id} if with_resource and event.resource_id else {}),
        **owner_json(world, event),
    }


def job_json(job: Job, java_class: str, *, real_code: bool) -> dict[str, Any]:
    """A row of `async_job`; 4.11 puts 530 into `jobresultcode` of every failed job, the real code into `jobresult`."""
    code = 530 if job.status == JobStatus.FAILED else 0
    if code and real_code and job.result is not None:
        code = int(job.result.get("errorcode", code))
    item: dict[str, Any] = {
        "accountid": catalog.ACCOUNT_ID,
        "userid": catalog.USER_ID,
        "cmd": java_class,
        "jobstatus": job.status,
        "jobprocstatus": 0,
        "jobresultcode": code,
        "created": stamp(job.created),
        "jobid": job.id,
    }
    if job.result is not None:
        item["jobresulttype"] = "object"
        item["jobresult"] = job.result
    if job.instance_type is not None and job.instance_id is not None:
        item["jobinstancetype"] = job.instance_type
        item["jobinstanceid"] = job.instance_id
    return item


def _with_tags_and_job(world: World, row_id: str, item: dict[str, Any]) -> dict[str, Any]:
    item["tags"] = [tag_json(world, tag) for tag in world.tags_of(row_id)]
    job_id = world.pending_job_of(row_id)
    if job_id is not None:
        item["jobid"] = job_id
        item["jobstatus"] = JobStatus.PENDING
    return item
