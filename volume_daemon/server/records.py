"""What the daemon keeps about its operations, mappings and exports, as values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import MAXYEAR, datetime, timedelta
from enum import StrEnum
from typing import Any

from volume_daemon.models import Operation, OperationError, OperationStatus, OperationType
from volume_daemon.server.pauses import Patience, Pauses


class Stage(StrEnum):
    """How far an operation came towards CloudStack; what recovery does rests on it."""

    ACCEPTED = "accepted"
    """CloudStack has certainly not been asked."""
    SENT = "sent"
    """The intent is committed: CloudStack may have been asked."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Order:
    """A change as it was asked for; `id` is the caller's Idempotency-Key, else fresh."""

    id: str
    type: OperationType
    volume_id: str | None
    vm_id: str | None
    request: dict[str, Any]
    fence: int | None

    @property
    def content_hash(self) -> str:
        """What two requests of one key must share. The fence is not part of it: the next lease holder may ask again.

        Nor is the VM that a detach names: the order of a caller who did not name it is the same.
        """
        request = self.request
        vm_id = self.vm_id
        if self.type is OperationType.DETACH:
            request = {name: value for name, value in request.items() if name != "vm_id"}
            vm_id = None
        content = [self.type.value, self.volume_id, vm_id, request]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RecordedExport:
    """An NBD export as it stood before the detach: its row and its file's text (None: there was no file)."""

    name: str
    port: int
    device_path: str
    config_path: str | None
    status: str
    text: str | None
    vm_context_id: str | None = None
    job_id: str | None = None
    vm_disk_id: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecordedExport:
        fields: dict[str, Any] = {name: data.get(name) for name in cls.__dataclass_fields__}
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Tracking:
    """Columns of a mapping that other programs rely on and that must outlive a detach."""

    mapping_id: str
    vm_context_id: str | None
    snapshot_id: str | None = None
    snapshot_status: str | None = None
    snapshot_created_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        created = self.snapshot_created_at
        return {
            "mapping_id": self.mapping_id,
            "vm_context_id": self.vm_context_id,
            "snapshot_id": self.snapshot_id,
            "snapshot_status": self.snapshot_status,
            "snapshot_created_at": created.isoformat() if created else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tracking:
        """Without a time that cannot be read: a volume must come home all the same."""
        return cls(
            mapping_id=str(data["mapping_id"]),
            vm_context_id=data.get("vm_context_id"),
            snapshot_id=data.get("snapshot_id"),
            snapshot_status=data.get("snapshot_status"),
            snapshot_created_at=_time(data.get("snapshot_created_at")),
        )


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation with its journal. Every change is committed before it counts."""

    id: str
    type: OperationType
    status: OperationStatus
    volume_id: str | None
    vm_id: str | None
    request: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    stage: Stage = Stage.ACCEPTED
    content_hash: str = ""
    fence: int | None = None
    response: dict[str, Any] | None = None
    error: OperationError | None = None
    error_text: str | None = None
    completed_at: datetime | None = None
    request_id: str | None = None
    remote_job_id: str | None = None
    queue_vm_id: str | None = None
    sent_at: datetime | None = None
    expires_at: datetime | None = None
    """In the server's time, which its `Date` header tells: when the signed call can arrive no more."""
    exports: tuple[RecordedExport, ...] = ()
    tracking: Tracking | None = None
    journaled: bool = True
    """False: a row that another generation of the daemon left; we list it and leave it alone."""

    @property
    def is_condemned(self) -> bool:
        """Its row makes no sense and CloudStack may have been asked: it ends when that can do nothing any more."""
        return self.stage is not Stage.ENDED and self.error is not None

    @property
    def device_id(self) -> int | None:
        """The slot that was asked for; 0 is the VM's root."""
        value = self.request.get("device_id")
        return value if isinstance(value, int) else None

    @property
    def wants_export(self) -> bool:
        return self.request.get("export") is not False

    @property
    def job_id(self) -> str | None:
        """The id under which CloudStack knows the call, as far as we know it."""
        return self.remote_job_id or self.request_id

    def overdue_at(self, timeout_s: float) -> datetime | None:
        if self.sent_at is None or self.sent_at.year == MAXYEAR:  # a damaged time, after which none can be told
            return None
        return self.sent_at + timedelta(seconds=timeout_s)

    def is_overdue(self, now: datetime, timeout_s: float) -> bool:
        at = self.overdue_at(timeout_s)
        return self.status is OperationStatus.EXECUTING and at is not None and now >= at

    def ended(self, status: OperationStatus, at: datetime, **fields: Any) -> Entry:
        return replace(self, status=status, stage=Stage.ENDED, updated_at=at, completed_at=at, **fields)

    def as_operation(
        self, now: datetime, timeout_s: float, place: int | None = None, waiting_for: str | None = None
    ) -> Operation:
        return Operation(
            id=self.id,
            type=self.type,
            status=self.status,
            volume_id=self.volume_id,
            vm_id=self.vm_id,
            request=self.request,
            response=self.response,
            error=self.error.text if self.error else self.error_text,
            created_at=self.created_at,
            updated_at=self.updated_at,
            completed_at=self.completed_at,
            overdue=self.is_overdue(now, timeout_s),
            place=place,
            waiting_for=waiting_for,
            cloudstack_job_id=self.job_id,
            error_detail=self.error,
        )


@dataclass(frozen=True, slots=True)
class MappingRow:
    """A row of `device_mappings`."""

    id: str
    volume_uuid: str
    vm_id: str
    vm_context_id: str | None
    operation_mode: str
    device_path: str
    cloudstack_device_id: int | None
    cloudstack_state: str
    linux_state: str
    size: int
    last_sync: datetime | None = None
    snapshot_id: str | None = None
    snapshot_status: str | None = None
    snapshot_created_at: datetime | None = None

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.id, self.vm_context_id, self.snapshot_id, self.snapshot_status, self.snapshot_created_at)


