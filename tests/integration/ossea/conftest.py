"""The simulator as a process of its own, spoken to over HTTP only."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.simulator.admin_client import AdminClient

OMA = "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a"
KEY, SECRET = "integration-key", "integration-secret"


class SimulatorProcess:
    """`ossea-sim serve` on one pair of ports, which it keeps when it is started again."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._process: asyncio.subprocess.Process | None = None
        self._ports = ("0", "0")
        self.url = ""
        self.admin_url = ""

    async def start(self) -> None:
        (self._place / "devices").mkdir(exist_ok=True)
        options = {
            "port": self._ports[0],
            "admin-port": self._ports[1],
            "state-dir": str(self._place / "state"),
            "device-root": str(self._place / "devices"),
            "oma-vm-id": OMA,
            "api-key": KEY,
            "secret-key": SECRET,
            "devices": "file",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        program = str(Path(sys.executable).parent / "ossea-sim")
        self._process = await asyncio.create_subprocess_exec(
            program, "serve", *words, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        line = json.loads(await self._process.stdout.readline())
        self.url, self.admin_url = f"{line['url']}/client/api", line["admin"]
        self._ports = (str(urlsplit(line["url"]).port), str(urlsplit(line["admin"]).port))

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            assert await self._process.wait() == 0


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[SimulatorProcess]:
    process = SimulatorProcess(tmp_path)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


@pytest.fixture
async def admin(simulator: SimulatorProcess) -> AsyncIterator[AdminClient]:
    async with AdminClient(simulator.admin_url) as opened:
        await opened.put_settings(time_scale=0.05)
        yield opened


@pytest.fixture
async def client(simulator: SimulatorProcess) -> AsyncIterator[CloudStack]:
    async with CloudStack(Endpoint(simulator.url, KEY, SECRET), poll_min_s=0.01, poll_max_s=0.2) as opened:
        yield opened
