"""The analysis of one VM and of a hundred: wall time, and how often CloudStack is asked; its answers take 5 ms each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.critical_path import VOLUMES, four_volumes
from benchmarks.table import Row, median
from oma.demo.ports import ANY_PORTS
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.world import World

VMS = 100
LATENCY_S = 0.005
LIMIT_S = 0.3
LIMIT_CALLS = 12
LIMIT_CALLS_OF_ALL = 60


async def measure(rounds: int) -> Sequence[Row]:
    """Dry runs over the public API, so that nothing but the analysis is measured."""
    simulator = {"max_data_disks": VMS * VOLUMES}
    async with running_stack(StackOptions(ports=ANY_PORTS, devices="file", simulator=simulator)) as stack:
        world = World(stack)
        names = [f"analysed-{number:03}" for number in range(VMS)]
        for name in names:
            await world.seed(four_volumes(name))
        await stack.admin.put_settings(latency_s=LATENCY_S)
        await _analyse(stack, names[:1])
        one = [await _analyse(stack, [name]) for name in names[:rounds]]
        many = [await _analyse(stack, names) for _ in range(rounds)]
    note = f"answers of CloudStack after {LATENCY_S * 1000:.0f} ms; bound = the limit"
    return (
        Row(f"one VM x {VOLUMES} volumes", median([wall for wall, _ in one]), LIMIT_S, 1.0, note),
        _calls("one VM: calls of CloudStack", max(calls for _, calls in one), LIMIT_CALLS),
        Row(f"{VMS} VMs x {VOLUMES} volumes at once", median([wall for wall, _ in many])),
        _calls(f"{VMS} VMs: calls of CloudStack", max(calls for _, calls in many), LIMIT_CALLS_OF_ALL),
    )


def _calls(name: str, calls: int, most: int) -> Row:
    return Row(name, calls, most, 1.0, "calls, most of all rounds; bound = the limit")


async def _analyse(stack: Stack, names: Sequence[str]) -> tuple[float, int]:
    """(wall in seconds, calls). Raises where a VM is not found fit for a clean-up."""
    before = max((call["seq"] for call in await stack.admin.calls()), default=0)
    began = time.perf_counter()
    answers = await asyncio.gather(*(stack.operator.clean_up(name, {"dry_run": True}) for name in names))
    wall_s = time.perf_counter() - began
    bad = [answer.word for answer in answers if not answer.body.get("success")]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(names)} were not planned: {bad[0]}")
    return wall_s, len(await stack.admin.calls(after=before))
