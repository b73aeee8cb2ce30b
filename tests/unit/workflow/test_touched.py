"""A revert of unknown outcome is never made again over what somebody may have written, whoever asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from oma.domain.actions import ActionKind, Upstream
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState
from oma.ports import Fault, UpstreamError
from oma.service.issues import Outcome, Said, resolve_issue
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage

pytestmark = pytest.mark.rule("5-unknown-revert")
REVERT = "revertSnapshot"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """One attempt, so that a person is asked at once."""
    async with open_stage(figures=replace(FIGURES, revert_window_s=100.0, revert_attempts=1)) as opened:
        yield opened


async def unproven(stage: Stage, *, errorcode: int = 530) -> tuple[BrokenVm, Job]:
    stage.world.add_fault(FaultKind.JOB_FAIL, REVERT, errorcode=errorcode)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    return vm, job


def touch(stage: Stage, vm: BrokenVm) -> None:
    """Somebody has attached the volume and detached it again."""
    log = stage.world.model.world.log_event
    log("VOLUME.ATTACH", "Completed", "attached by hand", level="INFO", resource_id=vm.volume_id(0))


async def say(stage: Stage, job: Job, resolution: Resolution) -> Outcome:
    (issue,) = await stage.open_issues(job.id)
    return await resolve_issue(stage.deps, issue["id"], Said(resolution, "I looked.", "anna"))


async def test_a_persons_word_does_not_repeat_a_revert_after_a_touch(stage: Stage) -> None:
    vm, job = await unproven(stage)
    touch(stage, vm)
    with pytest.raises(OmaError, match="attached since") as raised:
        await say(stage, job, Resolution.ROLLED_BACK)
    assert raised.value.code is Code.RESOLUTION_CONTRADICTED
    assert "RESYNC" in str(raised.value.fields["next"])
    await say(stage, job, Resolution.RESYNC)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count(REVERT) == 1


async def test_a_touch_between_the_word_and_the_sending_stops_it(stage: Stage) -> None:
    vm, job = await unproven(stage)
    await say(stage, job, Resolution.ROLLED_BACK)
    touch(stage, vm)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert stage.count(REVERT) == 1
    (issue,) = await stage.open_issues(job.id)
    assert "is not reverted again: it was attached since" in issue["title"]
    await say(stage, job, Resolution.RESYNC)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count(REVERT) == 1


async def test_every_earlier_attempt_counts_for_the_next(stage: Stage) -> None:
    """The second is on its way when the daemon dies before it is sent; a touch then counts since the first."""
    vm, job = await unproven(stage)
    await say(stage, job, Resolution.ROLLED_BACK)
    stage.cloud.weather.lose_requests.append(REVERT)
    submit = stage.cloud.submit_revert

    async def touched(*args: object, **kwargs: object) -> str:
        try:
            return await submit(*args, **kwargs)  # type: ignore[arg-type]  # passed through as it came
        finally:
            touch(stage, vm)

    stage.cloud.submit_revert = touched  # type: ignore[method-assign]  # the world changes behind the call
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert stage.count(REVERT) == 1


async def test_where_no_log_tells_the_person_who_was_asked_decides(stage: Stage) -> None:
    _, job = await unproven(stage)
    stage.cloud.event_resource = False
    await say(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count(REVERT) == 2


async def test_a_touch_after_a_definite_no_takes_nothing_away(stage: Stage) -> None:
    """That revert changed nothing, so that the volume still needs its first one."""
    vm, job = await unproven(stage, errorcode=431)
    touch(stage, vm)
    await say(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.COMPLETED


async def test_an_error_about_a_call_that_was_taken_is_asked_for_by_its_id(stage: Stage) -> None:
    """Its id can't be spent, so that only the job that it became tells what was done."""
    stage.cloud.may_burn = False
    submit = stage.cloud.submit_revert

    async def taken_and_refused(*args: object, **kwargs: object) -> str:
        await submit(*args, **kwargs)  # type: ignore[arg-type]  # passed through as it came
        raise UpstreamError(Fault.FAILED, Upstream("CloudStack", "530", "internal error"))

    stage.cloud.submit_revert = taken_and_refused  # type: ignore[method-assign]  # an answer that says too little
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    assert job.state is JobState.COMPLETED, job.error
    assert stage.count(REVERT) == 1
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert (revert.state, revert.attempt) == (ActionState.EXECUTED, 1)


async def test_what_ended_badly_is_remembered_as_it_was_journaled(stage: Stage) -> None:
    """The next attempt of the same process asks about the last one as one after a restart does."""
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, revert_attempts=2))
    stage.world.add_fault(FaultKind.JOB_FAIL, REVERT, errorcode=530)
    job = await stage.submit(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    kept: list[dict[str, object]] = []

    def look(event: Event) -> None:
        if event.type is EventType.NOTED and "waits_until" in event.data:
            kept.append(event.data)

    stage.deps.bus.on_event(look)
    await stage.work()
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    (earlier,) = revert.evidence["earlier_attempts"]
    assert (earlier["job"], bool(earlier["expires_at"]), len(kept)) == ("failed", True, 1)
