"""Upstreams and databases that are wrong, away or full: the contracted code, a sentence that helps, nothing touched."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import text

from oma.demo.checks import content_faults, faults_of_a_cleaned_vm
from oma.demo.ledger import differences, last_call, list_changes, read_ledger
from oma.demo.operator import Answer, Operator
from oma.demo.ports import ANY_PORTS, find_port
from oma.demo.programs import Program, find_command
from oma.demo.stack import Stack, StackOptions, as_toml, running_stack
from oma.demo.story import SeededVm, VmStory
from oma.demo.world import World
from tests.parts import require_part

pytestmark = pytest.mark.asyncio(loop_scope="session")

OMA = find_command("oma")
IMPATIENT = {
    "cloudstack": {"timeout_s": 1.5},
    "volume_daemon": {"timeout_s": 1.5},
    "guards": {"observe_timeout_s": 4.0},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A stack of its own: everything that it talks to is taken from it at some time."""
    options = StackOptions(
        directory=tmp_path_factory.mktemp("troubles"),
        ports=ANY_PORTS,
        simulator={"time_scale": 0.02},
        settings=IMPATIENT,
    )
    async with running_stack(options) as stack:
        yield World(stack)


async def ask_in_vain(world: World, vm: SeededVm) -> Answer:
    """A dry run and a real one; neither leaves a trace in rows, cloud or content."""
    stack = world.stack
    before, ledger = await last_call(stack), await read_ledger(stack, vm)
    dry = await stack.operator.clean_up(vm.name, {"dry_run": True})
    answer = await stack.operator.clean_up(vm.name)
    assert dry.word == answer.word
    assert await list_changes(stack, vm, before) == []
    assert differences(ledger, await read_ledger(stack, vm)) == []
    assert answer.body["success"] is False
    assert answer.body["error"].startswith("Failed to cleanup failed execution: ")
    return answer


async def succeed(world: World, vm: SeededVm, after_call: int) -> None:
    answer = await world.stack.operator.clean_up(vm.name)
    assert answer.word == "200 ready", answer.body
    assert await faults_of_a_cleaned_vm(world, vm, after_call=after_call) == []


async def give_wrong_secret(stack: Stack) -> None:
    await stack.restart_oma({"OMA_CLOUDSTACK__SECRET_KEY": "not-the-secret"})


async def point_at_nobody(stack: Stack) -> None:
    await stack.restart_oma({"OMA_CLOUDSTACK__URL": f"http://127.0.0.1:{find_port()}/client/api"})


async def answer_with_html(stack: Stack) -> None:
    await stack.admin.add_fault("*", "non_json", times=None)


async def answer_with_503(stack: Stack) -> None:
    await stack.admin.add_fault("*", "http_status", errorcode=503, times=None)


async def silence_the_cloud(stack: Stack) -> None:
    stack.simulator.pause()


async def silence_the_volume_daemon(stack: Stack) -> None:
    stack.volume_daemon.pause()


UPSTREAMS: dict[str, tuple[Callable[[Stack], Awaitable[None]], str, str]] = {
    "wrong credentials": (give_wrong_secret, "CloudStack", "unable to verify user credentials"),
    "nobody listens": (point_at_nobody, "CloudStack", "CloudStack did not say"),
    "HTML for JSON": (answer_with_html, "CloudStack", "CloudStack did not say"),
    "503 from a proxy": (answer_with_503, "CloudStack", "CloudStack did not say"),
    "a silent Volume Daemon": (silence_the_volume_daemon, "Volume Daemon", "Volume Daemon did not say"),
}


@pytest.mark.parametrize("kind", UPSTREAMS)
async def test_an_upstream_that_does_not_answer_is_no_answer(world: World, broken_vm: SeededVm, kind: str) -> None:
    trouble, system, words = UPSTREAMS[kind]
    stack, before = world.stack, await last_call(world.stack)
    await trouble(stack)
    try:
        answer = await ask_in_vain(world, broken_vm)
    finally:
        stack.volume_daemon.resume()
        await stack.admin.clear_faults()
        if trouble in (give_wrong_secret, point_at_nobody):
            await stack.restart_oma()

    assert answer.word == "409 state_unknown", answer.body
    said = [refusal["detail"] for refusal in answer.body["refusals"]]
    assert [sentence for sentence in said if words in sentence], said
    assert all(refusal["next"] for refusal in answer.body["refusals"])
    assert system in {refusal["evidence"].get("asked") for refusal in answer.body["refusals"]}
    assert await content_faults(world, broken_vm, world.found) == []
    await succeed(world, broken_vm, before)


async def test_a_silent_cloudstack_is_not_waited_for_for_ever(world: World, broken_vm: SeededVm) -> None:
    """The simulator stands still, its admin API too, so what it got is read afterwards."""
    stack = world.stack
    before, ledger = await last_call(stack), await read_ledger(stack, broken_vm)
    stack.simulator.pause()
    try:
        answer = await stack.operator.clean_up(broken_vm.name)
    finally:
        stack.simulator.resume()

    assert answer.word == "409 state_unknown", answer.body
    assert await list_changes(stack, broken_vm, before) == []
    assert differences(ledger, await read_ledger(stack, broken_vm)) == []
    await succeed(world, broken_vm, before)


