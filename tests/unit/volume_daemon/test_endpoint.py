"""The Volume Daemon's CloudStack endpoint: found by the rule of both daemons, and followed when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import insert, update

from appliance.settings import CloudstackSettings
from database.door import Door
from database.errors import DatabaseUnavailable
from database.tables import metadata, ossea_configs
from ossea.client import CloudStack
from ossea.credentials import CredentialsError, Endpoint
from volume_daemon.server.endpoint import find_endpoint, follow_endpoint

ROW = {"name": "main", "api_url": "http://row/client/api", "api_key": "row-key", "secret_key": "row-secret"}
CS_ENV = {"CLOUDSTACK_ENDPOINT": "http://cs/client/api", "CLOUDSTACK_KEY": "k", "CLOUDSTACK_SECRET": "s"}


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    opened = await Door.open("sqlite://")
    await opened.write(lambda connection: metadata.create_all(connection, tables=[ossea_configs]))
    yield opened
    await opened.close()


async def add(door: Door, **values: Any) -> None:
    row = {**ROW, "is_active": True, **values}
    await door.write(lambda connection: connection.execute(insert(ossea_configs).values(**row)))


async def test_the_settings_win_over_the_row_value_by_value(door: Door):
    await add(door)
    found = await find_endpoint(CloudstackSettings(secret_key=SecretStr("set")), door, CS_ENV)
    assert (found.url, found.key, found.secret) == ("http://row/client/api", "row-key", "set")


async def test_without_a_row_it_is_what_cs_reads(door: Door):
    await add(door, is_active=False)
    assert (await find_endpoint(CloudstackSettings(), door, CS_ENV)).url == "http://cs/client/api"


async def test_a_database_that_is_away_is_no_missing_row(door: Door):
    await door.close()
    with pytest.raises(DatabaseUnavailable):
        await find_endpoint(CloudstackSettings(), door, CS_ENV)
    complete = CloudstackSettings(url="http://set/client/api", api_key=SecretStr("k"), secret_key=SecretStr("s"))
    assert (await find_endpoint(complete, door, CS_ENV)).url == "http://set/client/api"


@pytest.mark.parametrize("doubt", [CredentialsError("two rows"), DatabaseUnavailable("away")])
async def test_a_changed_row_is_followed_and_doubt_changes_nothing(door: Door, doubt: Exception):
    await add(door)
    looks: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def find() -> Endpoint:
        told = await looks.get()
        looks.task_done()
        if told is not None:
            raise told
        return await find_endpoint(CloudstackSettings(), door, {})

    async with CloudStack(await find_endpoint(CloudstackSettings(), door, {})) as cloud:
        following = asyncio.create_task(follow_endpoint(cloud, find, interval_s=0))
        await door.write(lambda connection: connection.execute(update(ossea_configs).values(api_key="rotated")))
        looks.put_nowait(doubt)
        await looks.join()
        assert cloud.endpoint.key == "row-key"
        looks.put_nowait(None)
        # The look after the next one begins only when the change was taken.
        looks.put_nowait(None)
        async with asyncio.timeout(10):
            await looks.join()
        assert cloud.endpoint.key == "rotated"
        following.cancel()
        await asyncio.wait({following})
