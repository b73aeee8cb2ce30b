"""Ending processes without ever hitting another one: by a handle on the process, not by its number.

`pidfd_open(2)` gives a handle that stays with the process; once its start time was found to be the one that was seen, a
signal through it cannot reach a later process of the same number. It becomes readable when the process has ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.crashpoints import Change
from volume_daemon.holders.processes import find_process, list_descendants, read_table
from volume_daemon.holders.report import ProcessId

MACHINE = Path("/proc")
"""Signals reach this machine's processes, whatever tree a scan was prepared on."""
ROUNDS = 3

TERM = Change("volume_daemon.holders.term")
KILL = Change("volume_daemon.holders.kill")


@dataclass(slots=True)
class Handles:
    """Processes that are held by a handle and had not ended when it was taken."""

    by_id: dict[ProcessId, int] = field(default_factory=dict)

    def take(self, processes: Iterable[ProcessId]) -> None:
        """Blocking. What is gone, or is another process by now, is left out."""
        for one in processes:
            if one not in self.by_id:
                handle = _open(one)
                if handle is not None:
                    self.by_id[one] = handle

    def send(self, number: signal.Signals) -> None:
        for handle in self.by_id.values():
            try:
                signal.pidfd_send_signal(handle, number)
            except (ProcessLookupError, PermissionError):
                continue  # ended, or not ours to end: what remains is told

    async def wait(self, timeout_s: float) -> None:
        """Until all have ended, or the time is over; those that ended are let go."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Queue[ProcessId] = asyncio.Queue()
        for one, handle in self.by_id.items():
            loop.add_reader(handle, _tell, loop, handle, ended, one)
        try:
            async with asyncio.timeout(timeout_s):
                while self.by_id:
                    self._close(await ended.get())
        except TimeoutError:
            pass
        finally:
            for handle in self.by_id.values():
                loop.remove_reader(handle)

    def close(self) -> None:
        for one in list(self.by_id):
            self._close(one)

    def _close(self, one: ProcessId) -> None:
        os.close(self.by_id.pop(one))


def _tell(loop: asyncio.AbstractEventLoop, handle: int, ended: asyncio.Queue[ProcessId], one: ProcessId) -> None:
    loop.remove_reader(handle)
    ended.put_nowait(one)


def _open(one: ProcessId) -> int | None:
    try:
        handle = os.pidfd_open(one.pid)
    except OSError:
        return None
    try:
        found = find_process(MACHINE, one.pid)
    except OSError:
        found = None
    if found is None or found.start_ticks != one.start_ticks or found.is_dead:
        os.close(handle)
        return None
    return handle


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a tree: all that were in it, what is still there, and whether KILL was needed."""

    members: tuple[ProcessId, ...]
    remaining: tuple[ProcessId, ...]
    killed: bool


async def end_tree(root: ProcessId, seen: Sequence[ProcessId], term_s: float, kill_s: float) -> Ended:
    """TERM to the whole tree, `term_s` to end, then KILL to what is left and to what it has started meanwhile.

    A stopped process is not woken for TERM: what it would do then is its own; KILL ends it as it is.
    """
    handles, members, killed = Handles(), set[ProcessId](), False
    try:
        await asyncio.to_thread(handles.take, (root, *seen))
        await asyncio.to_thread(_take_grown, handles, {root.pid} if root in handles.by_id else set())
        members |= set(handles.by_id)
        with TERM:
            handles.send(signal.SIGTERM)
        await handles.wait(term_s)
        for _ in range(ROUNDS):
            await asyncio.to_thread(_take_grown, handles, {one.pid for one in handles.by_id})
            members |= set(handles.by_id)
            if not handles.by_id:
                break
            killed = True
            with KILL:
                handles.send(signal.SIGKILL)
            await handles.wait(kill_s)
        return Ended(_in_order(members), _in_order(handles.by_id), killed)
    finally:
        handles.close()


def _take_grown(handles: Handles, living: set[int]) -> None:
    """Blocking: takes what has come from processes that are held."""
    if living:
        table = read_table(MACHINE)
        handles.take(table[pid].id for pid in list_descendants(table, living))


def _in_order(processes: Iterable[ProcessId]) -> tuple[ProcessId, ...]:
    return tuple(sorted(processes, key=lambda one: one.pid))
