"""The daemon's answers as values, the same for server and client; sizes in bytes, times aware and in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

Json = Mapping[str, Any]


class OperationType(StrEnum):
    CREATE = "create"
    ATTACH = "attach"
    DETACH = "detach"
    DELETE = "delete"
    CLEANUP = "cleanup"
    UNKNOWN = ""
    """What a non-strict server stored for a type that its table does not know; in rows of older daemons only."""


class OperationStatus(StrEnum):
    PENDING = "pending"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = ""
    """As in `OperationType`."""

    @property
    def has_ended(self) -> bool:
        return self in (OperationStatus.COMPLETED, OperationStatus.FAILED, OperationStatus.CANCELLED)


class FaultKind(StrEnum):
    """What a failed operation says about the world."""

    REFUSED = "refused"
    """Nothing was changed."""
    FAILED = "failed"
    """What was changed is unknown, or is not what was asked for."""


@dataclass(frozen=True, slots=True)
class OperationError:
    """Why an operation failed: a stable code, a sentence, and CloudStack's own code and words where it spoke."""

    code: str
    kind: FaultKind
    text: str
    errorcode: int | None = None
    cserrorcode: int | None = None
    errortext: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "kind": self.kind.value,
            "text": self.text,
            "errorcode": self.errorcode,
            "cserrorcode": self.cserrorcode,
            "errortext": self.errortext,
        }

    @classmethod
    def parse(cls, data: Json) -> OperationError:
        known = data.get("kind") in list(FaultKind)
        return cls(
            code=str(data.get("code") or "operation_failed"),
            kind=FaultKind(data["kind"]) if known else FaultKind.FAILED,
            text=str(data.get("text") or ""),
            errorcode=_int(data.get("errorcode")),
            cserrorcode=_int(data.get("cserrorcode")),
            errortext=_text(data.get("errortext")),
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of one volume, from its acceptance to its end."""

    id: str
    type: OperationType
    status: OperationStatus
    volume_id: str | None
    vm_id: str | None
    request: dict[str, Any]
    response: dict[str, Any] | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
    overdue: bool = False
    """CloudStack was asked longer ago than `operation_timeout_s` and the operation has not ended."""
    place: int | None = None
    """How many operations of the same VM go first, plus one; None where it is not waiting for its turn."""
    waiting_for: str | None = None
    """A sentence, while it waits for anything else than CloudStack's own work on it."""
    cloudstack_job_id: str | None = None
    error_detail: OperationError | None = None

    @property
    def has_ended(self) -> bool:
        return self.status.has_ended

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type.value,
            "status": self.status.value,
            "volume_id": self.volume_id,
            "vm_id": self.vm_id,
            "request": self.request,
            "response": self.response,
            "error": self.error,
            "created_at": time_text(self.created_at),
            "updated_at": time_text(self.updated_at),
            "completed_at": time_text(self.completed_at) if self.completed_at else None,
            "overdue": self.overdue,
            "place": self.place,
            "waiting_for": self.waiting_for,
            "cloudstack_job_id": self.cloudstack_job_id,
            "error_detail": self.error_detail.as_json() if self.error_detail else None,
        }

    @classmethod
    def parse(cls, data: Json) -> Operation:
        """Raises `ValueError` or `KeyError` for what is no operation."""
        detail = data.get("error_detail")
        return cls(
            id=str(data["id"]),
            type=OperationType(data["type"]),
            status=OperationStatus(data["status"]),
            volume_id=_text(data.get("volume_id")),
            vm_id=_text(data.get("vm_id")),
            request=dict(data.get("request") or {}),
            response=dict(data["response"]) if data.get("response") is not None else None,
            error=_text(data.get("error")),
            created_at=parse_time(data["created_at"]),
            updated_at=parse_time(data["updated_at"]),
            completed_at=parse_time(data["completed_at"]) if data.get("completed_at") else None,
            overdue=data.get("overdue") is True,
            place=_int(data.get("place")),
            waiting_for=_text(data.get("waiting_for")),
            cloudstack_job_id=_text(data.get("cloudstack_job_id")),
            error_detail=OperationError.parse(detail) if isinstance(detail, Mapping) else None,
        )


@dataclass(frozen=True, slots=True)
class DeviceMapping:
    """Where a volume is: CloudStack's word on the VM, the OMA's on the device."""

    id: str | None
    """The row's id; None where no row describes this attachment."""
    volume_uuid: str
    vm_id: str
    vm_context_id: str | None
    operation_mode: str
    device_path: str
    cloudstack_device_id: int | None
    cloudstack_state: str | None
    linux_state: str | None
    size: int | None
    last_sync: datetime | None

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "volume_uuid": self.volume_uuid,
            "volume_id": self.volume_uuid,
            "vm_id": self.vm_id,
            "vm_context_id": self.vm_context_id,
            "operation_mode": self.operation_mode,
            "device_path": self.device_path,
            "cloudstack_device_id": self.cloudstack_device_id,
            "cloudstack_state": self.cloudstack_state,
            "linux_state": self.linux_state,
            "size": self.size,
            "last_sync": time_text(self.last_sync) if self.last_sync else None,
        }

    @classmethod
    def parse(cls, data: Json) -> DeviceMapping:
        return cls(
            id=_text(data.get("id")),
            volume_uuid=str(data["volume_uuid"]),
            vm_id=str(data["vm_id"]),
            vm_context_id=_text(data.get("vm_context_id")),
            operation_mode=str(data.get("operation_mode") or "oma"),
            device_path=str(data["device_path"]),
            cloudstack_device_id=_int(data.get("cloudstack_device_id")),
            cloudstack_state=_text(data.get("cloudstack_state")),
            linux_state=_text(data.get("linux_state")),
            size=_int(data.get("size")),
            last_sync=parse_time(data["last_sync"]) if data.get("last_sync") else None,
        )


@dataclass(frozen=True, slots=True)
class DeviceLink:
    """A link under `device_root`; partitions carry their disk's serial."""

    link: str
    serial: str
    """Empty where the link's name carries none that we know."""
    size_bytes: int | None
    target: str | None

    def as_json(self) -> dict[str, Any]:
        """`size_bytes` says the same as the contract's `size`."""
        size = self.size_bytes
        return {"link": self.link, "serial": self.serial, "size": size, "size_bytes": size, "target": self.target}

    @classmethod
    def parse(cls, data: Json) -> DeviceLink:
        return cls(
            link=str(data["link"]),
            serial=str(data.get("serial") or ""),
            size_bytes=_int(data.get("size_bytes")),
            target=_text(data.get("target")),
        )


@dataclass(frozen=True, slots=True)
class Devices:
    """One scan of the OMA's devices, begun at `scanned_at`."""

    product_uuid: str | None
    product_uuid_error: str | None
    scanned_at: datetime
    links: tuple[DeviceLink, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "product_uuid": self.product_uuid,
            "product_uuid_error": self.product_uuid_error,
            "scanned_at": time_text(self.scanned_at),
            "links": [link.as_json() for link in self.links],
        }

    @classmethod
    def parse(cls, data: Json) -> Devices:
        return cls(
            product_uuid=_text(data.get("product_uuid")),
            product_uuid_error=_text(data.get("product_uuid_error")),
            scanned_at=parse_time(data["scanned_at"]),
            links=tuple(DeviceLink.parse(link) for link in data["links"]),
        )


def time_text(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(value: object) -> datetime:
    moment = datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
