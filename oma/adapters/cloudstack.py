"""CloudStack behind the `Cloud` port: values of ours out of the client's, its errors into `UpstreamError`, once.

What each ending of a call says about the world is decided in `ossea.errors`; here it only gets the port's names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from oma.adapters.cloudstack_rows import build_marks, build_snapshot, build_vm, build_volume
from oma.domain.actions import ActionKind, Upstream
from oma.domain.remote import OUT_OF_TIME
from oma.domain.world import EPOCH_KEY, MARK_KEY, CloudSnapshot, CloudVm, CloudVolume, Mark, Marked, VmEvent, VmHost
from oma.ports import Burn, Cloud, Fault, RemoteOutcome, RemoteStatus, UpstreamError
from ossea.client import CloudStack
from ossea.errors import CloudStackError, ErrorKind, Expired
from ossea.models import JobResult, JobStatus
from ossea.submitting import Spent

T = TypeVar("T")

SYSTEM: Final = "CloudStack"
NOT_ALLOWED: Final = frozenset({"401", "432", "531"})
"""Codes of CloudStack for a command that the key may not call, or that the server does not have for it."""
VM: Final = "UserVm"
EPOCH_PATIENCE_S: Final = 30.0
"""Longest time that one of the two jobs is followed which change the epoch's tag."""
COMMANDS: Final = {
    ActionKind.SET_MARKER: "createTags",
    ActionKind.CLEAR_MARKER: "deleteTags",
    ActionKind.STOP_VM: "stopVirtualMachine",
    ActionKind.DETACH_VOLUME: "detachVolume",
    ActionKind.REVERT_SNAPSHOT: "revertSnapshot",
    ActionKind.DELETE_SNAPSHOT: "deleteSnapshot",
    ActionKind.ATTACH_VOLUME: "attachVolume",
    ActionKind.DESTROY_VM: "destroyVirtualMachine",
}
"""What each kind is to CloudStack."""
TAG_COMMANDS: Final = frozenset({"createTags", "deleteTags"})
"""What ids that are given up are spent on."""
REMOVED: Final = "Removed"
"""The state of a host that CloudStack does not know any more."""


