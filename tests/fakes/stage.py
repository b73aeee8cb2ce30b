"""The whole workflow on a stage: the real store in memory, the fakes at the ports, and one way to run a clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, select

from database.door import Door
from database.tables import metadata, oma_issues, vm_replication_contexts
from oma.domain.actions import Action, ActionKind
from oma.domain.events import Event
from oma.domain.evidence import GuardLimits
from oma.domain.jobs import ClaimedJob, CleanupRequest, Job
from oma.domain.world import MARK_KEY
from oma.ports import Ids
from oma.service.cleanup import submit_cleanup
from oma.service.deps import Deps
from oma.store import SqlInventory, SqlJobReader, SqlJournalStore, SqlSupervision
from oma.store.transactions import DatabaseDoor
from oma.workflow.bus import EventBus
from oma.workflow.run import Figures, Tools
from oma.workflow.runner import run_job
from tests.fakes.cloud import FakeCloud
from tests.fakes.invariants import violations
from tests.fakes.scenario import BrokenVm, put_into_rows, put_into_world
from tests.fakes.time_and_ids import CountingIds, FastClock
from tests.fakes.volumes import FakeVolumes
from tests.fakes.world import FakeWorld

FIGURES = Figures(
    lease_s=3000.0,
    expires_s=6000.0,
    busy_wait_s=3000.0,
    settle_s=10.0,
    observe_timeout_s=30.0,
    revert_window_s=30.0,
)
"""Bounds that no busy machine reaches, but the time that an effect may take to show: a test that waits it out is slow."""


TAG_COMMANDS = frozenset({"createTags", "deleteTags"})


@dataclass
class Stage:
    door: DatabaseDoor
    world: FakeWorld
    cloud: FakeCloud
    volumes: FakeVolumes
    clock: FastClock
    deps: Deps
    tools: Tools
    vms: dict[str, BrokenVm] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    replicated: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Volume → what it has to hold, and its change id, since a test has replicated it again."""

    async def add(self, vm: BrokenVm | None = None) -> BrokenVm:
        """Puts a broken VM into the world and the rows."""
        vm = vm or BrokenVm()
        put_into_world(vm, self.world, self.volumes)
        await self.door.write(lambda connection: put_into_rows(connection, vm, self.clock.now()))
        self.vms[vm.context_id] = vm
        return vm

    async def submit(self, vm: BrokenVm, **request: Any) -> Job:
        return await submit_cleanup(self.deps, CleanupRequest(vm.name, **request))

    async def claim(self) -> ClaimedJob:
        claimed = await self.deps.journal.claim_job("test", 30)
        assert claimed is not None, "no job is to be had"
        return claimed

    async def work(self, tools: Tools | None = None) -> str:
        """Claims the next job and runs it as the worker does."""
        return await run_job(await self.claim(), tools or self.tools)

    async def clean(self, vm: BrokenVm, **request: Any) -> Job:
        """One clean-up from the call to its end; no invariant is broken by it."""
        job = await self.submit(vm, **request)
        await self.work()
        return await self.check(job.id)

    async def check(self, job_id: str) -> Job:
        """The job as it stands; fails where the run has broken an invariant."""
        job = await self.job(job_id)
        found = await violations(self, job)
        assert not found, "\n".join(found)
        return job

    async def job(self, job_id: str) -> Job:
        job = await self.deps.jobs.find_job(job_id)
        assert job is not None
        return job

    async def rows(self, table: Table, **where: Any) -> list[dict[str, Any]]:
        query = select(table)
        for column, value in where.items():
            query = query.where(table.c[column] == value)
        return await self.door.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    async def sql(self, statement: str) -> None:
        """What another program does to the same database."""
        await self.door.write(lambda connection: connection.exec_driver_sql(statement))

    async def status(self, vm: BrokenVm) -> str:
        (row,) = await self.rows(vm_replication_contexts, context_id=vm.context_id)
        return str(row["current_status"])

    async def break_off(self, job_id: str) -> None:
        """What a restart does to a job whose process died: its lease has run out."""
        await self.sql(f"UPDATE oma_jobs SET lease_until = '2000-01-01 00:00:00.000000' WHERE id = '{job_id}'")

    async def actions(self, job_id: str, kind: ActionKind | None = None) -> list[Action]:
        rows = await self.deps.jobs.list_actions(job_id)
        return [row for row in rows if kind in {None, row.kind}]

    async def open_issues(self, job_id: str) -> list[dict[str, Any]]:
        return await self.rows(oma_issues, job_id=job_id, state="open")

    def commands(self) -> list[tuple[str, str]]:
        """What CloudStack accepted but markers, in order: command and volume, snapshot or VM."""
        accepted = (one for one in self.world.accepted() if one.command not in TAG_COMMANDS)
        return [(one.command, one.snapshot_id or one.volume_id or one.vm_id or "") for one in accepted]

    def tagged(self) -> list[tuple[str, str, str]]:
        """What CloudStack accepted of markers, in order: command, kind of resource and value."""
        accepted = (one for one in self.world.accepted() if one.command in TAG_COMMANDS)
        return [(one.command, one.params["resourcetype"], one.params["tags[0].value"]) for one in accepted]

    def marks(self) -> dict[str, str]:
        """What carries a marker now, and its value."""
        tags = self.world.model.world.tags.rows.values()
        return {tag.resource_id: tag.value for tag in tags if tag.key == MARK_KEY}

    def count(self, command: str) -> int:
        return len(self.world.accepted(command))


def build_stage(
    door: DatabaseDoor,
    cloud: FakeCloud,
    volumes: FakeVolumes,
    *,
    figures: Figures = FIGURES,
    limits: GuardLimits | None = None,
    ids: Ids | None = None,
) -> Stage:
    """One daemon's parts over a database and a world that may outlive it; the world is not started."""
    world, ids, bus = cloud.world, ids or CountingIds(), EventBus()
    clock, limits = world.clock, limits or GuardLimits()
    inventory, journal, jobs = SqlInventory(door), SqlJournalStore(door, bus.publish), SqlJobReader(door)
    deps = Deps(
        inventory=inventory,
        journal=journal,
        jobs=jobs,
        controls=SqlSupervision(door, bus.publish),
        cloud=cloud,
        volumes=volumes,
        clock=clock,
        ids=ids,
        bus=bus,
        limits=limits,
        observe_timeout_s=figures.observe_timeout_s,
        busy_wait_s=figures.busy_wait_s,
        longest_call_s=min(figures.expires_s, figures.lease_s),
        revert_window_s=figures.revert_window_s,
    )
    tools = Tools(
        inventory=inventory,
        journal_store=journal,
        cloud=cloud,
        volumes=volumes,
        clock=clock,
        ids=ids,
        bus=bus,
        limits=limits,
        figures=figures,
        stop=deps.stopping,
    )
    stage = Stage(door, world, cloud, volumes, clock, deps, tools)
    bus.on_event(stage.events.append)
    bus.on_event(world.hear)
    return stage


@asynccontextmanager
async def open_stage(
    *, figures: Figures = FIGURES, limits: GuardLimits | None = None, speed: float = 100.0
) -> AsyncIterator[Stage]:
    world = FakeWorld(FastClock(speed))
    cloud, volumes = FakeCloud(world), FakeVolumes(world)
    door = await Door.open("sqlite://")
    try:
        await door.write(metadata.create_all)
        stage = build_stage(door, cloud, volumes, figures=figures, limits=limits)
        world.start()
        try:
            yield stage
        finally:
            await volumes.close()
            await world.close()
            await asyncio.sleep(0)
    finally:
        await door.close()
