from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ossea.simulator.admin_client import AdminClient
from tests.integration.simulator.process import SCENE, Sim


@pytest.fixture(scope="module")
def shared_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    sim = Sim(tmp_path_factory.mktemp("sim"))
    sim.start()
    yield sim
    sim.kill()


@pytest.fixture
async def admin(shared_sim: Sim) -> AsyncIterator[AdminClient]:
    """The shared simulator, fresh, with the scene, ten times as fast as a real one."""
    async with AdminClient(shared_sim.admin) as client:
        await client.reset()
        await client.put_settings(time_scale=0.1)
        await client.seed(**SCENE)
        yield client


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Sim]:
    """A simulator of the test's own, which it may kill and start again."""
    own = Sim(tmp_path)
    own.start()
    yield own
    own.kill()
