"""A person's cancel: the run stops between two actions, goes back where it can, and parks where it can't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from database.tables import job_tracking, oma_audit
from oma.domain.actions import ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.jobs import Job
from oma.domain.states import ActionState, JobState
from oma.domain.words import Words
from oma.service.control import cancel_job, resume_job
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage

STOPPED = "Stopped"
WHY = "wrong VM"


async def _cancel_at(
    stage: Stage, vm: BrokenVm, wanted: Callable[[Event], bool], then: Callable[[], object] = lambda: None
) -> Job:
    """Cancels while the wanted event is the newest, and runs the job to where it stops."""
    job = await stage.submit(vm)
    asked: list[asyncio.Task[Job]] = []
    gate = asyncio.Event()

    def look(event: Event) -> None:
        if event.job_id == job.id and wanted(event) and not asked:
            then()
            asked.append(asyncio.create_task(cancel_job(stage.deps, job.id, WHY, actor="eva")))
            asked[0].add_done_callback(lambda _task: gate.set())

    stage.deps.bus.on_event(look)
    await stage.work()
    await gate.wait()
    await asked[0]
    return await stage.check(job.id)


def _sent(kind: ActionKind) -> Callable[[Event], bool]:
    return lambda event: event.type is EventType.ACTION_SENT and event.data.get("kind") == kind.value


async def test_a_queued_run_is_cancelled_at_once_and_the_vm_gets_its_status_back(stage: Stage) -> None:
    vm = await stage.add()
    job = await stage.submit(vm)
    ended = await cancel_job(stage.deps, job.id, WHY, actor="eva")
    assert ended.state is JobState.CANCELLED
    assert await stage.status(vm) == vm.status
    assert stage.world.orders == []
    assert (await stage.check(job.id)).error is not None
    (row,) = await stage.rows(job_tracking, id=job.id)
    assert row["status"] == "cancelled"
    (entry,) = await stage.rows(oma_audit, action="cancel_asked")
    assert (entry["actor"], entry["reason"], entry["job_id"]) == ("eva", WHY, job.id)
    assert (await stage.submit(vm)).id != job.id


async def test_before_the_first_revert_every_volume_goes_home_and_the_run_is_cancelled(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    job = await _cancel_at(stage, vm, _sent(ActionKind.DETACH_VOLUME))
    assert job.state is JobState.CANCELLED
    assert job.error is not None
    assert job.error["detail"] == "eva cancelled the run: wrong VM."
    assert job.error["cancelled_by"] == "eva"
    assert [stage.world.holder_of(one) for one in vm.volume_ids] == [stage.world.oma_vm_id] * 2
    assert stage.volumes.exported == dict.fromkeys(vm.volume_ids, False)
    detaches = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    assert {one.state for one in detaches} == {ActionState.ROLLED_BACK}
    assert await stage.status(vm) == "cleanup_required"
    assert stage.count("revertSnapshot") == 0


async def test_a_stop_of_the_test_vm_stays_and_is_said(stage: Stage) -> None:
    vm = await stage.add()
    job = await _cancel_at(stage, vm, _sent(ActionKind.STOP_VM))
    assert job.state is JobState.CANCELLED
    assert job.error is not None
    assert "was stopped and stays so" in job.error["next"]
    assert stage.count("detachVolume") == stage.count("attachVolume") == 0


async def test_after_the_first_revert_it_parks_and_a_resume_completes_it(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    job = await _cancel_at(stage, vm, _sent(ActionKind.REVERT_SNAPSHOT))
    assert job.state is JobState.PARKED
    assert stage.count("attachVolume") == stage.count("deleteSnapshot") == 0
    (issue,) = await stage.open_issues(job.id)
    assert (issue["kind"], issue["guidance"][0]) == ("cancelled", f"1. Let the run go on: oma jobs resume {job.id}")
    await resume_job(stage.deps, job.id, Words(resume=True))
    await stage.work()
    done = await stage.check(job.id)
    assert done.state is JobState.COMPLETED, done.error
    assert stage.count("revertSnapshot") == 2


async def test_asked_twice_it_is_as_if_it_was_asked_once(stage: Stage) -> None:
    vm = await stage.add()
    job = await stage.submit(vm)
    await cancel_job(stage.deps, job.id, WHY)
    again = await cancel_job(stage.deps, job.id, "and again")
    assert again.state is JobState.CANCELLED
    assert len(await stage.rows(oma_audit, action="cancel_asked")) == 1


@pytest.mark.parametrize("parked", [False, True])
async def test_what_has_ended_or_can_only_go_forward_is_refused_with_the_next_step(
    stage: Stage, *, parked: bool
) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    if parked:
        stage.volumes.hidden_devices.update(vm.volume_ids)
    job = await stage.submit(vm)
    await stage.work()
    with pytest.raises(OmaError) as raised:
        await cancel_job(stage.deps, job.id, WHY)
    assert raised.value.code is Code.INVALID_REQUEST
    assert str(raised.value.fields["next"]).endswith(f"oma jobs {'resume' if parked else 'show'} {job.id}")
    (entry,) = await stage.rows(oma_audit, action="refused")
    assert entry["job_id"] == job.id
