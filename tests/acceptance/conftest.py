"""The whole product as three real processes: one stack per database for all tests that leave it running."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio

from oma.demo.ports import ANY_PORTS
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import DiskStory, Place, SeededVm, VmStory
from oma.demo.world import World
from tests.mariadb import MariaDb, mariadb_server

__all__ = ["mariadb_server"]

TIME_SCALE = 0.02
"""CloudStack's jobs take a fiftieth of their usual time."""
BROKEN = (DiskStory(Place.TEST_VM), DiskStory(Place.TEST_VM))

Seed = Callable[[VmStory], Awaitable[SeededVm]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "acceptance" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None: a new SQLite file."""
    if request.param == "sqlite":
        yield None
        return
    server: MariaDb = request.getfixturevalue("mariadb_server")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(database_url: str | None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    options = StackOptions(
        directory=tmp_path_factory.mktemp("stack"),
        database_url=database_url,
        ports=ANY_PORTS,
        simulator={"time_scale": TIME_SCALE},
    )
    async with running_stack(options) as running:
        yield running


@pytest.fixture(scope="session")
def world(stack: Stack) -> World:
    return World(stack)


@pytest.fixture
def vm_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test gives a VM."""
    return f"{request.node.originalname}-{zlib.crc32(request.node.nodeid.encode())}"


@pytest_asyncio.fixture(loop_scope="session")
async def broken_vm(world: World, vm_name: str) -> SeededVm:
    """Two disks on a stopped test VM, after a dead test failover."""
    return await world.seed(VmStory(vm_name, BROKEN, test_vm="Stopped"))
