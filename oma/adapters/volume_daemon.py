"""The Volume Daemon as the port `Volumes`; its errors become ours here, and only here."""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.actions import ActionKind, Upstream
from oma.domain.holders import DeviceHolder, DeviceHolders, ProcessId
from oma.domain.world import DeviceLink, DeviceScan, Mapping
from oma.ports import Burn, Fault, RemoteOutcome, RemoteStatus, UpstreamError, VolumeOperation
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import ErrorKind, VolumeDaemonError
from volume_daemon.holders.ended import EndOutcome
from volume_daemon.holders.report import Holder, HolderReport, HolderState
from volume_daemon.holders.report import ProcessId as SeenProcess
from volume_daemon.models import FaultKind, Operation, OperationError, OperationStatus, OperationType

SYSTEM = "Volume Daemon"
CLOUDSTACK = "CloudStack"
CLOUDSTACK_REFUSED = 431

NO_SUCH_ROUTE = "not_found"
UNABLE = frozenset({"shutting_down", "database_unavailable", "no_credentials", "journal_in_use", "start_failed"})
"""Codes of a Volume Daemon that has to come to itself first."""
OPERATION_TYPES = {
    ActionKind.ATTACH_VOLUME: OperationType.ATTACH,
    ActionKind.DETACH_VOLUME: OperationType.DETACH,
}

_FAULTS = {
    ErrorKind.REFUSED: Fault.REFUSED,
    ErrorKind.FAILED: Fault.FAILED,
    ErrorKind.NO_ANSWER: Fault.NO_ANSWER,
    ErrorKind.NOT_SENT: Fault.NOT_SENT,
    ErrorKind.BROKEN_ANSWER: Fault.BROKEN_ANSWER,
}


class VolumeDaemonVolumes:
    """Implements `Volumes`."""

    def __init__(self, client: VolumeDaemonClient) -> None:
        self._client = client

    async def find_mapping(self, volume_id: str) -> Mapping | None:
        try:
            found = await self._client.find_mapping(volume_id)
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        if found is None:
            return None
        return Mapping(
            volume_id=found.volume_uuid,
            vm_id=found.vm_id,
            device_path=found.device_path,
            operation_mode=found.operation_mode,
            linux_state=found.linux_state,
        )

    async def scan_devices(self) -> DeviceScan:
        try:
            scan = await self._client.scan_devices()
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        return DeviceScan(
            product_uuid=scan.product_uuid,
            product_uuid_error=scan.product_uuid_error,
            scanned_at=scan.scanned_at,
            links=tuple(DeviceLink(link.link, link.serial, link.size_bytes) for link in scan.links),
        )

    async def list_holders(self, volume_id: str) -> DeviceHolders | None:
        try:
            report = await self._client.holders(volume_id)
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        return None if report is None else _holders(report)

    async def end_holders(
        self, volume_id: str, holders: Sequence[ProcessId], reason: str, *, request_id: str, fence: int
    ) -> DeviceHolders:
        seen = [SeenProcess(one.pid, one.start_ticks) for one in holders]
        try:
            ended = await self._client.end_holders(volume_id, seen, reason, request_id=request_id, fence=fence)
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        survived = [one.pid for tree in ended.ended if tree.outcome is EndOutcome.SURVIVED for one in tree.remaining]
        if survived:
            pids = ", ".join(map(str, survived))
            raise UpstreamError(Fault.FAILED, Upstream(SYSTEM, "survived", f"{pids} did not end, not even by KILL"))
        return _holders(ended.remaining)

    async def submit_attach(
        self, volume_id: str, vm_id: str, *, request_id: str, fence: int, export: bool = True
    ) -> str:
        try:
            operation = await self._client.attach(volume_id, vm_id, request_id=request_id, fence=fence, export=export)
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        return operation.id

    async def submit_detach(self, volume_id: str, *, request_id: str, fence: int, vm_id: str | None = None) -> str:
        try:
            operation = await self._client.detach(volume_id, request_id=request_id, fence=fence, vm_id=vm_id)
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        return operation.id

    async def burn(self, request_id: str, kind: ActionKind, volume_id: str, *, fence: int) -> Burn:
        """A daemon that takes no order back leaves it open."""
        type_ = OPERATION_TYPES[kind].value
        try:
            operation = await self._client.revoke(request_id, type_, volume_id, fence=fence)
        except VolumeDaemonError as error:
            if error.kind is ErrorKind.REFUSED and error.code == NO_SUCH_ROUTE:
                return Burn.UNPROVEN
            raise _upstream(error) from error
        return Burn.SPENT if operation.status is OperationStatus.CANCELLED else Burn.ARRIVED

    async def wait_operation(self, operation_id: str, wait_s: float) -> RemoteOutcome:
        try:
            operation = await self._client.get_operation(operation_id, wait_s)
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        return _outcome(operation)

    async def list_open_operations(self, volume_id: str) -> Sequence[VolumeOperation]:
        found: list[Operation] = []
        for status in (OperationStatus.PENDING, OperationStatus.EXECUTING):
            try:
                found += await self._client.list_operations(status=status.value, volume_id=volume_id)
            except VolumeDaemonError as error:
                raise _upstream(error) from error
        open_ones = {one.id: VolumeOperation(one.id, one.type.value, one.created_at) for one in found}
        return sorted(open_ones.values(), key=lambda one: (one.created_at, one.id))

    async def check(self) -> str:
        try:
            health = await self._client.health()
        except VolumeDaemonError as error:
            raise _upstream(error) from error
        if health["status"] == "unhealthy" or health.get("ready") is False:
            text = str(health.get("detail") or "it says that it is not well")
            raise UpstreamError(Fault.FAILED, Upstream(SYSTEM, "unhealthy", text))
        return f"The Volume Daemon answers; it is {health['status']}."


