"""`oma serve` killed with a thousand jobs in flight: until all of them are probed and going on again.

`python -m benchmarks.restart [--jobs 1000]`. A few of the jobs stand in a detach by the Volume Daemon, all others in a
revert by CloudStack; all is sent and nothing has ended. The simulator answers after 5 ms. Every call after the restart
is counted and held against what recovery requires.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import psutil
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from benchmarks.table import Row, print_table
from database.tables import oma_actions, oma_jobs
from oma.demo.ports import ANY_PORTS, HOST, find_port
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import CREATION, INJECTION, SNAPSHOT, DiskStory, Place, SeededVm, VmStory
from oma.demo.world import World
from oma.domain.actions import ActionKind
from oma.domain.states import ActionState, JobState
from tests.proxy import Proxy, running_proxy

JOBS: Final = 1000
LIMIT_S: Final = 5.0
LATENCY_S: Final = 0.005
LONG_S: Final = 600.0
"""What stands still is a job that lasts so long."""
SETTLED_S: Final = 1.0
"""What is asked within so long after all go on counts as the restart's."""
ASKED_FOR: Final = re.compile(rb"GET /api/v1/operations/([0-9a-f-]{36})")
SEEDED_AT_ONCE: Final = 16
DETACHING: Final = 12
LOOKING: Final = ("list", "query", "questions")
EPOCH: Final = frozenset({"createTags", "deleteTags"})
"""Each start raises the epoch: one tag goes and one comes."""
FEW: Final = 100
"""So many looks are the start's own, however few jobs there are."""
SMALL: Final = 64 << 10
TORN: Final = (SNAPSHOT, INJECTION, CREATION, ("volume-attachment", "failed"))
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    # A thousand first calls come close together, and a call expires with its lease; a dead holder's ends at once.
    "workflow": {"max_jobs": 1000, "lease_s": 300},
    "cloudstack": {"expires_s": 300},
    "volume_daemon": {"operation_timeout_s": LONG_S, "outstanding_per_vm": 64},
}


@dataclass(frozen=True, slots=True)
class Measured:
    claimed_s: float
    """From the start of the process until the last job had a lease of it."""
    going_s: float
    """…until each had been asked for by its id and was followed."""
    calls: Counter[str]
    """To CloudStack, by command, within that time and a second more."""


async def measure(jobs: int = JOBS) -> Sequence[Row]:
    """The row of this benchmark."""
    ports = replace(ANY_PORTS, volume_daemon=find_port())
    async with AsyncExitStack() as exits:
        volumes = await exits.enter_async_context(running_proxy(ports.volume_daemon))
        section = {**SETTINGS["volume_daemon"], "url": f"http://{HOST}:{volumes.port}"}
        options = StackOptions(ports=ports, devices="file", settings={**SETTINGS, "volume_daemon": section})
        stack = await exits.enter_async_context(running_stack(options))
        world = World(stack)
        await stack.admin.put_settings(
            max_data_disks=1000,
            durations={"detachVolume": LONG_S, "revertSnapshot": LONG_S},
        )
        vms = await seed(world, jobs)
        await fill(stack, vms)
        await stack.admin.put_settings(latency_s=LATENCY_S)
        measured = await restart(stack, volumes)
    told = ", ".join(f"{number} {command}" for command, number in measured.calls.most_common())
    too_many = find_excess(measured.calls, jobs)
    if too_many:
        raise RuntimeError(f"{too_many}; all calls: {told}")
    return (
        Row(f"{jobs} jobs claimed", measured.claimed_s, LIMIT_S, 1.0, "bound = the limit"),
        Row("… probed and going on", measured.going_s, LIMIT_S, 1.0, told),
    )


def find_excess(calls: Mapping[str, int], jobs: int) -> str | None:
    """What was asked or sent beyond what recovery requires: a look at each job at most, and no change but the epoch."""
    changing = {name: n for name, n in calls.items() if not name.startswith(LOOKING) and (n > 1 or name not in EPOCH)}
    if changing:
        return f"The restart sent changes: {changing}"
    looks = sum(number for name, number in calls.items() if name.startswith(LOOKING))
    return f"The restart asked {looks} times about {jobs} jobs" if looks > max(jobs, FEW) else None


