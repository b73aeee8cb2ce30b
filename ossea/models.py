"""Answers as values: what we read of CloudStack's JSON, with units and aware UTC times.

Null fields are left out by CloudStack and unknown ones may appear in any version: both are normal. Only an entity
without an id is a broken answer. Sources: `VolumeResponse`, `SnapshotResponse`, `UserVmResponse`,
`VMSnapshotResponse`, `ResourceTagResponse`, `AsyncJobResponse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from ossea.errors import PARAM_ERROR, int_or_none

Json = Mapping[str, Any]

_PENDING: Final = 0


class MalformedEntity(ValueError):
    """An entity that lacks what makes it one."""


@dataclass(frozen=True, slots=True)
class Volume:
    id: str
    name: str
    state: str
    type: str
    size_bytes: int
    vm_id: str | None = None
    vm_name: str | None = None
    vm_state: str | None = None
    device_id: int | None = None
    """CloudStack's slot on the VM, not the guest's device letter."""
    job_id: str | None = None
    job_status: int | None = None
    zone_id: str | None = None
    attached: datetime | None = None
    """When it was attached to the VM that holds it now (`VolumeVO.attached`); None for a free one."""

    @property
    def pending_job_id(self) -> str | None:
        """A job on this volume that has not ended."""
        return self.job_id if self.job_status in (None, _PENDING) else None

    @classmethod
    def parse(cls, item: Json) -> Volume:
        return cls(
            id=_id(item),
            name=_text(item, "name"),
            state=_text(item, "state"),
            type=_text(item, "type"),
            size_bytes=int_or_none(item.get("size")) or 0,
            vm_id=_text_or_none(item, "virtualmachineid"),
            vm_name=_text_or_none(item, "vmname"),
            vm_state=_text_or_none(item, "vmstate"),
            device_id=int_or_none(item.get("deviceid")),
            job_id=_text_or_none(item, "jobid"),
            job_status=int_or_none(item.get("jobstatus")),
            zone_id=_text_or_none(item, "zoneid"),
            attached=parse_time(item.get("attached")),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: str
    volume_id: str | None
    name: str
    state: str
    created: datetime | None = None
    size_bytes: int | None = None
    """The volume's size when it was taken (`virtualsize`); older servers do not tell."""
    revertable: bool | None = None
    job_id: str | None = None

    @classmethod
    def parse(cls, item: Json) -> Snapshot:
        return cls(
            id=_id(item),
            volume_id=_text_or_none(item, "volumeid"),
            name=_text(item, "name"),
            state=_text(item, "state"),
            created=parse_time(item.get("created")),
            size_bytes=int_or_none(item.get("virtualsize")),
            revertable=_bool_or_none(item.get("revertable")),
            job_id=_text_or_none(item, "jobid"),
        )


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    id: str
    name: str
    state: str
    display_name: str | None = None
    instance_name: str | None = None
    host_id: str | None = None
    host_name: str | None = None
    created: datetime | None = None
    job_id: str | None = None

    @classmethod
    def parse(cls, item: Json) -> VirtualMachine:
        return cls(
            id=_id(item),
            name=_text(item, "name"),
            state=_text(item, "state"),
            display_name=_text_or_none(item, "displayname"),
            instance_name=_text_or_none(item, "instancename"),
            host_id=_text_or_none(item, "hostid"),
            host_name=_text_or_none(item, "hostname"),
            created=parse_time(item.get("created")),
            job_id=_text_or_none(item, "jobid"),
        )


