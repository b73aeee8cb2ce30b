"""Every way in which a failover leaves a VM behind, over real processes, verified by content hash."""

from __future__ import annotations

import asyncio

import pytest

from oma.demo.scenarios import SCENARIOS, Scenario
from oma.demo.world import World
from tests.parts import require_part

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
async def test_the_vm_ends_as_it_should(world: World, scenario: Scenario) -> None:
    missing = await asyncio.to_thread(scenario.missing)
    require_part(f"{scenario.title}: {missing}", missing is None)
    vm = await scenario.seed(world)

    result = await scenario.play(world, vm)

    assert result.faults == ()
    assert result.got == scenario.expected
