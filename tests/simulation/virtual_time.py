"""An event loop whose time passes only while everybody waits, and processes of it that can be frozen or die at any await.

A process is a `Life`, which every task and callback that begins in it carries in its context. Before each callback the
loop asks the life; a dead one is never called again, exactly as after SIGKILL: no `finally` of it runs, and nothing it
had not yet handed to somebody else happens. A frozen one (SIGSTOP) keeps its callbacks until it is thawed.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")

BEGAN = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
"""What every clock of a simulation shows at its beginning, unless it was set wrong."""
MOST_TURNS = 400_000
"""Turns of the loop after which a simulation is taken for one that never comes to rest."""

_hashes = count(1)


class NeverEnds(Exception):
    """The simulation waits for something that nobody will do, or goes on for ever."""


class Killed(asyncio.CancelledError):
    """What is left of a dead process tried to reach the world; seen only while a simulation is cleared away."""


class Life:
    """One life of one process: from its start to its death."""

    def __init__(self, name: str) -> None:
        self.name = name
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.lives.append(self)
        self.steps = 0
        """Callbacks run; between any two of them stands an await or the end of a task."""
        self.dead = False
        self.die_at: int | None = None
        """The number of the step before which it dies."""
        self.dies_of: Callable[[], None] | None = None
        """Told when it dies at that step, and of nothing else."""
        self.deaths: list[Callable[[], None]] = []
        """Called when it dies: connections to it break."""
        self._frozen: list[asyncio.Handle] | None = None
        self.unrun: list[asyncio.Handle] = []
        """Callbacks that it did not live to see."""

    def require(self) -> None:
        """Called by whatever reaches out of the process."""
        if self.dead:
            raise Killed(self.name)

    def kill(self) -> None:
        self.dead = True
        self.unrun += self._frozen or []
        self._frozen = None
        deaths, self.deaths = self.deaths, []
        for tell in deaths:
            tell()

    def freeze(self) -> None:
        if self._frozen is None and not self.dead:
            self._frozen = []

    def thaw(self) -> None:
        held, self._frozen = self._frozen or [], None
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if not self.dead:
            loop.take_back(held)

    @property
    def is_frozen(self) -> bool:
        return self._frozen is not None

    def lets(self, handle: asyncio.Handle) -> bool:
        """Whether this callback is run now."""
        if self.dead:
            self.unrun.append(handle)
            return False
        if self._frozen is not None:
            self._frozen.append(handle)
            return False
        self.steps += 1
        if self.die_at is not None and self.steps >= self.die_at:
            if self.dies_of is not None:
                self.dies_of()
            self.kill()
            self.unrun.append(handle)
            return False
        return True


LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)
"""Whose code runs; None: the world's, which never dies."""


def context_of(life: Life | None) -> Context:
    """A context whose tasks belong to this life; None: to the world, which never dies."""
    context = copy_context()
    context.run(LIFE.set, life)
    return context


class _Task(asyncio.Task[Any]):
    """Tasks of one simulation are told apart by number, so that sets of them have one order in every run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_hashes)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """No sockets, no threads: when nothing is ready, the time of the next timer has come."""

    # What `BaseEventLoop` keeps, and its own `_run_once` works on.
    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0
        self._clock_resolution = 1e-9
        self.turns = 0
        self.tearing_down = False
        self.lives: list[Life] = []
        self.failures: list[dict[str, Any]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        """Kept, so that a dead process does not unwind before its world is cleared away."""
        self._pruned_at = 1000
        self.set_task_factory(_make_task)  # type: ignore[arg-type]  # the protocol of the type stubs is not public
        self.set_exception_handler(lambda _loop, context: self.failures.append(context))

    def time(self) -> float:
        return self._virtual_s

    def keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) >= self._pruned_at:
            self._tasks = self.open_tasks()
            self._pruned_at = 2 * len(self._tasks) + 1000

    def open_tasks(self) -> list[asyncio.Task[Any]]:
        """In the order in which they began."""
        return [one for one in self._tasks if not one.done()]

    def take_back(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise NeverEnds("everybody waits, and nothing will happen any more")
            self._virtual_s = max(self._virtual_s, scheduled[0]._when)
        self.turns += 1
        if self.turns > MOST_TURNS:
            raise NeverEnds(f"no rest after {MOST_TURNS} turns")
        now = self._virtual_s
        while scheduled and scheduled[0]._when <= now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            life = handle._context.get(LIFE)
            if life is None or self.tearing_down or life.lets(handle):
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""


def _make_task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:
    task = _Task(coro, loop=loop, **kwargs)
    assert isinstance(loop, VirtualLoop)
    loop.keep(task)
    return task


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs `main` on virtual time; afterwards nothing of it is left. Raises `NeverEnds`."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        _clear_away(loop)
        loop.close()


def _clear_away(loop: VirtualLoop) -> None:
    """Ends what is left, the dead included: they may unwind, but reach nothing any more."""
    loop.tearing_down = True
    loop.turns = 0
    for life in loop.lives:
        life.deaths.clear()
        life.kill()
        loop.take_back(life.unrun)
    for _ in range(20):
        left = loop.open_tasks()
        if not left:
            return
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=60.0))


class VirtualClock:
    """A process's clocks over the loop's time. `step` sets the wall clock as an administrator or NTP does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, offset_s: float = 0.0) -> None:
        self._loop = loop
        self.offset_s = offset_s

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self._loop.time() + self.offset_s)

    def monotonic(self) -> float:
        return self._loop.time()

    def unix(self) -> float:
        return self.now().timestamp()

    def real(self, seconds: float) -> float:
        """How long this many seconds take on the loop."""
        return seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def step(self, seconds: float) -> None:
        self.offset_s += seconds
