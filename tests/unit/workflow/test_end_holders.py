"""6-safety 3 and 8: the injection of this failover is ended on a person's word, by the processes as they were seen."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oma.domain.actions import ActionKind, PlannedAction, Target
from oma.domain.errors import Code, Refused
from oma.domain.events import Event, EventType
from oma.domain.holders import DeviceHolder, ProcessId
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.states import ActionState, JobState, Phase
from oma.domain.words import Words
from oma.service.cleanup import plan_cleanup
from oma.workflow.planning import build_plan
from tests.fakes.scenario import OMA, BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.unit.workflow.evidence import at_home, build, held_by, injection, on_test_vm, scan

pytestmark = pytest.mark.rule("3-end-holders")

HUNG = Words(end_holders=True, reason="hung since midnight")
ROOT, CHILD = ProcessId(4700, 90), ProcessId(4711, 100)


async def add_held(stage: Stage, *holders: DeviceHolder) -> BrokenVm:
    """A test failover whose injection hangs on the system disk, still on the OMA."""
    disks = [Disk(place=OMA, mode="oma"), Disk(place=OMA, mode="oma")]
    steps = {"steps": (), "running_steps": ("virtio-driver-injection",)}
    vm = await stage.add(BrokenVm(disks=disks, test_vm_state=None, **steps))  # type: ignore[arg-type]
    stage.volumes.holders[vm.volume_id(0)] = list(holders) or [injection()]
    return vm


async def ends(stage: Stage, job: Job) -> list[tuple[ActionState, Target]]:
    return [(one.state, one.target) for one in await stage.actions(job.id, ActionKind.END_HOLDER)]


def commands(stage: Stage) -> set[str]:
    return {command for command, _ in stage.commands()}


async def test_without_the_word_it_is_refused_and_nothing_is_ended(stage: Stage) -> None:
    vm = await add_held(stage)
    with pytest.raises(Refused) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.DEVICE_IN_USE
    assert (stage.volumes.ended, stage.world.orders) == ([], [])


async def test_with_the_word_it_is_ended_before_the_device_goes_and_the_vm_is_cleaned(stage: Stage) -> None:
    vm = await add_held(stage)
    job = await stage.clean(vm, words=HUNG)
    assert job.state is JobState.COMPLETED, job.error
    assert stage.volumes.ended == [(vm.volume_id(0), CHILD, "hung since midnight")]
    ((state, target),) = await ends(stage, job)
    assert (state, target.volume_id, target.processes) == (ActionState.EXECUTED, vm.volume_id(0), (ROOT, CHILD))
    asked = stage.volumes.weather.asked
    assert asked.index("end_holders") < asked.index("detachVolume")


async def test_the_plan_says_what_will_be_ended_and_on_whose_word(stage: Stage) -> None:
    vm = await add_held(stage)
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name, words=HUNG))
    (end,) = [one for one in plan.actions if one.kind is ActionKind.END_HOLDER]
    assert end.phase is Phase.DETACH
    assert end.sentence == (
        "End the driver injection (process tree 4700) that holds pgtest1-disk-0: process 4711 (virt-v2v-in-place -i "
        "disk)."
    )
    assert next(one for one in plan.actions if one.phase is Phase.DETACH) == end
    assert (
        "The driver injection (process tree 4700) that holds pgtest1-disk-0 will be ended, passed by end_holders: "
        "hung since midnight."
    ) in plan.risks


async def test_a_silent_plan_ends_nothing_where_nobody_holds_anything(stage: Stage) -> None:
    vm = await add_held(stage)
    stage.volumes.holders.clear()
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name, words=HUNG))
    assert all(one.kind is not ActionKind.END_HOLDER for one in plan.actions)
    assert any("never reported its end; no process holds a device of this VM" in one for one in plan.observed)


async def test_each_tree_is_ended_by_an_action_of_its_own(stage: Stage) -> None:
    vm = await add_held(stage, injection(4711), injection(4712), injection(4811, root=4800))
    job = await stage.clean(vm, words=HUNG)
    assert job.state is JobState.COMPLETED
    assert [target.processes for _, target in await ends(stage, job)] == [
        (ROOT, CHILD, ProcessId(4712, 100)),
        (ProcessId(4800, 90), ProcessId(4811, 100)),
    ]


@pytest.mark.parametrize(
    "other",
    [injection(4712), injection(4711, start_ticks=101), injection(4711, root=4701)],
    ids=["another pid", "the same pid started anew", "another tree"],
)
async def test_another_process_makes_the_plan_stale(stage: Stage, other: DeviceHolder) -> None:
    vm = await add_held(stage)
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name, words=HUNG))
    stage.volumes.holders[vm.volume_id(0)] = [other]
    with pytest.raises(Refused) as raised:
        await stage.submit(vm, words=HUNG, expect_plan=plan.digest)
    assert raised.value.code is Code.PLAN_STALE
    (refusal,) = raised.value.refusals
    assert refusal.evidence["changed"]
    assert stage.volumes.ended == []


async def test_the_seconds_of_a_process_do_not_make_a_plan_stale(stage: Stage) -> None:
    """They are computed from ticks, and may differ by one from scan to scan."""
    vm = await add_held(stage)
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name, words=HUNG))
    stage.volumes.holders[vm.volume_id(0)] = [replace(injection(), since=stage.clock.now())]
    assert (await stage.clean(vm, words=HUNG, expect_plan=plan.digest)).state is JobState.COMPLETED


async def test_what_survives_parks_and_its_device_is_not_pulled_away(stage: Stage) -> None:
    vm = await add_held(stage)
    stage.volumes.surviving.add(ROOT)
    job = await stage.clean(vm, words=HUNG)
    assert job.state is JobState.PARKED
    assert job.error is not None
    assert "still held by process 4711" in job.error["detail"]
    assert commands(stage) == set()
    (issue,) = await stage.open_issues(job.id)
    assert issue["kind"] == ActionKind.END_HOLDER.value
    assert [one["pid"] for one in issue["evidence"]["processes"]] == [4700, 4711]
    assert f"volumes/{vm.volume_id(0)}/holders" in " ".join(issue["guidance"])


async def test_a_lost_answer_is_asked_for_again_under_the_same_id(stage: Stage) -> None:
    vm = await add_held(stage)
    stage.volumes.weather.lose_answers.append("end_holders")
    job = await stage.clean(vm, words=HUNG)
    assert job.state is JobState.COMPLETED, job.error
    assert stage.volumes.weather.asked.count("end_holders") == 2
    assert len(stage.volumes.ended) == 1


async def test_under_a_lease_that_may_have_run_out_it_is_not_sent_again(stage: Stage) -> None:
    """The process stood still while the answer was lost; somebody else may hold the job by now."""

    class Lease:
        looks = 0

        def left_s(self, job_id: str) -> float:
            del job_id
            asked = stage.volumes.weather.asked.count("end_holders")
            self.looks += asked == 1
            return 0.0 if asked == 1 and self.looks < 4 else 30.0

    lease = Lease()
    vm = await add_held(stage)
    stage.volumes.weather.lose_answers.append("end_holders")
    job = await stage.submit(vm, words=HUNG)
    await stage.work(replace(stage.tools, leases=lease))  # type: ignore[arg-type]
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.volumes.weather.asked.count("end_holders") == 2
    assert lease.looks >= 4, "it was waited for until the lease was prolonged"


async def test_a_daemon_that_stays_silent_parks_with_the_action_named(stage: Stage) -> None:
    vm = await add_held(stage)
    stage.volumes.weather.silent_for.add("end_holders")
    job = await stage.clean(vm, words=HUNG)
    assert job.state is JobState.PARKED
    assert commands(stage) == set()


async def test_a_scan_that_lost_its_sight_proves_nothing(stage: Stage) -> None:
    vm = await add_held(stage)
    gate = stage.volumes.weather.gates["end_holders"] = asyncio.Event()
    job = await stage.submit(vm, words=HUNG)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("end_holders")
    stage.volumes.unread = ("process 1: Permission denied",)
    gate.set()
    await running
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    assert job.error is not None
    assert "can't be told: process 1: Permission denied" in job.error["detail"]
    assert commands(stage) == set()


async def test_after_a_crash_before_the_answer_it_is_sent_again_and_done_once(stage: Stage) -> None:
    vm = await add_held(stage)
    stage.volumes.weather.gates["end_holders"] = asyncio.Event()
    job = await stage.submit(vm, words=HUNG)
    crashing = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("end_holders")
    crashing.cancel()
    await asyncio.gather(crashing, return_exceptions=True)
    del stage.volumes.weather.gates["end_holders"]
    await stage.break_off(job.id)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.COMPLETED, job.error
    ((state, _),) = await ends(stage, job)
    assert state is ActionState.EXECUTED
    assert len(stage.volumes.ended) == 1


def test_the_processes_survive_the_journal() -> None:
    target = Target(volume_id="v", volume_name="disk-0", processes=(ROOT, CHILD))
    planned = PlannedAction(Phase.DETACH, ActionKind.END_HOLDER, target, "End it.")
    assert PlannedAction.from_json(planned.as_json()) == planned
    assert "processes" not in Target(volume_id="v").as_json()


async def test_the_volume_daemons_word_alone_proves_nothing(stage: Stage) -> None:
    """A child that the tree forked at the last moment still holds the device."""
    vm = await add_held(stage)

    def fork(event: Event) -> None:
        if event.type is EventType.ACTION_SENT and event.data["kind"] == ActionKind.END_HOLDER.value:
            stage.volumes.holders[vm.volume_id(0)] = [injection(4999)]

    stage.deps.bus.on_event(fork)
    job = await stage.clean(vm, words=HUNG)
    assert job.state is JobState.PARKED
    assert job.error is not None
    assert "still held by process 4999" in job.error["detail"]
    assert commands(stage) == set()


def test_a_plan_ends_nothing_without_the_word() -> None:
    first = at_home(0, mode="failover", holders=held_by(0, injection()))
    plan = build_plan(build(volumes=(first, on_test_vm(1)), devices=scan(0)))
    assert all(one.kind is not ActionKind.END_HOLDER for one in plan.actions)
