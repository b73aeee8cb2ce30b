"""A system that is away for a while: no run fails or parks, each waits in the queue and goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call, list_changes
from oma.demo.ports import ANY_PORTS
from oma.demo.programs import Program
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import DiskStory, Place, SeededVm, VmStory
from oma.demo.world import World
from tests.acceptance.test_stops import until_ended

pytestmark = pytest.mark.asyncio(loop_scope="session")

BROKEN = (DiskStory(Place.TEST_VM), DiskStory(Place.TEST_VM))
COMMANDS = ("detachVolume", "revertSnapshot", "attachVolume")
MOST_S = 60
SETTINGS = {
    "cloudstack": {"timeout_s": 1.5, "circuit_pause_s": 1.0},
    "volume_daemon": {"timeout_s": 1.5, "circuit_pause_s": 1.0},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    options = StackOptions(
        directory=tmp_path_factory.mktemp("outages"),
        ports=ANY_PORTS,
        simulator={"time_scale": 0.02},
        settings=SETTINGS,
    )
    async with running_stack(options) as stack:
        yield World(stack)


@pytest_asyncio.fixture(loop_scope="session")
async def vms(world: World, vm_name: str) -> list[SeededVm]:
    return [await world.seed(VmStory(f"{vm_name}-{one}", BROKEN, test_vm="Stopped")) for one in range(2)]


async def circuit_is_open(stack: Stack, target: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.operator.url}/metrics") as metrics:
        return f'oma_circuit_open{{target="{target}"}} 1.0' in await metrics.text()


async def until_open(stack: Stack, target: str) -> None:
    """A run that only waits for something asks nobody, so whoever looks at the health finds it out here."""
    async with asyncio.timeout(MOST_S):
        while not await circuit_is_open(stack, target):
            await health_of(stack, target)


async def until_asked(stack: Stack, vms: list[SeededVm], command: str, after: int) -> None:
    async with asyncio.timeout(MOST_S):
        while command not in await commands_of(stack, vms, after):
            pass


async def commands_of(stack: Stack, vms: list[SeededVm], after: int) -> set[str]:
    return {call["command"] for vm in vms for call in await list_changes(stack, vm, after)}


async def begin(stack: Stack, vms: list[SeededVm]) -> list[str]:
    answers = [await stack.operator.clean_up(vm.name, headers={"Prefer": "respond-async"}) for vm in vms]
    return [str(answer.body["job_id"]) for answer in answers]


async def all_well(world: World, vms: list[SeededVm], jobs: list[str], after: int, *, late: bool = False) -> None:
    """`late`: what had been sent was taken when nobody waited for it any more; sent again, it was refused."""
    ends = await asyncio.gather(*(until_ended(world.stack, job) for job in jobs))
    said = [await words_of(world.stack, job) for job in jobs]
    assert ends == ["job_completed"] * len(jobs), "\n".join(line for lines in said for line in lines[-25:])
    for vm in vms:
        faults = await faults_of_a_cleaned_vm(world, vm, after_call=after)
        assert [fault for fault in faults if not (late and fault.endswith("was sent 2 times"))] == []


async def words_of(stack: Stack, job_id: str) -> list[str]:
    answer = await stack.operator.ask("GET", f"/api/v1/jobs/{job_id}/log")
    return [str(line["message"]) for line in answer.body["items"]]


async def health_of(stack: Stack, name: str) -> dict[str, Any]:
    answer = await stack.operator.ask("GET", "/health")
    return next(one for one in answer.body["dependencies"] if one["name"] == name)


@pytest.mark.parametrize("command", COMMANDS)
async def test_runs_wait_for_a_cloudstack_that_is_down(world: World, vms: list[SeededVm], command: str) -> None:
    stack, before = world.stack, await last_call(world.stack)
    jobs = await begin(stack, vms)
    await until_asked(stack, vms, command, before)

    # Not by SIGKILL: the simulator's log, which the invariants are judged by, has to hold every call that it took.
    await stack.simulator.stop()
    await until_open(stack, "cloudstack")
    told = await health_of(stack, "cloudstack")
    states = [(await stack.operator.ask("GET", f"/api/v1/jobs/{job}")).body["status"] for job in jobs]
    await stack.simulator.start()

    await all_well(world, vms, jobs, before)
    assert not told["healthy"]
    assert told["sentence"].startswith("CloudStack has not answered since ")
    assert set(states) <= {"queued", "running", "completed"}
    assert not await circuit_is_open(stack, "cloudstack")


async def test_runs_wait_for_a_cloudstack_that_says_nothing(world: World, vms: list[SeededVm]) -> None:
    stack, before = world.stack, await last_call(world.stack)
    jobs = await begin(stack, vms)
    await until_asked(stack, vms, "attachVolume", before)

    stack.simulator.pause()
    try:
        await until_open(stack, "cloudstack")
    finally:
        stack.simulator.resume()

    await all_well(world, vms, jobs, before, late=True)


@pytest.mark.parametrize("command", COMMANDS)
async def test_runs_wait_for_a_volume_daemon_that_is_down(world: World, vms: list[SeededVm], command: str) -> None:
    stack, before = world.stack, await last_call(world.stack)
    jobs = await begin(stack, vms)
    await until_asked(stack, vms, command, before)

    await stack.volume_daemon.kill()
    await until_open(stack, "volume_daemon")
    told = await health_of(stack, "volume_daemon")
    await stack.volume_daemon.start()

    await all_well(world, vms, jobs, before)
    assert told["sentence"].startswith("The Volume Daemon has not answered since ")


async def test_a_run_that_was_queued_before_waits_too(world: World, vms: list[SeededVm]) -> None:
    """The daemon starts into the outage with work in its queue."""
    stack, before = world.stack, await last_call(world.stack)
    jobs = await begin(stack, vms)
    await until_asked(stack, vms, "detachVolume", before)
    await stack.oma.stop()
    await stack.simulator.stop()
    await stack.oma.start()
    await stack.ready()
    await until_open(stack, "cloudstack")

    refused = await stack.operator.clean_up(vms[0].name)
    await stack.simulator.start()

    await all_well(world, vms, jobs, before)
    assert refused.body["code"] in ("cleanup_in_progress", "state_unknown")


async def test_a_throttled_cloudstack_is_heeded(world: World, vms: list[SeededVm]) -> None:
    stack, before = world.stack, await last_call(world.stack)
    jobs = await begin(stack, vms)
    await stack.admin.put_settings(throttle_per_s=6)
    try:
        await all_well(world, vms, jobs, before)
    finally:
        await stack.admin.put_settings(throttle_per_s=None)


async def test_the_answer_waits_too(world: World, vms: list[SeededVm]) -> None:
    """Whoever waits for the end of the run gets it, from a daemon that was without its Volume Daemon meanwhile."""
    stack, before = world.stack, await last_call(world.stack)
    asking = asyncio.create_task(stack.operator.clean_up(vms[0].name))
    await until_asked(stack, vms, "detachVolume", before)
    await bounce(stack, stack.volume_daemon)
    answer = await asking
    assert answer.word == "200 ready", answer.body
    assert await faults_of_a_cleaned_vm(world, vms[0], after_call=before) == []


async def bounce(stack: Stack, program: Program) -> None:
    await program.kill()
    await until_open(stack, "volume_daemon")
    await program.start()
