"""The real programs under the unit's contract: ready when they listen, watched, and drained on SIGTERM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.systemd.processes import Program, run_to_end, started

PROGRAMS = {"oma": ["oma", "serve"], "volume-daemon": ["volume-daemon", "serve"]}

SETTINGS = """
[database]
url = "sqlite:///{folder}/oma.db"
[cloudstack]
url = "http://127.0.0.1:9/client/api"
api_key = "nobody"
secret_key = "listens there"
[oma]
identity = "trust"
[http]
port = 0
[volume_daemon]
port = 0
url = "http://127.0.0.1:9"
device_root = "{folder}/devices"
nbd_config_dir = "{folder}/nbd"
"""


async def prepare(folder: Path) -> Path:
    """Settings that reach no other system, and a database of the right shape."""
    for name in ("devices", "nbd"):
        (folder / name).mkdir()
    config = folder / "oma.toml"
    config.write_text(SETTINGS.format(folder=folder), encoding="utf-8")
    await run_to_end(folder, "oma", "db", "upgrade", "--config", str(config))
    return config


@pytest.fixture(params=sorted(PROGRAMS))
async def program(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Program]:
    config = await prepare(tmp_path)
    async with started(tmp_path, *PROGRAMS[request.param], "--config", str(config)) as running:
        assert running.listening["program"] == request.param
        yield running


async def test_it_says_ready_and_answers(program: Program) -> None:
    await program.notify.hear("READY=1")
    assert [line for line in program.notify.heard if line.startswith("STATUS=")]
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/health") as answer:
        assert answer.content_type == "application/json"


async def test_it_feeds_the_watchdog(program: Program) -> None:
    await program.notify.hear("WATCHDOG=1", times=3)


async def test_it_drains_and_ends_well_on_sigterm(program: Program) -> None:
    await program.notify.hear("READY=1")
    assert await program.stop() == 0
    program.notify.drain()
    heard = program.notify.heard
    assert heard.index("STOPPING=1") > heard.index("READY=1")


async def test_a_client_that_stays_does_not_hold_up_the_stop(program: Program) -> None:
    await program.notify.hear("READY=1")
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/health") as answer:
        await answer.read()
        assert await program.stop() == 0


async def test_bad_settings_end_it_before_it_says_ready(tmp_path: Path) -> None:
    config = await prepare(tmp_path)
    config.write_text(config.read_text(encoding="utf-8") + "prot = 1\n", encoding="utf-8")
    for command in PROGRAMS.values():
        with pytest.raises(AssertionError, match="prot"):
            async with started(tmp_path, *command, "--config", str(config)):
                pass


async def test_a_database_that_is_not_there_yet_is_waited_for_and_ends_nothing(tmp_path: Path) -> None:
    """systemd gives up on a unit that ends five times within five minutes; a database may come later than that."""
    config = await prepare(tmp_path)
    (tmp_path / "oma.db").unlink()
    async with started(tmp_path, "volume-daemon", "serve", "--config", str(config)) as running:
        await running.notify.hear("READY=1")
        assert any("oma db upgrade" in line for line in running.notify.heard if line.startswith("STATUS="))
        await running.notify.hear("WATCHDOG=1")
        await run_to_end(tmp_path, "oma", "db", "upgrade", "--config", str(config))
        await running.notify.hear(f"STATUS=Listening on {running.url}")
        assert await running.stop() == 0
