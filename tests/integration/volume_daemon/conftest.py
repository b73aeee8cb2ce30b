"""A world for the Volume Daemon: the CloudStack simulator as a process, a database on disk, devices as links."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine, create_engine, insert, text

from appliance.logs import configure_logs, flush_logs
from appliance.settings import Settings
from database.schema import upgrade
from database.tables import ossea_configs
from ossea.simulator.admin_client import AdminClient
from tests.mariadb import mariadb_database, mariadb_server
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.models import Operation
from volume_daemon.server.runtime import serving

__all__ = ["mariadb_database", "mariadb_server"]

BIN = Path(sys.executable).parent
KEY, SECRET = "key", "secret"
OMA_ID = "11111111-1111-4111-8111-111111111111"
TEST_VM_ID = "22222222-2222-4222-8222-222222222222"
SIZE = 1024**3
SERVE = (str(BIN / "volume-daemon"), "serve")
FAST = {"attachVolume": 0.05, "detachVolume": 0.05, "createVolume": 0.05}


@dataclass
class World:
    """Where everything is; `daemon()` starts a Volume Daemon in this process, `process()` as one of its own."""

    path: Path
    api_url: str
    admin: AdminClient
    database_url: str
    engine: Engine
    environment: dict[str, str] = field(default_factory=dict)
    cloudstack: dict[str, Any] = field(default_factory=dict)
    """Settings of the section besides those that reach the simulator."""

    @property
    def device_root(self) -> Path:
        return self.path / "by-id"

    @property
    def nbd_dir(self) -> Path:
        return self.path / "conf.d"

    def settings(self, **volume_daemon: Any) -> Settings:
        mine = {
            "port": 0,
            "device_root": self.device_root,
            "product_uuid_path": self.path / "product_uuid",
            "nbd_config_dir": self.nbd_dir,
        }
        return Settings.model_validate(
            {
                "database": {"url": self.database_url},
                "cloudstack": {
                    "url": self.api_url,
                    "api_key": KEY,
                    "secret_key": SECRET,
                    "poll_max_s": 0.2,
                    "timeout_s": 2,
                    **self.cloudstack,
                },
                "volume_daemon": mine | volume_daemon,
            }
        )

    @asynccontextmanager
    async def daemon(self, **volume_daemon: Any) -> AsyncIterator[VolumeDaemonClient]:
        async with serving(self.settings(**volume_daemon), {}) as url, VolumeDaemonClient(url) as client:
            yield client

    async def process(self, *, program: Sequence[str] = SERVE, **volume_daemon: Any) -> Daemon:
        """`volume-daemon serve` as systemd would start it, with a settings file."""
        settings = self.settings(**volume_daemon)
        lines = []
        for section in ("database", "cloudstack", "volume_daemon"):
            lines.append(f"[{section}]")
            values = getattr(settings, section).model_dump(mode="json", exclude_unset=True)
            if section == "cloudstack":
                values |= {"api_key": KEY, "secret_key": SECRET}
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        config = self.path / "oma.toml"
        await asyncio.to_thread(config.write_text, "\n".join(lines))
        process, listening = await start([*program, "--config", str(config)], self.environment)
        return Daemon(process, listening["url"], VolumeDaemonClient(listening["url"]))

    async def add_volume(self, volume_id: str, **fields: Any) -> str:
        await self.admin.seed(
            volumes=[{"id": volume_id, "name": f"disk-{volume_id[:4]}", "size_bytes": SIZE, **fields}]
        )
        return volume_id

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), parameters).mappings())

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    async def changes(self, command: str | None = None) -> list[dict[str, Any]]:
        """The changing calls that CloudStack saw."""
        calls = await self.admin.calls(changes_only=True)
        return [call for call in calls if command in {None, call["command"]}]


@dataclass
class Daemon:
    """A Volume Daemon as a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    client: VolumeDaemonClient

    async def stop(self, number: int = signal.SIGTERM) -> int:
        await self.client.aclose()
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


async def start(command: list[str], environment: dict[str, str]) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """Starts a program and waits for its line of JSON."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert line, f"{command[:2]} ended without listening"
    return process, json.loads(line)


async def ended(client: VolumeDaemonClient, operation: Operation) -> Operation:
    """The operation's end, by long polls."""
    while not operation.has_ended:
        found = await client.get_operation(operation.id, 20)
        assert found is not None
        operation = found
    return operation


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """As in the daemon: rendered by a thread, never in the event loop."""
    configure_logs("info", "json")
    yield
    flush_logs()
    structlog.reset_defaults()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite; a test that also runs on MariaDB overrides it."""
    return f"sqlite:///{tmp_path / 'oma.db'}"


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        (tmp_path / "conf.d").mkdir()
        command = [str(BIN / "ossea-sim"), "serve", "--port", "0", "--admin-port", "0"]
        command += ["--state-dir", str(tmp_path / "sim"), "--device-root", str(tmp_path / "by-id")]
        command += ["--oma-vm-id", OMA_ID, "--api-key", KEY, "--secret-key", SECRET, "--devices", "file"]
        process, listening = await start(command, {})
        stack.push_async_callback(_end, process)
        admin = await stack.enter_async_context(AdminClient(listening["admin"]))
        await admin.put_settings(durations=FAST)
        await admin.seed(vms=[{"id": TEST_VM_ID, "name": "pgtest1-test", "state": "Stopped"}])
        url = listening["url"]
        api_url = url if url.endswith("/client/api") else f"{url}/client/api"
        engine = await asyncio.to_thread(_prepare_database, database_url)
        stack.callback(engine.dispose)
        yield World(tmp_path, api_url, admin, database_url, engine)


def _prepare_database(url: str) -> Engine:
    upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(insert(ossea_configs).values(name="main", oma_vm_id=OMA_ID, is_active=True))
    return engine


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