class CloudStackCloud(Cloud):
    """The `Cloud` port over one endpoint."""

    def __init__(self, client: CloudStack) -> None:
        self._client = client

    async def list_volumes(self, volume_ids: Sequence[str]) -> Sequence[CloudVolume]:
        if not volume_ids:
            return ()
        return [build_volume(volume) for volume in await _translated(self._client.list_volumes(ids=volume_ids))]

    async def list_volumes_of_vm(self, vm_id: str) -> Sequence[CloudVolume]:
        return [build_volume(volume) for volume in await _translated(self._client.list_volumes(vm_id=vm_id))]

    async def list_snapshots(self, snapshot_ids: Sequence[str]) -> Sequence[CloudSnapshot]:
        if not snapshot_ids:
            return ()
        return [build_snapshot(one) for one in await _translated(self._client.list_snapshots(ids=snapshot_ids))]

    async def list_vms(self, vm_ids: Sequence[str]) -> Sequence[CloudVm]:
        if not vm_ids:
            return ()
        return [build_vm(vm) for vm in await _translated(self._client.list_vms(ids=vm_ids))]

    async def list_vm_snapshot_holders(self, vm_ids: Sequence[str]) -> Sequence[str]:
        snapshots = await _translated(self._client.list_vm_snapshots(vm_ids=vm_ids))
        return list(dict.fromkeys(snapshot.vm_id for snapshot in snapshots))

    async def list_vms_named(self, part: str) -> Sequence[CloudVm]:
        return [build_vm(vm) for vm in await _translated(self._client.list_vms(name=part))]

    async def list_snapshots_named(self, part: str) -> Sequence[CloudSnapshot]:
        return [build_snapshot(one) for one in await _translated(self._client.list_snapshots(name=part))]

    async def list_vm_events(self, vm_id: str) -> Sequence[VmEvent]:
        return await self._list_events(vm_id, "VirtualMachine")

    async def list_volume_events(self, volume_id: str) -> Sequence[VmEvent]:
        return await self._list_events(volume_id, "Volume")

    async def _list_events(self, resource_id: str, resource_type: str) -> Sequence[VmEvent]:
        """Servers before 4.17 neither filter by the resource nor name it: then nothing can be told of one thing."""
        found = self._client.list_events(resource_id=resource_id, resource_type=resource_type)
        events = await _translated(found)
        if any(event.resource_id is None for event in events):
            text = "this server's event log does not say what a line is about"
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "unsupported", text))
        own = [event for event in events if event.resource_id == resource_id]
        return [VmEvent(event.type, event.created, event.description, event.state) for event in reversed(own)]

    async def list_marks(self) -> Sequence[Mark]:
        return build_marks(await _translated(self._client.list_tags(key=MARK_KEY)))

    async def list_marks_of(self, what: Marked, ids: Sequence[str]) -> Sequence[Mark]:
        """`listTags` takes one resource at a time."""
        asked = (self._client.list_tags(resource_type=what.value, resource_id=one, key=MARK_KEY) for one in ids)
        found = await asyncio.gather(*(_translated(one) for one in asked))
        return build_marks(tag for tags in found for tag in tags)

    async def submit_set_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        tags = {MARK_KEY: value}
        return await _translated(
            self._client.create_tags(ids, what.value, tags, job_id=request_id, expires_at=expires_at)
        )

    async def submit_clear_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        tags: dict[str, str | None] = {MARK_KEY: value}
        return await _translated(
            self._client.delete_tags(ids, what.value, tags, job_id=request_id, expires_at=expires_at)
        )

    async def find_epoch(self, vm_id: str) -> str | None:
        asked = self._client.list_tags(resource_type=VM, resource_id=vm_id, key=EPOCH_KEY)
        tags = await _translated(asked)
        return tags[0].value if tags else None

    async def put_epoch(self, vm_id: str, text: str, former: str | None) -> None:
        """A tag can't be changed: `deleteTags` takes it off by its value, `createTags` fails where there is one."""
        if former == text:
            return
        if former is not None:
            gone = await _translated(self._client.delete_tags([vm_id], VM, {EPOCH_KEY: former}))
            await _translated(self._client.wait_job(gone, EPOCH_PATIENCE_S))
        made_id = await _translated(self._client.create_tags([vm_id], VM, {EPOCH_KEY: text}))
        made = await self._outcome(await _translated(self._client.wait_job(made_id, EPOCH_PATIENCE_S)), None)
        if made.status is not RemoteStatus.SUCCEEDED:
            raise UpstreamError(Fault.FAILED, made.upstream or Upstream(SYSTEM, "unknown", f"the tag is not {text}"))

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

    async def burn(self, request_id: str, kind: ActionKind, oma_vm_id: str, installation: str) -> Burn:
        """By `createTags` with a key that stands on the OMA VM already, so that its job fails; where it does not yet,
        the number 0 is never ahead of any database's.
        """
        tagging = None if kind is ActionKind.SET_MARKER else (oma_vm_id, EPOCH_KEY, f"{installation}:0")
        try:
            return _BURNS[await _translated(self._client.spend_job_id(request_id, tagging))]
        except UpstreamError as error:
            if error.fault is not Fault.REFUSED:
                raise
            return Burn.UNPROVEN

    async def find_server_time(self) -> datetime:
        return await _translated(self._client.find_server_time())

    async def wait_job(self, job_id: str, kind: ActionKind | None = None) -> RemoteOutcome:
        return await self._outcome(await _translated(self._client.wait_job(job_id)), kind)

    async def query_job(self, job_id: str, kind: ActionKind | None = None) -> RemoteOutcome:
        return await self._outcome(await _translated(self._client.query_job(job_id)), kind)

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

    async def _outcome(self, job: JobResult, kind: ActionKind | None) -> RemoteOutcome:
        if job.status is JobStatus.ABSENT:
            return await self._absent(job)
        command = COMMANDS.get(kind) if kind is not None else None
        if command is not None and job.command in TAG_COMMANDS and job.command != command:
            return RemoteOutcome(RemoteStatus.REFUSED, build_spent(job.id, job.command))
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
            return RemoteOutcome(RemoteStatus.UNTRACEABLE, Upstream(SYSTEM, "untraceable", text))
        return RemoteOutcome(RemoteStatus.ABSENT, upstream)


_BURNS: Final = {
    Spent.BY_US: Burn.SPENT,
    Spent.BY_ANOTHER: Burn.ARRIVED,
    Spent.NOT_AT_ALL: Burn.UNPROVEN,
}

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
    if error.kind is ErrorKind.UNAVAILABLE:
        if error.changed_nothing:
            fault = Fault.NOT_SENT
        elif error.errorcode is None:
            # A proxy's 503: whether CloudStack got the call is to be looked for.
            fault = Fault.BROKEN_ANSWER
    code = error.kind.value if error.errorcode is None else str(error.errorcode)
    expired = isinstance(error, Expired)
    return UpstreamError(
        fault,
        Upstream(SYSTEM, OUT_OF_TIME if expired else code, error.text),
        retry_after_s=error.retry_after_s,
        # The transport has come back as often as CloudStack wanted, within the policy's time.
        spent=expired or error.kind is ErrorKind.THROTTLED,
    )


def build_spent(job_id: str, command: str) -> Upstream:
    """What is said of a call whose id was given up."""
    return Upstream(SYSTEM, "spent", f"the id {job_id} was spent on {command}; the call never ran")


async def _translated(call: Awaitable[T]) -> T:
    try:
        return await call
    except CloudStackError as error:
        raise build_upstream_error(error) from error
