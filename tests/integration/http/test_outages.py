"""A daemon without its Volume Daemon, through its own doors: it serves, says so, and begins nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.integration.http.test_daemon import Daemon, daemon


async def count_away(running: Daemon, client: aiohttp.ClientSession) -> int:
    _, health = await running.get(client, "/health")
    return sum("has not answered since" in one["sentence"] for one in health["dependencies"])


async def test_health_and_metrics_tell_who_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with daemon(tmp_path) as running, aiohttp.ClientSession() as client:
        await running.listening(capsys)
        # Whoever only looks opens nothing by one lost answer: it takes as many as make a target suspect.
        async with asyncio.timeout(20):
            while await count_away(running, client) < 2:
                pass
        status, health = await running.get(client, "/health")
        said = {one["name"]: one["sentence"] for one in health["dependencies"]}
        assert (status, health["status"], health["ready"]) == (200, "degraded", True)
        assert said["volume_daemon"].startswith("The Volume Daemon has not answered since ")
        assert "Runs wait in the queue" in said["volume_daemon"]
        async with client.get(running.url + "/metrics") as response:
            metrics = await response.text()
        assert 'oma_circuit_open{target="volume_daemon"} 1.0' in metrics
        assert 'oma_circuit_open{target="cloudstack"} 1.0' in metrics, "without credentials nobody can be asked"
