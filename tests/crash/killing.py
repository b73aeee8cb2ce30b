"""Cases whose daemon is a process of its own and dies as processes do."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.crash.cases import DEADLINE_S, Scene, Unsettled, converge, look_again, open_scene
from tests.crash.databases import Database
from tests.crash.dying import EXITED, Way
from tests.crash.matrix import Case
from tests.crash.nursery import OVER, READY, STOPPED, Order
from tests.crash.remote import served

DEAD: Final = {Way.EXIT: EXITED, Way.KILL: -signal.SIGKILL, Way.STOP: None}
KNOWN_ERRORS: Final = ("OmaError", "LeaseLost")
"""What a caller is told whose answer comes from a daemon that was passed by."""


class Nursery:
    """The test's end of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def open(cls, urls: Sequence[str]) -> Nursery:
        """`urls`: databases that have their tables and nothing in them; something is in them afterwards."""
        program = [sys.executable, "-m", "tests.crash.nursery", *urls]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe)
        assert process.stdout is not None
        if await process.stdout.readline() != READY.encode():
            raise RuntimeError("the nursery did not start")
        return cls(process)

    async def bear(self, **order: Any) -> dict[str, Any]:
        """Lets one child live, and die or stop; returns what it said last, and its exit status."""
        self._number += 1
        answer = self._expect(self._number)
        self._write(asdict(Order(self._number, **order)))
        return await answer

    async def resume(self, number: int) -> dict[str, Any]:
        """Lets a stopped child go on; returns what it said at the end, and its exit status."""
        answer = self._expect(number)
        self._write({"resume": number})
        return await answer

    def _expect(self, number: int) -> asyncio.Future[dict[str, Any]]:
        if self._listening.done():
            raise RuntimeError("the nursery has ended")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        return answer

    def _write(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._waiting.pop(answer["number"]).set_result(answer)
        for left in self._waiting.values():
            left.set_exception(RuntimeError("the nursery has ended"))

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening


class Killing:
    """Runs cases by `os._exit` and SIGKILL."""

    def __init__(self, nursery: Nursery, directory: Path) -> None:
        self._nursery = nursery
        self._directory = directory
        self._scenes = 0

    async def run(self, case: Case, database: Database) -> list[str]:
        await asyncio.to_thread(database.empty)
        self._scenes += 1
        socket = self._directory / f"world-{self._scenes}"
        async with open_scene(case.story, database.url) as scene:
            subjects = {"cloud": scene.cloud, "volumes": scene.volumes, "scene": scene}
            scene.lives += 1
            try:
                async with served(socket, subjects), asyncio.timeout(DEADLINE_S):
                    return await self._die_and_converge(case, scene, str(socket))
            except TimeoutError:
                return [f"it did not come to rest within {DEADLINE_S:g} s"]

    async def _die_and_converge(self, case: Case, scene: Scene, socket: str) -> list[str]:
        clock = scene.cloud.world.clock
        told = await self._nursery.bear(
            story=case.story.name,
            url=scene.url,
            world=socket,
            state_dir=str(scene.state_dir),
            point=case.occasion,
            way=case.way.value,
            time=case.time,
            clock_began=clock._began,
            clock_at=clock._at.isoformat(),
        )
        if told["status"] != DEAD[case.way] or (case.way is Way.STOP and told["said"] != STOPPED):
            return [f"it did not die so: {told}"]
        found: list[str] = []
        try:
            await converge(scene, found)
        except Unsettled as unsettled:
            found.append(str(unsettled))
        if case.way is Way.STOP:
            told = await self._nursery.resume(told["number"])
            if told["said"] != OVER.decode() and not told["said"].startswith(KNOWN_ERRORS):
                found.append(f"woken up, it ended otherwise: {told}")
            await look_again(scene, found)
        return found


@asynccontextmanager
async def open_killing(databases: Sequence[Database], directory: Path) -> AsyncIterator[Killing]:
    for one in databases:
        await asyncio.to_thread(one.empty)
    nursery = await Nursery.open([one.url for one in databases])
    try:
        yield Killing(nursery, directory)
    finally:
        await nursery.close()
