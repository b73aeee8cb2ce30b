"""The model's door: commands in, answers and effects out, on the caller's clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ossea.simulator.model import seeding
from ossea.simulator.model.catalog import USER_ID
from ossea.simulator.model.commands import build_commands
from ossea.simulator.model.commands.base import AsyncCommand, SyncCommand
from ossea.simulator.model.commands.vm_life import expunge
from ossea.simulator.model.effects import Effect
from ossea.simulator.model.entities import Job, JobStatus, Phase
from ossea.simulator.model.errors import CS_API, INTERNAL, ApiError, refused, unauthorized, unavailable
from ossea.simulator.model.faults import JOB_KINDS, Fault, FaultKind, FaultList, pick
from ossea.simulator.model.jobs import JobRunner
from ossea.simulator.model.params import Params
from ossea.simulator.model.settings import Settings
from ossea.simulator.model.views import job_json
from ossea.simulator.model.world import World

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Change = tuple[str, str, dict[str, Any] | None]
"""Table, id, and the row as JSON or None where it is gone."""


class Model:
    """One simulated CloudStack.

    All times are Unix seconds given by the caller; a time before the last one is taken as the last one. Ids come from
    `seed`, so that the same calls give the same ids. In a `driven` model an effect with a `job_id` holds its job until
    `release`.
    """

    def __init__(self, settings: Settings | None = None, seed: int = 0, *, driven: bool = False) -> None:
        self.world = World(settings or Settings(), seed)
        self.faults = FaultList()
        self._commands = build_commands(self._job_view)
        self._jobs = JobRunner(self.world, self._commands, driven=driven)
        self._now = 0.0
        self._order = 0

    @property
    def settings(self) -> Settings:
        return self.world.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self.world.settings = settings

    def knows(self, command: str) -> bool:
        return command.lower() in self._commands

    def canonical(self, command: str) -> str:
        """The command's name as CloudStack writes it, whatever the case it came in."""
        found = self._commands.get(command.lower())
        return command if found is None else found.name

    def submit(
        self, command: str, params: Mapping[str, str], now: float, *, faults: Sequence[Fault] | None = None
    ) -> dict[str, Any]:
        """The answer's body without its envelope: `{"jobid": …}` of an asynchronous command, the result of another.

        `faults` None: the model takes the faults that match by itself; a driver that took them already hands them in.
        Raises `ApiError` with CloudStack's code and text.
        """
        now = self._run(now)
        found = self._commands.get(command.lower())
        if found is None:
            raise unauthorized()
        given = Params(found.name, params)
        hit = self.faults.take(found.name, given.values) if faults is None else faults
        refusal = pick(hit, (FaultKind.SYNC_ERROR,))
        if refusal is not None:
            text = refusal.errortext or f"Failed to run {found.name}"
            raise ApiError(refusal.errorcode or INTERNAL, text, refusal.cserrorcode or CS_API)
        if self.settings.denies(found.name):
            raise unavailable(found.name, USER_ID)
        found.require(given)
        if isinstance(found, SyncCommand):
            return found.answer(self.world, given)
        if not isinstance(found, AsyncCommand):
            raise unauthorized()
        return self._submit_job(found, given, now, pick(hit, JOB_KINDS))

    def advance(self, now: float) -> list[Effect]:
        """Everything due until `now` happens; answers the effects in order, those of `submit` and `seed` included."""
        self._run(now)
        effects, self.world.effects = self.world.effects, []
        return effects

    def advance_clock(self, now: float) -> None:
        """As `advance`, but the effects wait for the next `advance`."""
        self._run(now)

    def next_due(self) -> float | None:
        """When the next thing happens by itself; None: never, unless a command or a release comes."""
        job_due = self._jobs.next_due()
        dues = [*self.world.expunge_due.values()]
        if job_due is not None:
            dues.append(job_due)
        return min(dues, default=None)

    def release(self, job_id: str, now: float, error: str | None = None) -> None:
        """The driver is done with one effect of the job; with `error` the job ends as failed (530)."""
        self._jobs.release(job_id, max(now, self._now), error)

    def seed(
        self,
        now: float,
        *,
        hosts: Iterable[Mapping[str, Any]] = (),
        projects: Iterable[Mapping[str, Any]] = (),
        vms: Iterable[Mapping[str, Any]] = (),
        volumes: Iterable[Mapping[str, Any]] = (),
        snapshots: Iterable[Mapping[str, Any]] = (),
    ) -> dict[str, list[str]]:
        """Add entities as the admin API's `/seed` describes them; answers their ids. Raises `SeedFault`."""
        self._run(now)
        return {
            "hosts": [seeding.add_host(self.world, row) for row in hosts],
            "projects": [seeding.add_project(self.world, row) for row in projects],
            "vms": [seeding.add_vm(self.world, row) for row in vms],
            "volumes": [seeding.add_volume(self.world, row) for row in volumes],
            "snapshots": [seeding.add_snapshot(self.world, row) for row in snapshots],
        }

    def restart(self, now: float, mode: str | None = None) -> None:
        """What a restart of the management server does to pending jobs; `mode` None: as the settings say."""
        self._jobs.restart(mode or self.settings.restart, self._run(now))

    # State that outlives a process

    def take_changes(self) -> list[Change]:
        """Rows that changed since the last call."""
        changes: list[Change] = []
        for name, table in self.world.tables().items():
            for row_id in table.changed:
                row = table.find(row_id)
                changes.append((name, row_id, None if row is None else table.as_json(row)))
            table.changed.clear()
        return changes

    def dump(self) -> list[Change]:
        """All rows."""
        return [
            (name, row_id, table.as_json(row))
            for name, table in self.world.tables().items()
            for row_id, row in table.rows.items()
        ]

    def load(self, rows: Iterable[Change], now: float) -> None:
        """Fill an empty model with rows of `dump`; jobs go on where they were."""
        adders: dict[str, Any] = {
            "volumes": self.world.add_volume,
            "snapshots": self.world.add_snapshot,
            "vm_snapshots": self.world.add_vm_snapshot,
            "tags": self.world.add_tag,
            "jobs": self.world.add_job,
            "events": self.world.add_event,
        }
        tables = self.world.tables()
        for name, _, row in rows:
            if row is not None:
                entity = tables[name].kind(**row)
                adders.get(name, tables[name].add)(entity)
        for table in tables.values():
            table.changed.clear()
        self._now = self.world.now = now
        self._order = max((job.order for job in self.world.jobs.rows.values()), default=0)
        self.world.counter = max((vm.number for vm in self.world.vms.rows.values()), default=0)
        for vm in self.world.vms.rows.values():
            if vm.destroyed_at is not None and vm.removed is None:
                self.world.expunge_due[vm.id] = vm.destroyed_at + self.settings.expunge_delay_s
        self._jobs.rebuild()

    def unfinished(self) -> list[Effect]:
        """After `load`: effects of running jobs that a killed driver must carry out once more, and then release."""
        effects: list[Effect] = []
        for job in self.world.jobs.rows.values():
            command = self._commands[job.command.lower()]
            if job.phase in {Phase.RUNNING, Phase.APPLIED} and isinstance(command, AsyncCommand):
                effects.extend(command.again(self.world, job))
        self._jobs.hold_for(effects)
        return effects

    # Inside

    def _run(self, now: float) -> float:
        now = max(now, self._now)
        self._now = now
        self._jobs.advance(now)
        for vm_id, due in [*self.world.expunge_due.items()]:
            if due <= now:
                self.world.now = due
                expunge(self.world, self.world.vms.rows[vm_id])
        self.world.now = now
        self._drop_old_jobs(now)
        return now

    def _drop_old_jobs(self, now: float) -> None:
        """Rows of ended jobs live `job_expire_s` from their creation."""
        oldest = now - self.settings.job_expire_s
        old = []
        for job in self.world.jobs.rows.values():
            if job.created > oldest:
                break
            if job.status != JobStatus.PENDING and job.phase == Phase.ENDED:
                old.append(job.id)
        for job_id in old:
            job = self.world.jobs.rows[job_id]
            if job.ended is not None:
                self.world.forgotten_ends[job_id] = (job.ended, job.status == JobStatus.SUCCEEDED)
            self.world.jobs.drop(job_id)

    def _submit_job(self, command: AsyncCommand, params: Params, now: float, fault: Fault | None) -> dict[str, Any]:
        # A create command has its row before the job's id is looked at: a duplicate id leaves an `Allocated` orphan.
        order = command.accept(self.world, params)
        job_id = self._custom_job_id(params) or self.world.new_id()
        self._order += 1
        job = Job(job_id, command.name, self._order, now, command.instance_type, order.instance_id, order.notes)
        if fault is not None:
            job.fault = {**fault.as_json(), "kind": str(fault.kind)}
        self._jobs.accept(job, now)
        return {**order.answer, "jobid": job_id}

    def _custom_job_id(self, params: Params) -> str | None:
        """`customjobid` by the rules of `UUIDManagerImpl.checkUuid`; an old server does not know the parameter."""
        value = params.find("customjobid")
        if value is None or not self.settings.custom_job_id:
            return None
        if not _UUID.fullmatch(value):
            raise refused(f"UUID: {value} format is incorrect")
        if self.world.jobs.find(value) is not None:
            text = f"UUID: {value} already exists so can't create with custom id"
            raise ApiError(self.settings.custom_job_id_conflict_code, text)
        return value

    def _job_view(self, job: Job) -> dict[str, Any]:
        command = self._commands[job.command.lower()]
        java_class = command.java_class if isinstance(command, AsyncCommand) else ""
        return job_json(job, java_class, real_code=self.settings.real_job_result_code)
