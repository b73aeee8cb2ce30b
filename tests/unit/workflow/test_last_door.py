"""The last door of a run is no short cut: nothing of it may come later, and nobody else be at its disks meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from database.tables import oma_issues, oma_leaks, vm_disks
from oma.domain.actions import Action, ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.holders import NBD_CLIENT, DeviceHolder
from oma.domain.jobs import Job
from oma.domain.remains import RunGivenUp
from oma.domain.resolving import IssueResolved, Resolution
from oma.domain.states import JobState
from oma.ports import Fault, UpstreamError
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.unit.workflow.test_asking_again import begin_replication
from tests.unit.workflow.test_ended_for_good import LATER, TORN, Clocks, parks, say, torn
from tests.unit.workflow.test_giving_up import killed_before

pytestmark = pytest.mark.rule("5-unknown-revert")
CLIENT = DeviceHolder(NBD_CLIENT, "10.0.0.5:40112")


@pytest.fixture
def clock(stage: Stage) -> Clocks:
    clocks = Clocks(stage)
    stage.deps = replace(stage.deps, clock=clocks)
    return clocks


async def refused(stage: Stage, job: Job) -> str:
    with pytest.raises(OmaError) as raised:
        await say(stage, job, Resolution.RESYNC)
    assert raised.value.code is Code.STATE_UNKNOWN, raised.value
    assert (await stage.deps.jobs.find_remains(job.id) or pytest.fail("no run")).state is JobState.PARKED
    return raised.value.sentence


async def home_again(stage: Stage, clock: Clocks) -> tuple[BrokenVm, Job]:
    """Its disks are back on the OMA, and the first word was said."""
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "destroyVirtualMachine")
    await stage.sql(TORN["half a plan"])
    assert await parks(stage)
    clock.ahead = LATER
    assert (await say(stage, job, Resolution.RESYNC)).waits
    clock.ahead = 2 * LATER
    return vm, job


class TestAReplication:
    async def test_that_is_at_work_keeps_the_run(self, stage: Stage, clock: Clocks) -> None:
        vm, job = await home_again(stage, clock)
        await begin_replication(stage, vm, ago_s=-clock.ahead.total_seconds())
        assert "Replication repl-new is running" in await refused(stage, job)
        assert {row["disk_change_id"] for row in await stage.rows(vm_disks)} != {""}
        await stage.sql("UPDATE replication_jobs SET status = 'completed' WHERE id = 'repl-new'")
        assert (await say(stage, job, Resolution.RESYNC)).settled.job_state is JobState.FAILED
        assert {row["disk_change_id"] for row in await stage.rows(vm_disks)} == {""}

    async def test_that_is_connected_keeps_the_run_whatever_its_row_says(self, stage: Stage, clock: Clocks) -> None:
        vm, job = await home_again(stage, clock)
        stage.volumes.holders[vm.volume_id(1)] = [CLIENT]
        assert "10.0.0.5:40112" in await refused(stage, job)

    async def test_that_nobody_can_tell_of_keeps_the_run(self, stage: Stage, clock: Clocks) -> None:
        _vm, job = await home_again(stage, clock)
        stage.volumes.unread = ("/proc/1/fd",)
        assert "can't be told" in await refused(stage, job)

    async def test_that_is_long_dead_keeps_nothing(self, stage: Stage, clock: Clocks) -> None:
        vm, job = await home_again(stage, clock)
        await begin_replication(stage, vm)
        assert (await say(stage, job, Resolution.RESYNC)).settled.job_state is JobState.FAILED

    async def test_that_begins_at_the_last_moment_keeps_the_run(
        self, stage: Stage, clock: Clocks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vm, job = await home_again(stage, clock)
        write = stage.deps.journal.resolve_issue

        async def begins_first(resolved: IssueResolved) -> object:
            assert isinstance(resolved.ends, RunGivenUp)
            await begin_replication(stage, vm)
            return await write(resolved)

        monkeypatch.setattr(stage.deps.journal, "resolve_issue", begins_first)
        assert "repl-new" in await refused(stage, job)


async def test_a_run_that_was_at_work_again_meanwhile_is_not_ended(
    stage: Stage, clock: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed by somebody else, and parked again, between the look and the end."""
    _vm, job = await home_again(stage, clock)
    write = stage.deps.journal.resolve_issue

    async def works_first(resolved: IssueResolved) -> object:
        await stage.sql("UPDATE oma_jobs SET lease_fence = lease_fence + 5")
        return await write(resolved)

    monkeypatch.setattr(stage.deps.journal, "resolve_issue", works_first)
    assert "was at work again" in await refused(stage, job)


