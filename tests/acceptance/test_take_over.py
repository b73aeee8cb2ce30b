"""A daemon that stands still past its lease, or whose request is held up past its time: another one takes its run over.

What wakes up afterwards can neither write nor act. Real processes; the second daemon is another one on the same database.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from database.tables import log_events, oma_actions, oma_jobs
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call, list_changes, read_cloud, read_ledger
from oma.demo.operator import Operator
from oma.demo.ports import ANY_PORTS
from oma.demo.stack import Stack, StackOptions, as_toml, running_stack
from oma.demo.story import SeededVm
from oma.demo.world import World
from tests.proxy import Proxy, running_proxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.rule("6-take-over")]

LEASE_S = 3.0
ROOT = Path(__file__).parents[2]
LOST = re.compile("Somebody else has this job now|The lease of a job is lost")
STANDS = "T"
"""The state of a stopped process in `/proc/<pid>/stat`."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    options = StackOptions(
        directory=tmp_path_factory.mktemp("take-over"),
        ports=ANY_PORTS,
        simulator={"time_scale": 0.02},
        settings={"workflow": {"lease_s": LEASE_S}},
    )
    async with running_stack(options) as stack:
        yield World(stack)


@dataclass
class FirstDaemon:
    """The one whose run is taken over; `operator` speaks to it."""

    process: asyncio.subprocess.Process
    operator: Operator
    marker: Path
    log: Path

    async def until_it_stands(self) -> None:
        async with asyncio.timeout(30):
            while _state(self.process.pid) != STANDS:  # noqa: ASYNC110  a stopped process tells nobody
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, and until it has done all that it does."""
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), 60)

    async def wake(self) -> None:
        """And until it has found out that somebody else has its run."""
        self.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(self._has_lost):  # noqa: ASYNC110  another process's log
                await asyncio.sleep(0.05)

    def _has_lost(self) -> bool:
        return LOST.search(self.log.read_text()) is not None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@asynccontextmanager
async def first_daemon(stack: Stack, folder: Path, call: str, proxy: Proxy | None = None) -> AsyncIterator[FirstDaemon]:
    """The stack's own daemon stops for it; whoever takes over starts that again."""
    await stack.oma.stop()
    marker, config, log = folder / "stand", folder / "first.toml", folder / "first.log"
    text = re.sub(r"(\[http\]\nport = )\d+", r"\g<1>0", await asyncio.to_thread(stack.config.read_text))
    if proxy is not None:
        url = urlsplit(stack.endpoint.url)._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
        text += as_toml(
            {"cloudstack": {"url": url, "api_key": stack.endpoint.key, "secret_key": stack.endpoint.secret}}
        )
    await asyncio.to_thread(config.write_text, text)
    with log.open("wb") as kept:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.acceptance.standing_still", str(config), call, str(marker)),
            stack.database_url.removeprefix("sqlite:///"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=kept,
        )
    try:
        assert process.stdout is not None
        listening = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        async with Operator(listening["url"]) as operator:
            yield FirstDaemon(process, operator, marker, log)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


async def ask(daemon: FirstDaemon, vm: SeededVm) -> str:
    async with asyncio.timeout(30):
        while not await daemon.operator.is_ready():  # noqa: ASYNC110  another process tells nobody
            await asyncio.sleep(0.05)
    accepted = await daemon.operator.clean_up(vm.name, headers={"Prefer": "respond-async"})
    assert accepted.status == 202, accepted.body
    return str(accepted.body["job_id"])


async def take_over(stack: Stack, job_id: str) -> str:
    """The second daemon starts, gets the run when its lease is over, and ends it; how."""
    await stack.oma.start()
    await stack.ready()
    async with asyncio.timeout(60):
        while True:
            (state,) = await stack.door.read(
                lambda connection: connection.execute(
                    oma_jobs.select().with_only_columns(oma_jobs.c.state).where(oma_jobs.c.id == job_id)
                ).one()
            )
            if state not in {"queued", "running"}:
                return str(state)
            await asyncio.sleep(0.1)


async def written(stack: Stack, vm: SeededVm) -> int:
    return len((await read_ledger(stack, vm)).of(log_events))


