"""`oma demo`: what a newcomer types first. It starts real processes, and nothing of it is left."""

from __future__ import annotations

import asyncio
import io
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import astuple, replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from oma.demo import main
from oma.demo.holders import SCRIPT, missing_right
from oma.demo.ports import ANY_PORTS, PortClaims, choose_ports
from oma.demo.programs import clean_environment, find_command
from oma.demo.scenarios import SCENARIOS
from oma.demo.scenarios.base import Anywhere, Result
from oma.demo.stack import StackOptions, running_stack
from oma.demo.story import DiskStory, SeededVm, VmStory
from oma.demo.world import World

OMA = find_command("oma")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        OMA,
        "demo",
        *arguments,
        env={**clean_environment(), "NO_COLOR": "1", "TMPDIR": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def leftovers(folder: Path) -> list[str]:
    """Files, processes and loop devices that point into the folder."""
    found = [str(path) for path in folder.iterdir()]
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line:
            found.append(line)
    found += [line for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines() if str(folder) in line]
    backed = Path("/sys/block").glob("loop*/loop/backing_file")
    return [*found, *(str(path) for path in backed if str(folder) in path.read_text(encoding="utf-8"))]


async def test_once_puts_every_vm_right_and_leaves_nothing(tmp_path: Path, taken_port: int) -> None:
    async with asyncio.timeout(110), demo(tmp_path, "--once", "--port", str(taken_port)) as process:
        out, _ = await process.communicate()

    said = out.decode()
    assert process.returncode == 0, said
    assert f"Port {taken_port} is taken; the OMA daemon listens on" in said
    assert f"{len(SCENARIOS)} of {len(SCENARIOS)} ended as they should" in said
    for scenario in SCENARIOS:
        assert scenario.vm_name in said
    assert await asyncio.to_thread(leftovers, tmp_path) == []


async def test_the_demo_stays_up_until_it_is_told_to_end(tmp_path: Path, taken_port: int) -> None:
    said = ""
    async with asyncio.timeout(110), demo(tmp_path, "--port", str(taken_port)) as process:
        assert process.stdout is not None
        while "Ctrl-C ends it" not in said:
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
        running = await asyncio.to_thread(leftovers, tmp_path)
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()

    assert process.returncode == 0
    assert "Everything is stopped." in rest.decode()
    assert re.search(r"The page: http://127\.0\.0\.1:\d+/", said)
    for step in ("analyze-volume-state", "detach-attached-volumes", "cleanup-snapshots", "reattach-all-volumes"):
        assert step in said
    assert "replica: ready" in said
    assert len([line for line in running if " serve " in line]) == 3
    if missing_right() is None:
        assert [line for line in running if SCRIPT in line]
    assert await asyncio.to_thread(leftovers, tmp_path) == []


async def test_a_demo_that_is_stopped_while_it_starts_leaves_nothing(tmp_path: Path, taken_port: int) -> None:
    async with asyncio.timeout(110), demo(tmp_path, "--once", "--port", str(taken_port)) as process:
        assert process.stdout is not None
        assert b"Starting" in await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, _ = await process.communicate()

    assert process.returncode == 1
    assert "Everything is stopped." in rest.decode()
    assert await asyncio.to_thread(leftovers, tmp_path) == []


async def test_a_database_with_rows_is_never_filled(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    (tmp_path / "first").mkdir()
    async with running_stack(StackOptions(directory=tmp_path / "first", database_url=url, ports=ANY_PORTS)):
        pass
    folder = tmp_path / "second"
    folder.mkdir()

    async with asyncio.timeout(60), demo(folder, "--once", "--database", url) as process:
        out, _ = await process.communicate()

    assert process.returncode == 1
    assert "the demo only fills an empty one" in out.decode()
    assert await asyncio.to_thread(leftovers, folder) == []


class Wrong(Anywhere):
    """A scenario that does not end as it should."""

    title, vm_name, expected, alone = "one that goes wrong", "wrong", "200 ready", False

    async def seed(self, world: World) -> SeededVm:
        return await world.seed(VmStory(self.vm_name, (DiskStory(),)))

    async def play(self, world: World, vm: SeededVm) -> Result:
        return Result("409 state_unknown", "untouched", ("it was refused",))


async def test_one_vm_that_ends_wrongly_fails_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oma.demo.once.SCENARIOS", (SCENARIOS[0], Wrong()))
    console = Console(width=150, file=io.StringIO())
    async with running_stack(
        StackOptions(directory=tmp_path, ports=ANY_PORTS, simulator={"time_scale": 0.02})
    ) as stack:
        code = await main.run_once(stack, console)

    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert code == main.FAILED
    assert "wrong: it was refused" in said
    assert "1 of 2 ended as they should" in said


@pytest.fixture
def claims() -> Iterator[PortClaims]:
    claims = PortClaims()
    yield claims
    claims.close()


def test_a_taken_port_is_said_and_another_one_picked(taken_port: int, claims: PortClaims) -> None:
    said: list[str] = []

    ports = choose_ports(replace(ANY_PORTS, simulator=taken_port), said.append, claims)

    assert said == [f"Port {taken_port} is taken; the CloudStack simulator listens on {ports.simulator} instead."]
    assert taken_port not in astuple(ports)
    assert 0 not in astuple(ports)


def test_a_port_that_another_demo_is_about_to_use_is_taken(claims: PortClaims) -> None:
    others = PortClaims()
    port = others.claim_any()
    assert not claims.claim(port)
    others.close()
    assert claims.claim(port)
