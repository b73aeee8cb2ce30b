"""Whether the OMA is the one that the records name, told by the disks alone: where nobody says so, and no UUID can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from database.tables import ossea_configs, ossea_volumes
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.scenarios.cleaned import ON_OMA, success_faults
from oma.demo.scenarios.refused import ask_in_vain
from oma.demo.stack import RETIRED_OMA_ID
from oma.demo.story import CONFIG, INJECTION, RETIRED, SNAPSHOT, SeededVm, VmStory
from oma.demo.world import World

BY_VOLUMES: Final = {"OMA_OMA__IDENTITY": "volumes"}


@dataclass(frozen=True, slots=True)
class StaleOma(OfOneStory, Anywhere):
    """The records name last year's appliance, and it still runs: refused; then somebody corrects them."""

    title: str
    story: VmStory
    expected: str = "409 state_unknown, then 200 ready"
    alone: bool = True

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        before = await last_call(stack)
        await stack.admin.patch_vm(RETIRED_OMA_ID, state="Running")
        await stack.restart_oma(BY_VOLUMES)
        try:
            asked = await ask_in_vain(world, vm, self._detail(vm))
            await stack.door.write(lambda connection: _correct(connection, vm))
            answer = await stack.operator.clean_up(vm.name)
        finally:
            await stack.restart_oma()
            await stack.admin.patch_vm(RETIRED_OMA_ID, state="Stopped")
        faults = asked.faults + success_faults(answer, vm)
        faults += await faults_of_a_cleaned_vm(world, vm, after_call=before)
        return result([asked.answer, answer], self.expected, faults)

    @staticmethod
    def _detail(vm: SeededVm) -> str:
        names = ", ".join(disk.name for disk in vm.disks)
        return f"This appliance shows {names}, which CloudStack shows on another VM"


def _correct(connection: Connection, vm: SeededVm) -> None:
    config = select(ossea_configs.c.id).where(ossea_configs.c.name == CONFIG).scalar_subquery()
    of_this = ossea_volumes.c.vm_context_id == vm.context_id
    connection.execute(update(ossea_volumes).where(of_this).values(ossea_config_id=config))


IDENTITY: Final = (
    StaleOma(
        "last year's appliance still runs, and only the disks tell",
        VmStory(
            "stale-oma",
            (ON_OMA, ON_OMA),
            steps=(SNAPSHOT, INJECTION, ("vm-creation", "failed")),
            joblog_status="failed",
            test_vm=None,
            config=RETIRED,
        ),
    ),
)
