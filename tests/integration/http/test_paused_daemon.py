"""A pause over a restart, through the daemon as a whole."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.integration.http.test_daemon import Daemon, daemon

EVERYTHING = {"scope": "all", "reason": "the array reboots"}


async def metric(started: Daemon, client: aiohttp.ClientSession, name: str) -> float:
    async with client.get(started.url + "/metrics") as response:
        lines = (await response.text()).splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


async def test_a_pause_outlives_the_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with aiohttp.ClientSession() as client:
        async with daemon(tmp_path) as started:
            await started.listening(capsys)
            assert await metric(started, client, "oma_paused") == 0
            async with client.post(started.url + "/api/v1/control/pause", json=EVERYTHING) as response:
                assert response.status == 200
            assert await started.stop() == 0
        (tmp_path / "notify").unlink(missing_ok=True)
        async with daemon(tmp_path) as started:
            await started.listening(capsys)
            status, control = await started.get(client, "/api/v1/control")
            assert (status, control["paused"], control["pauses"][0]["reason"]) == (200, True, "the array reboots")
            assert await metric(started, client, "oma_paused") == 1, "it is read before the daemon serves"
            assert await metric(started, client, "oma_jobs_stuck") == 0
            assert await started.stop() == 0
