"""VMs that other installations work on, and VMs of which something stays behind because a person said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from database.tables import oma_issues
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call, read_ledger
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.scenarios.cleaned import ON_TEST_VM, success_faults
from oma.demo.scenarios.refused import ask_in_vain, say
from oma.demo.story import SeededVm, VmStory
from oma.demo.world import World
from oma.domain.issues import FOREIGN_MARKED
from oma.domain.world import MARK_KEY
from ossea.client import CloudStack

ELSEWHERE: Final = "oma-of-the-other-site"
STORAGE_BUSY: Final = "Failed to delete snapshot: the secondary storage is not reachable"


@dataclass(frozen=True, slots=True)
class Marked(OfOneStory, Anywhere):
    """Another installation's marker is on a volume: somebody works on it that this database does not know."""

    title: str
    story: VmStory
    expected: str = "409 foreign_marker"
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        async with CloudStack(world.stack.endpoint) as cloud:
            marks = {MARK_KEY: f"{ELSEWHERE}/4711"}
            await cloud.wait_job(await cloud.create_tags([vm.disks[0].volume_id], "Volume", marks))
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        # The refusal opens the one issue that a person settles once the marker is off.
        asked = await ask_in_vain(world, vm, ELSEWHERE, but=frozenset({oma_issues.name}))
        issues = (await read_ledger(world.stack, vm)).of(oma_issues)
        found = [(row["kind"], row["state"], ELSEWHERE in row["title"]) for row in issues]
        faults = [] if found == [(FOREIGN_MARKED, "open", True)] else [f"the issues are {found}"]
        return result([asked.answer], self.expected, [*asked.faults, *faults])


@dataclass(frozen=True, slots=True)
class Forced(OfOneStory, Anywhere):
    """A snapshot can't be deleted: the run parks after its reverts, and goes on once a person takes the leak on."""

    title: str
    story: VmStory
    expected: str = "500 cleanup_failed, then 200 ready"
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        await world.stack.admin.add_fault(
            "deleteSnapshot",
            "job_fail",
            times=100,
            match={"id": vm.disks[0].snapshot_id},
            errorcode=530,
            errortext=STORAGE_BUSY,
        )
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        operator, before = world.stack.operator, await last_call(world.stack)
        parked = await operator.clean_up(vm.name)
        answer = await operator.clean_up(vm.name, say({"resume": True, "force": True}))
        kept = f"snapshot of {vm.disks[0].name} is still there"
        found = await faults_of_a_cleaned_vm(world, vm, after_call=before)
        faults = success_faults(answer, vm) + [fault for fault in found if fault != kept]
        if kept not in found:
            faults.append(f"the snapshot of {vm.disks[0].name} is gone")
        leaks = [leak["target"].get("snapshot_id") for leak in answer.body.get("leaks", [])]
        if leaks != [vm.disks[0].snapshot_id] or vm.disks[0].snapshot_id not in str(answer.body.get("next")):
            faults.append(f"the answer names the leaks {leaks} and next {answer.body.get('next')!r}")
        return result([parked, answer], self.expected, faults)


MARKED: Final = (
    Marked(
        "a marker of another installation", VmStory("marked-elsewhere", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped")
    ),
)
FORCED: Final = (
    Forced("a snapshot that can't be deleted", VmStory("stuck-snapshot", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped")),
)
