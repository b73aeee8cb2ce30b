"""Every way in which a failover leaves a VM behind, over real processes, verified by content hash."""

from __future__ import annotations

import pytest

from oma.demo.scenarios import SCENARIOS, Scenario
from oma.demo.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
async def test_the_vm_ends_as_it_should(world: World, scenario: Scenario) -> None:
    vm = await scenario.seed(world)

    result = await scenario.play(world, vm)

    assert result.faults == ()
    assert result.got == scenario.expected
