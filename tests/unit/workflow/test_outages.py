"""A target that goes away in mid-run: the run goes back to the queue at its safe point, and completes when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

import pytest

from oma.domain.actions import ActionKind
from oma.domain.circuit import CLOUDSTACK, VOLUME_DAEMON, CircuitRules
from oma.domain.errors import Code, Refused
from oma.domain.events import Event, EventType
from oma.domain.jobs import ClaimedJob
from oma.domain.states import JobState
from oma.ports import Cloud, Volumes
from oma.workflow.circuits import Breaker, Breakers, Guarded
from oma.workflow.retry import RetryPolicies, RetryPolicy
from oma.workflow.run import Tools
from oma.workflow.runner import run_job
from oma.workflow.unmarking import Unmarker, sweep_markers
from ossea.simulator.model import FaultKind
from tests.fakes.faults import Weather
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage, open_stage

LAST_EVENT = 60
"""More events than a run of one disk has."""
QUICK = RetryPolicy(attempts=3, total_s=5.0)


@dataclass
class Field:
    """A stage whose targets are behind circuits, as in the daemon."""

    stage: Stage
    breakers: Breakers
    tools: Tools

    def weather(self, target: str) -> Weather:
        return self.stage.cloud.weather if target == CLOUDSTACK else self.stage.volumes.weather

    async def run(self, claimed: ClaimedJob) -> str:
        brakes = self.stage.deps.brakes
        with brakes.held(claimed.job, self.stage.deps.stopping) as brake:
            return await run_job(claimed, replace(self.tools, stop=brake))

    async def sweep(self) -> None:
        """Markers that could not be taken off meanwhile are taken off later."""
        tools = self.stage.tools
        unmarker = Unmarker(tools.cloud, tools.journal_store, tools.clock, tools.limits.installation)
        await sweep_markers(unmarker, older_s=-60, expires_s=60)

    async def come_back(self, target: str) -> None:
        self.weather(target).silent = False
        assert await self.breakers.find_outage(target) is None


@asynccontextmanager
async def open_field(speed: float = 300) -> AsyncIterator[Field]:
    async with open_stage(speed=speed) as stage:
        rules = CircuitRules(silences=3)
        cloud, volumes = (
            Breaker(target, port.check, stage.clock, rules, trial_s=60)
            for target, port in ((CLOUDSTACK, stage.cloud), (VOLUME_DAEMON, stage.volumes))
        )
        breakers = Breakers([cloud, volumes])
        breakers.on_change(lambda: stage.deps.brakes.set_outages(breakers.outages))
        tools = replace(
            stage.tools,
            cloud=cast("Cloud", Guarded(stage.cloud, cloud)),
            volumes=cast("Volumes", Guarded(stage.volumes, volumes)),
            outages=breakers,
            figures=replace(stage.tools.figures, retries=RetryPolicies(QUICK, QUICK)),
        )
        yield Field(stage, breakers, tools)
        await breakers.aclose()


@pytest.mark.parametrize("at", range(1, LAST_EVENT, 5))
@pytest.mark.parametrize("target", [CLOUDSTACK, VOLUME_DAEMON])
async def test_an_outage_after_any_event_fails_and_parks_nothing(target: str, at: int) -> None:
    async with open_field() as field:
        stage = field.stage
        vm = await stage.add(BrokenVm(disks=[Disk()]))
        job = await stage.submit(vm)
        seen = [0]

        def go_away(event: Event) -> None:
            if event.job_id == job.id:
                seen[0] += 1
                field.weather(target).silent = field.weather(target).silent or seen[0] == at

        stage.deps.bus.on_event(go_away)
        sentence = await field.run(await stage.claim())
        if (await stage.job(job.id)).state is JobState.QUEUED:
            assert f"{target} has not answered since" in sentence
            assert "goes on by itself" in sentence
            await field.come_back(target)
            await field.run(await stage.claim())
        field.weather(target).silent = False
        await field.sweep()
        ended = await stage.check(job.id)
        assert ended.state is JobState.COMPLETED, ended.error
        assert await stage.open_issues(job.id) == []


async def test_an_outage_stops_also_the_runs_that_only_wait() -> None:
    """One run finds it out; another, which follows a long job, ends at its safe point too."""
    async with open_field() as field:
        stage = field.stage
        stage.world.add_fault(FaultKind.JOB_STUCK, "revertSnapshot", delay_s=5000.0)
        vm = await stage.add(BrokenVm(disks=[Disk()]))
        job = await stage.submit(vm)
        running = asyncio.create_task(field.run(await stage.claim()))
        await stage.cloud.weather.until_asked("revertSnapshot")
        field.weather(CLOUDSTACK).silent = True
        assert await field.breakers.find_outage(CLOUDSTACK) is not None
        assert "CloudStack has not answered since" in await running
        assert (await stage.job(job.id)).state is JobState.QUEUED


async def test_a_call_that_hangs_while_the_target_answers_is_a_failure_as_ever() -> None:
    async with open_field() as field:
        stage = field.stage
        vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
        job = await stage.submit(vm)
        stage.cloud.weather.silent_for = {"revertSnapshot", "queryAsyncJobResult", "burn"}
        await field.run(await stage.claim())
        assert (await stage.job(job.id)).state is JobState.PARKED
        assert field.breakers.outages == ()


async def test_on_the_way_back_it_waits_too() -> None:
    """A detach fails for good, and the target goes away before the volume is home."""
    async with open_field() as field:
        stage = field.stage
        vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
        job = await stage.submit(vm)
        refused = {"id": vm.volume_id(1)}
        stage.world.add_fault(FaultKind.JOB_FAIL, "detachVolume", match=refused, errorcode=431, errortext="no")

        def go_away(event: Event) -> None:
            if event.type is EventType.UNDOING_BEGUN:
                field.weather(VOLUME_DAEMON).silent = True

        stage.deps.bus.on_event(go_away)
        sentence = await field.run(await stage.claim())
        assert "on the way back" in sentence
        assert "The Volume Daemon has not answered since" in sentence
        await field.come_back(VOLUME_DAEMON)
        await field.run(await stage.claim())
        assert (await stage.check(job.id)).state is JobState.FAILED
        assert not await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)


async def test_before_a_run_is_queued_silence_is_a_refusal() -> None:
    """A person is told at once; nothing waits for what was never begun."""
    async with open_field() as field:
        vm = await field.stage.add(BrokenVm(disks=[Disk()]))
        field.weather(CLOUDSTACK).silent = True
        with pytest.raises(Refused) as refused:
            await field.stage.submit(vm)
        assert refused.value.code is Code.STATE_UNKNOWN
