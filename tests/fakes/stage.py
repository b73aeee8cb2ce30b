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
from oma.service.cleanup import submit_cleanup
from oma.service.deps import Deps
from oma.store import SqlInventory, SqlJobReader, SqlJournalStore
from oma.workflow.bus import EventBus
from oma.workflow.run import Figures, Tools
from oma.workflow.runner import run_job
from tests.fakes.cloud import FakeCloud
from tests.fakes.invariants import violations
from tests.fakes.scenario import BrokenVm, put_into_rows, put_into_world
from tests.fakes.time_and_ids import CountingIds, FastClock
from tests.fakes.volumes import FakeVolumes
from tests.fakes.world import FakeWorld

FIGURES = Figures(lease_s=3000.0, expires_s=6000.0, busy_wait_s=3000.0, settle_s=10.0, observe_timeout_s=30.0)
"""Bounds that no busy machine reaches, but the time that an effect may take to show: a test that waits it out is slow."""


@dataclass
class Stage:
    door: Door
    world: FakeWorld
    cloud: FakeCloud
    volumes: FakeVolumes
    clock: FastClock
    deps: Deps
    tools: Tools
    vms: dict[str, BrokenVm] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

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
        """What CloudStack accepted, in order: command and volume, snapshot or VM."""
        return [(one.command, one.snapshot_id or one.volume_id or one.vm_id or "") for one in self.world.accepted()]

    def count(self, command: str) -> int:
        return len(self.world.accepted(command))


@asynccontextmanager
async def open_stage(
    *, figures: Figures = FIGURES, limits: GuardLimits | None = None, speed: float = 100.0
) -> AsyncIterator[Stage]:
    clock, ids, bus = FastClock(speed), CountingIds(), EventBus()
    world = FakeWorld(clock)
    cloud, volumes = FakeCloud(world), FakeVolumes(world)
    door = await Door.open("sqlite://")
    try:
        await door.write(metadata.create_all)
        limits = limits or GuardLimits()
        inventory, journal, jobs = SqlInventory(door), SqlJournalStore(door, bus.publish), SqlJobReader(door)
        deps = Deps(
            inventory=inventory,
            journal=journal,
            jobs=jobs,
            cloud=cloud,
            volumes=volumes,
            clock=clock,
            ids=ids,
            bus=bus,
            limits=limits,
            observe_timeout_s=figures.observe_timeout_s,
            busy_wait_s=figures.busy_wait_s,
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
        world.start()
        try:
            yield stage
        finally:
            await volumes.close()
            await world.close()
            await asyncio.sleep(0)
    finally:
        await door.close()
