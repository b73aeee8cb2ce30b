"""The Volume Daemon as the HTTP tests have it: every volume is at home, and nothing is ever sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from oma.domain.actions import ActionKind
from oma.domain.holders import DeviceHolders, ProcessId
from oma.domain.remote import Burn
from oma.domain.world import DeviceLink, DeviceScan, Mapping, serial_of
from oma.ports import RemoteOutcome, VolumeOperation
from tests.integration.http.stub_cloud import OMA_VM

if TYPE_CHECKING:
    from tests.integration.http.stubs import Estate

SCANNED_AT = datetime(2026, 1, 31, 3, 0, 0, 123456, tzinfo=UTC)


class StubVolumes:
    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.silent: str | None = None

    async def find_mapping(self, volume_id: str) -> Mapping | None:
        return Mapping(volume_id, OMA_VM, "/dev/vdb", "oma")

    async def scan_devices(self) -> DeviceScan:
        ids = [volume.volume_id for records in self.estate.vms.values() for volume in records.volumes]
        links = tuple(DeviceLink(f"virtio-{serial_of(one)}", serial_of(one)) for one in ids)
        return DeviceScan(OMA_VM, None, SCANNED_AT, links)

    async def list_holders(self, volume_id: str) -> DeviceHolders | None:
        return DeviceHolders(volume_id, complete=True, holders=(), unread=(), scanned_at=SCANNED_AT)

    async def end_holders(
        self, volume_id: str, holders: Sequence[ProcessId], reason: str, *, request_id: str, fence: int
    ) -> DeviceHolders:
        raise AssertionError("the API never sends")

    async def submit_attach(
        self, volume_id: str, vm_id: str, *, request_id: str, fence: int, export: bool = True
    ) -> str:
        raise AssertionError("the API never sends")

    async def submit_detach(self, volume_id: str, *, request_id: str, fence: int, vm_id: str | None = None) -> str:
        raise AssertionError("the API never sends")

    async def burn(self, request_id: str, kind: ActionKind, volume_id: str, *, fence: int) -> Burn:
        raise AssertionError("the API never sends")

    async def wait_operation(self, operation_id: str, wait_s: float) -> RemoteOutcome:
        raise AssertionError("the API never waits for the Volume Daemon")

    async def list_open_operations(self, volume_id: str) -> Sequence[VolumeOperation]:
        return []

    async def check(self) -> str:
        return "The Volume Daemon answers."
