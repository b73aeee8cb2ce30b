"""What was sent is followed before anything is judged, and what nobody could tell stops a detach."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.actions import ActionKind
from oma.domain.events import Event, EventType
from oma.domain.holders import DeviceHolders
from oma.domain.states import ActionState, JobState
from oma.workflow.run import Tools
from tests.fakes.scenario import NOWHERE, OMA, BrokenVm, Disk
from tests.fakes.stage import Stage

SOMEBODY = "0f000000-0000-4000-8000-00000000000f"


def one_by_one(stage: Stage) -> Tools:
    return replace(stage.tools, figures=replace(stage.tools.figures, parallel=1))


async def die_at(stage: Stage, type_: EventType, kind: ActionKind, tools: Tools) -> None:
    """The process dies at the first such event; the job is to be claimed again."""
    running = asyncio.create_task(stage.work(tools))

    def kill(event: Event) -> None:
        if event.type is type_ and event.data.get("kind") == kind.value:
            running.cancel()

    stage.deps.bus.on_event(kill)
    await asyncio.wait({running})
    assert running.cancelled()


async def begin_failover(stage: Stage, vm: BrokenVm) -> None:
    await stage.sql(
        "INSERT INTO failover_jobs (vm_context_id, job_id, job_type, status, created_at) VALUES "
        f"('{vm.context_id}', 'failover-new', 'test', 'pending', '{stage.clock.now():%Y-%m-%d %H:%M:%S.%f}')"
    )


@pytest.mark.rule("5-proof", "6-own-ids")
async def test_a_revert_that_was_sent_is_followed_though_the_others_may_not_begin(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    await die_at(stage, EventType.ACTION_SENT, ActionKind.REVERT_SNAPSHOT, one_by_one(stage))
    await begin_failover(stage, vm)
    await stage.break_off(job.id)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    assert "failover-new" in str(job.error)
    (sent,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert sent.state is ActionState.EXECUTED
    assert stage.count("revertSnapshot") == 1


@pytest.mark.rule("5-proof", "6-own-ids")
async def test_a_revert_whose_sending_was_not_journaled_is_found_though_it_would_not_be_sent_now(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.cloud.weather.lose_answers.append("revertSnapshot")
    gate = stage.cloud.weather.gates["query_job"] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await stage.cloud.weather.until_asked("query_job")
    running.cancel()
    await asyncio.wait({running})
    gate.set()
    await begin_failover(stage, vm)
    await stage.break_off(job.id)
    await stage.work()
    job = await stage.check(job.id)
    (sent,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert sent.state is ActionState.EXECUTED
    assert stage.count("revertSnapshot") == 1
    assert job.state is JobState.PARKED


@pytest.mark.rule("4-431", "6-own-ids")
async def test_a_detach_that_was_sent_is_followed_though_another_volume_was_moved(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    await die_at(stage, EventType.ACTION_SENT, ActionKind.DETACH_VOLUME, one_by_one(stage))
    (begun,) = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    (other,) = [one for one in vm.volume_ids if one != begun.target.volume_id]
    stage.world.seed(vms=[{"id": SOMEBODY, "name": "somebody-elses"}])
    stage.world.change_volume(other, vm_id=SOMEBODY)
    await stage.break_off(job.id)
    await stage.work()
    job = await stage.job(job.id)
    assert job.state is JobState.FAILED
    (sent,) = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    assert sent.state is ActionState.ROLLED_BACK
    assert "was moved to" in str(job.error)


@pytest.mark.rule("3-unknown", "6-asks-again")
async def test_a_device_of_which_the_volume_daemon_knows_nothing_right_before_its_detach_is_left(stage: Stage) -> None:
    disks = [Disk(place=OMA, mode="oma"), Disk(place=OMA, mode="oma")]
    vm = await stage.add(BrokenVm(disks=disks, steps=("virtio-driver-injection",), test_vm_state=None))
    job = await stage.submit(vm)
    volumes, asked = stage.volumes, stage.volumes.list_holders
    planned = asyncio.Event()

    async def list_holders(volume_id: str) -> DeviceHolders | None:
        return None if planned.is_set() and volume_id == vm.volume_id(0) else await asked(volume_id)

    def look(event: Event) -> None:
        if event.type is EventType.PLAN_SAVED:
            planned.set()

    stage.deps.bus.on_event(look)
    volumes.list_holders = list_holders  # type: ignore[method-assign]
    await stage.work()
    job = await stage.check(job.id)
    assert vm.volume_id(0) not in {target for _, target in stage.commands()}
    assert "came or went while it was looked at" in str(job.error)


@pytest.mark.rule("6-own-ids")
async def test_a_revert_that_could_not_be_followed_is_named_by_an_issue(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    await die_at(stage, EventType.ACTION_SENT, ActionKind.REVERT_SNAPSHOT, one_by_one(stage))
    stage.cloud.weather.silent = True
    await stage.break_off(job.id)
    await stage.work()
    stage.cloud.weather.silent = False
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    (begun,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert begun.id in {issue["action_id"] for issue in await stage.open_issues(job.id)}


@pytest.mark.rule("5-replicated")
async def test_a_run_that_has_not_begun_and_finds_a_replication_says_what_to_do_then(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(place=NOWHERE)], test_vm_state="Stopped"))
    gate = stage.cloud.weather.gates["list_snapshots_named"] = asyncio.Event()
    gate.set()
    job = await stage.submit(vm)
    planned = asyncio.Event()

    def look(event: Event) -> None:
        if event.type is EventType.PLAN_SAVED:
            gate.clear()
            planned.set()

    stage.deps.bus.on_event(look)
    running = asyncio.create_task(stage.work())
    await planned.wait()
    at = f"{stage.clock.now() - timedelta(minutes=5):%Y-%m-%d %H:%M:%S.%f}"
    await stage.sql(
        "INSERT INTO replication_jobs (id, vm_context_id, status, started_at, updated_at, completed_at) VALUES "
        f"('repl-new', '{vm.context_id}', 'completed', '{at}', '{at}', '{at}')"
    )
    gate.set()
    await running
    job = await stage.check(job.id)
    assert job.error is not None
    (refusal,) = job.error["refusals"]
    assert refusal["code"] == "replicated_since_snapshot"
    assert refusal["next"].startswith("Don't revert")


class TestARowOfSecondPrecision:
    """The rows of existing installations may hold whole seconds: what is of the same second may be later."""

    @pytest.mark.rule("6-asks-again")
    async def test_a_replication_of_the_second_in_which_the_run_was_asked_for_counts(self, stage: Stage) -> None:
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        gate = stage.volumes.weather.gates["attachVolume"] = asyncio.Event()
        job = await stage.submit(vm)
        running = asyncio.create_task(stage.work())
        await stage.volumes.weather.until_asked("attachVolume")
        second = f"{job.created_at.replace(microsecond=0):%Y-%m-%d %H:%M:%S.%f}"
        await stage.sql(
            "INSERT INTO replication_jobs (id, vm_context_id, status, started_at, updated_at, completed_at) VALUES "
            f"('repl-new', '{vm.context_id}', 'completed', '{second}', '{second}', '{second}')"
        )
        gate.set()
        await running
        job = await stage.check(job.id)
        assert job.created_at.microsecond
        assert job.state is JobState.PARKED
        assert await stage.status(vm) == "cleanup_required"
