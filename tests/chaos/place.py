"""A world for chaos: the product's real processes, one daemon or two, with proxies between them and a mortal database."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from oma.demo.operator import Operator
from oma.demo.ports import HOST, Ports, find_port
from oma.demo.programs import Program, ProgramFailed
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.world import World
from tests.chaos.databases import ChaosDatabase, MariaDbServer, SqliteFile
from tests.proxy import Proxy, running_proxy

LEASE_S: Final = 3.0
EXPIRES_S: Final = 5.0
TIME_SCALE: Final = 0.05
"""CloudStack's jobs take a twentieth of their usual time."""
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "workflow": {"lease_s": LEASE_S, "busy_wait_s": 15, "stop_wait_s": 20, "stop_timeout_s": 5},
    "cloudstack": {"timeout_s": 2, "expires_s": EXPIRES_S, "poll_max_s": 0.5},
    "volume_daemon": {"timeout_s": 2, "operation_timeout_s": 20, "holder_term_s": 2},
    "guards": {"observe_timeout_s": 5},
    # A job here outlives more daemons than anywhere else, and that is no fault of its own.
    "recovery": {"job_recoveries": 50},
}


class Kind(StrEnum):
    """The database, and whether one daemon works on it or two."""

    SQLITE = "sqlite"
    SQLITE_PAIR = "sqlite-pair"
    MARIADB = "mariadb"
    MARIADB_PAIR = "mariadb-pair"

    @property
    def on_mariadb(self) -> bool:
        return self in {Kind.MARIADB, Kind.MARIADB_PAIR}

    @property
    def daemons(self) -> int:
        return 2 if self in {Kind.SQLITE_PAIR, Kind.MARIADB_PAIR} else 1


@dataclass
class Place:
    """`cloud` stands between both daemons and CloudStack, `volumes` between the daemons and the Volume Daemon."""

    kind: Kind
    world: World
    daemons: list[Program]
    operators: list[Operator]
    database: ChaosDatabase
    cloud: Proxy
    volumes: Proxy
    fallen: list[str] = field(default_factory=list)
    """Programs that ended without having been killed."""
    _env: dict[str, dict[str, str]] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def stack(self) -> Stack:
        return self.world.stack

    @property
    def programs(self) -> list[Program]:
        """In the order in which they are started."""
        return [self.stack.simulator, self.stack.volume_daemon, *self.daemons]

    @property
    def proxies(self) -> dict[str, Proxy]:
        database = self.database.proxy
        found = {"CloudStack": self.cloud, "the Volume Daemon": self.volumes}
        return found if database is None else {**found, "the database": database}

    def name_of(self, program: Program) -> str:
        return program.name if program is not self.daemons[-1] or len(self.daemons) == 1 else f"{program.name} 2"

    def lock(self, program: Program) -> asyncio.Lock:
        """Whoever stops a program holds it until the program runs again."""
        return self._locks.setdefault(self.name_of(program), asyncio.Lock())

    async def start(self, program: Program) -> None:
        """Runs it as its service manager would: a start that fails is tried again for a while."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return await program.start(self._env.get(self.name_of(program)))
                except ProgramFailed:
                    await program.kill()
                    await asyncio.sleep(0.3)

    async def revive(self) -> None:
        """Whatever was done to it: everything runs, and nothing is in the way any more."""
        for proxy in self.proxies.values():
            proxy.forget_rules()
            proxy.refuses, proxy.delay_s = False, 0
            proxy.resume()
        await self.database.free_disk()
        await self.database.start()
        for program in self.programs:
            program.resume()
            if program.runs:
                continue
            if program.pid is not None:
                self.fallen.append(f"{self.name_of(program)} ended by itself: {await asyncio.to_thread(program.tail)}")
                await program.kill()
            await self.start(program)
        await self.stack.admin.clear_faults()


@asynccontextmanager
async def running_place(kind: Kind, directory: Path | None = None) -> AsyncIterator[Place]:
    """Everything started and ready; at the end nothing runs, and a temporary directory is gone."""
    async with AsyncExitStack() as exits:
        if directory is None:
            directory = Path(tempfile.gettempdir()) / f"oma-chaos-{secrets.token_hex(6)}"
            exits.push_async_callback(asyncio.to_thread, shutil.rmtree, directory, ignore_errors=True)
        folder = directory / "database"
        await asyncio.to_thread((directory / "state").mkdir, parents=True)
        made = MariaDbServer(folder) if kind.on_mariadb else SqliteFile(folder)
        database: ChaosDatabase = await exits.enter_async_context(made.running())
        ports = Ports(*(find_port() for _ in range(4)))
        cloud = await exits.enter_async_context(running_proxy(ports.simulator))
        volumes = await exits.enter_async_context(running_proxy(ports.volume_daemon))
        options = StackOptions(
            directory=directory,
            database_url=database.direct_url,
            ports=ports,
            devices="file",
            simulator={"time_scale": TIME_SCALE},
            settings=_settings(database, cloud, volumes, directory),
        )
        stack = await exits.enter_async_context(running_stack(options))
        place = Place(kind, World(stack), [stack.oma], [stack.operator], database, cloud, volumes)
        if kind.daemons == 2:
            await _add_second(place, directory / "second", exits)
        # Stopped in order at the end, they have to run.
        exits.push_async_callback(place.revive)
        yield place


def _settings(database: ChaosDatabase, cloud: Proxy, volumes: Proxy, directory: Path) -> dict[str, dict[str, Any]]:
    through: dict[str, dict[str, Any]] = {
        "oma": {"state_dir": str(directory / "state")},
        "database": {"url": database.url},
        "cloudstack": {"url": f"http://{HOST}:{cloud.port}/client/api"},
        "volume_daemon": {"url": f"http://{HOST}:{volumes.port}"},
    }
    return {name: {**SETTINGS.get(name, {}), **through.get(name, {})} for name in (*SETTINGS, "database", "oma")}


async def _add_second(place: Place, directory: Path, exits: AsyncExitStack) -> None:
    """Another daemon on the same database, with the same settings but its port."""
    await asyncio.to_thread(directory.mkdir)
    program, port = Program("oma", ["serve", "--config", str(place.stack.config)], directory), find_port()
    exits.push_async_callback(program.kill)
    place.daemons.append(program)
    place._env[place.name_of(program)] = {"OMA_HTTP__PORT": str(port)}
    await place.start(program)
    place.operators.append(await exits.enter_async_context(Operator(f"http://{HOST}:{port}")))