@dataclass(frozen=True, slots=True)
class VolumeRecords:
    """What the database says about one volume, read in one transaction."""

    volume_id: str
    oma_vm_ids: frozenset[str]
    """The OMA's VM; several, or none, where it cannot be told which it is."""
    mapping: MappingRow | None
    exports: tuple[RecordedExport, ...]
    context_id: str | None
    vm_disk_id: int | None
    recorded: tuple[RecordedExport, ...] = ()
    """Exports that the newest detach which had any recorded."""
    tracking: Tracking | None = None
    """What the newest detach recorded of the mapping."""

    def is_oma(self, vm_id: str | None) -> bool:
        return vm_id is not None and vm_id.lower() in self.oma_vm_ids


@dataclass(frozen=True, slots=True)
class Filter:
    """What `GET /operations` filters by."""

    type: OperationType | None = None
    status: OperationStatus | None = None
    volume_id: str | None = None
    vm_id: str | None = None
    limit: int = 50


@dataclass(slots=True)
class Figures:
    """Settings that the daemon's parts receive as plain values; times in seconds."""

    operation_timeout_s: float = 60.0
    outstanding_per_vm: int = 2
    expires_s: float = 60.0
    expiry_margin_s: float = 60.0
    device_wait_s: float = 60.0
    nbd_port: int = 10809
    cloudstack_wait_s: float = 3600.0
    """How long an operation that CloudStack has certainly not been asked for waits for it to answer; then it fails."""
    pause_min_s: float = 0.1
    """Between looks while CloudStack or the database does not answer, growing to `pause_max_s`."""
    pause_max_s: float = 5.0
    job_memory_s: float = 43_200.0
    """How long what CloudStack says of an unknown job id counts: half of `job.expire.minutes` (1440)."""

    def pauses(self) -> Pauses:
        return Pauses(self.pause_min_s, self.pause_max_s)

    def patience(self) -> Patience:
        """For whoever has nothing under way."""
        return Patience(self.pauses(), self.cloudstack_wait_s)
