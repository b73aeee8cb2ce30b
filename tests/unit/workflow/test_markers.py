"""6-safety 6, *Marker*: set before the first change beside the last checks, cleared after the run, ours or nobody's."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oma.domain.actions import MARKER_KINDS, ActionKind
from oma.domain.errors import Code, OmaError, Refused
from oma.domain.events import EventType
from oma.domain.evidence import GuardLimits
from oma.domain.jobs import Job
from oma.domain.leaks import LeakKind
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState, Phase
from oma.domain.world import MARK_KEY
from oma.service.issues import Said, resolve_issue
from oma.workflow.unmarking import Unmarker, sweep_markers
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage, open_stage

pytestmark = [pytest.mark.rule("6-foreign-marker"), pytest.mark.rule("6-markers")]
BEST_EFFORT = GuardLimits(markers_required=False)


def tag(stage: Stage, resource_id: str, value: str, kind: str = "Volume") -> None:
    """What another installation does."""
    words = {"resourceids": resource_id, "resourcetype": kind, "tags[0].key": MARK_KEY, "tags[0].value": value}
    stage.world.ask("createTags", **words)


async def settle_tags(stage: Stage) -> None:
    await stage.clock.sleep(2.0)
    stage.world.advance()


async def test_a_run_marks_its_volumes_and_snapshots_before_its_first_change_and_clears_them(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Running"))
    job = await stage.clean(vm)
    mark = f"oma/{job.id}"
    assert sorted(stage.tagged()) == [
        ("createTags", "Snapshot", mark),
        ("createTags", "Volume", mark),
        ("deleteTags", "Volume", mark),
    ]
    commands = [one.command for one in stage.world.accepted()]
    assert commands.index("stopVirtualMachine") > max(n for n, one in enumerate(commands) if one == "createTags")
    assert commands[-1] == "deleteTags"
    assert stage.marks() == {}
    kinds = [(one.kind, one.phase, one.state) for one in await stage.actions(job.id) if one.kind in MARKER_KINDS]
    assert kinds == [
        (ActionKind.SET_MARKER, Phase.ANALYZE, ActionState.EXECUTED),
        (ActionKind.SET_MARKER, Phase.ANALYZE, ActionState.EXECUTED),
        (ActionKind.CLEAR_MARKER, Phase.RESET, ActionState.EXECUTED),
    ]


async def test_the_caller_has_his_answer_before_the_markers_are_cleared(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.clean(vm)
    events = [event for event in stage.events if event.job_id == job.id]
    assert [event.type for event in events[-2:]] == [EventType.JOB_COMPLETED, EventType.ACTION_EXECUTED]
    assert events[-1].data["kind"] == ActionKind.CLEAR_MARKER.value


async def test_a_parked_run_keeps_its_markers(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "deleteSnapshot", times=None)
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    assert set(vm.volume_ids) <= stage.marks().keys()
    assert set(stage.marks().values()) == {f"oma/{job.id}"}


async def test_a_run_that_goes_back_clears_them(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "detachVolume", times=None)
    job = await stage.clean(vm)
    assert job.state is JobState.FAILED
    assert stage.marks() == {}


async def test_a_run_that_is_refused_in_its_first_phase_clears_them(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    stage.world.change_volume(vm.volume_id(1), state="Migrating")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.FAILED
    assert stage.marks() == {}


async def test_a_run_that_only_looks_marks_nothing(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.clean(vm, phases=(Phase.ANALYZE,))
    assert job.state is JobState.COMPLETED
    assert stage.tagged() == []


async def test_somebody_elses_marker_refuses_with_an_issue_that_a_person_lifts(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    tag(stage, vm.volume_id(1), "hamburg/job-9")
    await settle_tags(stage)
    with pytest.raises(Refused) as refused:
        await stage.submit(vm)
    assert refused.value.code is Code.FOREIGN_MARKER
    (issue_id,) = refused.value.fields["issue_ids"]
    applied = Said(Resolution.APPLIED, "looked at hamburg: its run is over")
    with pytest.raises(OmaError) as contradicted:
        await resolve_issue(stage.deps, issue_id, applied)
    assert contradicted.value.code is Code.RESOLUTION_CONTRADICTED
    words = {"resourceids": vm.volume_id(1), "resourcetype": "Volume", "tags[0].key": MARK_KEY}
    stage.world.ask("deleteTags", **words)
    await settle_tags(stage)
    outcome = await resolve_issue(stage.deps, issue_id, applied)
    assert outcome.settled.issue.resolution == "APPLIED"
    assert (await stage.clean(vm)).state is JobState.COMPLETED


async def test_a_marker_that_was_taken_off_closes_its_issue_by_the_next_run(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    tag(stage, vm.volume_id(1), "hamburg/job-9")
    await settle_tags(stage)
    with pytest.raises(Refused):
        await stage.submit(vm)
    words = {"resourceids": vm.volume_id(1), "resourcetype": "Volume", "tags[0].key": MARK_KEY}
    stage.world.ask("deleteTags", **words)
    await settle_tags(stage)
    assert (await stage.clean(vm)).state is JobState.COMPLETED


async def test_one_that_was_put_on_between_the_plan_and_the_run_stops_it(stage: Stage) -> None:
    """createTags is all or none: it is the lock between installations."""
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    tag(stage, vm.volume_id(1), "hamburg/job-9")
    await settle_tags(stage)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == Code.FOREIGN_MARKER.value
    assert stage.commands() == []
    assert stage.marks() == {vm.volume_id(1): "hamburg/job-9"}


async def test_a_marker_on_a_snapshot_stops_it_too(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    tag(stage, vm.snapshot_id(0), "hamburg/job-9", "Snapshot")
    await settle_tags(stage)
    with pytest.raises(Refused) as refused:
        await stage.submit(vm)
    assert refused.value.code is Code.FOREIGN_MARKER
    (issue_id,) = refused.value.fields["issue_ids"]
    issue = await stage.deps.jobs.find_issue(issue_id)
    assert issue is not None
    assert issue.target == {"snapshot_ids": [vm.snapshot_id(0)]}
    assert f"resourcetype=Snapshot resourceids={vm.snapshot_id(0)}" in issue.guidance[1]
    with pytest.raises(OmaError) as contradicted:
        await resolve_issue(stage.deps, issue_id, Said(Resolution.APPLIED, "it is off"))
    assert contradicted.value.code is Code.RESOLUTION_CONTRADICTED


async def test_one_that_comes_onto_a_snapshot_before_the_run_stops_it_too(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    tag(stage, vm.snapshot_id(0), "hamburg/job-9", "Snapshot")
    await settle_tags(stage)
    await stage.work()
    job = await stage.check(job.id)
    assert (job.state, (job.error or {}).get("code")) == (JobState.FAILED, Code.FOREIGN_MARKER.value)
    assert stage.marks() == {vm.snapshot_id(0): "hamburg/job-9"}


async def test_what_an_ended_run_of_ours_left_is_cleared_by_the_next(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "detachVolume", times=None)
    stage.world.add_fault(FaultKind.JOB_FAIL, "deleteTags", times=None)
    first = await stage.clean(vm)
    assert first.state is JobState.FAILED
    assert set(stage.marks().values()) == {f"oma/{first.id}"}
    stage.world.model.faults.clear()
    second = await stage.clean(vm)
    assert second.state is JobState.COMPLETED, second.error
    assert stage.marks() == {}


async def test_a_daemon_that_stops_right_after_a_run_still_clears_its_markers(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.deps.bus.on_event(lambda event: stage.deps.stopping.set() if event.type is EventType.JOB_COMPLETED else None)
    job = await stage.clean(vm)
    assert (job.state, stage.marks()) == (JobState.COMPLETED, {})


async def test_what_a_process_could_not_clear_is_swept_up_under_the_same_id(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.cloud.weather.lose_requests += ["deleteTags"] * 3
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED
    assert stage.marks() != {}
    (left,) = await stage.actions(job.id, ActionKind.CLEAR_MARKER)
    assert left.state is ActionState.STARTED
    stage.cloud.weather.lose_requests.clear()
    unmarker = Unmarker(stage.cloud, stage.deps.journal, stage.clock, "oma")
    assert await sweep_markers(unmarker, older_s=0.0, expires_s=60.0) == (
        "Took 1 of 1 markers off that ended runs had left."
    )
    assert stage.marks() == {}
    (swept,) = await stage.actions(job.id, ActionKind.CLEAR_MARKER)
    assert (swept.state, swept.remote_id) == (ActionState.EXECUTED, left.id)
    assert await sweep_markers(unmarker, older_s=0.0, expires_s=60.0) is None


async def test_one_that_cannot_be_taken_off_for_a_day_is_left_as_a_leak_and_the_next_run_tries(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.cloud.weather.lose_requests += ["deleteTags"] * 6
    job = await stage.clean(vm)
    unmarker = Unmarker(stage.cloud, stage.deps.journal, stage.clock, "oma")
    await sweep_markers(unmarker, older_s=0.0, expires_s=60.0)
    (left,) = await stage.actions(job.id, ActionKind.CLEAR_MARKER)
    assert left.state is ActionState.STARTED, "it is tried for a day"
    await stage.sql(f"UPDATE oma_actions SET intent_at = '2026-01-01 00:00:00' WHERE id = '{left.id}'")
    await sweep_markers(unmarker, older_s=0.0, expires_s=60.0)
    (left,) = await stage.actions(job.id, ActionKind.CLEAR_MARKER)
    assert left.state is ActionState.EXECUTION_FAILED
    (leak,) = await stage.deps.jobs.list_leaks(job_id=job.id)
    assert (leak.kind, leak.vm_name) == (LeakKind.MARKER_KEPT, vm.name)
    assert f"tags[0].value=oma/{job.id}" in leak.sentence
    assert await sweep_markers(unmarker, older_s=0.0, expires_s=60.0) is None
    assert stage.marks() != {}


@pytest.mark.parametrize("required", [True, False])
async def test_a_role_that_may_not_tag_goes_on_only_where_markers_are_best_effort(required: bool) -> None:
    async with open_stage(limits=replace(BEST_EFFORT, markers_required=required)) as stage:
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        stage.world.add_fault(FaultKind.SYNC_ERROR, "createTags", times=None, errorcode=432)
        job = await stage.clean(vm)
        assert job.state is (JobState.FAILED if required else JobState.COMPLETED), job.error
        assert stage.marks() == {}


async def test_somebody_elses_marker_stops_a_best_effort_run_too() -> None:
    async with open_stage(limits=BEST_EFFORT) as stage:
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        job = await stage.submit(vm)
        tag(stage, vm.volume_id(1), "hamburg/job-9")
        await settle_tags(stage)
        await stage.work()
        assert (await stage.check(job.id)).state is JobState.FAILED


async def parked_at_the_revert(stage: Stage) -> tuple[BrokenVm, Job]:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, errortext="agent timed out", times=2)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    return vm, job


async def lift(stage: Stage, resource_id: str, kind: str = "Volume") -> None:
    """What a person does who takes the run for dead."""
    stage.world.ask("deleteTags", resourceids=resource_id, resourcetype=kind, **{"tags[0].key": MARK_KEY})
    await settle_tags(stage)


async def test_a_run_that_goes_on_stops_where_somebody_else_has_marked_its_things_meanwhile(stage: Stage) -> None:
    vm, job = await parked_at_the_revert(stage)
    for resource_id, kind in ((vm.volume_id(0), "Volume"), (vm.snapshot_id(0), "Snapshot")):
        await lift(stage, resource_id, kind)
        tag(stage, resource_id, "hamburg/77", kind)
        await settle_tags(stage)
    before = stage.commands()
    (issue,) = await stage.open_issues(job.id)
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "looked at the pool"))
    await stage.work()
    job = await stage.job(job.id)
    assert job.state is JobState.PARKED
    assert "carries hamburg/77" in str((job.error or {})["detail"])
    assert stage.commands() == before
    assert set(stage.marks().values()) == {"hamburg/77"}


async def test_a_marker_that_was_taken_off_meanwhile_is_put_on_again_first(stage: Stage) -> None:
    vm, job = await parked_at_the_revert(stage)
    await lift(stage, vm.volume_id(0))
    (issue,) = await stage.open_issues(job.id)
    sent = len(stage.world.accepted())
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "looked at the pool"))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert [one.command for one in stage.world.accepted()][sent:][:2] == ["createTags", "revertSnapshot"]
    assert stage.marks() == {}


async def test_where_somebody_else_is_first_to_mark_what_was_taken_off_the_run_stops(stage: Stage) -> None:
    """createTags decides between the look and the marker."""
    vm, job = await parked_at_the_revert(stage)
    await lift(stage, vm.volume_id(0))
    before = stage.commands()
    (issue,) = await stage.open_issues(job.id)
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "looked at the pool"))
    stage.cloud.weather.asked.clear()
    gate = stage.cloud.weather.gates["createTags"] = asyncio.Event()
    working = asyncio.create_task(stage.work())
    await stage.cloud.weather.until_asked("createTags")
    tag(stage, vm.volume_id(0), "hamburg/77")
    await settle_tags(stage)
    gate.set()
    await working
    job = await stage.job(job.id)
    assert job.state is JobState.PARKED
    assert "carries hamburg/77" in str((job.error or {})["detail"])
    assert stage.commands() == before


async def test_a_snapshot_that_is_gone_meanwhile_is_not_marked_again(stage: Stage) -> None:
    vm, job = await parked_at_the_revert(stage)
    stage.world.ask("deleteSnapshot", id=vm.snapshot_id(0))
    await settle_tags(stage)
    marked = stage.count("createTags")
    (issue,) = await stage.open_issues(job.id)
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.RESYNC, "its snapshot is gone"))
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.COMPLETED
    assert stage.count("createTags") == marked
    assert stage.marks() == {}


async def test_a_process_that_dies_while_it_marks_again_is_followed(stage: Stage) -> None:
    vm, job = await parked_at_the_revert(stage)
    await lift(stage, vm.volume_id(0))
    marked = stage.count("createTags")
    (issue,) = await stage.open_issues(job.id)
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "looked at the pool"))
    stage.cloud.weather.asked.clear()
    stage.cloud.weather.gates["createTags"] = asyncio.Event()
    dying = asyncio.create_task(stage.work())
    await stage.cloud.weather.until_asked("createTags")
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    stage.cloud.weather.gates.clear()
    await stage.break_off(job.id)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count("createTags") == marked + 1
    assert stage.marks() == {}
    states = {one.state for one in await stage.actions(job.id, ActionKind.SET_MARKER)}
    assert states == {ActionState.EXECUTED}
