"""Orders that are taken back: also those that come in later, those that wait, and across a restart."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from database.errors import DatabaseUnavailable
from tests.integration.volume_daemon.conftest import FAST, OMA_ID, TEST_VM_ID, World, ended
from volume_daemon.errors import VolumeDaemonError
from volume_daemon.models import OperationStatus
from volume_daemon.server.store import Store


async def test_an_order_that_waits_for_its_turn_is_cancelled(world: World):
    await world.admin.put_settings(durations=FAST | {"attachVolume": 0.5})
    blocker, volume_id = [await world.add_volume(str(uuid4())) for _ in range(2)]
    async with world.daemon(outstanding_per_vm=1) as client:
        first = await client.attach(blocker, OMA_ID)
        waiting = await client.attach(volume_id, OMA_ID, fence=3)
        taken_back = await client.revoke(waiting.id, "attach", volume_id, fence=4)
        assert taken_back.status is OperationStatus.CANCELLED
        assert (await ended(client, waiting)).status is OperationStatus.CANCELLED
        assert (await ended(client, first)).status is OperationStatus.COMPLETED
        assert (await client.get_operation(waiting.id)) is not None
    assert [call["params"]["id"] for call in await world.changes("attachVolume")] == [blocker]


async def test_one_that_comes_in_after_it_was_taken_back_and_after_a_restart_does_nothing(world: World):
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    key = str(uuid4())
    async with world.daemon() as client:
        assert await client.get_operation(key) is None
        assert (await client.revoke(key, "detach", volume_id, fence=4)).status is OperationStatus.CANCELLED
    async with world.daemon() as client:
        late = await client.detach(volume_id, request_id=key, fence=4)
        assert late.status is OperationStatus.CANCELLED
        with pytest.raises(VolumeDaemonError) as fenced:
            await client.detach(volume_id, request_id=key, fence=3)
        assert fenced.value.code == "fenced"
    assert await world.changes("detachVolume") == []


async def test_what_cloudstack_has_is_told_as_it_stands(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        done = await ended(client, await client.attach(volume_id, OMA_ID, fence=1))
        assert await client.revoke(done.id, "attach", volume_id, fence=1) == done


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "type"), ({"type": "delete"}, "type"), ({"type": "attach", "volume_id": "x"}, "volume_id")],
)
async def test_what_makes_no_sense_is_refused_by_its_field(world: World, body: dict[str, str], field: str):
    async with world.daemon() as client:
        with pytest.raises(VolumeDaemonError) as refused:
            await client.revoke(str(uuid4()), body.get("type", ""), body.get("volume_id", ""))
    assert (refused.value.status, refused.value.fields["field"]) == (422, field)


async def test_the_order_of_another_volume_is_not_taken_back(world: World):
    volume_id, other = [await world.add_volume(str(uuid4())) for _ in range(2)]
    async with world.daemon() as client:
        done = await ended(client, await client.attach(volume_id, OMA_ID))
        with pytest.raises(VolumeDaemonError) as reused:
            await client.revoke(done.id, "attach", other)
    assert reused.value.code == "idempotency_key_reused"


@pytest.mark.parametrize("word", ["cancel", "revoke"])
async def test_one_whose_end_was_written_and_not_answered_is_not_at_work_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch, word: str
):
    """It hangs at home already: carried out all the same, it would leave an export's file without a row."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
    written = asyncio.Event()
    method = {"cancel": "mark_cancelled", "revoke": "revoke"}[word]
    write = getattr(Store, method)

    async def write_unanswered(*args: Any, **kwargs: Any) -> None:
        await write(*args, **kwargs)
        written.set()
        raise DatabaseUnavailable("the connection broke while it was committing", outcome_unknown=True)

    async with world.daemon() as client:
        await world.admin.add_fault("listVolumes", "delay", delay_s=0.5)
        operation = await client.attach(volume_id, OMA_ID)
        with monkeypatch.context() as lossy:
            lossy.setattr(Store, method, write_unanswered)
            with pytest.raises(VolumeDaemonError) as lost:
                await (
                    client.cancel(operation.id)
                    if word == "cancel"
                    else client.revoke(operation.id, "attach", volume_id)
                )
        assert written.is_set()
        assert (lost.value.status, lost.value.code) == (503, "database_unavailable")
        assert (await ended(client, operation)).status is OperationStatus.CANCELLED
        # Whatever it would still have done is done before the next thing is done to this volume.
        assert (await ended(client, await client.detach(volume_id))).status is OperationStatus.COMPLETED
    assert list(world.nbd_dir.iterdir()) == []
    assert world.query("SELECT * FROM device_mappings") == []
