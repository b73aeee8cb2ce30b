"""What an operator may get wrong in asking: another VM's name, a plan of yesterday, a database with two OMAs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from database.tables import ossea_configs
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import differences, last_call, list_changes, read_ledger
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.scenarios.cleaned import success_faults
from oma.demo.scenarios.refused import ON_TEST_VM, ask_in_vain
from oma.demo.story import CONFIG, SeededVm, VmStory
from oma.demo.world import World

SECOND: Final = "second"


@dataclass(frozen=True, slots=True)
class Misnamed(OfOneStory, Anywhere):
    """Near is not equal: the VM that was nearly meant is named, and not touched."""

    title: str
    story: VmStory
    asked: tuple[str, ...]
    alone: bool = False

    @property
    def expected(self) -> str:
        return ", then ".join(["404 vm_not_found"] * len(self.asked))

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        before, ledger = await last_call(stack), await read_ledger(stack, vm)
        answers = [await stack.operator.clean_up(name) for name in self.asked]
        faults = differences(ledger, await read_ledger(stack, vm))
        faults += [f"CloudStack got {call['command']}" for call in await list_changes(stack, vm, before)]
        faults += [
            f"for {name!r} the near matches are {answer.body.get('near_matches')}"
            for name, answer in zip(self.asked, answers, strict=True)
            if vm.name not in answer.body.get("near_matches", [])
        ]
        return result(answers, self.expected, faults)


@dataclass(frozen=True, slots=True)
class Stale(OfOneStory, Anywhere):
    """Between dialog and click somebody takes a volume off the test VM: refused with the difference, then confirmed."""

    title: str
    story: VmStory
    expected: str = "409 plan_stale, then 200 ready"
    alone: bool = False

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack, operator = world.stack, world.stack.operator
        before = await last_call(stack)
        shown = await operator.clean_up(vm.name, {"dry_run": True})
        await stack.admin.patch_volume(vm.disks[1].volume_id, vm_id=None, device_id=None)
        ledger = await read_ledger(stack, vm)
        refused = await operator.clean_up(vm.name, {"expect_plan": shown.body.get("plan_digest")})
        faults = differences(ledger, await read_ledger(stack, vm))
        faults += [f"CloudStack got {call['command']}" for call in await list_changes(stack, vm, before)]
        changed = self._changed(refused.body.get("refusals") or [])
        if not any(vm.disks[1].name in sentence for sentence in changed):
            faults.append(f"the changes named are {changed}")
        again = await operator.clean_up(vm.name, {"dry_run": True})
        answer = await operator.clean_up(vm.name, {"expect_plan": again.body.get("plan_digest")})
        faults += success_faults(answer, vm) + await faults_of_a_cleaned_vm(world, vm, after_call=before)
        return result([refused, answer], self.expected, faults)

    @staticmethod
    def _changed(refusals: Sequence[dict[str, dict[str, list[str]]]]) -> list[str]:
        return [sentence for refusal in refusals for sentence in refusal["evidence"].get("changed", [])]


@dataclass(frozen=True, slots=True)
class TwoActive(OfOneStory, Anywhere):
    """Its rows refer to no configuration, and two are active: which OMA is meant can't be told."""

    title: str
    story: VmStory
    expected: str = "409 state_unknown"
    alone: bool = True

    async def play(self, world: World, vm: SeededVm) -> Result:
        door = world.stack.door
        await door.write(_add_second)
        try:
            asked = await ask_in_vain(world, vm, "Which OMA the volumes belong to can't be told")
        finally:
            await door.write(
                lambda connection: connection.execute(delete(ossea_configs).where(ossea_configs.c.name == SECOND))
            )
        return result([asked.answer], self.expected, asked.faults)


def _add_second(connection: Connection) -> None:
    first = connection.execute(select(ossea_configs).where(ossea_configs.c.name == CONFIG)).mappings().one()
    row = {name: value for name, value in first.items() if name != "id"}
    connection.execute(insert(ossea_configs).values({**row, "name": SECOND}))


ASKED: Final = (
    Misnamed(
        "a name in other letters, and with a trailing blank",
        VmStory("nearly-meant", (ON_TEST_VM,), test_vm="Stopped"),
        ("NEARLY-MEANT", "nearly-meant "),
    ),
    Stale(
        "a plan gone stale between dialog and click", VmStory("stale-plan", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped")
    ),
    TwoActive(
        "two active configurations",
        VmStory("two-configs", (ON_TEST_VM,), test_vm="Stopped", config=None),
    ),
)
