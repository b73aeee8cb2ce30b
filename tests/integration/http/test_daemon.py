"""The daemon as a whole, in this process: ready with reasons, told to the service manager, stopped in stages."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from appliance.settings import Settings, load_settings
from database import schema
from database.door import Door
from database.revision import HEAD, describe_revision_fault
from oma.runtime.daemon import serve
from oma.runtime.signals import StopSignals


class Manager:
    """A service manager's notification socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.bind(self.path)
        self.seen: list[str] = []

    async def until(self, line: str) -> None:
        """Until a datagram holds the line; everything before it is kept in `seen`."""
        async with asyncio.timeout(10):
            while line not in "\n".join(self.seen).splitlines():
                received = await asyncio.get_running_loop().sock_recv(self._sock, 4096)
                self.seen.append(received.decode())

    def close(self) -> None:
        self._sock.close()


class Daemon:
    def __init__(self, settings: Settings, env: dict[str, str], manager: Manager) -> None:
        self.signals = StopSignals(exit_now=lambda status: pytest.fail(f"exited with {status}"))
        self.task = asyncio.create_task(serve(settings, env, self.signals))
        self.manager = manager
        self.url = ""

    async def listening(self, capsys: pytest.CaptureFixture[str]) -> None:
        await self.manager.until("READY=1")
        line = json.loads(capsys.readouterr().out.strip())
        assert (line["event"], line["program"]) == ("listening", "oma")
        self.url = line["url"]

    async def get(self, client: aiohttp.ClientSession, path: str) -> tuple[int, dict[str, Any]]:
        async with client.get(self.url + path) as response:
            return response.status, await response.json(content_type=None)

    async def stop(self) -> int:
        self.signals.asked.set()
        async with asyncio.timeout(20):
            return await self.task


@asynccontextmanager
async def daemon(tmp_path: Path, **env: str) -> AsyncIterator[Daemon]:
    manager = Manager(tmp_path / "notify")
    values = {
        "OMA_DATABASE__URL": f"sqlite:///{tmp_path}/oma.db",
        "OMA_HTTP__PORT": "0",
        "OMA_VOLUME_DAEMON__URL": "http://127.0.0.1:9",
        "OMA_WORKFLOW__STOP_TIMEOUT_S": "5",
        "NOTIFY_SOCKET": manager.path,
        "HOME": str(tmp_path),
        **env,
    }
    running = Daemon(load_settings(None, values), values, manager)
    try:
        yield running
        if not running.task.done():
            await running.stop()
    finally:
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)
        manager.close()


@pytest.fixture(autouse=True)
def _no_cloudstack_ini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_a_fresh_appliance_is_ready_and_stops_in_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async with daemon(tmp_path) as running, aiohttp.ClientSession() as client:
        await running.listening(capsys)
        assert (tmp_path / "oma.db").exists()
        assert await running.get(client, "/readyz") == (200, {"status": "ready", "reason": None})
        status, health = await running.get(client, "/health")
        assert (status, health["status"]) == (200, "degraded")
        sentences = {one["name"]: (one["healthy"], one["sentence"]) for one in health["dependencies"]}
        assert sentences["database"][0] is True
        assert "credentials" in sentences["cloudstack"][1]
        assert sentences["volume_daemon"][0] is False
        async with client.get(running.url + "/metrics") as response:
            assert "oma_jobs_running 0.0" in await response.text()
        async with client.get(running.url + "/") as page:
            assert page.status == 200
            assert page.content_type == "text/html"
        status, body = await running.get(client, "/api/v1/vm-contexts/nobody")
        assert (status, body["code"]) == (404, "vm_not_found")
        assert await running.stop() == 0
        await running.manager.until("STOPPING=1")


async def test_the_watchdog_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async with daemon(tmp_path, WATCHDOG_USEC="100000") as running:
        await running.listening(capsys)
        await running.manager.until("WATCHDOG=1")


async def test_a_database_of_another_kind_is_left_alone_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    connection = sqlite3.connect(tmp_path / "oma.db")
    connection.execute("CREATE TABLE somebody_elses (id INTEGER)")
    connection.commit()
    connection.close()
    async with daemon(tmp_path) as running, aiohttp.ClientSession() as client:
        await running.listening(capsys)
        status, body = await running.get(client, "/readyz")
        assert status == 503
        assert "belongs to another program" in body["reason"]
        assert (await running.get(client, "/livez"))[0] == 200
        async with client.post(f"{running.url}/api/v1/failover/pgtest1/cleanup-failed") as response:
            assert response.status == 503
            assert (await response.json(content_type=None))["code"] == "database_unavailable"
    connection = sqlite3.connect(tmp_path / "oma.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("somebody_elses",)]
    connection.close()


def set_revision(path: Path, revision: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE oma_alembic_version SET version_num = ?", (revision,))
    connection.commit()
    connection.close()


async def test_an_old_database_waits_for_its_upgrade(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "oma.db"
    await asyncio.to_thread(schema.upgrade, f"sqlite:///{path}")
    await asyncio.to_thread(set_revision, path, "0000")
    async with daemon(tmp_path) as running, aiohttp.ClientSession() as client:
        await running.listening(capsys)
        status, body = await running.get(client, "/readyz")
        assert status == 503
        assert "oma db upgrade" in body["reason"]
        await asyncio.to_thread(set_revision, path, HEAD)
        await running.manager.until("STATUS=Ready; 0 jobs run")


async def test_readiness_follows_the_database_while_it_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async with daemon(tmp_path) as running, aiohttp.ClientSession() as client:
        await running.listening(capsys)
        assert (await running.get(client, "/readyz"))[0] == 200
        await asyncio.to_thread(set_revision, tmp_path / "oma.db", "0000")
        reason = describe_revision_fault("0000")
        await running.manager.until(f"STATUS={reason}")
        assert await running.get(client, "/readyz") == (503, {"status": "not_ready", "reason": reason})
        await asyncio.to_thread(set_revision, tmp_path / "oma.db", HEAD)
        running.manager.seen.clear()
        await running.manager.until("STATUS=Ready; 0 jobs run")
        assert (await running.get(client, "/readyz"))[0] == 200


async def test_a_file_that_another_daemon_left_without_tables_is_fresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    door = await Door.open(f"sqlite:///{tmp_path}/oma.db")
    await door.close()
    assert (tmp_path / "oma.db").stat().st_size > 0
    async with daemon(tmp_path) as running, aiohttp.ClientSession() as client:
        await running.listening(capsys)
        assert (await running.get(client, "/readyz"))[0] == 200


async def test_a_database_that_can_not_be_reached_is_a_reason_not_an_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    url = f"sqlite:///{tmp_path}/no/such/folder/oma.db"
    async with daemon(tmp_path, OMA_DATABASE__URL=url) as running, aiohttp.ClientSession() as client:
        await running.listening(capsys)
        status, body = await running.get(client, "/readyz")
        assert status == 503
        assert body["reason"]
        (tmp_path / "no/such/folder").mkdir(parents=True)
        await running.manager.until("STATUS=Ready; 0 jobs run")
        assert (await running.get(client, "/readyz"))[0] == 200


async def test_a_port_that_is_taken(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with daemon(tmp_path, OMA_HTTP__PORT=str(taken.getsockname()[1])) as running, asyncio.timeout(20):
            assert await running.task == 1
