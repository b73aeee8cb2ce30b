"""`oma demo`: broken VMs put right over three real processes, on this machine, with nothing of anybody's touched."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from database.errors import DatabaseUnavailable, SchemaOutdated
from oma.demo.once import Played, Seeded, build_table, describe_faults, play_scenarios, seed_scenarios
from oma.demo.ports import Ports
from oma.demo.programs import ProgramFailed
from oma.demo.stack import Stack, StackFailed, StackOptions, running_stack
from oma.demo.tour import show_one

ONCE_TIME_SCALE: Final = 0.05
"""CloudStack's jobs take a twentieth of their usual time: 20 VMs share one attach queue."""
TOUR_TIME_SCALE: Final = 0.4
DONE, FAILED = 0, 1
TABLE_WIDTH: Final = 150
"""Where the output is no terminal and so has no width of its own."""


def run(
    *,
    once: bool,
    port: int = 8082,
    database_url: str | None = None,
    directory: Path | None = None,
    no_color: bool = False,
    quiet: bool = False,
    env: Mapping[str, str] | None = None,
) -> int:
    """The exit status. With `once` 0 only if every VM ended as it should; without it the demo ends by Ctrl-C."""
    env = os.environ if env is None else env
    console = build_console(no_color=no_color, quiet=quiet)
    options = StackOptions(
        directory=directory,
        database_url=database_url or env.get("OMA_DATABASE__URL"),
        ports=replace(Ports(), oma=port),
        simulator={"time_scale": ONCE_TIME_SCALE if once else TOUR_TIME_SCALE},
        say=console.print,
    )
    try:
        return asyncio.run(_run(options, console, once=once))
    except (StackFailed, ProgramFailed, DatabaseUnavailable, SchemaOutdated) as error:
        console.print(f"The demo can't go on: {error}", style="bold red", markup=False)
        return FAILED


def build_console(*, no_color: bool, quiet: bool) -> Console:
    console = Console(no_color=no_color or None, quiet=quiet, highlight=False)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    return console


async def _run(options: StackOptions, console: Console, *, once: bool) -> int:
    """Ctrl-C and SIGTERM end it at any point, in order: what runs is stopped, what was made is taken away."""
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if main is None:
        raise RuntimeError("the demo runs in a task")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, main.cancel)
    try:
        console.print("Starting the CloudStack simulator, the Volume Daemon and the OMA daemon …")
        async with running_stack(options) as stack:
            return await (run_once(stack, console) if once else _show(stack, console))
    except asyncio.CancelledError:
        main.uncancel()
        console.print("Everything is stopped.")
        return FAILED if once else DONE


async def run_once(stack: Stack, console: Console) -> int:
    began = time.monotonic()
    seeded = await seed_scenarios(stack)
    console.print(f"{len(seeded.vms)} broken VMs are seeded; each is cleaned up over HTTP.")
    _say_skipped(seeded, console)
    played: list[Played] = []
    async for one in play_scenarios(seeded.world, seeded.vms):
        played.append(one)
        word = "as it should" if one.result.good else "WRONG"
        console.print(f"  {one.scenario.vm_name}: {one.result.got} ({one.seconds:.1f} s, {word})", markup=False)
    console.print(build_table(played))
    for fault in describe_faults(played):
        console.print(fault, style="red", markup=False)
    good, all_of_them = sum(one.result.good for one in played), len(seeded.vms)
    console.print(f"{good} of {all_of_them} ended as they should, in {time.monotonic() - began:.0f} s.")
    _say_skipped(seeded, console)
    return DONE if good == all_of_them else FAILED


def _say_skipped(seeded: Seeded, console: Console) -> None:
    for sentence in seeded.skipped:
        console.print(sentence, style="yellow", markup=False)


async def _show(stack: Stack, console: Console) -> int:
    """Whoever is at a disk in a scenario is really there, until the demo ends."""
    seeded = await seed_scenarios(stack)
    async with AsyncExitStack() as company:
        for scenario, vm in seeded.vms.items():
            await company.enter_async_context(scenario.company(seeded.world, vm))
        console.print(f"{len(seeded.vms)} broken VMs are seeded. One of them is cleaned up now, over HTTP:")
        _say_skipped(seeded, console)
        await show_one(stack, console)
        console.print(f"\nThe page: {stack.operator.url}/", style="bold")
        console.print(f"The command line: oma --server {stack.operator.url} vms", markup=False)
        console.print(f"Settings, logs and database lie in {stack.directory}.", markup=False)
        console.print("Ctrl-C ends it and leaves nothing running.")
        await asyncio.Event().wait()
    return DONE
