"""One VM with four volumes on its stopped test VM: wall time against the bound, and against today's way of doing it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bound import Durations, one_vm_s, serial_s
from benchmarks.table import Row, median
from benchmarks.todays import clean_up_serially
from oma.demo.ports import ANY_PORTS
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import DiskStory, VmStory
from oma.demo.world import World

VOLUMES = 4
FULL = Durations()
TENTH = FULL.scaled(0.1)


async def measure(rounds: int) -> Sequence[Row]:
    """The rows of this benchmark: medians of the rounds, the cases in turn."""
    queued = await _measure_queued(rounds)
    free = await _measure_free(rounds)
    return (
        Row("4 volumes, one queue per VM", median(queued["full"]), one_vm_s(VOLUMES, FULL, queue_per_vm=True), 1.05),
        Row("the same, times / 10", median(queued["tenth"]), one_vm_s(VOLUMES, TENTH, queue_per_vm=True), 1.25),
        Row(
            "the same, no queue per VM",
            median(free),
            one_vm_s(VOLUMES, FULL, queue_per_vm=False),
            1.10,
            f"volume_daemon.outstanding_per_vm = {VOLUMES}",
        ),
        Row(
            "today's serial algorithm, 2 s polls",
            queued["today"][0],
            one_vm_s(VOLUMES, FULL, queue_per_vm=True),
            note=f"one round; {serial_s(VOLUMES, FULL):.0f} s without its polls",
        ),
    )


async def _measure_queued(rounds: int) -> dict[str, list[float]]:
    walls: dict[str, list[float]] = {"full": [], "tenth": []}
    async with running_stack(StackOptions(ports=ANY_PORTS)) as stack:
        world = World(stack)
        await _run(world, "warm-up", scale=0.01, queue_per_vm=True)
        for number in range(rounds):
            walls["full"].append(await _run(world, f"full-{number}", scale=1.0, queue_per_vm=True))
            walls["tenth"].append(await _run(world, f"tenth-{number}", scale=0.1, queue_per_vm=True))
        walls["today"] = [await _run_todays(world)]
    return walls


async def _measure_free(rounds: int) -> list[float]:
    """A CloudStack without that queue: our own, which stands in for it, is opened as far."""
    settings = {"volume_daemon": {"outstanding_per_vm": VOLUMES}}
    async with running_stack(StackOptions(ports=ANY_PORTS, settings=settings)) as stack:
        world = World(stack)
        await _run(world, "warm-up", scale=0.01, queue_per_vm=False)
        return [await _run(world, f"free-{number}", scale=1.0, queue_per_vm=False) for number in range(rounds)]


async def set_times(stack: Stack, scale: float, *, queue_per_vm: bool) -> None:
    """The durations of the bound; what the bound leaves out takes no time."""
    await stack.admin.put_settings(
        durations={
            "detachVolume": FULL.detach_s,
            "attachVolume": FULL.attach_s,
            "revertSnapshot": FULL.revert_s,
            "deleteSnapshot": FULL.delete_s,
            "destroyVirtualMachine": 0.0,
            "stopVirtualMachine": 0.0,
        },
        time_scale=scale,
        queue_per_vm=queue_per_vm,
    )


def four_volumes(name: str) -> VmStory:
    return VmStory(name=name, disks=tuple(DiskStory() for _ in range(VOLUMES)), test_vm="Stopped")


async def _run(world: World, name: str, *, scale: float, queue_per_vm: bool) -> float:
    await set_times(world.stack, scale, queue_per_vm=queue_per_vm)
    await world.seed(four_volumes(name))
    began = time.monotonic()
    reply = await world.stack.operator.clean_up(name)
    wall_s = time.monotonic() - began
    if reply.status != 200 or reply.body.get("replica") != "ready":
        raise RuntimeError(f"the run of {name} did not end well: {reply}")
    return wall_s


async def _run_todays(world: World) -> float:
    await set_times(world.stack, 1.0, queue_per_vm=True)
    vm = await world.seed(four_volumes("todays"))
    began = time.monotonic()
    await clean_up_serially(world.stack, vm, poll_s=2.0)
    return time.monotonic() - began
