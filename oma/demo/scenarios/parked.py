"""VMs whose clean-up stops half-way: nothing is lost, the reason is kept, and the next call is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oma.demo.checks import faults_of_a_cleaned_vm, faults_of_a_parked_vm, faults_of_an_undone_vm
from oma.demo.ledger import last_call, list_changes, read_cloud
from oma.demo.operator import Answer
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.story import DiskStory, Place, SeededVm, VmStory
from oma.demo.world import World

ON_TEST_VM: Final = DiskStory(Place.TEST_VM)
IN_TRANSITION: Final = "Unable to detach volume: the VM is in a state of transition."
REVERT_FAILED: Final = "Failed to revert snapshot: the storage pool is not reachable"
UNDONE_WORDS: Final = "500 cleanup_failed, then 200 ready"
PARKED_WORDS: Final = "500 cleanup_failed, then 409 needs_resolution"


MARKING: Final = ("createTags", "deleteTags")
"""A run marks what it works on, whatever becomes of it."""


@dataclass(frozen=True, slots=True)
class Refusing(OfOneStory, Anywhere):
    """A detach is refused for another reason than "not attached": what moved goes home, the next call cleans it."""

    title: str
    story: VmStory
    expected: str = UNDONE_WORDS
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        await world.stack.admin.add_fault(
            "detachVolume",
            "job_fail",
            match={"id": vm.disks[0].volume_id},
            errorcode=431,
            errortext=IN_TRANSITION,
        )
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack, before = world.stack, await last_call(world.stack)
        undone = await stack.operator.clean_up(vm.name)
        upstream = undone.body.get("upstream") or {}
        faults = [] if IN_TRANSITION in str(upstream.get("text")) else [f"the upstream is {upstream}"]
        faults += await faults_of_an_undone_vm(world, vm, stayed=[vm.disks[0].volume_id])
        sent = {call["command"] for call in await list_changes(stack, vm, before)}
        faults += [f"CloudStack got {command}" for command in sorted(sent - {"detachVolume", "attachVolume", *MARKING})]
        before = await last_call(stack)
        again = await stack.operator.clean_up(vm.name)
        faults += await faults_of_a_cleaned_vm(world, vm, after_call=before)
        return result([undone, again], self.expected, faults)


@dataclass(frozen=True, slots=True)
class Unproven(OfOneStory, Anywhere):
    """A revert fails each time: its volume's content can't be told, so no snapshot goes and no volume is attached."""

    title: str
    story: VmStory
    expected: str = PARKED_WORDS
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        await world.stack.admin.add_fault(
            "revertSnapshot",
            "job_fail",
            times=None,
            match={"id": vm.disks[-1].snapshot_id},
            errorcode=530,
            errortext=REVERT_FAILED,
        )
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        before = await last_call(world.stack)
        answers = await call_twice(world, vm)
        faults = parked_faults(answers, "530", REVERT_FAILED) + await faults_of_a_parked_vm(world, vm)
        cloud = await read_cloud(world.stack)
        faults += [
            f"{disk.name} is attached to {cloud.volume(disk.volume_id)['vm_id']}"
            for disk in vm.disks
            if cloud.volume(disk.volume_id)["vm_id"] is not None
        ]
        sent = [call["command"] for call in await list_changes(world.stack, vm, before)]
        faults += [f"CloudStack got {command}" for command in sent if command in ("attachVolume", "deleteSnapshot")]
        if sent.count("revertSnapshot") != len(vm.disks) + 1:
            faults.append(f"{sent.count('revertSnapshot')} reverts of {len(vm.disks)} disks, one of them twice")
        return result(answers, self.expected, faults)


@dataclass(frozen=True, slots=True)
class Repeated(OfOneStory, Anywhere):
    """A revert's job fails once: its window is waited out, then the same revert is made again, and the run goes on."""

    title: str
    story: VmStory
    expected: str = "200 ready"
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        await world.stack.admin.add_fault(
            "revertSnapshot",
            "job_fail",
            match={"id": vm.disks[0].snapshot_id},
            errorcode=530,
            errortext=REVERT_FAILED,
        )
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        before = await last_call(world.stack)
        answer = await world.stack.operator.clean_up(vm.name)
        faults = await faults_of_a_cleaned_vm(world, vm, after_call=before)
        sent = [call["command"] for call in await list_changes(world.stack, vm, before)]
        if sent.count("revertSnapshot") != len(vm.disks) + 1:
            faults.append(f"{sent.count('revertSnapshot')} reverts of {len(vm.disks)} disks, one of them twice")
        return result([answer], self.expected, faults)


async def call_twice(world: World, vm: SeededVm) -> list[Answer]:
    operator = world.stack.operator
    return [await operator.clean_up(vm.name), await operator.clean_up(vm.name)]


def parked_faults(answers: list[Answer], code: str, text: str) -> list[str]:
    """The upstream's own code and words, an issue and what to do about it; later the same issue."""
    body, again = answers[0].body, answers[1].body
    upstream = body.get("upstream") or {}
    faults: list[str] = []
    if upstream.get("code") != code or text not in str(upstream.get("text")):
        faults.append(f"the upstream is {upstream}")
    if not body.get("guidance") or not body.get("issue_id"):
        faults.append(f"the answer names issue {body.get('issue_id')} with guidance {body.get('guidance')}")
    if body.get("issue_id") not in again.get("issue_ids", []):
        faults.append(f"the second answer names {again.get('issue_ids')}")
    return faults


PARKED: Final = (
    Refusing("431 for another reason", VmStory("refused-detach", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped")),
    Repeated("a revert that fails once", VmStory("repeated-revert", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped")),
    Unproven("a failed revert", VmStory("failed-revert", (ON_TEST_VM, ON_TEST_VM, ON_TEST_VM), test_vm="Stopped")),
)
