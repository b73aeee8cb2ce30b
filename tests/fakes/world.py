"""One simulated CloudStack behind both fakes: the simulator's own state machine, its bytes, and a log of every change.

`orders` is what was asked for: each entry holds what the world looked like at that moment, so that the invariants can
be judged afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ossea.simulator.model import (
    ApiError,
    ContentReverted,
    CopyStarted,
    Effect,
    Fault,
    FaultKind,
    Model,
    Settings,
    SnapshotErased,
    VolumeCreated,
    VolumeErased,
    seeding,
)
from ossea.simulator.model.entities import Job, JobStatus
from tests.fakes.time_and_ids import FastClock

OMA_VM_ID = "0b000000-0000-4000-8000-000000000001"
GIB = 1 << 30


@dataclass(frozen=True)
class Order:
    """A changing call that reached CloudStack, and how the world stood when it did."""

    number: int
    command: str
    request_id: str
    params: Mapping[str, str]
    at: float
    """Unix seconds of the fast clock."""
    accepted: bool
    volume_id: str | None
    snapshot_id: str | None
    vm_id: str | None
    """The VM that the call is about: named by it, or the volume's holder."""
    holder: str | None
    device_on: str | None
    held_volume_ids: tuple[str, ...]
    """Volumes on `vm_id`, by CloudStack's database."""
    reverts_open: tuple[str, ...]
    """Request ids of reverts sent before that had not succeeded yet."""


