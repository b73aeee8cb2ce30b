"""The Volume Daemon behind the `Volumes` port: operations by request id, fences, mappings and device links."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oma.domain.actions import ActionKind, Upstream
from oma.domain.holders import DeviceHolder, DeviceHolders, ProcessId
from oma.domain.world import DeviceLink, DeviceScan, Mapping, serial_of
from oma.ports import Burn, Fault, RemoteOutcome, RemoteStatus, UpstreamError, VolumeOperation
from ossea.simulator.model import ApiError
from tests.fakes.cloud import outcome_of
from tests.fakes.faults import Weather
from tests.fakes.world import FakeWorld

SYSTEM = "Volume Daemon"


@dataclass
class Operation:
    id: str
    command: str
    volume_id: str
    vm_id: str | None
    created_at: datetime
    export: bool = True
    off: str | None = None
    """The VM that it is to be detached from, where it was named."""
    outcome: RemoteOutcome = field(default_factory=lambda: RemoteOutcome(RemoteStatus.PENDING))
    overdue: bool = False
    revoked: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class FakeVolumes:
    """`weather` says what gets lost; `late` and `kept_devices` what goes wrong on the OMA."""

    def __init__(self, world: FakeWorld) -> None:
        self.world = world
        self.weather = Weather(SYSTEM)
        self.operations: dict[str, Operation] = {}
        self.mappings: dict[str, Mapping] = {}
        self.exported: dict[str, bool] = {}
        """Volume id → whether its attachment came with an NBD export; absent where this daemon has not attached it."""
        self.fences: dict[str, int] = {}
        self.late: dict[str, asyncio.Event] = {}
        """Volume id → its operation is overdue at once, and ends only after this event."""
        self.broken: dict[str, Upstream] = {}
        """Volume id → its operation fails with this before CloudStack is asked, once."""
        self.unexported: dict[str, Upstream] = {}
        """Volume id → its attachments stand, and end with this because its export alone fails."""
        self.kept_devices: set[str] = set()
        """Volumes whose link stays on the OMA whatever CloudStack does."""
        self.hidden_devices: set[str] = set()
        """Volumes whose link never shows on the OMA."""
        self.holders: dict[str, list[DeviceHolder]] = {}
        """Volume id → who holds its device on the OMA."""
        self.unread: tuple[str, ...] = ()
        """What a scan for holders cannot read."""
        self.ended: list[tuple[str, ProcessId, str]] = []
        """Volume, process and reason of every holder that was ended."""
        self.surviving: set[ProcessId] = set()
        """Processes that no signal ends."""
        self._end_requests: dict[str, tuple[str, frozenset[ProcessId], str]] = {}
        self._lanes: dict[str, asyncio.Lock] = {}
        self.takes_back = True
        """Whether it takes an order back; daemons of an older generation don't."""
        self.product_uuid: str | None = world.oma_vm_id

    async def close(self) -> None:
        tasks = {one.task for one in self.operations.values() if one.task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def find_mapping(self, volume_id: str) -> Mapping | None:
        await self.weather.pass_by("find_mapping")
        return self.mappings.get(volume_id)

    async def scan_devices(self) -> DeviceScan:
        await self.weather.pass_by("scan_devices")
        self.world.advance()
        shown = (set(self.world.device_ids_on(self.world.oma_vm_id)) | self.kept_devices) - self.hidden_devices
        links = (DeviceLink(f"virtio-{serial_of(one)}", serial_of(one)) for one in sorted(shown))
        error = None if self.product_uuid else "permission denied"
        return DeviceScan(self.product_uuid, error, self.world.clock.now(), tuple(links))

    async def list_holders(self, volume_id: str) -> DeviceHolders | None:
        await self.weather.pass_by("list_holders")
        self.world.advance()
        shown = (set(self.world.device_ids_on(self.world.oma_vm_id)) | self.kept_devices) - self.hidden_devices
        if volume_id not in shown:
            return None
        held = tuple(self.holders.get(volume_id, ()))
        return DeviceHolders(volume_id, not self.unread, held, self.unread, self.world.clock.now())

    async def end_holders(
        self, volume_id: str, holders: Sequence[ProcessId], reason: str, *, request_id: str, fence: int
    ) -> DeviceHolders:
        await self.weather.pass_by("end_holders")
        content = (volume_id, frozenset(holders), reason)
        if self._end_requests.setdefault(request_id, content) != content:
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "idempotency_key_reused", request_id))
        trees = {tree for one in holders for tree in self._tree_to_end(volume_id, one)}
        if fence < self.fences.get(volume_id, 0):
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "fenced", "a newer fence was seen"))
        self.fences[volume_id] = fence
        self._end(volume_id, trees, reason)
        self.weather.answer("end_holders")
        survived = sorted(one.pid for one in trees & self.surviving)
        if survived:
            raise UpstreamError(Fault.FAILED, Upstream(SYSTEM, "survived", f"{survived} did not end"))
        report = await self.list_holders(volume_id)
        return report or DeviceHolders(volume_id, True, (), (), self.world.clock.now())

    def _tree_to_end(self, volume_id: str, asked: ProcessId) -> list[ProcessId]:
        """The root of the tree that goes with it; empty where the process is gone. Raises what the daemon would."""
        for one in self.holders.get(volume_id, ()):
            if asked in (one.process, one.tree):
                if not one.endable or one.tree is None:
                    raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "holder_refused", f"{asked.pid} is not ended"))
                return [one.tree]
            if any(seen is not None and seen.pid == asked.pid for seen in (one.process, one.tree)):
                raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "holder_changed", f"{asked.pid} is another now"))
        return []

    def _end(self, volume_id: str, trees: set[ProcessId], reason: str) -> None:
        held = self.holders.get(volume_id, [])
        going = [one for one in held if one.tree in trees and one.tree not in self.surviving]
        self.ended.extend((volume_id, one.process, reason) for one in going if one.process is not None)
        self.holders[volume_id] = [one for one in held if one not in going]

    async def submit_attach(
        self, volume_id: str, vm_id: str, *, request_id: str, fence: int, export: bool = True
    ) -> str:
        return await self._submit("attachVolume", volume_id, vm_id, request_id, fence, export=export)

    async def submit_detach(self, volume_id: str, *, request_id: str, fence: int, vm_id: str | None = None) -> str:
        return await self._submit("detachVolume", volume_id, None, request_id, fence, off=vm_id)

    async def burn(self, request_id: str, kind: ActionKind, volume_id: str, *, fence: int) -> Burn:
        await self.weather.pass_by("burn")
        if not self.takes_back:
            return Burn.UNPROVEN
        if fence < self.fences.get(volume_id, 0):
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "fenced", "a newer fence was seen"))
        self.fences[volume_id] = fence
        operation = self.operations.get(request_id)
        if operation is None:
            command = "attachVolume" if kind is ActionKind.ATTACH_VOLUME else "detachVolume"
            upstream = Upstream(SYSTEM, "cancelled", "the operation was cancelled before CloudStack was asked")
            outcome = RemoteOutcome(RemoteStatus.REFUSED, upstream)
            now = self.world.clock.now()
            operation = Operation(request_id, command, volume_id, None, now, outcome=outcome, revoked=True)
            operation.news.set()
            self.operations[request_id] = operation
        self.weather.answer("burn")
        return Burn.SPENT if operation.revoked else Burn.ARRIVED

    async def wait_operation(self, operation_id: str, wait_s: float) -> RemoteOutcome:
        await self.weather.pass_by("wait_operation")
        operation = self.operations.get(operation_id)
        if operation is None:
            return RemoteOutcome(RemoteStatus.ABSENT)
        news = operation.news
        if operation.outcome.status is RemoteStatus.PENDING and not news.is_set() and wait_s > 0:
            try:
                async with asyncio.timeout(self.world.clock.real(wait_s)):
                    await news.wait()
            except TimeoutError:
                pass
        if news.is_set() and operation.outcome.status is RemoteStatus.PENDING:
            operation.news = asyncio.Event()
        outcome = operation.outcome
        return RemoteOutcome(outcome.status, outcome.upstream, outcome.detail, operation.overdue)

    async def list_open_operations(self, volume_id: str) -> Sequence[VolumeOperation]:
        await self.weather.pass_by("list_open_operations")
        return [
            VolumeOperation(one.id, one.command.removesuffix("Volume"), one.created_at)
            for one in self.operations.values()
            if one.volume_id == volume_id and one.outcome.status is RemoteStatus.PENDING
        ]

    async def check(self) -> str:
        await self.weather.pass_by("check")
        return "The Volume Daemon answers; it is healthy."

    async def _submit(
        self,
        command: str,
        volume_id: str,
        vm_id: str | None,
        request_id: str,
        fence: int,
        *,
        export: bool = True,
        off: str | None = None,
    ) -> str:
        await self.weather.pass_by(command)
        if fence < self.fences.get(volume_id, 0):
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "fenced", "a newer fence was seen"))
        self.fences[volume_id] = fence
        known = self.operations.get(request_id)
        if known is None:
            self.world.fences[request_id] = fence
            operation = Operation(request_id, command, volume_id, vm_id, self.world.clock.now(), export, off)
            self.operations[request_id] = operation
            operation.task = asyncio.create_task(self._carry_out(operation))
        elif not known.revoked and (known.command, known.volume_id, known.vm_id) != (command, volume_id, vm_id):
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "idempotency_key_reused", request_id))
        self.weather.answer(command)
        return request_id

    async def _carry_out(self, operation: Operation) -> None:
        """One operation at a time per volume, in the order of their acceptance."""
        async with self._lanes.setdefault(operation.volume_id, asyncio.Lock()):
            await self._carry_out_alone(operation)

    async def _carry_out_alone(self, operation: Operation) -> None:
        late = self.late.pop(operation.volume_id, None)
        if late is not None:
            operation.overdue = True
            operation.news.set()
            await late.wait()
        operation.outcome = await self._ask(operation)
        if operation.outcome.status is RemoteStatus.SUCCEEDED:
            self._map(operation)
            if operation.vm_id is not None and operation.volume_id in self.unexported:
                operation.outcome = RemoteOutcome(RemoteStatus.FAILED, self.unexported[operation.volume_id])
        operation.news.set()

    async def _ask(self, operation: Operation) -> RemoteOutcome:
        broken = self.broken.pop(operation.volume_id, None)
        if broken is not None:
            return RemoteOutcome(RemoteStatus.FAILED, broken)
        if operation.vm_id is not None and self.world.holder_of(operation.volume_id) == operation.vm_id:
            return RemoteOutcome(RemoteStatus.SUCCEEDED)
        holder = self.world.holder_of(operation.volume_id)
        if operation.off is not None and holder not in {None, operation.off}:
            text = f"the volume is attached to {holder}, and was to be taken off {operation.off}"
            return RemoteOutcome(RemoteStatus.REFUSED, Upstream(SYSTEM, "volume_on_foreign_vm", text))
        words: dict[str, Any] = {
            "id": operation.volume_id,
            **({"virtualmachineid": operation.vm_id} if operation.vm_id else {}),
        }
        try:
            job_id = self.world.order(operation.command, operation.id, **words)
        except ApiError as error:
            return RemoteOutcome(RemoteStatus.REFUSED, Upstream("CloudStack", str(error.errorcode), error.text))
        return outcome_of(await self.world.wait_until_ended(job_id))

    def _map(self, operation: Operation) -> None:
        if operation.vm_id is None:
            self.mappings.pop(operation.volume_id, None)
            self.exported.pop(operation.volume_id, None)
            return
        self.exported[operation.volume_id] = operation.export
        path = f"/dev/disk/by-id/virtio-{serial_of(operation.volume_id)}"
        self.mappings[operation.volume_id] = Mapping(operation.volume_id, operation.vm_id, path, "oma", "detected")
