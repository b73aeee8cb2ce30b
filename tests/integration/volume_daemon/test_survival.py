"""What one life of the daemon began, the next one finishes or puts back; the caller finds it under its own id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from appliance import crashpoints
from database.errors import DatabaseUnavailable
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.domain.actions import ActionKind
from oma.ports import Burn, Fault, RemoteStatus, UpstreamError
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from tests.crash.dying import Death, Died
from tests.integration.volume_daemon.conftest import FAST, KEY, OMA_ID, SECRET, TEST_VM_ID, World, ended
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import VolumeDaemonError
from volume_daemon.models import FaultKind, Operation, OperationStatus
from volume_daemon.server.operations import Operations
from volume_daemon.server.records import Entry, Order
from volume_daemon.server.store import Store


async def until(client: VolumeDaemonClient, operation: Operation, seen: Callable[[Operation], bool]) -> Operation:
    while True:
        found = await client.get_operation(operation.id)
        assert found is not None
        if seen(found):
            return found
        assert not found.has_ended, found.error


@pytest.fixture
def unanswered_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The COMMIT of the first order is done; its answer is lost, and nobody can say what became of it."""
    accept, lost = Store.accept, [True]

    async def accept_and_lose(store: Store, order: Order) -> tuple[Entry, bool]:
        accepted = await accept(store, order)
        if lost:
            lost.clear()
            raise DatabaseUnavailable("the connection broke while it was committing", outcome_unknown=True)
        return accepted

    monkeypatch.setattr(Store, "accept", accept_and_lose)


@pytest.mark.usefixtures("unanswered_commit")
@pytest.mark.parametrize("asks_again", [True, False])
async def test_an_accepted_order_is_carried_out_though_its_caller_was_told_of_a_failure(world: World, asks_again: bool):
    volume_id, operation_id = await world.add_volume(str(uuid4())), str(uuid4())
    async with world.daemon() as client:
        with pytest.raises(VolumeDaemonError) as told:
            await client.attach(volume_id, OMA_ID, request_id=operation_id)
        assert (told.value.status, told.value.code) == (503, "database_unavailable")
        if asks_again:
            await client.attach(volume_id, OMA_ID, request_id=operation_id)
        operation = await client.get_operation(operation_id)
        assert operation is not None
        async with asyncio.timeout(30):
            done = await ended(client, operation)
    assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
    assert len(await world.changes("attachVolume")) == 1


async def free_behind_its_back(world: World, volume_id: str) -> Path:
    """Somebody else detaches it; its device stays, so that the daemon waits for it. Returns its export's file."""
    await world.admin.patch_volume(volume_id, keeps_device=True)
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud:
        await cloud.wait_job(await cloud.detach_volume(volume_id))
    (row,) = world.query("SELECT config_path FROM nbd_exports")
    return Path(row["config_path"])


async def at_home(world: World) -> str:
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        assert (await ended(client, await client.attach(volume_id, OMA_ID))).status is OperationStatus.COMPLETED
    return volume_id


def waits_for_device(operation: Operation) -> bool:
    return "the device to go" in (operation.waiting_for or "")


async def test_what_is_being_carried_out_on_the_oma_is_not_taken_back_half_way(world: World):
    """Cancelled there, its export would be gone from nbd-server while its row says that it stands."""
    volume_id = await at_home(world)
    file = await free_behind_its_back(world, volume_id)
    async with world.daemon() as client:
        operation = await client.detach(volume_id, fence=3)
        await until(client, operation, waits_for_device)
        assert not file.exists()
        with pytest.raises(VolumeDaemonError, match="operation_started"):
            await client.cancel(operation.id)
        burnt = await VolumeDaemonVolumes(client).burn(operation.id, ActionKind.DETACH_VOLUME, volume_id, fence=3)
        assert burnt is Burn.ARRIVED
        await world.admin.release_device(volume_id)
        done = await ended(client, operation)
    assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
    assert world.query("SELECT * FROM nbd_exports") == []


