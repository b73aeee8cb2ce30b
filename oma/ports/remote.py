"""What is asked of CloudStack and of the Volume Daemon."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from oma.domain.actions import ActionKind
from oma.domain.holders import DeviceHolders, ProcessId
from oma.domain.remote import Burn, RemoteOutcome, VolumeOperation
from oma.domain.world import CloudSnapshot, CloudVm, CloudVolume, DeviceScan, Mapping, Mark, Marked, VmEvent, VmHost


class Cloud(Protocol):
    """CloudStack. Every `expires_at` is in the server's time."""

    async def list_volumes(self, volume_ids: Sequence[str]) -> Sequence[CloudVolume]:
        """Those of the volumes that CloudStack lists; an absent one is missing."""

    async def list_volumes_of_vm(self, vm_id: str) -> Sequence[CloudVolume]:
        """All volumes on the VM, all pages."""

    async def list_snapshots(self, snapshot_ids: Sequence[str]) -> Sequence[CloudSnapshot]: ...

    async def list_vms(self, vm_ids: Sequence[str]) -> Sequence[CloudVm]: ...

    async def list_vm_snapshot_holders(self, vm_ids: Sequence[str]) -> Sequence[str]:
        """Ids of those VMs that carry a VM snapshot."""

    async def list_vms_named(self, part: str) -> Sequence[CloudVm]:
        """VMs whose name holds this part, whatever its case; the caller compares exactly."""

    async def list_snapshots_named(self, part: str) -> Sequence[CloudSnapshot]:
        """Snapshots of any volume whose name holds this part; the caller compares exactly."""

    async def list_vm_events(self, vm_id: str) -> Sequence[VmEvent]:
        """The event log's lines about exactly this VM, oldest first; raises where the server can't single them out."""

    async def list_volume_events(self, volume_id: str) -> Sequence[VmEvent]:
        """The same about exactly this volume: who attached, detached or reverted it, and when."""

    async def list_marks(self) -> Sequence[Mark]:
        """The `oma-cleanup` tags on all volumes and snapshots that we may see."""

    async def list_marks_of(self, what: Marked, ids: Sequence[str]) -> Sequence[Mark]:
        """Those on these volumes or snapshots, asked one by one."""

    async def submit_set_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        """Marks all of them or none: one call, one transaction; fails where one of them carries a marker already."""

    async def submit_clear_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        """Takes the markers with exactly this value off; where there is none its job fails."""

    async def find_epoch(self, vm_id: str) -> str | None:
        """What the tag `oma-epoch` on this VM says."""

    async def put_epoch(self, vm_id: str, text: str, former: str | None) -> None:
        """Returns when the tag says this. Raises `UpstreamError`.

        Only `former` goes for it (None: nothing); where something else stands there, that stays and the call fails.
        """

    async def find_host(self, vm_id: str) -> VmHost | None:
        """The host that the VM runs on; None where CloudStack does not tell us (not running, or not allowed)."""

    async def find_host_state(self, host_id: str) -> str | None:
        """`Up`, `Down`, `Disconnected` …, `Removed` where it has no such host; None only where we may not ask."""

    async def submit_stop_vm(
        self, vm_id: str, *, forced: bool, request_id: str, expires_at: datetime | None
    ) -> str: ...

    async def submit_destroy_vm(self, vm_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        """Never expunges."""

    async def submit_revert(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str: ...

    async def submit_delete_snapshot(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        """Returns the job's id, which is `request_id` where the endpoint honours it."""

    async def burn(self, request_id: str, kind: ActionKind, oma_vm_id: str, installation: str) -> Burn:
        """Spends the id of a call of this kind on a job that changes nothing; may be repeated."""

    async def find_server_time(self) -> datetime:
        """The server's clock, by its `Date` header; raises `UpstreamError` where it can't be told."""

    async def wait_job(self, job_id: str, kind: ActionKind | None = None) -> RemoteOutcome:
        """Follows the job until it has ended, however long; cancel to stop following.

        `kind`: what the id was meant for. A job that is something else is what it was spent on: `REFUSED`.
        """

    async def query_job(self, job_id: str, kind: ActionKind | None = None) -> RemoteOutcome:
        """Where it stands; `kind` as with `wait_job`."""

    async def check(self) -> str:
        """One sentence about the connection; raises `UpstreamError`."""


class Volumes(Protocol):
    """The Volume Daemon."""

    async def find_mapping(self, volume_id: str) -> Mapping | None:
        """None only where it says "detached"; not knowing raises."""

    async def scan_devices(self) -> DeviceScan:
        """A scan that begins now."""

    async def list_holders(self, volume_id: str) -> DeviceHolders | None:
        """From a scan that begins now; None: the OMA shows no device. A daemon without such a scan raises."""

    async def end_holders(
        self, volume_id: str, holders: Sequence[ProcessId], reason: str, *, request_id: str, fence: int
    ) -> DeviceHolders:
        """Ends driver injections with their process trees, as they were seen, and says who holds the device then.

        A process is named by itself or by the root of its tree. One that may not be ended refuses all; one that is
        still there after KILL is told as `FAILED`. The same `request_id` may be sent again.
        """

    async def submit_attach(
        self, volume_id: str, vm_id: str, *, request_id: str, fence: int, export: bool = True
    ) -> str:
        """`export` false: a volume that comes home stays without its NBD export, which is kept for its next attach."""

    async def submit_detach(self, volume_id: str, *, request_id: str, fence: int, vm_id: str | None = None) -> str:
        """`vm_id`: the VM that it is to be taken off; where another holds it, it is refused and nothing is sent."""

    async def burn(self, request_id: str, kind: ActionKind, volume_id: str, *, fence: int) -> Burn:
        """Takes the order of an attach or a detach back, also one that is still on its way; may be repeated.

        An operation that CloudStack has not been asked for yet is cancelled by it.
        """

    async def wait_operation(self, operation_id: str, wait_s: float) -> RemoteOutcome:
        """A long poll: returns when the operation has ended, is overdue, or after `wait_s`."""

    async def list_open_operations(self, volume_id: str) -> Sequence[VolumeOperation]:
        """Those on this volume that have not ended, oldest first, whoever asked for them."""

    async def check(self) -> str: ...