@pytest.mark.parametrize(
    "command", ["detachVolume", "revertSnapshot", "deleteSnapshot", "attachVolume", "destroyVirtualMachine"]
)
@pytest.mark.parametrize("fault", ["lost_answer", "non_json"])
async def test_a_call_whose_answer_is_lost_is_found_by_its_id(
    world: World, broken_vm: SeededVm, command: str, fault: str
) -> None:
    """Executed once, though nobody was told so: the journal check sees a call that came twice."""
    stack, before = world.stack, await last_call(world.stack)
    disk = broken_vm.disks[0]
    ids = {"revertSnapshot": disk.snapshot_id, "deleteSnapshot": disk.snapshot_id}
    target = broken_vm.test_vm_id if command == "destroyVirtualMachine" else ids.get(command, disk.volume_id)
    await stack.admin.add_fault(command, fault, match={"id": target})

    await succeed(world, broken_vm, before)

    assert await stack.admin.faults() == []


async def set_version(stack: Stack, version: str) -> None:
    await stack.door.write(
        lambda connection: connection.execute(
            text("UPDATE oma_alembic_version SET version_num = :version"), {"version": version}
        )
    )


@pytest.mark.parametrize(("version", "advice"), [("0000", "oma db upgrade"), ("9999", "newer")])
async def test_a_database_of_another_version_is_left_alone(
    world: World, broken_vm: SeededVm, version: str, advice: str
) -> None:
    stack, before = world.stack, await last_call(world.stack)
    known = await stack.door.read(
        lambda connection: connection.execute(text("SELECT version_num FROM oma_alembic_version")).scalar_one()
    )
    await stack.oma.stop()
    await set_version(stack, version)
    await stack.oma.start()
    try:
        answer = await ask_in_vain(world, broken_vm)
        ready = await stack.operator.ask("GET", "/readyz")
    finally:
        await set_version(stack, known)
        await stack.restart_oma()

    assert answer.word == "503 database_unavailable", answer.body
    assert advice in answer.body["detail"]
    assert "Retry-After" in answer.headers
    assert ready.status == 503
    await succeed(world, broken_vm, before)


@asynccontextmanager
async def lonely_daemon(directory: Path, database: Path) -> AsyncIterator[tuple[Operator, Path]]:
    """`oma serve` alone, over a database of somebody's."""
    config, port = directory / "oma.toml", find_port()
    sections: dict[str, dict[str, Any]] = {"database": {"url": f"sqlite:///{database}"}, "http": {"port": port}}
    await asyncio.to_thread(config.write_text, as_toml(sections), encoding="utf-8")
    program = Program("oma", ["serve", "--config", str(config)], directory)
    await program.start()
    try:
        async with Operator(f"http://127.0.0.1:{port}") as operator:
            yield operator, config
    finally:
        await program.stop()


@pytest.fixture
def foreign_database(tmp_path: Path) -> Path:
    path = tmp_path / "somebody.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE books (title TEXT, pages INTEGER); INSERT INTO books VALUES ('All about VMs', 300);"
        )
    return path


async def test_another_programs_database_is_refused_and_left_as_it_is(foreign_database: Path, tmp_path: Path) -> None:
    database = foreign_database
    before = await asyncio.to_thread(digest, database)

    async with lonely_daemon(tmp_path, database) as (operator, config):
        answer = await operator.clean_up("pgtest1")
        ready = await operator.ask("GET", "/readyz")
        upgraded = await asyncio.to_thread(
            subprocess.run, [OMA, "--config", str(config), "db", "upgrade"], capture_output=True, text=True, check=False
        )

    assert answer.word == "503 database_unavailable", answer.body
    assert ready.status == 503
    assert upgraded.returncode == 1
    assert "belongs to another program" in upgraded.stderr
    assert await asyncio.to_thread(digest, database) == before


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    require_part("root, to mount a small file system", os.geteuid() == 0)
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    require_part(f"the right to mount a tmpfs ({mounted.stderr.strip()})", mounted.returncode == 0)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Until nothing more fits."""
    with path.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def shorten_the_log(database: Path) -> None:
    """An empty write-ahead log: the next commit needs room for it."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.root
async def test_a_full_disk_stops_a_run_before_it_begins(small_disk: Path, tmp_path: Path) -> None:
    database = small_disk / "oma.db"
    options = StackOptions(
        directory=tmp_path / "stack",
        database_url=f"sqlite:///{database}",
        ports=ANY_PORTS,
        simulator={"time_scale": 0.02},
    )
    (tmp_path / "stack").mkdir()
    async with running_stack(options) as stack:
        world = World(stack)
        vm = await world.seed(VmStory("no-room", test_vm="Stopped"))
        before, ledger = await last_call(stack), await read_ledger(stack, vm)
        await asyncio.to_thread(shorten_the_log, database)
        await asyncio.to_thread(fill, small_disk / "filler")

        answer = await stack.operator.clean_up(vm.name)

        assert answer.word == "503 database_unavailable", answer.body
        assert answer.body["disk_full"] is True
        assert "full" in answer.body["detail"]
        assert await list_changes(stack, vm, before) == []
        assert differences(ledger, await read_ledger(stack, vm)) == []
        await asyncio.to_thread((small_disk / "filler").unlink)
        await succeed(world, vm, before)


async def test_health_names_who_is_away(world: World) -> None:
    stack = world.stack
    assert (await stack.operator.ask("GET", "/health")).status == 200
    await stack.volume_daemon.stop()
    try:
        found = await stack.operator.ask("GET", "/health")
    finally:
        await stack.volume_daemon.start()

    healthy = {one["name"]: one["healthy"] for one in found.body["dependencies"]}
    assert healthy == {"database": True, "cloudstack": True, "volume_daemon": False}
    assert await stack.operator.is_ready()
    async with aiohttp.ClientSession() as session, session.get(f"{stack.operator.url}/metrics") as metrics:
        assert "oma_cleanups_total" in await metrics.text()