@dataclass(frozen=True, slots=True)
class VmSnapshot:
    id: str
    vm_id: str
    state: str

    @classmethod
    def parse(cls, item: Json) -> VmSnapshot:
        return cls(id=_id(item), vm_id=_text(item, "virtualmachineid"), state=_text(item, "state"))


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the event log. Servers before 4.17 do not name the resource that it is about."""

    type: str
    description: str
    state: str | None = None
    created: datetime | None = None
    resource_id: str | None = None

    @classmethod
    def parse(cls, item: Json) -> Event:
        return cls(
            type=_text(item, "type"),
            description=_text(item, "description"),
            state=_text_or_none(item, "state"),
            created=parse_time(item.get("created")),
            resource_id=_text_or_none(item, "resourceid"),
        )


@dataclass(frozen=True, slots=True)
class Tag:
    key: str
    value: str
    resource_id: str
    resource_type: str

    @classmethod
    def parse(cls, item: Json) -> Tag:
        return cls(
            key=_text(item, "key"),
            value=_text(item, "value"),
            resource_id=_text(item, "resourceid"),
            resource_type=_text(item, "resourcetype"),
        )


@dataclass(frozen=True, slots=True)
class Host:
    id: str
    name: str
    state: str
    """`Up`, `Down`, `Disconnected`, `Alert` … (`com.cloud.host.Status`)."""

    @classmethod
    def parse(cls, item: Json) -> Host:
        return cls(id=_id(item), name=_text(item, "name"), state=_text(item, "state"))


@dataclass(frozen=True, slots=True)
class Zone:
    id: str
    name: str

    @classmethod
    def parse(cls, item: Json) -> Zone:
        return cls(id=_id(item), name=_text(item, "name"))


@dataclass(frozen=True, slots=True)
class DiskOffering:
    id: str
    name: str
    size_bytes: int
    """0 where the offering leaves the size to the caller."""
    is_customized: bool

    @classmethod
    def parse(cls, item: Json) -> DiskOffering:
        return cls(
            id=_id(item),
            name=_text(item, "name"),
            size_bytes=(int_or_none(item.get("disksize")) or 0) * 1024**3,
            is_customized=bool(_bool_or_none(item.get("iscustomized"))),
        )


class JobStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABSENT = "absent"
    """CloudStack does not know the id: it never arrived, or its row has expired (24 h after its creation)."""


_STATUS_BY_NUMBER = {_PENDING: JobStatus.PENDING, 1: JobStatus.SUCCEEDED, 2: JobStatus.FAILED}


@dataclass(frozen=True, slots=True)
class JobResult:
    """Where an asynchronous job stands."""

    id: str
    status: JobStatus
    errorcode: int | None = None
    errortext: str | None = None
    result: dict[str, Any] | None = None
    command: str | None = None
    """The API command's name, from the Java class that CloudStack shows."""
    created: datetime | None = None
    instance_id: str | None = None
    """The entity that the job is about (`jobinstanceid`)."""
    known_before: bool = False
    """With ABSENT: CloudStack had accepted or shown this job earlier, so it did arrive."""

    @property
    def ended(self) -> bool:
        return self.status is not JobStatus.PENDING

    @property
    def refused(self) -> bool:
        """Failed on a precondition, before anything was changed: the real code is inside `jobresult` (4.11 reports
        every failed job's `jobresultcode` as 530).
        """
        return self.status is JobStatus.FAILED and self.errorcode == PARAM_ERROR

    @classmethod
    def parse(cls, item: Json, job_id: str | None = None) -> JobResult:
        """From `queryAsyncJobResult` or an item of `listAsyncJobs`; `job_id` where the answer leaves it out."""
        found_id = str(item.get("jobid") or job_id or "")
        status = _STATUS_BY_NUMBER.get(int_or_none(item.get("jobstatus")) or 0) if "jobstatus" in item else None
        if not found_id or status is None:
            raise MalformedEntity("a job without id or known status")
        result = item.get("jobresult")
        result = dict(result) if isinstance(result, Mapping) else None
        failed = status is JobStatus.FAILED
        errorcode = int_or_none(result.get("errorcode")) if failed and result else None
        return cls(
            id=found_id,
            status=status,
            errorcode=(errorcode or int_or_none(item.get("jobresultcode"))) if failed else None,
            errortext=_errortext(result) if failed else None,
            result=result,
            command=_command_of(item.get("cmd")),
            created=parse_time(item.get("created")),
            instance_id=_text_or_none(item, "jobinstanceid"),
        )


def parse_time(value: object) -> datetime | None:
    """CloudStack's `2026-01-01T00:00:00+0000`, in whatever zone the server writes, as aware UTC; None if not one."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo is not None else None


def _errortext(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "the job failed without a result; what it changed is unknown"
    return str(result.get("errortext") or "the job failed without an error text")


def _command_of(java_class: object) -> str | None:
    """`org.apache.cloudstack.api.command.admin.vm.StopVMCmdByAdmin` → `stopVirtualMachine`."""
    if not isinstance(java_class, str) or not java_class:
        return None
    name = java_class.rsplit(".", 1)[-1].removesuffix("ByAdmin").removesuffix("Cmd")
    if name.endswith("VM"):
        name = name.removesuffix("VM") + "VirtualMachine"
    return name[:1].lower() + name[1:]


def _id(item: Json) -> str:
    value = item.get("id")
    if not isinstance(value, str) or not value:
        raise MalformedEntity("an entity without an id")
    return value


def _text(item: Json, key: str) -> str:
    value = item.get(key)
    return "" if value is None else str(value)


def _text_or_none(item: Json, key: str) -> str | None:
    return _text(item, key) or None


def _bool_or_none(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None
