"""VMs where somebody else acts in the middle of a run: it stops where it stands, says so, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import update

from database.tables import oma_issues, vm_replication_contexts
from oma.demo.checks import content_faults, faults_of_a_parked_vm, faults_of_an_undone_vm, joblog_faults
from oma.demo.ledger import Ledger, last_call, list_changes, read_cloud, read_ledger
from oma.demo.replications import begin_replication, run_replication
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.scenarios.parked import PARKED_WORDS, call_twice
from oma.demo.scenarios.refused import ON_TEST_VM
from oma.demo.story import SeededVm, VmStory
from oma.demo.world import World
from oma.domain.records import CLEANUP_REQUIRED, READY_FOR_FAILOVER

HELD_UP_S: Final = 0.8
"""How long CloudStack takes for the call during which somebody acts."""
SENT_WITHIN_S: Final = 30.0
PAUSE_S: Final = 0.05
LATER: Final = ("revertSnapshot", "deleteSnapshot", "destroyVirtualMachine")
"""What a run that goes back never sends."""

Meddling = Callable[[World, SeededVm], Awaitable[object]]


async def start_replication(world: World, vm: SeededVm) -> None:
    await begin_replication(world.stack, vm)


async def replicate(world: World, vm: SeededVm) -> None:
    """A replication begins and ends: its change ids are stored."""
    await run_replication(world.stack, vm)


async def reset_the_status(world: World, vm: SeededVm) -> None:
    query = (
        update(vm_replication_contexts)
        .where(vm_replication_contexts.c.context_id == vm.context_id)
        .values(current_status=READY_FOR_FAILOVER)
    )
    await world.stack.door.write(lambda connection: connection.execute(query))


@dataclass(frozen=True, slots=True)
class Meddled(OfOneStory, Anywhere):
    """Somebody acts while the first of these calls is under way."""

    title: str
    story: VmStory
    during: str
    meddle: Meddling
    detail: str
    """A part of the sentence that has to name the reason."""
    undone: bool = False
    """Whether the run goes back: the volumes are home as they were, and no issue is left."""
    reverted: bool = False
    """Whether the disks are back at their snapshots by then, and go home."""
    status: str = CLEANUP_REQUIRED
    """What the context's status is afterwards."""
    expected: str = PARKED_WORDS
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        disk = vm.disks[0]
        target = disk.volume_id if self.during == "detachVolume" else disk.snapshot_id
        await world.stack.admin.add_fault(self.during, "job_stuck", match={"id": target}, delay_s=HELD_UP_S)
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        before = await last_call(stack)
        asking = asyncio.create_task(call_twice(world, vm))
        try:
            await _until_sent(world, vm, self.during, before)
            await self.meddle(world, vm)
            answers = await asking
        finally:
            asking.cancel()
        sent = [str(call["command"]) for call in await list_changes(stack, vm, before)]
        if self.undone:
            faults = await faults_of_an_undone_vm(world, vm)
            faults += [f"CloudStack got {command}" for command in sent if command in LATER]
            told = str(answers[0].body.get("detail"))
            faults += [] if self.detail in told else [f"the answer says {told!r}"]
            return result(answers, self.expected, faults)
        faults = (
            await self._reverted_faults(world, vm) if self.reverted else await self._untouched_faults(world, vm, sent)
        )
        faults += issue_faults(await read_ledger(stack, vm), self.detail)
        return result(answers, self.expected, faults)

    async def _untouched_faults(self, world: World, vm: SeededVm, sent: Sequence[str]) -> list[str]:
        """Nothing was reverted, so nothing is lost: every snapshot is there, and the volumes went home."""
        faults = await faults_of_a_parked_vm(world, vm, status=self.status)
        faults += await content_faults(world, vm, world.found) + await _away_faults(world, vm)
        return faults + [f"CloudStack got {command}" for command in sent if command in LATER]

    async def _reverted_faults(self, world: World, vm: SeededVm) -> list[str]:
        """The disks are at their snapshots and home; no record says that it is over."""
        ledger = await read_ledger(world.stack, vm)
        faults = await content_faults(world, vm, world.good) + await _away_faults(world, vm)
        if ledger.context["current_status"] != self.status:
            faults.append(f"the status is {ledger.context['current_status']}, not {self.status}")
        return faults + joblog_faults(ledger)


async def _away_faults(world: World, vm: SeededVm) -> list[str]:
    cloud = await read_cloud(world.stack)
    places = {disk.name: cloud.volume(disk.volume_id)["vm_id"] for disk in vm.disks}
    return [f"{name} is on {place}" for name, place in places.items() if place != world.stack.oma_vm_id]


def issue_faults(ledger: Ledger, detail: str) -> list[str]:
    """An open issue names the reason."""
    told = [
        f"{row['title']} {row['evidence']} {row['error']}" for row in ledger.of(oma_issues) if row["state"] == "open"
    ]
    return [] if any(detail in text for text in told) else [f"no open issue says {detail!r}: {told}"]


async def _until_sent(world: World, vm: SeededVm, command: str, after: int) -> None:
    """Until CloudStack has the call for the first disk."""
    async with asyncio.timeout(SENT_WITHIN_S):
        while command not in [call["command"] for call in await list_changes(world.stack, vm, after)]:  # noqa: ASYNC110  another process tells nobody
            await asyncio.sleep(PAUSE_S)


def _story(name: str) -> VmStory:
    return VmStory(name, (ON_TEST_VM,), test_vm="Stopped")


MIDWAY: Final = (
    Meddled(
        "a replication starts in the middle, before the first revert",
        _story("replication-first"),
        "detachVolume",
        start_replication,
        "is replicating",
        undone=True,
        expected="500 cleanup_failed, then 409 operation_in_progress",
    ),
    Meddled(
        "a replication runs in the middle, before the first revert",
        _story("replicated-midway"),
        "detachVolume",
        replicate,
        "after the snapshot",
        undone=True,
        expected="500 cleanup_failed, then 409 replicated_since_snapshot",
    ),
    Meddled(
        "a replication starts in the middle, after the first revert",
        _story("replication-late"),
        "revertSnapshot",
        start_replication,
        "is replicating",
        reverted=True,
    ),
    Meddled(
        "somebody resets the status in the middle",
        _story("status-reset"),
        "detachVolume",
        reset_the_status,
        "Somebody else set the status",
        status=READY_FOR_FAILOVER,
    ),
)
