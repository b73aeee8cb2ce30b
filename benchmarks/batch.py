"""A hundred VMs with four volumes each, cleaned up at once: bound by the OMA's one attach queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import psutil

from benchmarks.bound import batch_s
from benchmarks.critical_path import TENTH, VOLUMES, four_volumes, set_times
from benchmarks.table import Row
from oma.demo.ports import ANY_PORTS
from oma.demo.stack import StackOptions, running_stack
from oma.demo.world import World

VMS = 100
LIMIT = 1.1


async def measure(vms: int = VMS) -> Sequence[Row]:
    """One round, because it takes two minutes; all requests are sent at the same moment."""
    simulator = {"max_data_disks": vms * VOLUMES}
    async with running_stack(StackOptions(ports=ANY_PORTS, devices="file", simulator=simulator)) as stack:
        world = World(stack)
        names = [f"batch-{number:03}" for number in range(vms)]
        for name in names:
            await world.seed(four_volumes(name))
        await set_times(stack, 0.1, queue_per_vm=True)
        programs = [stack.oma.pid, stack.volume_daemon.pid]
        before = sum(_cpu_s(pid) for pid in programs)
        began = time.monotonic()
        answers = await asyncio.gather(*(stack.operator.clean_up(name) for name in names))
        wall_s = time.monotonic() - began
        cpu_s = sum(_cpu_s(pid) for pid in programs) - before
    bad = [answer for answer in answers if answer.body.get("replica") != "ready"]
    if bad:
        raise RuntimeError(f"{len(bad)} of {vms} runs did not end well; the first: {bad[0]}")
    note = f"{cpu_s / vms:.2f} CPU s per VM (both daemons)"
    return (Row(f"{vms} VMs x {VOLUMES} volumes, times / 10", wall_s, batch_s(vms, VOLUMES, TENTH), LIMIT, note),)


def _cpu_s(pid: int | None) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
