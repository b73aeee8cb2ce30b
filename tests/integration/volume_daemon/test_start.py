"""A start before what the daemon needs is there: it listens, tells what is missing, and works once it has come."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, insert, text

from appliance.settings import Settings
from database.schema import upgrade
from database.tables import ossea_configs
from tests.integration.volume_daemon.conftest import KEY, OMA_ID, SECRET, World, ended
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import VolumeDaemonError
from volume_daemon.models import OperationStatus
from volume_daemon.server.holding import Holding
from volume_daemon.server.operations import Operations
from volume_daemon.server.runtime import serving, starting


async def until_healthy(client: VolumeDaemonClient) -> None:
    async with asyncio.timeout(60):
        while (await client.health())["status"] != "healthy":
            pass


async def refusal(client: VolumeDaemonClient) -> tuple[int | None, str, str]:
    with pytest.raises(VolumeDaemonError) as told:
        await client.detach(str(uuid4()))
    return told.value.status, told.value.code, told.value.text


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
async def test_a_file_without_tables_is_left_alone_until_the_schema_is_there(world: World, is_there: bool):
    file = world.path / "late.db"
    if is_there:
        file.touch()
    world.database_url = f"sqlite:///{file}"
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        status, code, words = await refusal(client)
        assert (status, code) == (503, "database_unavailable")
        assert "oma db upgrade" in words
        health = await client.health()
        assert health["status"] == "unhealthy"
        assert "oma db upgrade" in health["dependencies"]["database"]["detail"]
        assert (file.stat().st_size if file.exists() else None) == (0 if is_there else None)
        await asyncio.to_thread(_create, world.database_url)
        await until_healthy(client)
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
    assert (operation.status, operation.error) == (OperationStatus.COMPLETED, None)


def _create(url: str) -> None:
    upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(insert(ossea_configs).values(name="main", oma_vm_id=OMA_ID, is_active=True))
    engine.dispose()


async def test_a_server_that_is_away_is_waited_for_and_no_password_is_told(world: World):
    world.database_url = "mysql+pymysql://oma:opensesame@127.0.0.1:9/oma"
    async with world.daemon() as client:
        status, code, words = await refusal(client)
    assert (status, code) == (503, "database_unavailable")
    assert "127.0.0.1:9" in words
    assert "opensesame" not in words


async def test_credentials_are_waited_for_and_open_operations_with_them(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        # Still open at the stop.
        await world.admin.add_fault("attachVolume", "delay", delay_s=1)
        operation = await client.attach(volume_id, OMA_ID)
    settings = Settings.model_validate(
        world.settings().model_dump() | {"cloudstack": {"poll_max_s": 0.2, "profile": "nobody"}}
    )
    async with serving(settings, {}) as url, VolumeDaemonClient(url) as client:
        status, code, words = await refusal(client)
        assert (status, code) == (503, "no_credentials")
        assert "credentials" in words
        assert (await client.health())["status"] == "degraded"
        values = {"url": world.api_url, "key": KEY, "secret": SECRET}
        with world.engine.begin() as connection:
            connection.execute(
                text("UPDATE ossea_configs SET api_url = :url, api_key = :key, secret_key = :secret"), values
            )
        await until_healthy(client)
        assert (await ended(client, operation)).status is OperationStatus.COMPLETED


async def test_it_is_not_healthy_before_what_is_open_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch):
    """Everything it depends on answers already, but it still takes nothing in."""
    may_go_on = asyncio.Event()
    recover = Operations.recover

    async def recover_later(self: Operations) -> int:
        await may_go_on.wait()
        return await recover(self)

    monkeypatch.setattr(Operations, "recover", recover_later)
    monkeypatch.setattr("volume_daemon.server.runtime.FIRST_LOOK_S", 0.1)
    async with world.daemon() as client:
        health = await client.health()
        async with asyncio.timeout(60):
            while not all(one["ok"] for one in health["dependencies"].values()):
                health = await client.health()
        assert health["status"] == "degraded"
        assert health["detail"].startswith("start: ")
        may_go_on.set()
        await until_healthy(client)
        await client.attach(await world.add_volume(str(uuid4())), OMA_ID)


async def test_a_second_one_on_the_same_database_waits_until_the_first_has_ended(world: World):
    """Also on another port: both would go on with the same operations."""
    volume_id = await world.add_volume(str(uuid4()))
    async with AsyncExitStack() as second_life:
        async with world.daemon() as first:
            await world.admin.add_fault("attachVolume", "delay", delay_s=1)
            operation = await first.attach(volume_id, OMA_ID)
            second = await second_life.enter_async_context(world.daemon())
            status, code, words = await refusal(second)
            assert (status, code) == (503, "journal_in_use")
            assert "Another Volume Daemon" in words
            assert (await second.health())["status"] == "degraded"
            assert (await first.health())["status"] == "healthy"
        await until_healthy(second)
        assert (await ended(second, operation)).status is OperationStatus.COMPLETED
    assert len(await world.changes("attachVolume")) == 1


async def test_one_that_has_lost_the_database_to_another_begins_nothing_until_it_has_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """It stood still for longer than the server waits, or the server was restarted."""
    volume_id = await world.add_volume(str(uuid4()))
    monkeypatch.setattr("volume_daemon.server.opening.Holding", partial(Holding, look_s=0.05))
    async with starting(world.settings(), {}) as running, VolumeDaemonClient(running.url) as client:
        await until_healthy(client)
        with monkeypatch.context() as patch:
            patch.setattr("database.hold._FileHold.is_ours", lambda _self, _taking: False)
            patch.setattr("database.hold._FileHold.take", lambda _self: None)
            async with asyncio.timeout(60):
                while "Another Volume Daemon" not in running.status:
                    await client.health()
            with pytest.raises(VolumeDaemonError) as told:
                await client.attach(volume_id, OMA_ID)
            assert told.value.code == "journal_in_use"
            assert await world.changes("attachVolume") == []
        await until_healthy(client)
        assert running.is_alive
        done = await ended(client, await client.attach(volume_id, OMA_ID))
    assert done.status is OperationStatus.COMPLETED
