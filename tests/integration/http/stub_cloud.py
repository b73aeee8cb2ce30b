"""CloudStack as the HTTP tests have it: every volume is at home, and nothing is ever sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from oma.domain.actions import ActionKind
from oma.domain.remote import Burn
from oma.domain.world import CloudSnapshot, CloudVm, CloudVolume, Mark, Marked, VmEvent, VmHost
from oma.ports import RemoteOutcome

OMA_VM = "0a000000-0000-4000-8000-00000000000a"


class StubCloud:
    """CloudStack as the estate's rows have it; answers only."""

    async def list_volumes(self, volume_ids: Sequence[str]) -> Sequence[CloudVolume]:
        return [
            CloudVolume(one, "disk", "Ready", 10 << 30, vm_id=OMA_VM, vm_name="oma", vm_state="Running", device_id=1)
            for one in volume_ids
        ]

    async def list_volumes_of_vm(self, vm_id: str) -> Sequence[CloudVolume]:
        return []

    async def list_snapshots(self, snapshot_ids: Sequence[str]) -> Sequence[CloudSnapshot]:
        return []

    async def list_vms(self, vm_ids: Sequence[str]) -> Sequence[CloudVm]:
        return [CloudVm(OMA_VM, "oma", "Running")]

    async def list_vm_snapshot_holders(self, vm_ids: Sequence[str]) -> Sequence[str]:
        return []

    async def list_vms_named(self, part: str) -> Sequence[CloudVm]:
        return []

    async def list_snapshots_named(self, part: str) -> Sequence[CloudSnapshot]:
        return []

    async def list_vm_events(self, vm_id: str) -> Sequence[VmEvent]:
        return []

    async def list_volume_events(self, volume_id: str) -> Sequence[VmEvent]:
        return []

    async def list_marks(self) -> Sequence[Mark]:
        return []

    async def list_marks_of(self, what: Marked, ids: Sequence[str]) -> Sequence[Mark]:
        return []

    async def submit_set_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        raise AssertionError("the API never sends")

    async def submit_clear_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        raise AssertionError("the API never sends")

    async def find_epoch(self, vm_id: str) -> str | None:
        return None

    async def put_epoch(self, vm_id: str, text: str, former: str | None) -> None:
        raise AssertionError("the API never sends")

    async def find_host(self, vm_id: str) -> VmHost | None:
        raise AssertionError("the API never asks for a host")

    async def find_host_state(self, host_id: str) -> str | None:
        raise AssertionError("the API never asks for a host")

    async def submit_stop_vm(self, vm_id: str, *, forced: bool, request_id: str, expires_at: datetime | None) -> str:
        raise AssertionError("the API never sends")

    async def submit_destroy_vm(self, vm_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        raise AssertionError("the API never sends")

    async def submit_revert(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        raise AssertionError("the API never sends")

    async def submit_delete_snapshot(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        raise AssertionError("the API never sends")

    async def burn(self, request_id: str, kind: ActionKind, oma_vm_id: str, installation: str) -> Burn:
        raise AssertionError("the API never sends")

    async def find_server_time(self) -> datetime:
        raise AssertionError("the API sends nothing that expires")

    async def wait_job(self, job_id: str, kind: object = None) -> RemoteOutcome:
        raise AssertionError("the API never waits for CloudStack")

    async def query_job(self, job_id: str, kind: object = None) -> RemoteOutcome:
        raise AssertionError("the API never asks for a CloudStack job")

    async def check(self) -> str:
        return "CloudStack answers."
