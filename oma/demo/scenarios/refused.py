"""VMs that must not be touched: refused with the reason, and the world is as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from oma.demo.checks import content_faults
from oma.demo.ledger import Cloud, differences, last_call, list_changes, read_cloud, read_ledger
from oma.demo.operator import Answer
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.story import ATTACHMENT, CREATION, INJECTION, SNAPSHOT, DiskStory, Place, SeededVm, VmStory
from oma.demo.world import World

ON_TEST_VM: Final = DiskStory(Place.TEST_VM)
REASON: Final = "agreed with the owner of the VM"
Words = Callable[[SeededVm], Mapping[str, Any]]
"""What a person insists on, with the ids of the VM."""


@dataclass(frozen=True, slots=True)
class Refused(OfOneStory, Anywhere):
    """`detail` is a part of the sentence that has to name the reason."""

    title: str
    story: VmStory
    expected: str
    detail: str
    vanished: bool = False
    """CloudStack no longer lists the last volume."""
    keeps_device: bool = False
    """CloudStack shows the last volume as free, and its device stayed on the OMA."""
    without_volume_daemon: bool = False
    beside: VmStory | None = None
    """Another VM that is seeded before."""
    words: Words | None = None
    """What somebody insists on in vain afterwards."""

    @property
    def alone(self) -> bool:
        return self.without_volume_daemon

    async def seed(self, world: World) -> SeededVm:
        if self.beside is not None:
            await world.seed(self.beside)
        vm = await world.seed(self.story)
        if self.vanished:
            await world.stack.admin.delete_volume(vm.disks[-1].volume_id)
        if self.keeps_device:
            free = {"vm_id": None, "device_id": None}
            await world.stack.admin.patch_volume(vm.disks[-1].volume_id, **free, keeps_device=True)
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        if not self.without_volume_daemon:
            return await self._ask(world, vm)
        await stack.volume_daemon.stop()
        try:
            return await self._ask(world, vm)
        finally:
            await stack.volume_daemon.start()

    async def _ask(self, world: World, vm: SeededVm) -> Result:
        asked = await ask_in_vain(world, vm, self.detail)
        if self.words is None:
            return result([asked.answer], self.expected, asked.faults)
        insisted = await ask_in_vain(world, vm, self.detail, say(self.words(vm)))
        faults = asked.faults + [f"with the words: {fault}" for fault in insisted.faults]
        if insisted.answer.word != asked.answer.word:
            faults.append(f"with the words it answered {insisted.answer.word}")
        return result([asked.answer], self.expected, faults)


@dataclass(frozen=True, slots=True)
class Asked:
    """A refusal, and whatever it left behind all the same."""

    answer: Answer
    faults: list[str]


async def ask_in_vain(
    world: World, vm: SeededVm, detail: str, body: Mapping[str, Any] | None = None, *, but: frozenset[str] = frozenset()
) -> Asked:
    """Asks for a dry run and for a real one; neither may leave a trace, save in the tables that `but` names."""
    stack = world.stack
    before, ledger, cloud = await asyncio.gather(last_call(stack), read_ledger(stack, vm), read_cloud(stack))
    dry = await stack.operator.clean_up(vm.name, {**(body or {}), "dry_run": True})
    answer = await stack.operator.clean_up(vm.name, body)
    calls, after = await asyncio.gather(list_changes(stack, vm, before), read_ledger(stack, vm))
    faults = [*refusal_faults(answer, detail), *differences(ledger, after, but=but)]
    faults += [f"CloudStack got {call['command']}" for call in calls]
    faults += cloud_faults(vm, cloud, await read_cloud(stack))
    faults += await content_faults(world, vm, world.found)
    if dry.word != answer.word:
        faults.append(f"the dry run answered {dry.word}")
    return Asked(answer, faults)


def say(words: Mapping[str, Any]) -> dict[str, Any]:
    """The body in which a person insists on them."""
    return {"reason": REASON, **words}


def insist(vm: SeededVm) -> Mapping[str, Any]:
    """All that could be said for a live failover."""
    return {"force": True, "destination_vm_id": vm.test_vm_id}


def refusal_faults(answer: Answer, detail: str) -> list[str]:
    body = answer.body
    faults: list[str] = []
    if not str(body.get("error", "")).startswith("Failed to cleanup failed execution: ") or body.get("success"):
        faults.append(f"the error is {body.get('error')!r}")
    refusals = body.get("refusals") or []
    said = [*(str(refusal.get("detail")) for refusal in refusals), str(body.get("detail"))]
    if not any(detail in sentence for sentence in said):
        faults.append(f"no sentence says {detail!r}: {said}")
    if not all(refusal.get("next") for refusal in refusals):
        faults.append("a refusal does not say what to do next")
    return faults


def cloud_faults(vm: SeededVm, before: Cloud, after: Cloud) -> list[str]:
    faults = [
        f"{disk.name} was {before.volume(disk.volume_id)} and is {after.volume(disk.volume_id)}"
        for disk in vm.disks
        if before.volume(disk.volume_id) != after.volume(disk.volume_id)
    ]
    faults += [
        f"snapshot {one} of {disk.name} is gone"
        for disk in vm.disks
        for one in disk.listed_ids
        if not after.has_snapshot(one)
    ]
    if before.vm_state(vm.test_vm_id) != after.vm_state(vm.test_vm_id):
        faults.append(f"the VM is {after.vm_state(vm.test_vm_id)}")
    return faults


REFUSED: Final = (
    Refused(
        "a completed live failover",
        VmStory(
            "went-live",
            (ON_TEST_VM, ON_TEST_VM),
            job_type="live",
            context_status="failed_over_live",
            failover_status="completed",
            joblog_status="completed",
            steps=(
                ("source-vm-power-off", "completed"),
                SNAPSHOT,
                INJECTION,
                CREATION,
                ATTACHMENT,
                ("vm-startup-and-validation", "completed"),
            ),
        ),
        "409 live_failover",
        "was failed over for good",
        words=insist,
    ),
    Refused(
        "a volume on a foreign VM",
        VmStory("borrowed-disk", (ON_TEST_VM, DiskStory(Place.FOREIGN_VM)), test_vm="Stopped"),
        "409 volume_on_foreign_vm",
        "somebody-elses-vm",
    ),
    Refused(
        "a volume that CloudStack no longer lists",
        VmStory("vanished-disk", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped"),
        "409 state_unknown",
        "Alarm: CloudStack no longer lists",
        vanished=True,
    ),
    Refused(
        "a volume that CloudStack shows as free while its device stays",
        VmStory(
            "ghost-device",
            (DiskStory(Place.OMA), DiskStory(Place.OMA)),
            steps=(SNAPSHOT, INJECTION, ("vm-creation", "failed")),
            joblog_status="failed",
            test_vm=None,
        ),
        "409 state_unknown",
        "but the OMA still shows its device",
        keeps_device=True,
    ),
    Refused(
        "a test VM that could not be built and holds the volumes",
        VmStory("error-vm", (ON_TEST_VM, ON_TEST_VM), test_vm="Error"),
        "409 state_unknown",
        "whether it can still write to a volume can't be told",
    ),
    Refused(
        "a tracked snapshot that belongs to another volume",
        VmStory("wrong-snapshot", (DiskStory(Place.TEST_VM, tracked="right-snapshot"), ON_TEST_VM), test_vm="Stopped"),
        "409 snapshot_mismatch",
        "but CloudStack shows it on volume",
        beside=VmStory("right-snapshot", (ON_TEST_VM,), test_vm="Stopped"),
    ),
    Refused(
        "a VM of which nothing is left behind",
        VmStory(
            "nothing-left",
            (DiskStory(Place.OMA, snapshots=(), written=False),) * 2,
            context_status="ready_for_failover",
            failover_status="failed",
            joblog_status="failed",
            steps=(("multi-volume-snapshot", "failed"),),
            test_vm=None,
        ),
        "409 nothing_to_clean",
        "every volume is home on the OMA",
    ),
    Refused(
        "the Volume Daemon is down",
        VmStory("daemon-down", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped"),
        "409 state_unknown",
        "Volume Daemon",
        without_volume_daemon=True,
    ),
)