@dataclass
class FakeWorld:
    clock: FastClock
    settings: Settings = field(default_factory=Settings)
    oma_vm_id: str = OMA_VM_ID

    def __post_init__(self) -> None:
        self.model = Model(self.settings, seed=7)
        self.orders: list[Order] = []
        self.content: dict[str, str] = {}
        """Volume or snapshot id → what it holds, as a word."""
        self.changed = asyncio.Event()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self.model.seed(self.clock.unix(), vms=[{"id": self.oma_vm_id, "name": "oma"}])

    # Driving

    def start(self) -> None:
        self._pump = asyncio.create_task(self._run(), name="fake world")

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})

    async def _run(self) -> None:
        """Moves the model whenever something is due; nobody polls it."""
        while True:
            self._wake.clear()
            self.advance()
            due = self.model.next_due()
            if due is None:
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(max(self.clock.real(due - self.clock.unix()), 0)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def advance(self) -> None:
        for effect in self.model.advance(self.clock.unix()):
            self._apply(effect)
        self.changed.set()
        self.changed = asyncio.Event()

    def _apply(self, effect: Effect) -> None:
        match effect:
            case VolumeCreated(volume_id=volume_id, fill=fill):
                self.content[volume_id] = fill or "blank"
            case CopyStarted(snapshot_id=snapshot_id, volume_id=volume_id):
                self.content[snapshot_id] = self.content[volume_id]
            case ContentReverted(snapshot_id=snapshot_id, volume_id=volume_id, fraction=fraction):
                whole = self.content[snapshot_id]
                self.content[volume_id] = whole if fraction == 1.0 else f"part of {whole}"
            case SnapshotErased(snapshot_id=row_id) | VolumeErased(volume_id=row_id):
                self.content[row_id] = "erased"
            case _:
                pass

    async def wait_until_ended(self, job_id: str) -> Job:
        while True:
            changed = self.changed
            job = self.model.world.jobs.rows[job_id]
            if job.status != JobStatus.PENDING:
                return job
            await changed.wait()

    # Seeding and looking

    def seed(self, **rows: Any) -> None:
        self.model.seed(self.clock.unix(), **rows)
        self.advance()
        self._wake.set()

    def add_fault(self, kind: FaultKind, command: str, **more: Any) -> None:
        self.model.faults.add(Fault(kind=kind, command=command, **more))

    def ask(self, command: str, **params: str) -> dict[str, Any]:
        return self.model.submit(command, params, self.clock.unix(), faults=())

    def holder_of(self, volume_id: str) -> str | None:
        return self.model.world.volumes.rows[volume_id].vm_id

    def vm_state(self, vm_id: str) -> str:
        return self.model.world.vms.rows[vm_id].state

    def snapshot_is_listed(self, snapshot_id: str) -> bool:
        return self.model.world.live_snapshot(snapshot_id) is not None

    def device_ids_on(self, vm_id: str) -> list[str]:
        """Volumes whose device the guest of this VM shows."""
        rows = self.model.world.volumes.rows.values()
        return [volume.id for volume in rows if volume.is_shown_to(vm_id)]

    # Changing

    def order(self, command: str, request_id: str, **params: str) -> str:
        """Submits a changing call, logs it, and returns the job's id; raises `ApiError`."""
        self.advance()
        order = self._describe(command, request_id, params)
        try:
            answer = self.model.submit(command, {**params, "customjobid": request_id}, self.clock.unix())
        except ApiError:
            self.orders.append(order(accepted=False))
            raise
        self.orders.append(order(accepted=True))
        self._wake.set()
        return str(answer["jobid"])

    def _describe(self, command: str, request_id: str, params: Mapping[str, str]) -> Any:
        rows = self.model.world
        snapshot_id = params["id"] if command in {"revertSnapshot", "deleteSnapshot"} else None
        volume_id = params.get("id") if command in {"attachVolume", "detachVolume"} else None
        vm_id = params.get("id") if command.endswith("VirtualMachine") else params.get("virtualmachineid")
        if snapshot_id is not None and snapshot_id in rows.snapshots.rows:
            volume_id = rows.snapshots.rows[snapshot_id].volume_id
        volume = rows.volumes.find(volume_id) if volume_id else None
        vm_id = vm_id or (volume.vm_id if volume else None)
        values: dict[str, Any] = {
            "number": len(self.orders) + 1,
            "command": command,
            "request_id": request_id,
            "params": dict(params),
            "at": self.clock.unix(),
            "volume_id": volume_id,
            "snapshot_id": snapshot_id,
            "vm_id": vm_id,
            "holder": volume.vm_id if volume else None,
            "device_on": (volume.device_on or volume.also_on) if volume else None,
            "held_volume_ids": tuple(one.id for one in rows.volumes_on(vm_id)) if vm_id else (),
            "reverts_open": tuple(
                one.request_id
                for one in self.orders
                if one.command == "revertSnapshot" and not self._has_succeeded(one.request_id)
            ),
        }
        return lambda *, accepted: Order(accepted=accepted, **values)

    def _has_succeeded(self, job_id: str) -> bool:
        job = self.model.world.jobs.find(job_id)
        return job is not None and job.status == JobStatus.SUCCEEDED

    def accepted(self, command: str | None = None) -> list[Order]:
        return [one for one in self.orders if one.accepted and command in {None, one.command}]

    # What others do to it

    def change_volume(self, volume_id: str, **fields: Any) -> None:
        """Fields as the simulator's admin API takes them; `vm_id` attaches or, with None, detaches."""
        seeding.patch_volume(self.model.world, self.model.world.volumes.rows[volume_id], fields)
        self.advance()

    def change_vm(self, vm_id: str, **fields: Any) -> None:
        seeding.patch_vm(self.model.world, self.model.world.vms.rows[vm_id], fields)
        self.advance()

    def change_snapshot(self, snapshot_id: str, **fields: Any) -> None:
        seeding.patch_snapshot(self.model.world, self.model.world.snapshots.rows[snapshot_id], fields)
        self.advance()

    def forget_volume(self, volume_id: str) -> None:
        """CloudStack no longer lists it."""
        seeding.forget_volume(self.model.world, self.model.world.volumes.rows[volume_id])
        self.advance()

    def forget_snapshot(self, snapshot_id: str) -> None:
        seeding.forget_snapshot(self.model.world, self.model.world.snapshots.rows[snapshot_id])
        self.advance()

    def add_vm_snapshot(self, vm_id: str) -> None:
        seeding.add_vm_snapshot(self.model.world, vm_id)
        self.advance()
