"""The emergency stop on the stage: nothing begins, what runs stops at its next safe point and goes on afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from database.tables import oma_audit, oma_jobs
from oma.domain.actions import ActionKind
from oma.domain.controls import Scope
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.jobs import OPERATION, CleanupRequest
from oma.domain.states import JobState
from oma.domain.words import Words
from oma.service.cleanup import plan_cleanup, wait_for_job
from oma.service.control import resume_job
from oma.service.pausing import ControlRequest, list_pauses, pause, read_pauses, resume
from oma.workflow.runner import run_job
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage, open_stage

EVERYTHING = ControlRequest(Scope.ALL, reason="the array reboots")
CLEANUPS = ControlRequest(Scope.OPERATION, operation=OPERATION, reason="the array reboots")


def hold(vm: BrokenVm) -> ControlRequest:
    return ControlRequest(Scope.VM, vm_name=vm.name, reason="the auditor looks at it")


async def work(stage: Stage) -> str:
    """Claims and runs as the daemon does: with the brake that a pause pulls."""
    claimed = await stage.claim()
    with stage.deps.brakes.held(claimed.job, stage.deps.stopping) as brake:
        return await run_job(claimed, replace(stage.tools, stop=brake))


def pause_at(stage: Stage, request: ControlRequest, kind: ActionKind, type_: EventType) -> list[asyncio.Task[object]]:
    """Pauses as soon as the run has come so far."""
    begun: list[asyncio.Task[object]] = []

    def look(event: Event) -> None:
        if event.type is type_ and event.data.get("kind") == kind.value and not begun:
            begun.append(asyncio.ensure_future(pause(stage.deps, request)))

    stage.deps.bus.on_event(look)
    return begun


@pytest.mark.parametrize("scope", ["all", "operation", "vm"])
async def test_under_a_pause_no_run_begins_and_nobody_is_asked_anything(stage: Stage, scope: str) -> None:
    vm = await stage.add()
    request = {"all": EVERYTHING, "operation": CLEANUPS, "vm": hold(vm)}[scope]
    answer = await pause(stage.deps, request)
    assert answer.changed
    before = len(stage.world.orders)

    with pytest.raises(OmaError) as raised:
        await stage.submit(vm)

    assert raised.value.code is Code.PAUSED
    assert request.reason is not None
    assert request.reason in raised.value.sentence
    assert raised.value.fields["next"].startswith("Wait until the pause is lifted, or lift it: oma resume")
    assert len(stage.world.orders) == before
    assert await stage.rows(oma_jobs) == []
    entry = (await stage.rows(oma_audit))[-1]
    assert (entry["action"], entry["decision"], entry["vm_name"]) == ("refused", "paused", vm.name)
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name, dry_run=True))
    assert plan.actions, "a dry run only looks"

    await resume(stage.deps, request)
    assert (await stage.clean(vm)).state is JobState.COMPLETED


async def test_a_hold_of_one_vm_leaves_the_others_alone(stage: Stage) -> None:
    held, free = await stage.add(), await stage.add(BrokenVm(name="pgtest2"))
    await pause(stage.deps, hold(held))
    assert (await stage.clean(free)).state is JobState.COMPLETED


@pytest.mark.parametrize("type_", [EventType.ACTION_SENT, EventType.ACTION_EXECUTED])
@pytest.mark.parametrize(
    "kind", [ActionKind.DETACH_VOLUME, ActionKind.REVERT_SNAPSHOT, ActionKind.DELETE_SNAPSHOT, ActionKind.ATTACH_VOLUME]
)
async def test_a_run_stops_at_its_next_safe_point_and_goes_on_after_the_pause(
    stage: Stage, kind: ActionKind, type_: EventType
) -> None:
    vm = await stage.add()
    job = await stage.submit(vm)
    pausing = pause_at(stage, EVERYTHING, kind, type_)

    sentence = await work(stage)

    await asyncio.gather(*pausing)
    assert pausing
    assert sentence.startswith("Stopped at a safe point in "), sentence
    assert "the array reboots" in sentence
    assert sentence.endswith("Let it go on: oma resume")
    assert (await stage.job(job.id)).state is JobState.QUEUED
    assert await stage.status(vm) == "cleanup_required"
    assert await stage.deps.journal.claim_job("test", 30) is None, "a paused job is claimed"
    sent = len(stage.world.orders)

    stage.deps.wake.clear()
    await resume(stage.deps, EVERYTHING)
    assert stage.deps.wake.is_set(), "the worker is not woken"
    assert len(stage.world.orders) == sent
    await work(stage)
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count("revertSnapshot") == len(vm.snapshot_ids)


async def test_a_run_that_was_claimed_just_before_the_pause_stops_too(stage: Stage) -> None:
    vm = await stage.add()
    job = await stage.submit(vm)
    claimed = await stage.claim()
    await pause(stage.deps, EVERYTHING)
    with stage.deps.brakes.held(claimed.job, stage.deps.stopping) as brake:
        await run_job(claimed, replace(stage.tools, stop=brake))
    assert (await stage.job(job.id)).state is JobState.QUEUED
    assert stage.world.orders == []


async def test_another_daemon_hears_of_the_pause_when_it_reads(stage: Stage) -> None:
    vm = await stage.add()
    await pause(stage.deps, hold(vm))
    stage.deps.brakes.set_pauses(())
    assert await read_pauses(stage.deps) == f"Paused now: the VM {vm.name}."
    assert await read_pauses(stage.deps) is None
    await resume(stage.deps, hold(vm))
    stage.deps.brakes.set_pauses(())
    assert await read_pauses(stage.deps) is None


async def test_whoever_waits_for_a_run_is_told_where_it_stands_under_a_pause(stage: Stage) -> None:
    vm = await stage.add()
    job = await stage.submit(vm)
    pause_at(stage, EVERYTHING, ActionKind.DETACH_VOLUME, EventType.ACTION_SENT)
    waiting = asyncio.ensure_future(wait_for_job(stage.deps, job.id, 3000.0))
    await asyncio.sleep(0)
    await work(stage)
    waited = await waiting
    assert not waited.ended
    assert waited.job.state is JobState.QUEUED


async def test_a_parked_run_is_not_resumed_under_a_pause(stage: Stage) -> None:
    vm = await stage.add()
    job = await stage.submit(vm)
    await pause(stage.deps, hold(vm))
    with pytest.raises(OmaError) as raised:
        await resume_job(stage.deps, job.id, Words(resume=True))
    assert raised.value.code is Code.PAUSED


async def test_lifting_what_is_not_paused_is_no_error_and_says_what_still_is(stage: Stage) -> None:
    vm = await stage.add()
    await pause(stage.deps, hold(vm))
    answer = await resume(stage.deps, EVERYTHING)
    assert not answer.changed
    assert answer.sentence == f"No pause of everything was in force. Still paused: the VM {vm.name}."
    answer = await resume(stage.deps, hold(vm))
    assert (answer.changed, answer.pauses) == (True, ())
    assert await list_pauses(stage.deps) == ()


async def test_a_hold_can_be_lifted_when_the_vms_records_are_gone(stage: Stage) -> None:
    vm = await stage.add()
    await pause(stage.deps, hold(vm))
    await stage.sql("UPDATE vm_replication_contexts SET vm_name = 'renamed'")
    assert (await resume(stage.deps, hold(vm))).changed


async def test_an_unknown_vm_is_not_held(stage: Stage) -> None:
    with pytest.raises(OmaError) as raised:
        await pause(stage.deps, ControlRequest(Scope.VM, vm_name="nobody", reason="why not"))
    assert raised.value.code is Code.VM_NOT_FOUND


async def test_a_pause_outlives_a_restart() -> None:
    async with open_stage() as stage:
        vm = await stage.add()
        job = await stage.submit(vm)
        await pause(stage.deps, EVERYTHING)
        stage.deps.brakes.set_pauses(())  # a new process has read nothing yet
        assert await stage.deps.journal.claim_job("after the restart", 30) is None
        await read_pauses(stage.deps)
        assert stage.deps.brakes.is_paused(job)
