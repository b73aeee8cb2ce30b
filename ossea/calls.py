"""The commands that change something, as values: name and parameters, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ossea.errors import CloudStackError, ErrorKind

CDROM_SLOT: Final = 3
TAG_LENGTH: Final = 255

_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Call:
    """A command with its parameters; a parameter of None is not sent."""

    command: str
    params: Mapping[str, Any]


def attach_volume(volume_id: str, vm_id: str, device_id: int | None) -> Call:
    """`deviceid` 0 is the root disk; slot 3 belongs to the CD-ROM (`VolumeApiServiceImpl.getDeviceId`)."""
    if device_id is not None and (device_id < 0 or device_id == CDROM_SLOT):
        raise ValueError(f"device_id must be 0 or a free slot other than {CDROM_SLOT}, not {device_id}")
    return Call("attachVolume", {"id": volume_id, "virtualmachineid": vm_id, "deviceid": device_id})


def detach_volume(volume_id: str) -> Call:
    return Call("detachVolume", {"id": volume_id})


def create_volume(name: str, disk_offering_id: str, zone_id: str, size_gib: int | None) -> Call:
    params = {"name": name, "diskofferingid": disk_offering_id, "zoneid": zone_id, "size": size_gib}
    return Call("createVolume", params)


def delete_volume(volume_id: str) -> Call:
    return Call("deleteVolume", {"id": volume_id})


def create_snapshot(volume_id: str, name: str | None) -> Call:
    return Call("createSnapshot", {"volumeid": volume_id, "name": name})


def revert_snapshot(snapshot_id: str) -> Call:
    return Call("revertSnapshot", {"id": snapshot_id})


def delete_snapshot(snapshot_id: str) -> Call:
    return Call("deleteSnapshot", {"id": snapshot_id})


def stop_vm(vm_id: str, *, forced: bool) -> Call:
    return Call("stopVirtualMachine", {"id": vm_id, "forced": forced})


def start_vm(vm_id: str) -> Call:
    return Call("startVirtualMachine", {"id": vm_id})


def destroy_vm(vm_id: str) -> Call:
    """Without `expunge`, whose default is false: expunging takes the root disk's bytes."""
    return Call("destroyVirtualMachine", {"id": vm_id})


def recover_vm(vm_id: str) -> Call:
    return Call("recoverVirtualMachine", {"id": vm_id})


def create_tags(resource_ids: Sequence[str], resource_type: str, tags: Mapping[str, str]) -> Call:
    return _tags("createTags", resource_ids, resource_type, tags)


def delete_tags(resource_ids: Sequence[str], resource_type: str, tags: Mapping[str, str | None]) -> Call:
    return _tags("deleteTags", resource_ids, resource_type, tags)


def _tags(command: str, resource_ids: Sequence[str], resource_type: str, tags: Mapping[str, str | None]) -> Call:
    if not resource_ids or not tags:
        raise ValueError(f"{command} needs at least one resource and one tag")
    params: dict[str, Any] = {"resourceids": ",".join(resource_ids), "resourcetype": resource_type}
    for index, (key, value) in enumerate(tags.items()):
        if not key or len(key) > TAG_LENGTH or len(value or "") > TAG_LENGTH:
            raise ValueError(f"a tag's key and value have at most {TAG_LENGTH} characters: {key[:40]!r}")
        params[f"tags[{index}].key"] = key
        params[f"tags[{index}].value"] = value
    return Call(command, params)


def check_job_id(job_id: str) -> str:
    """The only form that `customjobid` takes; anything else is 431 (`ApiServer.queueCommand`)."""
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError(f"a job id must be a lower-case UUID, not {job_id!r}")
    return job_id


def check_values(command: str, params: Mapping[str, Any]) -> None:
    """Refuses what cannot be signed: Java encodes `~` as `%7E`, `cs` does not, and CloudStack then answers 401.

    Raises `CloudStackError` (`REFUSED`): nothing was sent, and sending it again would not help.
    """
    for name, value in params.items():
        if isinstance(value, str) and "~" in value:
            text = f"not sent: {name} holds '~', which cannot be signed the same on both sides: {value!r}"
            raise CloudStackError(ErrorKind.REFUSED, command, text)
