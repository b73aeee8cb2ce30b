"""All scenarios at once, and the table of how they ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from oma.demo.scenarios import SCENARIOS, Scenario
from oma.demo.scenarios.base import Result
from oma.demo.stack import Stack
from oma.demo.story import SeededVm
from oma.demo.world import World


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario that has ended. `seconds` are those of its own calls and of looking at what there is afterwards."""

    scenario: Scenario
    result: Result
    seconds: float


async def seed_scenarios(stack: Stack) -> tuple[World, dict[Scenario, SeededVm]]:
    """All VMs, one after the other: the list shows them from then on."""
    world = World(stack)
    return world, {scenario: await scenario.seed(world) for scenario in SCENARIOS}


async def play_scenarios(world: World, vms: dict[Scenario, SeededVm]) -> AsyncIterator[Played]:
    """Those that disturb nobody beside each other, in the order in which they end; then those that stop a program."""
    together = [asyncio.create_task(_play(world, scenario, vm)) for scenario, vm in vms.items() if not scenario.alone]
    try:
        for ended in asyncio.as_completed(together):
            yield await ended
    finally:
        for task in together:
            task.cancel()
        await asyncio.gather(*together, return_exceptions=True)
    for scenario, vm in vms.items():
        if scenario.alone:
            yield await _play(world, scenario, vm)


async def _play(world: World, scenario: Scenario, vm: SeededVm) -> Played:
    began = time.monotonic()
    result = await scenario.play(world, vm)
    return Played(scenario, result, time.monotonic() - began)


def build_table(played: Sequence[Played]) -> Table:
    """In the order of the scenarios, whichever ended first."""
    table = Table(title="How each VM ended")
    for name in ("scenario", "VM", "expected", "got", "replica"):
        table.add_column(name, overflow="fold")
    table.add_column("s", justify="right")
    table.add_column("")
    for one in sorted(played, key=lambda each: SCENARIOS.index(each.scenario)):
        mark = Text("as it should", style="green") if one.result.good else Text("WRONG", style="bold red")
        table.add_row(
            one.scenario.title,
            Text(one.scenario.vm_name),
            one.scenario.expected,
            one.result.got,
            one.result.replica,
            f"{one.seconds:.1f}",
            mark,
        )
    return table


def describe_faults(played: Sequence[Played]) -> list[str]:
    return [f"{one.scenario.vm_name}: {fault}" for one in played for fault in one.result.faults]
