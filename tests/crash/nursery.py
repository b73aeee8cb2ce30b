"""The warmed parent: a process that has everything loaded and forks one daemon per case, over a database in a file.

A program of its own (`python -m tests.crash.nursery`), because a process with threads must not fork. It takes one case
per line on its standard input and answers each, as soon as the child is dead, with one line on its standard output.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import selectors
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import structlog

from appliance.crashpoints import listening
from tests.crash.cases import NEVER, live_through, open_scene, run_case
from tests.crash.databases import kept_engines
from tests.crash.dying import Death, Way
from tests.crash.life import SPEED, open_life
from tests.crash.remote import Connection, Remote
from tests.crash.stories import STORIES, Story
from tests.fakes.time_and_ids import FastClock
from tests.fakes.world import FakeWorld

OVER: Final = b"."
"""What a child writes when it has come to the end of its story alive."""
KILL_ME: Final = b"k"
STOPPING: Final = b"s"
STOPPED: Final = "stopped"
NUDGES: Final = 100
READY: Final = "ready\n"


@dataclass(frozen=True)
class Order:
    """One case, as it travels to the nursery."""

    number: int
    story: str
    url: str
    world: str
    state_dir: str
    point: str
    way: str
    time: int
    clock_began: float
    clock_at: str


async def live(order: Order, tell: Any) -> None:
    """One life up to its death."""
    story: Story = STORIES[order.story]
    death = Death(order.point, Way(order.way), order.time, tell)
    # Never started: only its clock is used, the world itself is in the other process.
    world = FakeWorld(_resume_clock(order))
    connection = await Connection.open(order.world)
    cloud, volumes = (Remote(connection, name, world=world) for name in ("cloud", "volumes"))
    vm = story.vm()
    cloud_port, volumes_port, state_dir = cast("Any", cloud), cast("Any", volumes), Path(order.state_dir)
    async with open_life(order.url, cloud_port, volumes_port, state_dir, figures=story.figures) as life:
        life.mend = Remote(connection, "scene").mend
        life.stage.deps.bus.on_event(lambda event: connection.tell("scene", "hear", event.seq, event.sentence))
        with listening(death):
            try:
                await live_through(life, story, vm, _nothing)
            finally:
                await life.end()
    await connection.close()


def _resume_clock(order: Order) -> FastClock:
    """The world's own: the machine has one monotonic time for all processes."""
    clock = FastClock(SPEED)
    clock._began, clock._at = order.clock_began, datetime.fromisoformat(order.clock_at)
    return clock


async def _nothing(_job: object) -> None:
    return None


def bear(order: Order) -> tuple[int, int]:
    """Forks the child; returns its pid and the end of its pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        asyncio.run(live(order, lambda: _tell(order, writing)))
        os.write(writing, OVER)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the child's last words, whatever it was
        os.write(writing, f"{type(error).__name__}: {error}".encode()[:2000])
    finally:
        os._exit(status)


def _tell(order: Order, writing: int) -> None:
    word = {Way.KILL: KILL_ME, Way.STOP: STOPPING}.get(Way(order.way))
    if word is not None:
        os.write(writing, word)


async def warm_up(url: str) -> None:
    """One whole story, so that no child has to load or compile what it needs."""
    async with open_scene(next(iter(STORIES.values())), url) as scene:
        await run_case(scene, Death(NEVER))


class Serving:
    """Takes orders, and hears its children."""

    def __init__(self) -> None:
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(sys.stdin.fileno(), selectors.EVENT_READ)
        self._stopped: dict[int, int] = {}
        self._buffered = b""
        self._open = True

    def run(self) -> None:
        """Until standard input ends."""
        while self._open:
            for key, _ in self._waiting.select():
                if key.data is None:
                    self._take_orders()
                else:
                    self._hear(key)

    def _take_orders(self) -> None:
        read = os.read(sys.stdin.fileno(), 65536)
        self._open = bool(read)
        *lines, self._buffered = (self._buffered + read).split(b"\n")
        for line in lines:
            wanted = json.loads(line)
            if set(wanted) == {"resume"}:
                os.kill(self._stopped.pop(wanted["resume"]), signal.SIGCONT)
                continue
            order = Order(**wanted)
            pid, pipe = bear(order)
            self._waiting.register(pipe, selectors.EVENT_READ, (order, pid))

    def _hear(self, key: selectors.SelectorKey) -> None:
        """A child wants to be killed, is about to stop, has said its last words, or is gone."""
        order, pid = key.data
        said = os.read(key.fd, 4096)
        if said == KILL_ME:
            os.kill(pid, signal.SIGKILL)
            return
        if said == STOPPING:
            _await_stop(pid, order.url)
            self._stopped[order.number] = pid
            _answer(order.number, STOPPED, None)
            return
        self._waiting.unregister(key.fd)
        os.close(key.fd)
        _, status = os.waitpid(pid, 0)
        _answer(order.number, said.decode(errors="replace"), os.waitstatus_to_exitcode(status))


def _answer(number: int, said: str, status: int | None) -> None:
    sys.stdout.write(json.dumps({"number": number, "said": said, "status": status}) + "\n")
    sys.stdout.flush()


def _await_stop(pid: int, url: str) -> None:
    """It stops itself; where another thread of it was at a commit just then, it goes on a little and is stopped again.

    Whoever stops with the one lock of a SQLite file keeps everybody out, which is another story.
    """
    os.waitpid(pid, os.WUNTRACED)
    for _ in range(NUDGES):
        if not url.startswith("sqlite") or _is_free(url.removeprefix("sqlite:///")):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.003)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)


def _is_free(path: str) -> bool:
    connection = sqlite3.connect(path, timeout=0.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


def main(urls: Sequence[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with kept_engines():
        for url in urls:
            asyncio.run(warm_up(url))
        gc.freeze()
        sys.stdout.write(READY)
        sys.stdout.flush()
        Serving().run()


if __name__ == "__main__":
    main(sys.argv[1:])
