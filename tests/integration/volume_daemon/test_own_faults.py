"""What goes wrong in the daemon itself: a clock that is set, a fault that nobody foresaw. No operation hangs by it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.models import JobResult, JobStatus
from tests.integration.volume_daemon.conftest import FAST, KEY, SECRET, TEST_VM_ID, World, ended
from tests.integration.volume_daemon.test_unknowns import until
from volume_daemon.models import OperationStatus
from volume_daemon.server import runtime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
    """What the machine's clock is off by; its last item counts."""
    off = [timedelta()]
    monkeypatch.setattr(runtime, "now", lambda: datetime.now(UTC) + off[-1])
    return off


async def test_a_clock_set_back_neither_hides_that_it_is_overdue_nor_ends_long_polls_early(
    world: World, clock: list[timedelta]
):
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    await world.admin.put_settings(durations=FAST | {"detachVolume": 3.0})
    async with world.daemon(operation_timeout_s=0.5) as client:
        operation = await client.detach(volume_id)
        await until(client, operation, lambda one: one.status is OperationStatus.EXECUTING)
        clock.append(timedelta(hours=-1))
        late = await client.get_operation(operation.id, 20)
        assert late is not None
        assert (late.overdue, late.has_ended) == (True, False)
        done = await client.get_operation(operation.id, 20)
        assert done is not None
        assert done.status is OperationStatus.COMPLETED


async def test_a_restart_with_the_clock_set_back_still_says_in_time_that_it_is_overdue(
    world: World, clock: list[timedelta]
):
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    await world.admin.put_settings(durations=FAST | {"detachVolume": 6.0})
    async with world.daemon(operation_timeout_s=0.5) as client:
        operation = await client.detach(volume_id)
        await until(client, operation, lambda one: one.status is OperationStatus.EXECUTING)
    clock.append(timedelta(hours=-1))
    async with world.daemon(operation_timeout_s=0.5) as client:
        late = await client.get_operation(operation.id, 20)
        assert late is not None
        assert (late.overdue, late.has_ended) == (True, False)


async def test_a_fault_of_a_look_does_not_leave_an_operation_that_nobody_works_on(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)

    async def list_volumes(_self: CloudStack, **_fields: Any) -> list[Any]:
        raise KeyError("unforeseen")

    async with world.daemon() as client:
        with monkeypatch.context() as broken:
            broken.setattr(CloudStack, "list_volumes", list_volumes)
            done = await ended(client, await client.detach(volume_id))
        assert done.error_detail is not None
        assert done.error_detail.code == "internal_error"
        assert (await ended(client, await client.detach(volume_id))).status is OperationStatus.COMPLETED


async def test_after_a_fault_an_operation_ends_only_when_its_call_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Else the next attach would be taken off again by the late detach (#14214)."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    await world.admin.put_settings(durations=FAST | {"detachVolume": 2.0})
    real = CloudStack.wait_job
    faults = [KeyError("unforeseen"), KeyError("unforeseen")]

    async def wait_job(self: CloudStack, job_id: str, deadline_s: float | None = None) -> JobResult:
        if faults:
            raise faults.pop()
        return await real(self, job_id, deadline_s)

    monkeypatch.setattr(CloudStack, "wait_job", wait_job)
    async with world.daemon() as client, CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud:
        done = await ended(client, await client.detach(volume_id))
        assert done.error_detail is not None
        assert done.error_detail.code == "internal_error"
        assert (await cloud.query_job(done.id)).status is JobStatus.SUCCEEDED


async def test_one_that_nobody_works_on_is_gone_on_with_when_it_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Its fault could not be written, as with a database that is being restored."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    left = asyncio.Event()

    async def finish(*_: Any, **__: Any) -> None:
        left.set()
        raise KeyError("unforeseen")

    async with world.daemon() as client:
        with monkeypatch.context() as broken:
            broken.setattr("volume_daemon.server.finish.Finisher.abandon", _fail)
            broken.setattr("volume_daemon.server.finish.Finisher.finish", _fail)
            broken.setattr("volume_daemon.server.store.Store.finish", finish)
            operation = await client.detach(volume_id)
            await left.wait()
        assert (await ended(client, operation)).status is OperationStatus.COMPLETED
    assert len(await world.changes("detachVolume")) == 1


async def _fail(*_: Any, **__: Any) -> None:
    raise KeyError("unforeseen")
