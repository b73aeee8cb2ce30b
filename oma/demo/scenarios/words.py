"""VMs that only a person's word makes right: refused without it, then put right, and nothing else is passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.engine import Connection

from database.tables import oma_audit, oma_issues
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call, read_ledger
from oma.demo.operator import Answer
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.scenarios.cleaned import ON_TEST_VM, success_faults
from oma.demo.scenarios.refused import Words, ask_in_vain, insist, say
from oma.demo.story import (
    ATTACHMENT,
    CREATION,
    INJECTION,
    POWER_OFF,
    SNAPSHOT,
    STARTUP,
    DiskStory,
    SeededVm,
    SnapshotStory,
    Tracking,
    VmStory,
)
from oma.demo.world import World
from ossea.client import CloudStack


@dataclass(frozen=True, slots=True)
class Worded(OfOneStory, Anywhere):
    """Refused without a word; then somebody says it, with a reason."""

    title: str
    story: VmStory
    refusal: str
    detail: str
    words: Words
    test_vm_state: str = "Destroyed"
    """What becomes of the VM that the failover made."""
    alone: bool = False

    @property
    def expected(self) -> str:
        return f"409 {self.refusal}, then 200 ready"

    async def play(self, world: World, vm: SeededVm) -> Result:
        before = await last_call(world.stack)
        asked = await ask_in_vain(world, vm, self.detail)
        said = say(self.words(vm))
        answer = await world.stack.operator.clean_up(vm.name, said)
        faults = asked.faults + success_faults(answer, vm)
        faults += await faults_of_a_cleaned_vm(world, vm, after_call=before, test_vm_state=self.test_vm_state)
        faults += await audit_faults(world, vm, str(said["reason"]))
        return result([asked.answer, answer], self.expected, faults)


async def audit_faults(world: World, vm: SeededVm, reason: str) -> list[str]:
    """The word stands in the audit with its reason."""

    def read(connection: Connection) -> list[str | None]:
        query = select(oma_audit.c.reason).where(oma_audit.c.context_id == vm.context_id)
        return list(connection.execute(query).scalars())

    reasons = await world.stack.door.read(read)
    return [] if reason in reasons else [f"the audit holds the reasons {reasons}, not {reason!r}"]


@dataclass(frozen=True, slots=True)
class Destroyed(OfOneStory, Anywhere):
    """A destroyed VM holds the system disk as its root: a critical issue, until the VM is recovered."""

    title: str
    story: VmStory
    expected: str = "409 state_unknown, then 200 ready"
    alone: bool = False

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        asked = await ask_in_vain(world, vm, "an expunge", but=frozenset({oma_issues.name}))
        faults = asked.faults + await self._issue_faults(world, vm, state="open")
        if "recoverVirtualMachine" not in str(asked.answer.body.get("next")):
            faults.append(f"what to do next is {asked.answer.body.get('next')!r}")
        async with CloudStack(stack.endpoint) as cloud:
            await cloud.recover_vm(vm.test_vm_id)
        before = await last_call(stack)
        answer: Answer = await stack.operator.clean_up(vm.name)
        faults += success_faults(answer, vm) + await faults_of_a_cleaned_vm(world, vm, after_call=before)
        faults += await self._issue_faults(world, vm, state="resolved")
        return result([asked.answer, answer], self.expected, faults)

    @staticmethod
    async def _issue_faults(world: World, vm: SeededVm, *, state: str) -> list[str]:
        issues = (await read_ledger(world.stack, vm)).of(oma_issues)
        if [issue["state"] for issue in issues] != [state]:
            return [f"the issues are {[issue['state'] for issue in issues]}, not one that is {state}"]
        (issue,) = issues
        if issue["severity"] != "critical":
            return [f"the issue is {issue['severity']}"]
        steps = issue["guidance"] or []
        return [] if "recoverVirtualMachine" in str(steps[:1]) else [f"the guidance begins with {steps[:1]}"]


WORDED: Final = (
    Worded(
        "a finished test failover with people on it",
        VmStory(
            "drill-in-use",
            failover_status="completed",
            joblog_status="completed",
            steps=(SNAPSHOT, INJECTION, CREATION, ATTACHMENT, (STARTUP[0], "completed")),
        ),
        "test_failover_active",
        "drill-in-use",
        lambda _: {"end_test": True},
    ),
    Worded(
        "a snapshot that nobody tracked, named by a person",
        VmStory(
            "named-snapshot",
            (DiskStory(snapshots=(SnapshotStory(Tracking.NOWHERE),)), ON_TEST_VM),
            test_vm="Stopped",
        ),
        "snapshot_missing",
        "named-snapshot-disk-0",
        lambda vm: {"snapshots": {vm.disks[0].volume_id: vm.disks[0].snapshot_id}},
    ),
    Worded(
        "a live failover whose VM was created and never started",
        VmStory(
            "live-not-started",
            job_type="live",
            context_status="failed_over_live",
            steps=(POWER_OFF, SNAPSHOT, INJECTION, CREATION, ("volume-attachment", "failed")),
            joblog_status="failed",
            test_vm="Stopped",
            was_started=False,
        ),
        "live_failover",
        "shows its creation and no start",
        insist,
        test_vm_state="Stopped",
    ),
    Destroyed(
        "a destroyed test VM that holds the system disk as its root",
        VmStory("destroyed-vm", test_vm="Destroyed"),
    ),
)
