"""Values for the tests of the Volume Daemon."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ossea.models import Volume
from volume_daemon.models import OperationStatus, OperationType
from volume_daemon.server.records import Entry

VOLUME_ID = "b3bb9310-1b59-4f62-97e8-cefffdfe3804"
OMA_ID = "11111111-1111-4111-8111-111111111111"
TEST_VM_ID = "22222222-2222-4222-8222-222222222222"
OPERATION_ID = "33333333-3333-4333-8333-333333333333"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def entry(type_: str = "attach", **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "id": OPERATION_ID,
        "type": OperationType(type_),
        "status": OperationStatus.PENDING,
        "volume_id": VOLUME_ID,
        "vm_id": OMA_ID if type_ == "attach" else None,
        "request": {"vm_id": OMA_ID} if type_ == "attach" else {},
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Entry(**(values | fields))


def volume(**fields: Any) -> Volume:
    values: dict[str, Any] = {
        "id": VOLUME_ID,
        "name": "disk-0",
        "state": "Ready",
        "type": "DATADISK",
        "size_bytes": 1024**3,
    }
    return Volume(**(values | fields))
