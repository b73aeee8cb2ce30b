"""Every way in which a failover leaves a VM behind, over real processes and MariaDB, verified by content hash.

Over SQLite `test_demo.py` plays them all, by `oma demo --once`.
"""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from oma.demo.scenarios import SCENARIOS, Scenario
from oma.demo.scenarios.base import Result
from oma.demo.world import World
from tests.parts import require_part

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
    pytest.mark.mariadb,
    pytest.mark.parametrize("database_url", ["mariadb"], indirect=True),
]

Played = dict[Scenario, "asyncio.Task[Result]"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def played(request: pytest.FixtureRequest, world: World) -> Played:
    """The chosen scenarios that disturb nobody, played beside each other as `oma demo --once` does it.

    Every one has ended, well or with an exception that its own test raises.
    """
    tests = [item for item in request.session.items if item.getparent(pytest.Module) is request.node]
    chosen = {test.callspec.params["scenario"] for test in tests if isinstance(test, pytest.Function)}
    able = [
        one for one in SCENARIOS if one in chosen and not one.alone and await asyncio.to_thread(one.missing) is None
    ]
    vms = {scenario: await scenario.seed(world) for scenario in able}
    playing = {scenario: asyncio.create_task(scenario.play(world, vm)) for scenario, vm in vms.items()}
    await asyncio.gather(*playing.values(), return_exceptions=True)
    return playing


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
async def test_the_vm_ends_as_it_should(world: World, played: Played, scenario: Scenario) -> None:
    missing = await asyncio.to_thread(scenario.missing)
    require_part(f"{scenario.title}: {missing}", missing is None)
    result = await (played[scenario] if scenario in played else _play_alone(world, scenario))

    assert result.faults == ()
    assert result.got == scenario.expected


async def _play_alone(world: World, scenario: Scenario) -> Result:
    return await scenario.play(world, await scenario.seed(world))