class TestALateOrder:
    """A process stands still between the intent of an attach and its order; the row is damaged, the run is ended."""

    async def stalled(self, stage: Stage, damage: str) -> tuple[Job, Action, int]:
        vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
        job = await killed_before(stage, vm, "attachVolume")
        (attach,) = await stage.actions(job.id, ActionKind.ATTACH_VOLUME)
        fence = (await stage.job(job.id)).lease_fence
        await stage.sql(damage)
        assert await parks(stage)
        return job, attach, fence

    async def arrives(self, stage: Stage, attach: Action, fence: int) -> Fault | None:
        target = attach.target
        try:
            await stage.volumes.submit_attach(
                target.get_volume_id(), target.get_vm_id(), request_id=attach.request_id, fence=fence
            )
        except UpstreamError as error:
            return error.fault
        return None

    @pytest.mark.parametrize(
        "damage",
        ["UPDATE oma_actions SET kind = 'teleport' WHERE kind = 'attach_volume'", "UPDATE oma_jobs SET plan = '{}'"],
        ids=["its row", "the plan"],
    )
    async def test_is_refused_from_the_first_word_on(self, stage: Stage, clock: Clocks, damage: str) -> None:
        job, attach, fence = await self.stalled(stage, damage)
        clock.ahead = LATER
        assert (await say(stage, job, Resolution.RESYNC)).waits
        assert await self.arrives(stage, attach, fence) is Fault.REFUSED
        clock.ahead = 2 * LATER
        assert (await say(stage, job, Resolution.RESYNC)).settled.job_state is JobState.FAILED
        assert await self.arrives(stage, attach, fence) is Fault.REFUSED
        assert stage.count("attachVolume") == 0

    async def test_keeps_the_run_where_the_volume_daemon_can_not_be_told(self, stage: Stage, clock: Clocks) -> None:
        job, _attach, _fence = await self.stalled(
            stage, "UPDATE oma_actions SET kind = 'teleport' WHERE kind = 'attach_volume'"
        )
        stage.volumes.takes_back = False
        clock.ahead = LATER
        assert "Volume Daemon" in await refused(stage, job)


class TestTheWindow:
    async def test_is_not_shortened_by_our_clock(self, stage: Stage, clock: Clocks) -> None:
        _vm, job = await torn(stage, TORN["half a plan"])
        clock.ahead = LATER
        await say(stage, job, Resolution.RESYNC)
        clock.ours = LATER
        last = await say(stage, job, Resolution.RESYNC)
        assert last.waits
        assert last.waits_until is not None
        assert last.waits_until > clock.now()

    async def test_is_not_shortened_by_the_clock_of_cloudstack(self, stage: Stage, clock: Clocks) -> None:
        _vm, job = await torn(stage, TORN["half a plan"])
        clock.ahead = LATER
        await say(stage, job, Resolution.RESYNC)
        clock.ahead, clock.ours = 2 * LATER, -LATER
        assert (await say(stage, job, Resolution.RESYNC)).waits

    async def test_begins_anew_where_nobody_noted_the_time_of_cloudstack(self, stage: Stage, clock: Clocks) -> None:
        _vm, job = await torn(stage, TORN["half a plan"])
        clock.ahead = LATER
        await say(stage, job, Resolution.RESYNC)
        (issue,) = await stage.rows(oma_issues, job_id=job.id)
        only_ours = issue["evidence"]["quiet_since"]
        await stage.sql(f'UPDATE oma_issues SET evidence = \'{{"quiet_since": "{only_ours}"}}\'')
        clock.ahead = 2 * LATER
        assert (await say(stage, job, Resolution.RESYNC)).waits

    async def test_does_not_begin_where_cloudstack_does_not_tell_its_time(self, stage: Stage, clock: Clocks) -> None:
        _vm, job = await torn(stage, TORN["half a plan"])
        stage.cloud.weather.silent_for = {"find_server_time"}
        clock.ahead = LATER
        await refused(stage, job)

    async def test_a_call_whose_id_can_not_be_spent_is_waited_for_by_the_clock_of_cloudstack(
        self, stage: Stage, clock: Clocks
    ) -> None:
        _vm, job = await torn(stage, TORN["half a plan"])
        stage.cloud.may_burn = False
        clock.ours = LATER
        assert "may still arrive until" in await refused(stage, job)
        clock.ahead = timedelta(hours=1)
        assert (await say(stage, job, Resolution.RESYNC)).waits


async def test_a_volume_that_cloudstack_no_longer_lists_is_named_and_tracked(stage: Stage, clock: Clocks) -> None:
    vm, job = await torn(stage, TORN["half a plan"])
    stage.world.forget_volume(vm.volume_id(1))
    clock.ahead = LATER
    first = await say(stage, job, Resolution.RESYNC)
    clock.ahead = 2 * LATER
    last = await say(stage, job, Resolution.RESYNC)
    assert last.settled.job_state is JobState.FAILED
    assert "no longer lists" in first.sentence
    assert "no longer lists" in last.sentence
    assert "every other disk" in last.sentence
    (leak,) = await stage.rows(oma_leaks, kind="volume_gone")
    assert (leak["target"]["volume_id"], leak["job_id"]) == (vm.volume_id(1), job.id)
