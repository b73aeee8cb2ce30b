"""VMs whose device on the OMA somebody holds: nothing is detached, and the holder is named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.holders import (
    Holder,
    hung_injection,
    loop_device,
    make_file_system,
    missing_right,
    mounted,
    process_elsewhere,
)
from oma.demo.ledger import last_call
from oma.demo.replications import begin_replication, complete_replication
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.scenarios.cleaned import success_faults
from oma.demo.scenarios.refused import Asked, ask_in_vain, say
from oma.demo.story import SNAPSHOT, DiskStory, Export, Place, SeededVm, VmStory
from oma.demo.world import World
from oma.demo.writer import missing_nbd_tools, running_writer

ON_OMA: Final = DiskStory(Place.OMA)
HUNG: Final = (SNAPSHOT, ("virtio-driver-injection", "running"))
UNREADABLE_PROC: Final = "no-proc"


def injected(name: str, *disks: DiskStory) -> VmStory:
    """Its failover hung at the injection: its disks never left the OMA, and one of them was written to."""
    return VmStory(name, disks or (ON_OMA, ON_OMA), steps=HUNG, test_vm=None)


@dataclass(frozen=True, slots=True)
class Injected(OfOneStory):
    """A hung injection: refused with its pid, ended by a person's word, cleaned; woken afterwards it writes nothing."""

    title: str
    story: VmStory
    expected: str = "409 device_in_use, then 200 ready"
    alone: bool = False

    def missing(self) -> str | None:
        return missing_right()

    def company(self, world: World, vm: SeededVm) -> AbstractAsyncContextManager[object]:
        return hung_injection(world.stack, vm.disks[0])

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        before = await last_call(stack)
        async with hung_injection(stack, vm.disks[0]) as injection:
            asked = await ask_in_vain(world, vm, str(injection.pid))
            faults = list(asked.faults)
            if not injection.runs:
                faults.append("the refused clean-up ended the injection")
            answer = await stack.operator.clean_up(vm.name, say({"end_holders": True}))
            left = await asyncio.to_thread(injection.list_tree)
            if left:
                faults.append(f"of the injection there still run {left}")
            if injection.wake():
                faults.append("the injection could be woken after the clean-up")
            faults += success_faults(answer, vm)
            faults += await faults_of_a_cleaned_vm(world, vm, after_call=before)
        return result([asked.answer, answer], self.expected, faults)


@dataclass(frozen=True, slots=True)
class Held(OfOneStory):
    """Somebody whom nobody may end holds the first disk's device."""

    title: str
    story: VmStory
    holder: Holder
    commands: tuple[str, ...]
    """What it takes to hold it."""
    with_file_system: bool = False
    expected: str = "409 device_in_use"
    alone: bool = False

    def missing(self) -> str | None:
        return missing_right(*self.commands)

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        await self.prepare(world, vm)
        return vm

    async def prepare(self, world: World, vm: SeededVm) -> None:
        """Makes the disk such that it can be held."""
        if self.with_file_system:
            await make_file_system(world.stack, vm.disks[0])
            await world.look_again(vm)

    def company(self, world: World, vm: SeededVm) -> AbstractAsyncContextManager[object]:
        return self.holder(world.stack, vm.disks[0])

    async def play(self, world: World, vm: SeededVm) -> Result:
        async with self.holder(world.stack, vm.disks[0]) as name:
            asked = await ask_in_vain(world, vm, name)
            insisted = await ask_in_vain(world, vm, name, say({"end_holders": True}))
        faults = asked.faults + [f"with end_holders: {fault}" for fault in insisted.faults]
        if insisted.answer.word != asked.answer.word:
            faults.append(f"with end_holders it answered {insisted.answer.word}")
        return result([asked.answer], self.expected, faults)


@dataclass(frozen=True, slots=True)
class Connected(OfOneStory):
    """A replication is alive: an NBD client is connected, though no row says so. It goes on undisturbed."""

    title: str
    story: VmStory
    expected: str = "409 operation_in_progress"
    alone: bool = False

    def missing(self) -> str | None:
        return missing_right() or missing_nbd_tools()

    def company(self, world: World, vm: SeededVm) -> AbstractAsyncContextManager[object]:
        return running_writer(world.stack, vm.disks[0])

    async def play(self, world: World, vm: SeededVm) -> Result:
        async with running_writer(world.stack, vm.disks[0]) as writer:
            await world.look_again(vm)
            asked = await ask_in_vain(world, vm, "NBD client")
            await writer.write_block()
        return result([asked.answer], self.expected, asked.faults)


@dataclass(frozen=True, slots=True)
class Replicating(OfOneStory, Anywhere):
    """A replication that writes: refused under it, and after its end, because the change ids have moved on."""

    title: str
    story: VmStory
    expected: str = "409 operation_in_progress, then 409 replicated_since_snapshot"
    alone: bool = False

    def missing(self) -> str | None:
        return missing_right() or missing_nbd_tools()

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        replication_id = await begin_replication(stack, vm)
        async with running_writer(stack, vm.disks[0]) as writer:
            await world.look_again(vm)
            under = await ask_in_vain(world, vm, "replicating")
            await writer.write_block()
        await complete_replication(stack, vm, replication_id)
        await world.look_again(vm)
        after = await ask_in_vain(world, vm, "after the snapshot")
        faults = under.faults + [f"after it: {fault}" for fault in after.faults]
        return result([under.answer, after.answer], self.expected, faults)


@dataclass(frozen=True, slots=True)
class Blind(OfOneStory, Anywhere):
    """The scan can't see who holds what: that is unknown, never nobody."""

    title: str
    story: VmStory
    expected: str = "409 state_unknown"
    alone: bool = True

    async def play(self, world: World, vm: SeededVm) -> Result:
        asked = await _ask_blind(world, vm)
        return result([asked.answer], self.expected, asked.faults)


async def _ask_blind(world: World, vm: SeededVm) -> Asked:
    program = world.stack.volume_daemon
    await program.restart(_blindfold(world.stack.directory))
    try:
        return await ask_in_vain(world, vm, "could not see everything")
    finally:
        await program.restart()


def _blindfold(directory: Path) -> Mapping[str, str]:
    """As on a machine whose /proc shows the daemon nothing."""
    return {
        "OMA_VOLUME_DAEMON__PROC_ROOT": str(directory / UNREADABLE_PROC),
        "OMA_VOLUME_DAEMON__HOLDER_SCOPE": "everything",
    }


HELD: Final = (
    Injected("a hung injection on the attached system disk", injected("hung-injection")),
    Held(
        "a process in another mount namespace",
        injected("held-elsewhere"),
        process_elsewhere,
        ("unshare",),
    ),
    Held(
        "a file system that is mounted",
        injected("held-by-mount"),
        mounted,
        ("mount", "umount", "mke2fs"),
        with_file_system=True,
    ),
    Held("a loop device on the disk", injected("held-by-loop"), loop_device, ("losetup",)),
    Connected(
        "a replication whose NBD client is connected",
        injected("held-by-nbd", DiskStory(Place.OMA, export=Export("held-by-nbd-system"))),
    ),
    Replicating(
        "a replication that writes, and then has ended",
        injected("replicating-disk", DiskStory(Place.OMA, export=Export("replicating-disk-system"))),
    ),
    Blind("a scan without the right to see", injected("unseen-holders")),
)