async def seed(world: World, jobs: int) -> list[SeededVm]:
    """The first ones have their disk on a stopped test VM, the others have theirs free."""
    free = asyncio.Semaphore(SEEDED_AT_ONCE)

    async def one(number: int) -> SeededVm:
        async with free:
            place = Place.TEST_VM if number < DETACHING else Place.NOWHERE
            return await world.seed(
                VmStory(f"vm-{number}", (DiskStory(place, size_bytes=SMALL),), steps=TORN, test_vm="Stopped")
            )

    return list(await asyncio.gather(*map(one, range(jobs))))


async def fill(stack: Stack, vms: Sequence[SeededVm]) -> None:
    """Every job has sent what it will stand in."""
    answers = await asyncio.gather(
        *(stack.operator.clean_up(vm.name, headers={"Prefer": "respond-async"}) for vm in vms)
    )
    bad = [answer.word for answer in answers if answer.status != 202]
    if bad:
        raise RuntimeError(f"{len(bad)} jobs were not accepted; the first: {bad[0]}")
    sent = select(func.count(func.distinct(oma_actions.c.job_id))).where(
        oma_actions.c.state == ActionState.STARTED.value, oma_actions.c.remote_id.is_not(None)
    )
    async with asyncio.timeout(300):
        while await stack.door.read(lambda connection: connection.execute(sent).scalar_one()) < len(vms):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.5)


async def restart(stack: Stack, volumes: Proxy) -> Measured:
    awaited = await stack.door.read(_read_sent)
    await stack.oma.kill()
    number, asked = await _last_call(stack), volumes.counts.pieces
    former = await stack.door.read(_read_owners)
    began = time.monotonic()
    await stack.oma.start()
    claimed_s = going_s = 0.0
    all_claimed_at = 0
    async with asyncio.timeout(120):
        while not going_s:
            await asyncio.sleep(0.05)
            if not claimed_s and not former & await stack.door.read(_read_owners):
                claimed_s, all_claimed_at = time.monotonic() - began, await _last_call(stack)
            pieces = volumes.list_pieces(asked)
            if claimed_s and await _are_followed(stack, awaited, (number, all_claimed_at), pieces):
                going_s = time.monotonic() - began
    await asyncio.sleep(SETTLED_S)
    calls = Counter(str(call["command"]) for call in await stack.admin.calls(number))
    cpu_s = sum(psutil.Process(stack.oma.pid).cpu_times()[:2])
    print(f"CPU of the daemon: {cpu_s:.1f} s")
    calls["questions to the Volume Daemon"] = volumes.counts.pieces - asked
    return Measured(claimed_s, going_s, calls)


async def _are_followed(
    stack: Stack, awaited: Mapping[str, ActionKind], after: tuple[int, int], pieces: Sequence[bytes]
) -> bool:
    """Each operation was asked for by its id; each CloudStack job too, or all were listed since the last was claimed.

    `after`: the last call before the restart, and before all were claimed.
    """
    found = {match.decode() for match in ASKED_FOR.findall(b"\n".join(pieces))}
    if any(one not in found for one, kind in awaited.items() if kind is ActionKind.DETACH_VOLUME):
        return False
    restarted, all_claimed = after
    calls = await stack.admin.calls(restarted)
    if any(call["command"] == "listAsyncJobs" and call["seq"] > all_claimed for call in calls):
        return True
    looked = {call["params"].get("jobid") for call in calls if call["command"] == "queryAsyncJobResult"}
    return all(one in looked for one, kind in awaited.items() if kind is not ActionKind.DETACH_VOLUME)


def _read_sent(connection: Connection) -> dict[str, ActionKind]:
    """What every job waits for, by the other side's id."""
    table = oma_actions.c
    query = select(table.remote_id, table.kind).where(
        table.state == ActionState.STARTED.value, table.remote_id.is_not(None)
    )
    return {row.remote_id: ActionKind(row.kind) for row in connection.execute(query)}


def _read_owners(connection: Connection) -> set[str | None]:
    """Who holds the jobs that run; None where nobody does."""
    query = select(func.distinct(oma_jobs.c.lease_owner)).where(
        oma_jobs.c.state.in_((JobState.RUNNING.value, JobState.QUEUED.value))
    )
    return set(connection.execute(query).scalars())


async def _last_call(stack: Stack) -> int:
    calls = await stack.admin.calls()
    return int(calls[-1]["seq"]) if calls else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    rows = asyncio.run(measure(parser.parse_args().jobs))
    print_table("Restart with jobs in flight", rows)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
