"""One key, one run: the same request again during the run, after it, and across a daemon that was killed in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from database.tables import oma_jobs
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call, until_unmarked
from oma.demo.operator import Answer
from oma.demo.ports import ANY_PORTS
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import SeededVm
from oma.demo.world import World
from tests.acceptance.test_stops import hold_up, until_ended, until_sent

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE_S = 3.0
BODY: dict[str, Any] = {"phases": ["analyze-volume-state", "detach-attached-volumes"]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    options = StackOptions(
        directory=tmp_path_factory.mktemp("idempotency"),
        ports=ANY_PORTS,
        simulator={"time_scale": 0.02},
        settings={"workflow": {"lease_s": LEASE_S}},
    )
    async with running_stack(options) as stack:
        yield World(stack)


async def ask(stack: Stack, vm: SeededVm, key: str, body: dict[str, Any] | None = None, **headers: str) -> Answer:
    return await stack.operator.clean_up(vm.name, body, headers={"Idempotency-Key": key, **headers})


async def count_runs(stack: Stack, vm: SeededVm) -> int:
    query = select(func.count()).select_from(oma_jobs).where(oma_jobs.c.vm_name == vm.name)
    return int(await stack.door.read(lambda connection: connection.execute(query).scalar_one()))


async def kill_and_start(stack: Stack) -> None:
    await stack.oma.kill()
    await stack.oma.start()
    await stack.ready()


async def test_during_and_after_the_run_it_is_the_same_answer(world: World, broken_vm: SeededVm) -> None:
    stack, before, key = world.stack, await last_call(world.stack), broken_vm.name
    target = await hold_up(stack, broken_vm, "revertSnapshot")
    first = asyncio.create_task(ask(stack, broken_vm, key))
    await until_sent(stack, broken_vm, "revertSnapshot", target, before)

    during = await ask(stack, broken_vm, key, {}, Prefer="respond-async")
    other = await ask(stack, broken_vm, key, BODY)
    without = await stack.operator.clean_up(broken_vm.name)
    second = asyncio.create_task(ask(stack, broken_vm, key, {}))
    answers = await asyncio.gather(first, second)
    after = await ask(stack, broken_vm, key)

    assert during.status == 202
    assert answers[0].word == "200 ready"
    assert answers[0].body == answers[1].body == after.body
    assert during.body["job_id"] == after.body["job_id"]
    assert (other.word, other.body["job_id"]) == ("422 idempotency_key_reused", after.body["job_id"])
    assert without.word == "409 cleanup_in_progress"
    assert await count_runs(stack, broken_vm) == 1
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_at_the_same_moment_it_is_one_run(world: World, broken_vm: SeededVm) -> None:
    stack, before, key = world.stack, await last_call(world.stack), broken_vm.name
    answers = await asyncio.gather(*(ask(stack, broken_vm, key) for _ in range(6)))
    assert [answer.word for answer in answers] == ["200 ready"] * 6
    assert len({answer.body["job_id"] for answer in answers}) == 1
    assert await count_runs(stack, broken_vm) == 1
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


@pytest.mark.parametrize("command", ["detachVolume", "attachVolume"])
async def test_the_run_of_a_killed_daemon_is_found_by_its_key(world: World, broken_vm: SeededVm, command: str) -> None:
    """The caller lost its answer with the daemon, and asks the next one as if nothing had been."""
    stack, before, key = world.stack, await last_call(world.stack), broken_vm.name
    target = await hold_up(stack, broken_vm, command)
    first = asyncio.create_task(ask(stack, broken_vm, key))
    await until_sent(stack, broken_vm, command, target, before)

    await kill_and_start(stack)
    with pytest.raises(aiohttp.ClientError):
        await first
    other = await ask(stack, broken_vm, key, BODY)
    again = await ask(stack, broken_vm, key)
    # Markers that a killed daemon left are swept up after a minute; that is not what is looked at here.
    await until_unmarked(stack, broken_vm)
    await kill_and_start(stack)
    later = await ask(stack, broken_vm, key)

    assert other.word == "422 idempotency_key_reused"
    assert again.word == "200 ready", again.body
    assert later.body == again.body
    assert other.body["job_id"] == again.body["job_id"]
    assert await count_runs(stack, broken_vm) == 1
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_a_daemon_that_is_killed_while_it_takes_the_request_in(world: World, broken_vm: SeededVm) -> None:
    """Whether the run was queued before the kill or not: after the same request there is one, and no more."""
    stack, before, key = world.stack, await last_call(world.stack), broken_vm.name
    for _ in range(4):
        lost = asyncio.create_task(ask(stack, broken_vm, key, Prefer="respond-async"))
        await asyncio.wait({lost}, timeout=0.02)
        await kill_and_start(stack)
        await asyncio.gather(lost, return_exceptions=True)
    answer = await ask(stack, broken_vm, key)

    assert answer.word == "200 ready", answer.body
    assert await count_runs(stack, broken_vm) == 1
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_a_run_that_was_stopped_by_a_drain_is_answered_by_the_next_daemon(
    world: World, broken_vm: SeededVm
) -> None:
    stack, before, key = world.stack, await last_call(world.stack), broken_vm.name
    target = await hold_up(stack, broken_vm, "detachVolume")
    first = asyncio.create_task(ask(stack, broken_vm, key))
    await until_sent(stack, broken_vm, "detachVolume", target, before)
    await stack.restart_oma()
    told = await first
    again = await ask(stack, broken_vm, key)

    assert (told.status, told.body["job_id"]) == (202, again.body["job_id"])
    assert again.word == "200 ready", again.body
    assert await until_ended(stack, again.body["job_id"]) == "job_completed"
    assert await count_runs(stack, broken_vm) == 1
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_what_was_refused_leaves_no_trace_of_its_key(world: World, broken_vm: SeededVm) -> None:
    """A refusal is no run: under the same key the same request may be asked again, and so may another."""
    stack, before, key = world.stack, await last_call(world.stack), broken_vm.name
    stack.volume_daemon.pause()
    try:
        refused = await ask(stack, broken_vm, key, BODY)
    finally:
        stack.volume_daemon.resume()
    answer = await ask(stack, broken_vm, key)
    assert refused.word == "409 state_unknown", refused.body
    assert answer.word == "200 ready", answer.body
    assert await count_runs(stack, broken_vm) == 1
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []
