"""VMs that are put right: every replica is good afterwards, and nothing is left over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import differences, last_call, list_changes, read_ledger
from oma.demo.operator import Answer
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.story import (
    ATTACHMENT,
    CREATION,
    INJECTION,
    SECOND_VCENTER,
    SNAPSHOT,
    DiskStory,
    Export,
    Place,
    SeededVm,
    VmStory,
    cast,
)
from oma.demo.world import World

ON_OMA: Final = DiskStory(Place.OMA)
FREE: Final = DiskStory(Place.NOWHERE)
ON_TEST_VM: Final = DiskStory(Place.TEST_VM)
NOT_ATTACHED: Final = "The specified volume is not attached to a VM."


@dataclass(frozen=True, slots=True)
class Cleaned(OfOneStory, Anywhere):
    """One call puts it right."""

    title: str
    story: VmStory
    detach_race: bool = False
    """Somebody else's detach of the first disk wins: ours is told 431 for a volume that is free by then."""
    dry_run_says: tuple[str, ...] = ()
    """Parts of what the plan has to show beforehand."""
    next_begins: str = ""
    test_vm_state: str = "Destroyed"
    """What becomes of the VM that the failover made."""
    expected: str = "200 ready"
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        vm = await world.seed(self.story)
        if self.detach_race:
            await world.stack.admin.add_fault(
                "detachVolume",
                "job_fail_applied",
                match={"id": vm.disks[0].volume_id},
                errorcode=431,
                errortext=NOT_ATTACHED,
            )
        return vm

    async def play(self, world: World, vm: SeededVm) -> Result:
        operator = world.stack.operator
        before = await last_call(world.stack)
        faults: list[str] = []
        if self.dry_run_says:
            plan = json.dumps((await operator.clean_up(self.story.name, {"dry_run": True})).body, ensure_ascii=False)
            faults += [f"the plan does not say {words!r}" for words in self.dry_run_says if words not in plan]
        answer = await operator.clean_up(self.story.name)
        faults += success_faults(answer, vm)
        faults += await faults_of_a_cleaned_vm(world, vm, after_call=before, test_vm_state=self.test_vm_state)
        if not str(answer.body.get("next", "")).lower().startswith(self.next_begins.lower()):
            faults.append(f"what to do next is {answer.body.get('next')!r}")
        return result([answer], self.expected, faults)


@dataclass(frozen=True, slots=True)
class Twins(OfOneStory, Anywhere):
    """Two VMs of one name: the name alone is refused, and then exactly the one that was meant is cleaned up."""

    title: str
    story: VmStory
    other: VmStory
    expected: str = "409 ambiguous_vm_name, then 200 ready"
    alone: bool = False

    async def seed(self, world: World) -> SeededVm:
        await world.seed(self.other)
        return await world.seed(self.story)

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack, name = world.stack, self.story.name
        twin = cast(self.other, vm.begun_at)
        before, rows = await last_call(stack), await read_ledger(stack, twin)
        refused = await stack.operator.clean_up(name)
        answer = await stack.operator.clean_up(name, {"context_id": vm.context_id})
        faults = success_faults(answer, vm) + await faults_of_a_cleaned_vm(world, vm, after_call=before)
        faults += [f"the other one: {fault}" for fault in differences(rows, await read_ledger(stack, twin))]
        faults += [f"the other one: {call['command']}" for call in await list_changes(stack, twin, before)]
        candidates = {one["context_id"] for one in refused.body.get("candidates", [])}
        if candidates != {vm.context_id, twin.context_id}:
            faults.append(f"the candidates named are {sorted(candidates)}")
        return result([refused, answer], self.expected, faults)


def success_faults(answer: Answer, vm: SeededVm) -> list[str]:
    """The body that the contract names."""
    body = answer.body
    faults: list[str] = []
    if body.get("success") is not True or body.get("vm_name") != vm.name:
        faults.append(f"the answer says success {body.get('success')} for {body.get('vm_name')!r}")
    if body.get("message") != f"Failed execution cleanup completed for {vm.name}":
        faults.append(f"the message is {body.get('message')!r}")
    missing = {"timestamp", "job_id", "correlation_id", "duration_seconds", "phases", "next"} - body.keys()
    if missing:
        faults.append(f"the answer lacks {', '.join(sorted(missing))}")
    return faults


CLEANED: Final = (
    Cleaned("volumes on a running test VM, the system disk as its root", VmStory("pgtest1")),
    Cleaned(
        "VM creation failed after the snapshots",
        VmStory(
            "exchange-2019",
            (ON_OMA, ON_OMA),
            steps=(SNAPSHOT, INJECTION, ("vm-creation", "failed")),
            joblog_status="failed",
            test_vm=None,
        ),
    ),
    Cleaned(
        "a detach that failed half-way: mixed states",
        VmStory(
            "mixed-states",
            (ON_TEST_VM, FREE, ON_OMA),
            steps=(SNAPSHOT, INJECTION, CREATION, ("volume-attachment", "failed")),
            test_vm="Stopped",
        ),
    ),
    Cleaned(
        "everything already detached",
        VmStory(
            "already-detached",
            (DiskStory(Place.NOWHERE, stale_mapping=True), DiskStory(Place.NOWHERE, stale_mapping=True)),
            test_vm=None,
            steps=(SNAPSHOT, INJECTION, ("vm-creation", "failed")),
        ),
    ),
    Cleaned(
        "431: detached by somebody else meanwhile",
        VmStory("raced-detach", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped"),
        detach_race=True,
    ),
    Cleaned(
        "a leftover test VM that holds nothing",
        VmStory("leftover-vm", (FREE, FREE), test_vm="Stopped", steps=(SNAPSHOT, INJECTION, CREATION, ATTACHMENT)),
    ),
    Cleaned(
        "a replication export that must come back",
        VmStory(
            "exported-sql",
            (
                DiskStory(Place.OMA, export=Export("exported-sql-system", 10811, "sql-system.conf", "timeout = 30")),
                DiskStory(Place.OMA, export=Export("exported-sql-data")),
            ),
            steps=(SNAPSHOT, INJECTION, ("vm-creation", "failed")),
            test_vm=None,
        ),
    ),
    Cleaned("8 disks", VmStory("eight-disks", (ON_TEST_VM,) * 8)),
    Cleaned("a name with blanks", VmStory("PhilB Test machine", (ON_TEST_VM, ON_TEST_VM))),
    Cleaned("a name with a slash", VmStory("db/prod #7", (ON_TEST_VM,), test_vm="Stopped")),
    Cleaned("a name in another script", VmStory("сервер-1", (ON_TEST_VM,), test_vm="Stopped")),
    Twins(
        "two VMs of one name in two vCenters",
        VmStory("twin", (ON_TEST_VM,), test_vm="Stopped"),
        VmStory("twin", (ON_TEST_VM,), vcenter=SECOND_VCENTER, test_vm="Stopped"),
    ),
)
