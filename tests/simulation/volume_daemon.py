"""The real Volume Daemon on virtual time, over the simulated machine, and the OMA daemon's real client to it.

Its journal, its decisions, its routes and its way to CloudStack are the real ones; sockets are replaced.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from database.errors import DatabaseUnavailable
from tests.fakes.world import FakeWorld
from tests.simulation.cloudstack import VOLUME_DAEMON, CloudServer, SimulatedCloudStack
from tests.simulation.machine import Machine, SimulatedDevices, SimulatedNbd
from tests.simulation.memory_database import MemoryDatabase, MemoryDoor
from tests.simulation.network import Network, Refused, Silence
from tests.simulation.virtual_time import Life, VirtualClock, context_of
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import ErrorKind, VolumeDaemonError
from volume_daemon.holders.report import HolderReport, Proof
from volume_daemon.server.answers import Answers
from volume_daemon.server.cloud import VolumeReader
from volume_daemon.server.link import CloudLink
from volume_daemon.server.queue import FairQueue, Turns
from volume_daemon.server.readiness import Readiness
from volume_daemon.server.records import Figures
from volume_daemon.server.refusals import Problem, not_found
from volume_daemon.server.routes import Routes
from volume_daemon.server.runtime import Outside, build_operations
from volume_daemon.server.store import Store

Json = Mapping[str, Any]
Handler = Callable[[Any], Awaitable[web.StreamResponse]]


class Request:
    """As much of a request as the routes look at."""

    def __init__(self, headers: Json, match_info: Json, query: Json, body: Json | None) -> None:
        self.headers = headers
        self.match_info = match_info
        self.query = query
        self._body = b"" if body is None else json.dumps(body).encode()

    async def read(self) -> bytes:
        return self._body


class _Router:
    """Collects the routes that are added to it, as an application does."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add_routes(self, routes: list[web.RouteDef]) -> None:
        for route in routes:
            pattern = re.sub(
                r"\{(\w+)(?::([^}]+))?\}", lambda found: f"(?P<{found[1]}>{found[2] or '[^/]+'})", route.path
            )
            self._routes.append((route.method, re.compile(pattern), route.handler))

    async def answer(self, method: str, path: str, headers: Json, query: Json, body: Json | None) -> tuple[int, Json]:
        try:
            for known, pattern, handler in self._routes:
                found = pattern.fullmatch(path)
                if known == method and found is not None:
                    match_info = {name: unquote(value) for name, value in found.groupdict().items()}
                    response = await handler(Request(headers, match_info, query, body))
                    assert isinstance(response, web.Response)
                    return response.status, json.loads(response.text or "{}")
        except Problem as problem:
            return problem.status, {"code": problem.code, "detail": problem.detail, **problem.fields}
        except DatabaseUnavailable as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"code": "database_unavailable", "detail": error.reason}
        raise LookupError(f"no route {method} {path}")


