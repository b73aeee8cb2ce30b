"""Which endpoint is taken, and what calls answer while there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, update

from appliance.settings import CloudstackSettings
from database.door import Door
from database.tables import metadata, ossea_configs
from oma.domain.errors import Code, OmaError
from oma.ports import Fault, UpstreamError
from oma.runtime.cloudstack import CloudConnection

ROW = {"name": "main", "api_url": "http://row/client/api", "api_key": "row-key", "secret_key": "row-secret"}


class TableDoor:
    """A real door to a SQLite in memory that can be shut."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.down = False

    async def add(self, **values: Any) -> None:
        row = {**ROW, "is_active": True, **values}
        await self._door.write(lambda connection: connection.execute(insert(ossea_configs).values(**row)))

    async def move(self, url: str) -> None:
        await self._door.write(lambda connection: connection.execute(update(ossea_configs).values(api_url=url)))

    def get(self) -> Door:
        if self.down:
            raise OmaError(Code.DATABASE_UNAVAILABLE, "away")
        return self._door


@pytest_asyncio.fixture
async def door() -> AsyncIterator[TableDoor]:
    door = await Door.open("sqlite://")
    await door.write(lambda connection: metadata.create_all(connection, tables=[ossea_configs]))
    yield TableDoor(door)
    await door.close()


def connect(door: TableDoor, env: dict[str, str] | None = None, **settings: Any) -> CloudConnection:
    return CloudConnection(CloudstackSettings(**settings), env or {}, door.get, lambda *_: None)


async def test_the_active_row_is_taken(door: TableDoor):
    await door.add(is_active=False, name="old", api_url="http://old/client/api")
    await door.add()
    connection = connect(door)
    assert await connection.refresh() == "CloudStack is asked at http://row/client/api."
    assert await connection.refresh() is None
    await connection.close()


async def test_a_changed_row_is_taken_without_breaking_off_the_old_client(door: TableDoor):
    await door.add()
    connection = connect(door)
    await connection.refresh()
    await door.move("http://new/client/api")
    assert await connection.refresh() == "CloudStack is asked at http://new/client/api."
    await connection.close()


async def test_the_settings_win(door: TableDoor):
    await door.add()
    connection = connect(door, url="http://set/client/api", api_key="k", secret_key="s")
    door.down = True
    assert await connection.refresh() == "CloudStack is asked at http://set/client/api."
    await connection.close()
    door.down = False
    connection = connect(door, url="http://set/client/api")
    assert await connection.refresh() == "CloudStack is asked at http://set/client/api."
    await connection.close()


async def test_what_cs_reads_is_the_last_resort(door: TableDoor):
    await door.add(api_key=None)
    env = {
        "CLOUDSTACK_ENDPOINT": "http://cs/client/api",
        "CLOUDSTACK_KEY": "k",
        "CLOUDSTACK_SECRET": "hunter2",
    }
    connection = connect(door, env)
    assert await connection.refresh() == "CloudStack is asked at http://cs/client/api."
    await connection.close()


CS_ENV = {"CLOUDSTACK_ENDPOINT": "http://cs/client/api", "CLOUDSTACK_KEY": "k", "CLOUDSTACK_SECRET": "hunter2"}


async def test_the_held_endpoint_stays_while_the_database_is_away(door: TableDoor):
    await door.add()
    connection = connect(door, CS_ENV)
    assert await connection.refresh() == "CloudStack is asked at http://row/client/api."
    door.down = True
    assert await connection.refresh() is None
    assert connection.reason is None
    door.down = False
    assert await connection.refresh() is None
    await connection.close()


async def test_no_endpoint_is_guessed_while_the_database_is_away(door: TableDoor):
    await door.add()
    connection = connect(door, CS_ENV)
    door.down = True
    said = await connection.refresh()
    assert said is not None
    assert "can't be asked" in said
    door.down = False
    assert await connection.refresh() == "CloudStack is asked at http://row/client/api."
    await connection.close()


async def test_without_credentials_every_call_says_why(
    door: TableDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    connection = connect(door, {"HOME": str(tmp_path)})
    said = await connection.refresh()
    assert said is not None
    assert "no usable CloudStack credentials" in said
    with pytest.raises(UpstreamError) as raised:
        await connection.cloud.list_volumes(["v"])
    assert raised.value.fault is Fault.NOT_SENT
    assert "credentials" in raised.value.upstream.text
    await door.add()
    assert await connection.refresh() == "CloudStack is asked at http://row/client/api."
    await connection.close()


async def test_two_active_rows_are_no_answer(door: TableDoor):
    await door.add()
    await door.add(name="second", api_url="http://second/client/api")
    connection = connect(door)
    said = await connection.refresh()
    assert said is not None
    assert "several rows" in said
    assert "row-secret" not in said