def _holders(report: HolderReport) -> DeviceHolders:
    return DeviceHolders(
        volume_id=report.volume_id,
        complete=report.state is not HolderState.UNKNOWN,
        holders=tuple(_holder(one) for one in report.holders),
        unread=report.unread if report.proof.ok else (*report.unread, f"the scan is not proven: {report.proof.detail}"),
        scanned_at=report.scanned_at,
    )


def _holder(holder: Holder) -> DeviceHolder:
    return DeviceHolder(
        kind=holder.kind.value,
        name=holder.name,
        process=_process(holder.process),
        command=holder.command,
        since=holder.since,
        role=holder.role.value if holder.role else None,
        tree=_process(holder.tree),
        endable=holder.endable,
        why_not=holder.why_not,
        namespace=holder.namespace,
    )


def _process(seen: SeenProcess | None) -> ProcessId | None:
    return None if seen is None else ProcessId(seen.pid, seen.start_ticks)


def _upstream(error: VolumeDaemonError) -> UpstreamError:
    """A daemon that can't work yet, or any more, says nothing of what was asked: that is looked for by its id."""
    unable = error.kind is ErrorKind.FAILED and error.code in UNABLE
    fault = Fault.BROKEN_ANSWER if unable else _FAULTS[error.kind]
    return UpstreamError(fault, Upstream(SYSTEM, error.code, error.text), retry_after_s=error.retry_after_s)


def _outcome(operation: Operation | None) -> RemoteOutcome:
    """A cancelled operation counts as refused: CloudStack was never asked."""
    if operation is None:
        return RemoteOutcome(RemoteStatus.ABSENT)
    detail = operation.as_json()
    match operation.status:
        case OperationStatus.COMPLETED:
            return RemoteOutcome(RemoteStatus.SUCCEEDED, detail=detail)
        case OperationStatus.CANCELLED:
            upstream = Upstream(SYSTEM, "cancelled", "the operation was cancelled before CloudStack was asked")
            return RemoteOutcome(RemoteStatus.REFUSED, upstream, detail)
        case OperationStatus.FAILED:
            error = operation.error_detail
            refused = error is not None and error.kind is FaultKind.REFUSED
            status = RemoteStatus.REFUSED if refused else RemoteStatus.FAILED
            return RemoteOutcome(status, _failure(operation, error), detail)
        case _:
            return RemoteOutcome(RemoteStatus.PENDING, detail=detail, overdue=operation.overdue)


def _failure(operation: Operation, error: OperationError | None) -> Upstream:
    """CloudStack's own code and words where it spoke, else the daemon's."""
    if error is None:
        return Upstream(SYSTEM, "operation_failed", operation.error or "the operation failed without a reason")
    if error.errorcode is not None:
        return Upstream(CLOUDSTACK, str(error.errorcode), error.errortext or error.text)
    return Upstream(SYSTEM, error.code, error.text)