async def test_an_export_that_an_earlier_life_took_away_is_put_back_where_the_next_one_refuses(world: World):
    volume_id = await at_home(world)
    file = await free_behind_its_back(world, volume_id)
    async with world.daemon() as client:
        operation = await client.detach(volume_id)
        await until(client, operation, waits_for_device)
    assert not file.exists()
    await world.admin.delete_volume(volume_id)
    async with world.daemon() as client:
        refused = await ended(client, operation)
    assert refused.error_detail is not None
    assert (refused.error_detail.code, refused.error_detail.kind) == ("volume_not_found", FaultKind.REFUSED)
    assert file.exists()
    assert len(world.query("SELECT * FROM nbd_exports")) == 1


@pytest.mark.parametrize(
    ("point", "status"),
    [("journal.accept.before", RemoteStatus.ABSENT), ("journal.accept.after", RemoteStatus.SUCCEEDED)],
)
async def test_a_caller_that_lost_its_answer_to_a_restart_finds_the_operation_by_its_id(
    world: World, point: str, status: RemoteStatus
):
    volume_id, operation_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID), str(uuid4())
    with crashpoints.listening(Death(f"volume_daemon.{point}")), suppress(Died):
        async with world.daemon() as client:
            with pytest.raises(UpstreamError) as lost:
                await VolumeDaemonVolumes(client).submit_detach(volume_id, request_id=operation_id, fence=3)
            assert lost.value.fault is Fault.NO_ANSWER
    async with world.daemon() as client:
        volumes = VolumeDaemonVolumes(client)
        assert (await volumes.wait_operation(operation_id, 20)).status is status
        assert await volumes.submit_detach(volume_id, request_id=operation_id, fence=3) == operation_id
        assert (await volumes.wait_operation(operation_id, 20)).status is RemoteStatus.SUCCEEDED
    assert [call["params"]["customjobid"] for call in await world.changes("detachVolume")] == [operation_id]


async def test_a_damaged_row_does_not_keep_the_daemon_from_its_work(world: World):
    """Bad input: the operation ends with a sentence, and the others go on."""
    volume_id, damaged_id = await world.add_volume(str(uuid4())), str(uuid4())
    world.execute(
        "INSERT INTO volume_operations (id, type, status, volume_id, request) VALUES (:o, 'cleanup', 'pending', :v, '{')",
        o=damaged_id,
        v=volume_id,
    )
    world.execute(
        "INSERT INTO volume_daemon_operations (operation_id, volume_id, stage, content_hash, accepted_at, exports)"
        " VALUES (:o, :v, 'sent', '', '2026-01-01 00:00:00', '[1]')",
        o=damaged_id,
        v=volume_id,
    )
    async with world.daemon() as client:
        done = await ended(client, await client.attach(volume_id, OMA_ID))
    assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
    (row,) = world.query("SELECT status, error FROM volume_operations WHERE id = :o", o=damaged_id)
    assert row["status"] == "failed"
    assert "makes no sense" in row["error"]
    assert await world.changes("detachVolume") == []


async def test_drafts_of_an_earlier_life_are_removed_and_nothing_else(world: World):
    (world.nbd_dir / ".pgtest1.conf.0a1b2c3d").write_text("[half]")
    (world.nbd_dir / ".probe-0123456789abcdef").write_text("")
    (world.nbd_dir / ".keep").write_text("")
    async with world.daemon():
        assert [path.name for path in world.nbd_dir.iterdir()] == [".keep"]


async def test_a_second_daemon_leaves_the_journal_of_the_first_alone(world: World, monkeypatch: pytest.MonkeyPatch):
    """It would go on with the first one's operations, and each would take the other's ends for a conflict."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    await world.admin.put_settings(durations=FAST | {"detachVolume": 1.0})
    async with world.daemon() as client:
        operation = await client.detach(volume_id)
        await until(client, operation, lambda one: one.status is OperationStatus.EXECUTING)
        recovered: list[Operations] = []

        async def recover(self: Operations) -> int:
            recovered.append(self)
            return 0

        monkeypatch.setattr(Operations, "recover", recover)
        with pytest.raises(OSError, match="in use"):
            async with world.daemon(port=int(client.base_url.rpartition(":")[2])):
                pass
        assert recovered == []
        assert (await ended(client, operation)).status is OperationStatus.COMPLETED