async def until_unmarked(stack: Stack, vm: SeededVm) -> None:
    """A run that has ended takes its markers off beside everything else."""
    async with asyncio.timeout(30):
        while any(  # noqa: ASYNC110  another process tells nobody
            row["kind"] == "clear_marker" and row["state"] == "STARTED"
            for row in (await read_ledger(stack, vm)).of(oma_actions)
        ):
            await asyncio.sleep(0.05)


async def count(stack: Stack, vm: SeededVm, command: str, after: int) -> list[str]:
    """What each accepted call of this command named."""
    calls = await list_changes(stack, vm, after)
    return sorted(call["params"]["id"] for call in calls if call["command"] == command and call["jobid"])


@pytest.mark.parametrize(("call", "command"), [("submit_revert", "revertSnapshot"), ("submit_detach", "detachVolume")])
async def test_a_daemon_that_stands_between_check_and_send_acts_no_more_when_it_wakes(
    world: World, broken_vm: SeededVm, tmp_path: Path, call: str, command: str
) -> None:
    stack, before = world.stack, await last_call(world.stack)
    async with first_daemon(stack, tmp_path, call) as first:
        first.marker.touch()
        job_id = await ask(first, broken_vm)
        await first.until_it_stands()
        assert await take_over(stack, job_id) == "completed"
        await until_unmarked(stack, broken_vm)
        lines = await written(stack, broken_vm)
        await first.wake()
        assert await written(stack, broken_vm) == lines, "it wrote nothing"
    ids = [disk.snapshot_id if command == "revertSnapshot" else disk.volume_id for disk in broken_vm.disks]
    assert await count(stack, broken_vm, command, before) == sorted(map(str, ids)), "each was done once"
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_a_detach_that_is_not_wanted_any_more_comes_too_late(
    world: World, broken_vm: SeededVm, tmp_path: Path
) -> None:
    """While the first daemon stands, somebody moves both disks; the second leaves them, and so must the first."""
    stack, before = world.stack, await last_call(world.stack)
    elsewhere = "0a11ce00-0000-4000-8000-0000000000f7"
    await stack.admin.seed(vms=[{"id": elsewhere, "name": "somebody-elses"}])
    async with first_daemon(stack, tmp_path, "submit_detach") as first:
        first.marker.touch()
        job_id = await ask(first, broken_vm)
        await first.until_it_stands()
        for disk in broken_vm.disks:
            await stack.admin.patch_volume(disk.volume_id, vm_id=elsewhere)
        assert await take_over(stack, job_id) in {"parked", "failed"}
        await first.wake()
        await first.stop()
    cloud = await read_cloud(stack)
    assert [cloud.volume(disk.volume_id)["vm_id"] for disk in broken_vm.disks] == [elsewhere] * 2
    assert await count(stack, broken_vm, "detachVolume", before) == []


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "not wanted"])
async def test_a_request_that_is_held_up_past_its_time_does_nothing_when_it_comes(
    world: World, broken_vm: SeededVm, tmp_path: Path, wanted: bool
) -> None:
    """`expires` is never later than the lease's end, and whoever takes over has sent or spent its id before."""
    stack, before = world.stack, await last_call(world.stack)
    port = urlsplit(stack.endpoint.url).port
    assert port is not None
    async with running_proxy(port) as proxy:
        held = proxy.hold(b"command=revertSnapshot")
        async with first_daemon(stack, tmp_path, "submit_revert", proxy) as first:
            job_id = await ask(first, broken_vm)
            piece = (await held.arrived()).decode()
            await first.kill()
            disk = next(one for one in broken_vm.disks if str(one.snapshot_id) in piece)
            if not wanted:
                await stack.admin.patch_volume(disk.volume_id, vm_id=stack.oma_vm_id)
            assert await take_over(stack, job_id) == ("completed" if wanted else "parked")
            reverted = await count(stack, broken_vm, "revertSnapshot", before)
            held.release()
            await held.delivered()
    assert await count(stack, broken_vm, "revertSnapshot", before) == reverted, "it came too late"
    if wanted:
        faults = await faults_of_a_cleaned_vm(world, broken_vm, after_call=before)
        came_twice = ("was sent 2 times", "was asked in the order")
        assert [one for one in faults if not any(words in one for words in came_twice)] == []
    else:
        rows = (await read_ledger(stack, broken_vm)).of(oma_actions)
        reverts = {row["state"] for row in rows if row["kind"] == "revert_snapshot"}
        assert "STARTED" not in reverts, "every open intent was adopted or its id spent"
