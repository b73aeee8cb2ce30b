"""Programs that stop, are killed or restarted in the middle of a run: it goes on, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest
import pytest_asyncio

from database.tables import oma_actions
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call, list_changes, read_ledger
from oma.demo.ports import ANY_PORTS
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import SeededVm, VmStory
from oma.demo.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLOW_S = 2.0
LEASE_S = 3.0
KINDS = {
    "detachVolume": "detach_volume",
    "revertSnapshot": "revert_snapshot",
    "deleteSnapshot": "delete_snapshot",
    "attachVolume": "attach_volume",
    "destroyVirtualMachine": "destroy_vm",
}
COMMANDS = tuple(KINDS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    options = StackOptions(
        directory=tmp_path_factory.mktemp("stops"),
        ports=ANY_PORTS,
        simulator={"time_scale": 0.02},
        settings={"workflow": {"lease_s": LEASE_S}},
    )
    async with running_stack(options) as stack:
        yield World(stack)


async def hold_up(stack: Stack, vm: SeededVm, command: str) -> str:
    """The first such call for this VM takes a while; the id that it names."""
    disk = vm.disks[0]
    ids = {"revertSnapshot": disk.snapshot_id, "deleteSnapshot": disk.snapshot_id}
    target = vm.test_vm_id if command == "destroyVirtualMachine" else ids.get(command, disk.volume_id)
    await stack.admin.add_fault(command, "job_stuck", match={"id": target}, delay_s=SLOW_S)
    return target


async def until_sent(stack: Stack, vm: SeededVm, command: str, target: str, after: int) -> None:
    async with asyncio.timeout(30):
        while not any(
            call["command"] == command and call["params"]["id"] == target
            for call in await list_changes(stack, vm, after)
        ):
            pass


async def until_followed(stack: Stack, vm: SeededVm, command: str) -> None:
    """Until the daemon has kept the other side's id of each such action.

    A call that was under way when its sender or receiver died may park the run; what becomes of it is recovery's.
    """
    kind = KINDS[command]
    wanted = 1 if kind == "destroy_vm" else len(vm.disks)
    async with asyncio.timeout(30):
        while wanted != sum(
            row["kind"] == kind and bool(row["remote_id"]) for row in (await read_ledger(stack, vm)).of(oma_actions)
        ):
            pass


async def until_ended(stack: Stack, job_id: str) -> str:
    async with asyncio.timeout(60), aclosing(stack.operator.follow(job_id)) as stream:
        async for event in stream:
            if event["type"] in ("job_completed", "job_parked", "job_failed"):
                return str(event["type"])
    return "the stream ended"


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_stopped_daemon_goes_on_after_its_restart(world: World, broken_vm: SeededVm, command: str) -> None:
    stack, before = world.stack, await last_call(world.stack)
    target = await hold_up(stack, broken_vm, command)
    asking = asyncio.create_task(stack.operator.clean_up(broken_vm.name))
    await until_sent(stack, broken_vm, command, target, before)

    stack.oma.terminate()
    answer = await asking
    code = await stack.oma.wait()
    await stack.oma.start()
    await stack.ready()

    assert (code, answer.status) == (0, 202), answer.body
    assert answer.headers["Location"] == f"/api/v1/jobs/{answer.body['job_id']}"
    assert await until_ended(stack, answer.body["job_id"]) == "job_completed"
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_killed_daemon_goes_on_when_its_lease_is_over(world: World, broken_vm: SeededVm, command: str) -> None:
    stack, before = world.stack, await last_call(world.stack)
    target = await hold_up(stack, broken_vm, command)
    accepted = await stack.operator.clean_up(broken_vm.name, headers={"Prefer": "respond-async"})
    await until_sent(stack, broken_vm, command, target, before)
    await until_followed(stack, broken_vm, command)

    await stack.oma.kill()
    await stack.oma.start()
    await stack.ready()

    assert await until_ended(stack, accepted.body["job_id"]) == "job_completed"
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def restart_politely(stack: Stack) -> None:
    await stack.volume_daemon.restart()


async def kill_and_start(stack: Stack) -> None:
    await stack.volume_daemon.kill()
    await stack.volume_daemon.start()


async def restart_the_cloud(stack: Stack) -> None:
    await stack.simulator.kill()
    await stack.simulator.start()


@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        ("detachVolume", restart_politely),
        ("attachVolume", restart_politely),
        ("detachVolume", kill_and_start),
        ("attachVolume", kill_and_start),
        ("revertSnapshot", restart_the_cloud),
    ],
)
async def test_a_run_survives_the_restart_of_an_upstream(
    world: World, broken_vm: SeededVm, command: str, trouble: Callable[[Stack], Awaitable[None]]
) -> None:
    stack, before = world.stack, await last_call(world.stack)
    target = await hold_up(stack, broken_vm, command)
    asking = asyncio.create_task(stack.operator.clean_up(broken_vm.name))
    await until_sent(stack, broken_vm, command, target, before)
    await until_followed(stack, broken_vm, command)

    await trouble(stack)
    answer = await asking

    assert answer.word == "200 ready", answer.body
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_a_daemon_without_work_stops_at_once(world: World) -> None:
    await world.seed(VmStory("nobody-asks"))

    assert await world.stack.oma.stop() == 0

    await world.stack.oma.start()
    await world.stack.ready()
