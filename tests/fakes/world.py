"""One simulated CloudStack behind both fakes: the simulator's own state machine, its bytes, and a log of every change.

`orders` is what was asked for: each entry holds what the world looked like at that moment, so that the invariants can
be judged afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from oma.demo.invariants import Call
from oma.domain.events import Event
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
from ossea.simulator.model.witness import see
from tests.fakes.time_and_ids import FastClock

OMA_VM_ID = "0b000000-0000-4000-8000-000000000001"
GIB = 1 << 30


@dataclass
class FakeWorld:
    clock: FastClock
    settings: Settings = field(default_factory=Settings)
    oma_vm_id: str = OMA_VM_ID

    def __post_init__(self) -> None:
        self.model = Model(self.settings, seed=7)
        self.orders: list[Call] = []
        self.job_ids: dict[str, str] = {}
        """Request id → the id of the job that it became."""
        self.fences: dict[str, int] = {}
        """Request id → the fence under which the Volume Daemon was asked for it, where that is known."""
        self.sent: dict[str, float] = {}
        """Id → when the OMA daemon sent anything under it last, whether it arrived or not; in the simulation only."""
        self.find_last_event: Callable[[], int] | None = None
        """Asks the database itself which event it has; without, the last that anybody was told counts."""
        self.told: list[tuple[int, str]] = []
        """Number and sentence of every event that a daemon told."""
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
                if see(self.model.world, "detachVolume", {"id": volume_id}).shown_on:
                    # A guest has the device: it may have read the former bytes, and writes over the new ones.
                    self.content[volume_id] += ", put back under a guest"
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
        answer = self.model.submit(command, params, self.clock.unix(), faults=())
        if "jobid" in answer:
            self._wake.set()
        return answer

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

    def order(self, command: str, request_id: str, *, own_id: bool = True, **params: str) -> str:
        """Submits a changing call, logs it, and returns the job's id; raises `ApiError`.

        `own_id` is off for a server that ignores `customjobid`.
        """
        self.advance()
        named = {name.lower(): value for name, value in params.items()}
        call = Call(
            number=len(self.orders) + 1,
            at=self.clock.unix(),
            command=command,
            request_id=request_id,
            params=params,
            job_id=None,
            seen=see(self.model.world, command, named),
            after_seq=self._last_event(),
            sent_at=self.sent.get(request_id),
            fence=self.fences.get(request_id),
        )
        try:
            chosen = {"customjobid": request_id} if own_id else {}
            answer = self.model.submit(command, {**params, **chosen}, self.clock.unix())
        except ApiError:
            self.orders.append(call)
            raise
        job_id = str(answer["jobid"])
        self.orders.append(replace(call, job_id=job_id))
        self._wake.set()
        self.job_ids[request_id] = job_id
        return job_id

    def _last_event(self) -> int | None:
        if self.find_last_event is not None:
            return self.find_last_event()
        return max((seq for seq, _ in self.told[-20:]), default=None)

    def hear(self, event: Event) -> None:
        """What a listener of a daemon is told."""
        self.told.append((event.seq, event.sentence))

    def accepted(self, command: str | None = None) -> list[Call]:
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
