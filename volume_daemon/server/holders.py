"""Scans for holders, off the event loop: one scan serves everybody who asked before it began."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from structlog import get_logger

from volume_daemon.holders.places import Places, Scope
from volume_daemon.holders.processes import Process, list_descendants
from volume_daemon.holders.proof import prove
from volume_daemon.holders.report import Holder, HolderReport, HolderState, ProcessId, Proof
from volume_daemon.holders.scan import Progress, Question, Sighting, scan
from volume_daemon.server.devices import DeviceWatch, serial_of
from volume_daemon.server.refusals import not_found

log = get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HolderFigures:
    """Settings of the scan and of ending what it found."""

    proc_root: Path = Path("/proc")
    sys_root: Path = Path("/sys")
    scope: Scope = "everything"
    scan_timeout_s: float = 10.0
    term_s: float = 10.0
    kill_s: float = 5.0

    @property
    def places(self) -> Places:
        return Places.of(self.proc_root, self.sys_root)


@dataclass(frozen=True, slots=True)
class Found:
    """A report with what ending needs beside it."""

    report: HolderReport
    table: dict[int, Process]

    def tree_of(self, root: ProcessId) -> tuple[Process, ...]:
        return tuple(self.table[pid] for pid in sorted(list_descendants(self.table, {root.pid})))


class ScanHangs(Exception):
    """The scan did not end in time; the text says where it stands."""


class HolderWatch:
    """Asks the machine who holds a volume's device. Whoever asks during a scan shares the next one."""

    def __init__(
        self,
        devices: DeviceWatch,
        figures: HolderFigures,
        now: Callable[[], datetime],
        prover: Callable[[Places, Scope, datetime], Proof] = prove,
    ) -> None:
        self._devices = devices
        self._figures = figures
        self._now = now
        self._prover = prover
        self._asked: set[str] = set()
        self._next: asyncio.Task[tuple[Sighting, datetime, Proof]] | None = None
        self._running: set[asyncio.Task[tuple[Sighting, datetime, Proof]]] = set()
        self._lock = asyncio.Lock()
        self._hung: tuple[Future[Sighting], Progress, datetime] | None = None
        self._proof: Proof | None = None
        self._first_seen: dict[str, dict[Hashable, datetime]] = {}

    async def start(self) -> None:
        """Proves the scan; without proof every report says `unknown`, and each further one tries again."""
        proof = await self._prove()
        (log.info if proof.ok else log.warning)(
            "The scan for holders was put to the proof.", ok=proof.ok, detail=proof.detail
        )

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def report(self, volume_id: str) -> HolderReport:
        """By a scan that begins now. Raises `Problem` 404 `device_not_found` where no such device is on the OMA."""
        return (await self.find(volume_id)).report

    async def find(self, volume_id: str) -> Found:
        """As `report`, with the processes seen. Raises `Problem`."""
        serial, link = serial_of(volume_id), str(self._devices.link_of(volume_id))
        try:
            sighting, scanned_at, proof = await self._sight(volume_id)
        except ScanHangs as hangs:
            proof = self._proof or Proof(False, "not yet proven")
            return Found(_unknown(volume_id, link, (str(hangs),), self._now(), proof), {})
        if serial in sighting.absent:
            raise not_found("device_not_found", f"No device of the volume {volume_id} is on this machine.")
        unread = (*sighting.unread, *sighting.unclear.get(serial, ()))
        holders = self._dated(serial, sighting.holders.get(serial, ()), scanned_at)
        target = sighting.targets.get(serial)
        report = HolderReport(
            volume_id=volume_id,
            device=link,
            target=target.path if target else None,
            state=_state(holders, unread, proof),
            holders=holders,
            unread=unread,
            scanned_at=scanned_at,
            proof=proof,
            passed_over=sighting.passed_over,
        )
        return Found(report, dict(sighting.table))

    async def _sight(self, volume_id: str) -> tuple[Sighting, datetime, Proof]:
        self._asked.add(volume_id)
        if self._next is None:
            self._next = asyncio.create_task(self._serve(), name="holder scan")
            self._running.add(self._next)
            self._next.add_done_callback(self._running.discard)
        return await asyncio.shield(self._next)

    async def _serve(self) -> tuple[Sighting, datetime, Proof]:
        async with self._lock:
            self._next = None
            asked, self._asked = self._asked, set()
            proof = self._proof if self._proof is not None and self._proof.ok else await self._prove()
            self._raise_hung()
            links = {serial_of(volume_id): self._devices.link_of(volume_id) for volume_id in asked}
            question = Question(links, self._devices.device_root)
            progress, scanned_at = Progress(), self._now()
            future = run_aside(lambda: scan(question, self._figures.places, self._figures.scope, progress))
            try:
                async with asyncio.timeout(self._figures.scan_timeout_s):
                    return await asyncio.wrap_future(future), scanned_at, proof
            except TimeoutError:
                self._hung = (future, progress, scanned_at)
            self._raise_hung()
            raise ScanHangs("the scan ended too late")

    def _raise_hung(self) -> None:
        """A scan that hangs on a dead file system is waited for, not repeated: each would cost a thread."""
        if self._hung is not None:
            future, progress, since = self._hung
            if not future.done():
                raise ScanHangs(f"the scan begun at {since:%H:%M:%S} hangs at {progress.place}")
            self._hung = None

    async def _prove(self) -> Proof:
        now = self._now()
        future = run_aside(lambda: self._prover(self._figures.places, self._figures.scope, now))
        try:
            async with asyncio.timeout(self._figures.scan_timeout_s):
                self._proof = await asyncio.wrap_future(future)
        except TimeoutError:
            self._proof = Proof(False, f"the proof did not end within {self._figures.scan_timeout_s:g} s")
        return self._proof

    def _dated(self, serial: str, holders: Sequence[Holder], scanned_at: datetime) -> tuple[Holder, ...]:
        """With the time at which each was first seen; those that are gone are forgotten."""
        known = self._first_seen.get(serial, {})
        seen = {_key(holder): known.get(_key(holder), scanned_at) for holder in holders}
        self._first_seen[serial] = seen
        firsts = [(holder, seen[_key(holder)]) for holder in holders]
        return tuple(replace(holder, first_seen_at=first, since=holder.since or first) for holder, first in firsts)


def run_aside(call: Callable[[], T]) -> Future[T]:
    """In a thread of its own that nobody waits for at the end: a hung one must not keep the daemon from stopping."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # whoever stops waiting cannot make it look done

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the thread's outermost edge: whoever waits is told
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=work, name="holder scan", daemon=True).start()
    return future


def _state(holders: Sequence[Holder], unread: Sequence[str], proof: Proof) -> HolderState:
    if unread or not proof.ok:
        return HolderState.UNKNOWN
    return HolderState.HELD if holders else HolderState.NONE


def _key(holder: Holder) -> Hashable:
    return (holder.kind, holder.name, holder.through, holder.process, holder.namespace)


def _unknown(volume_id: str, link: str, unread: tuple[str, ...], scanned_at: datetime, proof: Proof) -> HolderReport:
    return HolderReport(volume_id, link, None, HolderState.UNKNOWN, (), unread, scanned_at, proof)
