"""All scenarios at once, and the table of how they ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from oma.demo.scenarios import GROUPS, SCENARIOS, Scenario
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


@dataclass(frozen=True, slots=True)
class Seeded:
    """The world with its VMs. `skipped`: a sentence for each scenario that this machine can't show."""

    world: World
    vms: dict[Scenario, SeededVm]
    skipped: tuple[str, ...]


async def seed_scenarios(stack: Stack) -> Seeded:
    """All VMs, one after the other: the list shows them from then on."""
    world = World(stack)
    lacking = await asyncio.to_thread(lambda: {scenario: scenario.missing() for scenario in SCENARIOS})
    skipped = tuple(f"Skipped: {one.title}; it takes {what}." for one, what in lacking.items() if what is not None)
    vms = {scenario: await scenario.seed(world) for scenario, what in lacking.items() if what is None}
    return Seeded(world, vms, skipped)


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
    """By kind, in the order of the scenarios, whichever ended first."""
    table = Table(title="How each VM ended")
    for name in ("scenario", "VM", "expected", "got", "replica"):
        table.add_column(name, overflow="fold")
    table.add_column("s", justify="right")
    table.add_column("")
    kinds = {scenario: kind for kind, group in GROUPS for scenario in group}
    shown = ""
    for one in sorted(played, key=lambda each: SCENARIOS.index(each.scenario)):
        kind = kinds.get(one.scenario, "")
        if kind != shown:
            table.add_section()
            table.add_row(Text(kind, style="bold"))
            shown = kind
        table.add_row(*_cells(one))
    return table


def _cells(played: Played) -> tuple[str | Text, ...]:
    scenario, result = played.scenario, played.result
    mark = Text("as it should", style="green") if result.good else Text("WRONG", style="bold red")
    told = (scenario.title, Text(scenario.vm_name), scenario.expected, result.got, result.replica)
    return (*told, f"{played.seconds:.1f}", mark)


def describe_faults(played: Sequence[Played]) -> list[str]:
    return [f"{one.scenario.vm_name}: {fault}" for one in played for fault in one.result.faults]
