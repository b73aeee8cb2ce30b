"""Before the first revert a failure puts every volume that the run detached back on the OMA, and the run has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from database.tables import oma_issues, vm_replication_contexts
from oma.domain.actions import ActionKind, Upstream
from oma.domain.errors import CleanupFailed, Code
from oma.domain.events import Event, EventType
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.states import ActionState, JobState, Replica
from oma.ports import RemoteStatus
from oma.service.answers import cleanup_answer
from oma.service.cleanup import plan_cleanup
from oma.service.control import cancel_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage, open_stage
from tests.fakes.world import OMA_VM_ID

STOPPED = "Stopped"
LAST_EVENT = 40
REFUSAL = "Unable to detach volume: the VM is in a state of transition."


def _error(job: Job) -> dict[str, object]:
    assert job.error is not None
    return job.error


def refuse_detach(stage: Stage, vm: BrokenVm, disk: int) -> None:
    stage.world.add_fault(
        FaultKind.JOB_FAIL, "detachVolume", match={"id": vm.volume_id(disk)}, errorcode=431, errortext=REFUSAL
    )


async def _detach_states(stage: Stage, job: Job) -> dict[str, ActionState]:
    return {str(one.target.volume_id): one.state for one in await stage.actions(job.id, ActionKind.DETACH_VOLUME)}


def _at(stage: Stage, type_: EventType, meddle: Callable[[], object]) -> None:
    """Once, at the first event of this type."""
    done: list[Event] = []

    def look(event: Event) -> None:
        if event.type is type_ and not done:
            done.append(event)
            meddle()

    stage.deps.bus.on_event(look)


def _places(stage: Stage, vm: BrokenVm) -> list[str | None]:
    return [stage.world.holder_of(volume_id) for volume_id in vm.volume_ids]


@pytest.mark.rule("8-undone")
async def test_a_refused_detach_brings_the_other_volume_home_without_its_export(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    refuse_detach(stage, vm, 0)
    job = await stage.clean(vm)
    assert job.state is JobState.FAILED
    assert _places(stage, vm) == [vm.test_vm_id, stage.world.oma_vm_id]
    assert stage.volumes.exported == {vm.volume_id(1): False}
    assert set((await _detach_states(stage, job)).values()) == {ActionState.ROLLED_BACK}
    assert await stage.open_issues(job.id) == []
    assert await stage.status(vm) == "cleanup_required"
    assert stage.count("revertSnapshot") == stage.count("deleteSnapshot") == 0


async def test_what_failed_stands_in_the_answer_with_what_was_undone_and_what_comes_next(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    refuse_detach(stage, vm, 0)
    job = await stage.clean(vm)
    error = _error(job)
    assert (error["code"], error["upstream"]) == (
        Code.CLEANUP_FAILED.value,
        {"system": "CloudStack", "code": "431", "text": REFUSAL},
    )
    assert error["replica"] == Replica.UNKNOWN.value
    assert error["undone"] == [f"{vm.name}-disk-1"]
    assert "pgtest1-disk-1 is back on the OMA, without an NBD export until a revert is proven" in str(error["next"])
    assert "pgtest1-disk-0 never left its place" in str(error["next"])
    assert f"oma cleanup {vm.name} --context-id {vm.context_id}" in str(error["next"])
    with pytest.raises(CleanupFailed) as raised:
        cleanup_answer(job, (), (), stage.clock.now())
    assert raised.value.code is Code.CLEANUP_FAILED
    (context,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    assert context["last_operation_summary"]["status"] == "failed"


@pytest.mark.rule("5-need")
async def test_the_next_run_still_reverts_a_volume_that_came_home_and_completes(stage: Stage) -> None:
    """Nothing in the world says any more that it left: only our own journal does."""
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state=STOPPED, steps=()))
    refuse_detach(stage, vm, 0)
    await stage.clean(vm)
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name))
    (home,) = [one for one in plan.volumes if one.volume_id == vm.volume_id(1)]
    assert home.needs_revert
    assert "put it back unreverted" in home.revert_reason
    again = await stage.submit(vm)
    await stage.work()
    done = await stage.job(again.id)
    assert done.state is JobState.COMPLETED, done.error
    assert [stage.world.content[one] for one in vm.volume_ids] == [vm.clean_content(0), vm.clean_content(1)]
    assert stage.volumes.exported == dict.fromkeys(vm.volume_ids, True)
    assert await stage.status(vm) == "ready_for_failover"


async def test_a_problem_seen_right_before_the_first_revert_brings_everything_home(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))

    _at(stage, EventType.ACTION_EXECUTED, lambda: stage.world.forget_snapshot(vm.snapshot_id(1)))
    job = await stage.submit(vm)
    await stage.work()
    failed = await stage.check(job.id)
    assert failed.state is JobState.FAILED
    assert "no longer lists the snapshot" in str(_error(failed)["detail"])
    assert _places(stage, vm) == [stage.world.oma_vm_id] * 2
    assert stage.volumes.exported == dict.fromkeys(vm.volume_ids, False)
    assert stage.count("revertSnapshot") == 0


async def test_after_the_first_revert_nothing_is_put_back(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    _at(stage, EventType.POINT_OF_NO_RETURN_PASSED, lambda: stage.world.change_volume(vm.volume_id(1), vm_id=OMA_VM_ID))
    job = await stage.submit(vm)
    await stage.work()
    parked = await stage.job(job.id)
    assert (parked.state, parked.undoing) == (JobState.PARKED, None)
    assert stage.count("attachVolume") == 0


async def test_an_overdue_detach_is_followed_to_its_end_before_its_volume_goes_home(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    end = stage.volumes.late[vm.volume_id(0)] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("wait_operation")
    assert stage.count("attachVolume") == 0
    end.set()
    await running
    failed = await stage.check(job.id)
    assert failed.state is JobState.FAILED
    assert _error(failed)["code"] == Code.VOLUME_DAEMON_TIMEOUT.value
    assert _places(stage, vm) == [stage.world.oma_vm_id] * 2


async def test_a_volume_that_cannot_be_put_back_parks_and_a_cancel_tries_again(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    refuse_detach(stage, vm, 0)
    broken = Upstream("Volume Daemon", "internal_error", "The daemon failed in a way nobody foresaw")
    _at(stage, EventType.UNDOING_BEGUN, lambda: stage.volumes.broken.update({vm.volume_id(1): broken}))
    job = await stage.submit(vm)
    await stage.work()
    parked = await stage.check(job.id)
    assert parked.state is JobState.PARKED
    assert (await _detach_states(stage, job))[vm.volume_id(1)] is ActionState.ROLLBACK_FAILED
    (issue,) = await stage.open_issues(job.id)
    assert (issue["kind"], issue["target"]["volume_id"]) == ("attach_volume", vm.volume_id(1))
    await cancel_job(stage.deps, job.id, "the daemon is mended", actor="eva")
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.FAILED, ended.error
    assert _places(stage, vm) == [vm.test_vm_id, stage.world.oma_vm_id]
    assert await stage.open_issues(job.id) == []
    (row,) = await stage.rows(oma_issues, id=issue["id"])
    assert (row["state"], row["resolution"]) == ("resolved", "UNDONE")


@pytest.mark.rule("6-own-ids")
@pytest.mark.rule("6-take-over")
async def test_a_detach_that_may_still_arrive_is_taken_back_before_the_run_ends(stage: Stage) -> None:
    """Nobody knows its id and nobody says that it was never sent: the Volume Daemon never takes it in."""
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    stage.volumes.weather.lose_requests += ["detachVolume"] * 10
    job = await stage.submit(vm)
    sentence = await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.FAILED, sentence
    stage.volumes.weather.lose_requests.clear()
    for action in await stage.actions(job.id, ActionKind.DETACH_VOLUME):
        volume_id = action.target.get_volume_id()
        late = await stage.volumes.submit_detach(volume_id, request_id=action.request_id, fence=ended.lease_fence)
        assert (await stage.volumes.wait_operation(late, 5)).status is RemoteStatus.REFUSED
    assert _places(stage, vm) == [vm.test_vm_id] * 2
    assert stage.count("detachVolume") == 0


async def test_somebody_elses_status_keeps_an_issue_open_though_every_volume_is_home(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    job = await stage.submit(vm)
    refuse_detach(stage, vm, 0)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("wait_operation")
    await stage.sql("UPDATE vm_replication_contexts SET current_status = 'ready_for_failover'")
    await running
    parked = await stage.job(job.id)
    assert parked.state is JobState.PARKED
    assert "Somebody else set the status" in str(_error(parked)["detail"])
    assert _places(stage, vm) == [vm.test_vm_id, stage.world.oma_vm_id]
    assert len(await stage.open_issues(job.id)) == 1


@pytest.mark.parametrize("at", range(1, LAST_EVENT, 3))
async def test_a_kill_after_any_event_of_a_run_that_goes_back_ends_it_the_same_way(at: int) -> None:
    async with open_stage(speed=400) as stage:
        vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
        refuse_detach(stage, vm, 0)
        job = await stage.submit(vm)
        running = asyncio.create_task(stage.work())
        seen = [0]

        def kill(event: Event) -> None:
            if event.job_id == job.id and event.type is not EventType.JOB_STARTED:
                seen[0] += 1
                if seen[0] == at:
                    running.cancel()

        stage.deps.bus.on_event(kill)
        await asyncio.wait({running})
        while (await stage.job(job.id)).state in (JobState.RUNNING, JobState.QUEUED):
            await stage.break_off(job.id)
            await stage.work()
        ended = await stage.check(job.id)
        assert ended.state is JobState.FAILED, ended.error
        assert _places(stage, vm) == [vm.test_vm_id, stage.world.oma_vm_id]
        assert stage.count("attachVolume") == 1
