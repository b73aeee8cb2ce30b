"""Whose turn it is: per CloudStack VM a few calls at a time, and among the waiting each requester in turn.

CloudStack works through one queue per VM that nobody can leave (#6030), and the OMA is one VM for everybody. So the
waiting is done here, where an operation can be taken back and where a VM with many disks does not stand before all
others. `FairQueue` is pure; `Turns` lets coroutines wait for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Line:
    """One CloudStack VM: who is being served, and who waits, by requester in the order of their turns."""

    serving: set[str] = field(default_factory=set)
    waiting: OrderedDict[str, deque[str]] = field(default_factory=OrderedDict)


class FairQueue:
    """Round robin over requesters (VM contexts), first in first out within one. Ids of operations are unique."""

    def __init__(self, outstanding_per_vm: int) -> None:
        self._most = outstanding_per_vm
        self._lines: dict[str, _Line] = {}

    def put(self, vm_id: str, requester: str, operation_id: str) -> None:
        line = self._lines.setdefault(vm_id, _Line())
        line.waiting.setdefault(requester, deque()).append(operation_id)

    def serve_at_once(self, vm_id: str, operation_id: str) -> None:
        """Counts a call that CloudStack has already, after a restart; it may exceed the number."""
        self._lines.setdefault(vm_id, _Line()).serving.add(operation_id)

    def take_ready(self, vm_id: str) -> list[str]:
        """Those whose turn has come; they count as being served from now on."""
        line = self._lines.get(vm_id)
        ready: list[str] = []
        while line is not None and line.waiting and len(line.serving) < self._most:
            requester, theirs = next(iter(line.waiting.items()))
            operation_id = theirs.popleft()
            if theirs:
                line.waiting.move_to_end(requester)
            else:
                del line.waiting[requester]
            line.serving.add(operation_id)
            ready.append(operation_id)
        return ready

    def leave(self, vm_id: str, operation_id: str) -> None:
        """Served to its end, or taken back while it waited."""
        line = self._lines.get(vm_id)
        if line is None:
            return
        line.serving.discard(operation_id)
        for requester, theirs in list(line.waiting.items()):
            if operation_id in theirs:
                theirs.remove(operation_id)
                if not theirs:
                    del line.waiting[requester]
        if not line.serving and not line.waiting:
            del self._lines[vm_id]

    def clear(self) -> None:
        self._lines.clear()

    def place(self, vm_id: str, operation_id: str) -> int | None:
        """1 is the next; None where it does not wait."""
        line = self._lines.get(vm_id)
        order = _in_turn(line.waiting) if line is not None else iter(())
        return next((place for place, one in enumerate(order, 1) if one == operation_id), None)

    def count_waiting(self) -> int:
        return sum(len(theirs) for line in self._lines.values() for theirs in line.waiting.values())

    def count_served(self) -> int:
        return sum(len(line.serving) for line in self._lines.values())


def _in_turn(waiting: OrderedDict[str, deque[str]]) -> Iterator[str]:
    lines = [list(theirs) for theirs in waiting.values()]
    for turn in range(max(map(len, lines), default=0)):
        for line in lines:
            if turn < len(line):
                yield line[turn]


class Turns:
    """Coroutines wait here for their turn."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self._waiters: dict[str, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def turn(self, vm_id: str, requester: str, operation_id: str) -> AsyncIterator[bool]:
        """Yields whether it had to wait; the turn ends with the block."""
        self.queue.put(vm_id, requester, operation_id)
        mine = asyncio.get_running_loop().create_future()
        self._waiters[operation_id] = mine
        self._call_up(vm_id)
        waited = not mine.done()
        try:
            await mine
            yield waited
        finally:
            self._waiters.pop(operation_id, None)
            self.end(vm_id, operation_id)

    @asynccontextmanager
    async def adopted(self, vm_id: str, operation_id: str) -> AsyncIterator[bool]:
        """The turn of a call that CloudStack may have already; `count` was called for it at start."""
        try:
            yield False
        finally:
            self.end(vm_id, operation_id)

    def count(self, vm_id: str, operation_id: str) -> None:
        self.queue.serve_at_once(vm_id, operation_id)

    def forget(self) -> None:
        """All of them, also those that were counted and never came; nobody waits any more."""
        self.queue.clear()

    def end(self, vm_id: str, operation_id: str) -> None:
        self.queue.leave(vm_id, operation_id)
        self._call_up(vm_id)

    def _call_up(self, vm_id: str) -> None:
        for operation_id in self.queue.take_ready(vm_id):
            waiter = self._waiters.get(operation_id)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
