"""Drives the model on real time: bytes, devices, state and logs follow what the model says."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ossea.simulator.calls import Log, is_read
from ossea.simulator.devices import Devices
from ossea.simulator.model.effects import (
    CopyStarted,
    DeviceAppeared,
    DeviceGone,
    Effect,
    RevertStarted,
    SnapshotErased,
    VolumeCreated,
    VolumeErased,
)
from ossea.simulator.model.faults import Fault, fault_from_json
from ossea.simulator.model.machine import Model
from ossea.simulator.model.settings import Settings
from ossea.simulator.model.witness import see
from ossea.simulator.statefile import StateFile, Stored
from ossea.simulator.storage import ContentMissing, Storage

_log = logging.getLogger("ossea.simulator")


Work = Callable[[], Awaitable[None]]
_RESERVED_CALLS = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where the simulator keeps its state and shows the OMA's devices."""

    state_dir: Path
    device_root: Path
    oma_vm_id: str
    devices: str = "auto"


class Simulator:
    """One running simulator; `open` before, `close` after use."""

    def __init__(self, place: Place, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self._clock = clock
        self._state = StateFile(place.state_dir)
        self._storage = Storage(place.state_dir, clock)
        self._devices = Devices(place.device_root, place.state_dir / "volumes", place.devices)
        self._model = self._new_model(Settings())
        self._wake = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_work: dict[str, asyncio.Task[None]] = {}
        self._reserved_calls = 0
        self.calls = Log()
        self.effects = Log()

    @property
    def model(self) -> Model:
        return self._model

    @property
    def settings(self) -> Settings:
        return self._model.settings

    @property
    def device_mode(self) -> str:
        return self._devices.mode

    @property
    def driver(self) -> asyncio.Task[None]:
        """Runs while the simulator is open; it ends early only by an error, which it then raises."""
        if self._driver is None:
            raise RuntimeError("the simulator is not open")
        return self._driver

    def now(self) -> float:
        return self._clock()

    # Life

    async def open(self) -> None:
        """Take up the state where an earlier process left it, however it ended."""
        stored = await self._state.load()
        values = stored.values
        self._model = self._new_model(Settings().patched(values.get("settings", {})))
        self._model.faults.restore(fault_from_json(row) for row in values.get("faults", ()))
        self.calls.restore(stored.calls)
        self.calls.start_after(int(values.get("last_call", 0)))
        self._reserved_calls = self.calls.last + _RESERVED_CALLS
        self._model.load(stored.changes(), self.now())
        await self._open_storage()
        again = self._model.unfinished()
        if self.settings.restart != "resume":
            self._model.restart(self.now())
        await self._compact()
        self._ensure_oma()
        self._carry_out(again)
        self._show_devices()
        await self.turn()
        await self.settled()
        self._driver = asyncio.create_task(self._drive())

    async def close(self) -> None:
        """Jobs stay as they are for the next process; devices go."""
        if self._driver is not None:
            self._driver.cancel()
            with suppress(asyncio.CancelledError):
                await self._driver
        await self._stop_work()
        await self._devices.close()
        await self._compact()
        await self._state.close()

    async def reset(self) -> None:
        """Everything is forgotten but where we are; what work is under way stops."""
        await self._stop_work()
        self._model = self._new_model(Settings())
        self.calls.clear()
        self.effects.clear()
        await self._devices.clear()
        await self._storage.open({}, frozenset())
        self._ensure_oma()
        await self._compact()
        await self.turn()

    # Calls

    async def call(self, command: str, params: Mapping[str, str], faults: Sequence[Fault]) -> dict[str, Any]:
        """One command of the API; its effects are under way and its changes stored when this returns.

        Raises `ApiError`.
        """
        try:
            return self._model.submit(command, params, self.now(), faults=faults)
        finally:
            await self.turn()

    def see(self, command: str, params: Mapping[str, str]) -> dict[str, Any]:
        """How things stand for this call at this very moment, for the log."""
        self._model.advance_clock(self.now())
        named = {name.lower(): value for name, value in params.items()}
        return see(self._model.world, command, named).as_json()

    def log_call(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Give the call its number; numbers are reserved in the state file, so that none comes twice."""
        self.calls.add(entry)
        if self.calls.last >= self._reserved_calls:
            self._reserved_calls = self.calls.last + _RESERVED_CALLS
            self._state.append([], {"last_call": self._reserved_calls})
            self._wake.set()
        return entry

    def store_call(self, entry: dict[str, Any]) -> None:
        """Calls that change something outlive the process, others only their number does."""
        if not is_read(str(entry["command"])):
            self._state.append([], call=entry)
            self._wake.set()

    async def turn(self) -> None:
        """Let happen what is due, start its effects, store its changes."""
        self._carry_out(self._model.advance(self.now()))
        changes = self._model.take_changes()
        if changes:
            self._state.append(changes)
            self._wake.set()
            await self._state.flush()

    async def settled(self) -> None:
        """Wait until no effect but running reverts is outstanding."""
        while self._last_work:
            await asyncio.gather(*self._last_work.values(), return_exceptions=True)

    # What the admin does

    async def seed(self, **rows: Sequence[Any]) -> dict[str, list[str]]:
        """Rows by table, as `Model.seed` takes them."""
        try:
            return self._model.seed(self.now(), **rows)
        finally:
            await self.turn()
            await self.settled()

    async def change(self, what: Callable[[Model], Any]) -> Any:
        """Change the model by hand at this moment and see it through."""
        self._model.advance_clock(self.now())
        try:
            return what(self._model)
        finally:
            await self.turn()
            await self.settled()

    async def put_settings(self, changes: Mapping[str, Any]) -> Settings:
        self._model.settings = self._model.settings.patched(changes)
        await self._store_values()
        return self._model.settings

    async def faults_changed(self) -> None:
        await self._store_values()

    async def restart_server(self, mode: str | None) -> None:
        self._model.restart(self.now(), mode)
        await self.turn()

    async def volume_hash(self, volume_id: str) -> tuple[str, int]:
        await self._quiet(volume_id)
        return await self._storage.volume_hash(volume_id)

    async def snapshot_hash(self, snapshot_id: str) -> tuple[str, int]:
        await self._quiet(snapshot_id)
        return await self._storage.snapshot_hash(snapshot_id)

    async def read(self, volume_id: str, offset: int, length: int) -> bytes:
        await self._quiet(volume_id)
        return await self._storage.read(volume_id, offset, length)

    async def write(self, volume_id: str, offset: int, content: bytes | str) -> None:
        await self._quiet(volume_id)
        loop = await self._devices.loop_of(_serial(volume_id))
        await self._storage.write(volume_id, offset, content, loop)
        self.effects.add({"at": self.now(), "effect": "Written", "volume_id": volume_id})

    # Inside

    def _new_model(self, settings: Settings) -> Model:
        return Model(settings, secrets.randbits(64), driven=True)

    def _ensure_oma(self) -> None:
        if self._model.world.vms.find(self._place.oma_vm_id) is None:
            self._model.seed(self.now(), vms=[{"id": self._place.oma_vm_id, "name": "oma"}])

    async def _open_storage(self) -> None:
        world = self._model.world
        volumes = {row.id: row.size_bytes for row in world.volumes.rows.values() if row.removed is None}
        kept = {row.id for row in world.volumes.rows.values() if row.state == "Destroy"}
        volumes.update({row_id: world.volumes.rows[row_id].size_bytes for row_id in kept})
        snapshots = frozenset(row.id for row in world.snapshots.rows.values() if row.removed is None)
        await self._storage.open(volumes, snapshots)
        await self._devices.open()

    def _show_devices(self) -> None:
        for volume in self._model.world.volumes.rows.values():
            if volume.is_shown_to(self._place.oma_vm_id):
                serial = _serial(volume.id)
                appear = partial(self._devices.appear, serial, self._storage.volume_path(volume.id))
                self._work(volume.id, appear, None)

    async def _drive(self) -> None:
        while True:
            due = self._model.next_due()
            delay = None if due is None else max(0.0, due - self.now())
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            self._wake.clear()
            await self.turn()
            await self._state.flush()
            if self._state.wants_compacting:
                await self._compact()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self.effects.add({"effect": type(effect).__name__, **dataclasses.asdict(effect)})
            self._carry_out_one(effect)

    def _carry_out_one(self, effect: Effect) -> None:
        storage, job_id = self._storage, effect.job_id
        match effect:
            case VolumeCreated():
                create = partial(
                    storage.create, effect.volume_id, effect.size_bytes, effect.from_snapshot_id, effect.fill
                )
                self._work(effect.volume_id, create, job_id)
            case CopyStarted():
                self._work(effect.volume_id, partial(self._take_snapshot, effect), job_id, also=effect.snapshot_id)
            case RevertStarted():
                self._work(effect.volume_id, partial(self._revert, effect), job_id, in_line=False)
            case VolumeErased():
                self._work(effect.volume_id, partial(storage.erase_volume, effect.volume_id), job_id)
            case SnapshotErased():
                self._work(effect.snapshot_id, partial(storage.erase_snapshot, effect.snapshot_id), job_id)
            case DeviceAppeared() if effect.vm_id == self._place.oma_vm_id:
                appear = partial(self._devices.appear, effect.serial, storage.volume_path(effect.volume_id))
                self._work(effect.volume_id, appear, job_id)
            case DeviceGone() if effect.vm_id == self._place.oma_vm_id:
                self._work(effect.volume_id, partial(self._devices.go, effect.serial), job_id)
            case _ if job_id is not None:
                self._model.release(job_id, self.now())
                self._wake.set()

    async def _revert(self, effect: RevertStarted) -> None:
        await self._storage.revert(
            effect.snapshot_id, effect.volume_id, effect.ends_at, effect.fraction, replaces=effect.replaces
        )

    async def _take_snapshot(self, effect: CopyStarted) -> None:
        """Once only: after a kill the job's copy may be there already, and the volume may have changed since."""
        await self._devices.flush(_serial(effect.volume_id))
        await self._storage.take_snapshot(effect.volume_id, effect.snapshot_id)

    def _work(
        self,
        entity_id: str,
        work: Work,
        job_id: str | None,
        *,
        also: str | None = None,
        in_line: bool = True,
    ) -> None:
        """Do `work` behind what is under way on the same entity; others then wait for it unless `in_line` is off."""
        before = self._last_work.get(entity_id)
        task = asyncio.create_task(self._do(before, work, job_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if in_line:
            for key in (entity_id, also):
                if key is not None:
                    self._last_work[key] = task
                    task.add_done_callback(partial(self._forget, key))

    def _forget(self, key: str, done: asyncio.Task[None]) -> None:
        if self._last_work.get(key) is done:
            del self._last_work[key]

    async def _do(self, before: asyncio.Task[None] | None, work: Work, job_id: str | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        error = None
        try:
            await work()
        except (ContentMissing, OSError) as fault:
            error = str(fault)
            _log.warning("effect of job %s failed: %s", job_id, fault)
        if job_id is not None:
            self._model.release(job_id, self.now(), error)
            self._wake.set()

    async def _quiet(self, entity_id: str) -> None:
        """Until what is under way on the entity is done and its device's writes are in the file."""
        while (task := self._last_work.get(entity_id)) is not None:
            await asyncio.wait([task])
        await self._devices.flush(_serial(entity_id))

    async def _stop_work(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._last_work.clear()

    async def _store_values(self) -> None:
        self._state.append([], self._values())
        await self._state.flush()
        self._wake.set()

    def _values(self) -> dict[str, Any]:
        return {
            "settings": self.settings.as_json(),
            "faults": [fault.as_json() for fault in self._model.faults.waiting()],
            "last_call": self._reserved_calls,
        }

    async def _compact(self) -> None:
        rows = {(table, row_id): row for table, row_id, row in self._model.dump() if row is not None}
        self._model.take_changes()
        calls = [entry for entry in self.calls.after(0) if not is_read(str(entry["command"]))]
        await self._state.compact(Stored(rows, self._values(), calls))


def _serial(volume_id: str) -> str:
    return volume_id.replace("-", "")[:20]