class VolumeDaemonProcess:
    """One life of the daemon. `start` goes on with what the life before it left open."""

    def __init__(
        self,
        *,
        database: MemoryDatabase,
        server: CloudServer,
        network: Network,
        machine: Machine,
        clock: VirtualClock,
        figures: Figures,
        new_id: Callable[[], str],
    ) -> None:
        self.life = life = Life(VOLUME_DAEMON)
        self.door = MemoryDoor(database, life)
        self.clock = clock
        self._ready = False
        self.client = SimulatedCloudStack(server, network, life, clock, expires_s=figures.expires_s, new_id=new_id)
        link = CloudLink()
        link.take(self.client)
        reader, self._store = VolumeReader(link), Store(figures, clock.now)
        devices, nbd = SimulatedDevices(machine, clock.now), SimulatedNbd(machine)
        outside = Outside(link, reader, self._store, devices, Readiness())  # type: ignore[arg-type]  # devices of its own
        turns = Turns(FairQueue(figures.outstanding_per_vm))
        self.operations = build_operations(outside, nbd=nbd, turns=turns, figures=figures, now=clock.now)
        answers = Answers(cloud=link, reader=reader, store=self._store, devices=devices, operations=self.operations)  # type: ignore[arg-type]  # likewise
        self.router = _Router()
        Routes(self.operations, answers).add_to(self.router, "/api/v1")  # type: ignore[arg-type]  # takes routes as an application does
        self._machine = machine
        self.router.add_routes([web.get("/api/v1/volumes/{volume_id}/holders", self._holders)])
        self.router.add_routes([web.get("/health", self._health)])
        self._context = context_of(life)

    @property
    def is_up(self) -> bool:
        return self._ready and not self.life.dead

    def start(self) -> None:
        asyncio.get_running_loop().create_task(self._start(), context=self._context)

    async def _start(self) -> None:
        while True:
            try:
                await self._store.open(self.door)  # type: ignore[arg-type]  # a door without threads
                await self.operations.recover()
            except DatabaseUnavailable:
                await asyncio.sleep(2.0)
                continue
            self._ready = True
            return

    async def serve(self, method: str, path: str, headers: Json, query: Json, body: Json | None) -> tuple[int, Json]:
        """Runs in this life, whoever asks: what has been accepted goes on without the caller."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[int, Json]] = loop.create_future()

        async def work() -> None:
            try:
                answer = await self.router.answer(method, path, headers, query, body)
            except Exception as error:  # noqa: BLE001 - a server's outermost edge
                loop.call_exception_handler({"message": "the Volume Daemon met a fault of its own", "exception": error})
                answer = HTTPStatus.INTERNAL_SERVER_ERROR, {"code": "internal_error", "detail": repr(error)}
            if not done.done():
                done.set_result(answer)

        def cut() -> None:
            if not done.done():
                done.cancel()

        deaths = self.life.deaths
        deaths.append(cut)
        task = loop.create_task(work(), context=self._context)
        try:
            return await done
        finally:
            del task
            if cut in deaths:
                deaths.remove(cut)

    async def _health(self, _request: Any) -> web.Response:
        return web.json_response({"status": "healthy", "dependencies": {}})

    async def _holders(self, request: Any) -> web.Response:
        volume_id = request.match_info["volume_id"]
        if not self._machine.shows(volume_id):
            raise not_found("device_not_found", "no device of the volume is here")
        now = self.clock.now()
        state, holders, unread = self._machine.holders_of(volume_id)
        report = HolderReport(
            volume_id=volume_id,
            device="",
            target=None,
            state=state,
            holders=holders,
            unread=unread,
            scanned_at=now,
            proof=Proof(True, "the scan finds what it should", now),
        )
        return web.json_response(report.as_json())


class SimulatedClient(VolumeDaemonClient):
    """The real client; `find` gives the daemon that listens now."""

    def __init__(
        self,
        find: Callable[[], VolumeDaemonProcess | None],
        network: Network,
        life: Life,
        world: FakeWorld,
    ) -> None:
        super().__init__("http://volume-daemon.invalid")
        self._world = world
        self._find = find
        self._network = network
        self._life = life

    async def _send(  # noqa: PLR0917
        self,
        method: str,
        path: str,
        body: Json | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[int, Json]:
        if "X-Fence" in headers and "Idempotency-Key" in headers:
            self._world.fences[headers["Idempotency-Key"]] = int(headers["X-Fence"])
            self._world.sent[headers["Idempotency-Key"]] = self._world.clock.unix()
        whole = path if path.startswith("/health") else f"/api/v1{path}"

        async def serve() -> tuple[int, Json]:
            daemon = self._find()
            if daemon is None or not daemon.is_up:
                raise asyncio.CancelledError
            return await daemon.serve(method, whole, headers, query or {}, body)

        def is_up() -> bool:
            daemon = self._find()
            return daemon is not None and daemon.is_up

        name = f"{method} {path.rpartition('/')[2] if method == 'POST' else path.split('/')[1]}"
        try:
            answer: tuple[int, Json] = await self._network.exchange(self._life, name, serve, is_up, timeout_s)
        except Refused:
            text = "the Volume Daemon is not reachable: connection refused"
            raise VolumeDaemonError(ErrorKind.NOT_SENT, "volume_daemon_unreachable", text) from None
        except Silence:
            text = "the answer was lost"
            raise VolumeDaemonError(ErrorKind.NO_ANSWER, "volume_daemon_timeout", text) from None
        return answer
