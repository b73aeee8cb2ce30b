"""CloudStack behind the `Cloud` port: values of ours out of the client's, its errors into `UpstreamError`, once.

What each ending of a call says about the world is decided in `ossea.errors`; here it only gets the port's names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from oma.domain.actions import Upstream
from oma.domain.world import MARK_KEY, CloudSnapshot, CloudVm, CloudVolume, Mark, VmEvent, VmHost
from oma.ports import Cloud, Fault, RemoteOutcome, RemoteStatus, UpstreamError
from ossea.client import CloudStack
from ossea.errors import CloudStackError, ErrorKind
from ossea.models import JobResult, JobStatus, Snapshot, VirtualMachine, Volume

T = TypeVar("T")

SYSTEM: Final = "CloudStack"
NOT_ALLOWED: Final = frozenset({"401", "432", "531"})
"""Codes of CloudStack for a command that the key may not call, or that the server does not have for it."""
REMOVED: Final = "Removed"
"""The state of a host that CloudStack does not know any more."""


class CloudStackCloud(Cloud):
    """The `Cloud` port over one endpoint."""

    def __init__(self, client: CloudStack) -> None:
        self._client = client

    async def list_volumes(self, volume_ids: Sequence[str]) -> Sequence[CloudVolume]:
        if not volume_ids:
            return ()
        return [_volume(volume) for volume in await _translated(self._client.list_volumes(ids=volume_ids))]

    async def list_volumes_of_vm(self, vm_id: str) -> Sequence[CloudVolume]:
        return [_volume(volume) for volume in await _translated(self._client.list_volumes(vm_id=vm_id))]

    async def list_snapshots(self, snapshot_ids: Sequence[str]) -> Sequence[CloudSnapshot]:
        if not snapshot_ids:
            return ()
        return [_snapshot(one) for one in await _translated(self._client.list_snapshots(ids=snapshot_ids))]

    async def list_vms(self, vm_ids: Sequence[str]) -> Sequence[CloudVm]:
        if not vm_ids:
            return ()
        return [_vm(vm) for vm in await _translated(self._client.list_vms(ids=vm_ids))]

    async def list_vm_snapshot_holders(self, vm_ids: Sequence[str]) -> Sequence[str]:
        snapshots = await _translated(self._client.list_vm_snapshots(vm_ids=vm_ids))
        return list(dict.fromkeys(snapshot.vm_id for snapshot in snapshots))

    async def list_vms_named(self, part: str) -> Sequence[CloudVm]:
        return [_vm(vm) for vm in await _translated(self._client.list_vms(name=part))]

    async def list_snapshots_named(self, part: str) -> Sequence[CloudSnapshot]:
        return [_snapshot(one) for one in await _translated(self._client.list_snapshots(name=part))]

    async def list_vm_events(self, vm_id: str) -> Sequence[VmEvent]:
        """Servers before 4.17 neither filter by the resource nor name it: then nothing can be told of one VM."""
        events = await _translated(self._client.list_events(resource_id=vm_id))
        if any(event.resource_id is None for event in events):
            text = "this server's event log does not say which VM a line is about"
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "unsupported", text))
        own = [event for event in events if event.resource_id == vm_id]
        return [VmEvent(event.type, event.created, event.description, event.state) for event in reversed(own)]

    async def list_marks(self) -> Sequence[Mark]:
        tags = await _translated(self._client.list_tags(resource_type="Volume", key=MARK_KEY))
        return [Mark(tag.resource_id, tag.value) for tag in tags]

    async def find_host(self, vm_id: str) -> VmHost | None:
        """`hostid` is shown of a running VM, and to root admins only (`UserVmJoinDaoImpl.newUserVmResponse`)."""
        vms = await _translated(self._client.list_vms(ids=[vm_id]))
        host_id = vms[0].host_id if vms else None
        return VmHost(host_id, vms[0].host_name or "") if host_id else None

    async def find_host_state(self, host_id: str) -> str | None:
        """Whoever may not call `listHosts` is told 401, 432 or 531; an id that is no host's any more, 431."""
        try:
            hosts = await _translated(self._client.list_hosts(host_id=host_id))
        except UpstreamError as error:
            if error.fault is not Fault.REFUSED:
                raise
            return None if error.upstream.code in NOT_ALLOWED else REMOVED
        return hosts[0].state if hosts else REMOVED

    async def submit_stop_vm(self, vm_id: str, *, forced: bool, request_id: str, expires_at: datetime | None) -> str:
        submitted = self._client.stop_vm(vm_id, forced=forced, job_id=request_id, expires_at=expires_at)
        return await _translated(submitted)

    async def submit_destroy_vm(self, vm_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        return await _translated(self._client.destroy_vm(vm_id, job_id=request_id, expires_at=expires_at))

    async def submit_revert(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        return await _translated(self._client.revert_snapshot(snapshot_id, job_id=request_id, expires_at=expires_at))

    async def submit_delete_snapshot(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        return await _translated(self._client.delete_snapshot(snapshot_id, job_id=request_id, expires_at=expires_at))

    async def wait_job(self, job_id: str) -> RemoteOutcome:
        return await self._outcome(await _translated(self._client.wait_job(job_id)))

    async def query_job(self, job_id: str) -> RemoteOutcome:
        return await self._outcome(await _translated(self._client.query_job(job_id)))

    async def check(self) -> str:
        capabilities = await _translated(self._client.list_capabilities())
        version = capabilities.get("cloudstackversion", "of unknown version")
        offset = self._client.server_offset
        clock = (
            "its clock is not known" if offset is None else f"its clock is {offset.total_seconds():+.1f} s from ours"
        )
        trouble = self._client.last_poll_error
        polling = f"; pending jobs cannot be followed: {trouble}" if trouble else ""
        return f"CloudStack {version} answers; {clock}{polling}."

    async def _outcome(self, job: JobResult) -> RemoteOutcome:
        if job.status is JobStatus.ABSENT:
            return await self._absent(job)
        if job.status is not JobStatus.FAILED:
            return RemoteOutcome(_STATUS[job.status], detail=job.result)
        status = RemoteStatus.REFUSED if job.refused else RemoteStatus.FAILED
        code = "unknown" if job.errorcode is None else str(job.errorcode)
        return RemoteOutcome(status, Upstream(SYSTEM, code, job.errortext or ""), job.result)

    async def _absent(self, job: JobResult) -> RemoteOutcome:
        """An id that CloudStack does not know proves "never arrived" only where it would have taken that id of ours."""
        upstream = Upstream(SYSTEM, "431", job.errortext or f"no job {job.id}")
        if job.known_before:
            text = f"the job {job.id} had been accepted and is no longer known; how it ended cannot be told"
            return RemoteOutcome(RemoteStatus.FAILED, Upstream(SYSTEM, "431", text))
        if not await _translated(self._client.honours_custom_job_id()):
            text = f"whether {job.id} arrived cannot be told: this CloudStack gives jobs ids of its own"
            raise UpstreamError(Fault.NO_ANSWER, Upstream(SYSTEM, "431", text))
        return RemoteOutcome(RemoteStatus.ABSENT, upstream)


_STATUS: Final = {JobStatus.PENDING: RemoteStatus.PENDING, JobStatus.SUCCEEDED: RemoteStatus.SUCCEEDED}

_FAULTS: Final = {
    ErrorKind.REFUSED: Fault.REFUSED,
    ErrorKind.UNAUTHORIZED: Fault.REFUSED,
    ErrorKind.THROTTLED: Fault.NOT_SENT,
    ErrorKind.UNAVAILABLE: Fault.FAILED,
    ErrorKind.FAILED: Fault.FAILED,
    ErrorKind.NO_ANSWER: Fault.NO_ANSWER,
    ErrorKind.NOT_SENT: Fault.NOT_SENT,
    ErrorKind.BROKEN_ANSWER: Fault.BROKEN_ANSWER,
}


def build_upstream_error(error: CloudStackError) -> UpstreamError:
    """The client's error in the port's words; where CloudStack sent no code, the client's class stands in its place."""
    fault = _FAULTS[error.kind]
    if error.kind is ErrorKind.UNAVAILABLE and error.changed_nothing:
        fault = Fault.NOT_SENT
    code = error.kind.value if error.errorcode is None else str(error.errorcode)
    return UpstreamError(fault, Upstream(SYSTEM, code, error.text))


async def _translated(call: Awaitable[T]) -> T:
    try:
        return await call
    except CloudStackError as error:
        raise build_upstream_error(error) from error


def _volume(volume: Volume) -> CloudVolume:
    return CloudVolume(
        id=volume.id,
        name=volume.name,
        state=volume.state,
        size_bytes=volume.size_bytes,
        type=volume.type,
        vm_id=volume.vm_id,
        vm_name=volume.vm_name,
        vm_state=volume.vm_state,
        device_id=volume.device_id,
        pending_job_id=volume.pending_job_id,
        attached_at=volume.attached,
    )


def _snapshot(snapshot: Snapshot) -> CloudSnapshot:
    return CloudSnapshot(
        id=snapshot.id,
        volume_id=snapshot.volume_id,
        name=snapshot.name,
        state=snapshot.state,
        created=snapshot.created,
        size_bytes=snapshot.size_bytes,
        revertable=snapshot.revertable,
        pending_job_id=snapshot.job_id,
    )


def _vm(vm: VirtualMachine) -> CloudVm:
    return CloudVm(
        id=vm.id,
        name=vm.name,
        state=vm.state,
        display_name=vm.display_name,
        created=vm.created,
        pending_job_id=vm.job_id,
    )
