"""What a command is: how it is checked, run, applied and ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ossea.simulator.model.effects import Effect
from ossea.simulator.model.entities import Job, Snapshot, Vm, Volume
from ossea.simulator.model.errors import invalid_entity
from ossea.simulator.model.params import Params
from ossea.simulator.model.world import World


@dataclass(slots=True)
class Order:
    """What a call asks for: the entity the job is about, notes for its execution, more fields of the answer."""

    instance_id: str | None
    notes: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)


class Command:
    """Base of all commands."""

    name: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()

    def require(self, params: Params) -> None:
        for name in self.required:
            params.get(name)


class SyncCommand(Command):
    """Answers at once."""

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        raise NotImplementedError


class AsyncCommand(Command):
    """Answers with a job.

    In order: `accept` checks the parameters in the call itself; `check` holds the preconditions of `execute()`, whose
    refusals become the job's result, and names the VM in whose queue the job stands; `begin` runs when it is its turn;
    `apply` is the hypervisor's work taking effect; `finish` tells CloudStack's database and gives the result; `undo`
    puts states back after a failure.
    """

    java_class: ClassVar[str]
    instance_type: ClassVar[str | None] = None
    event: ClassVar[str | None] = None
    events_end: ClassVar[bool] = True

    def accept(self, world: World, params: Params) -> Order:
        raise NotImplementedError

    def check(self, world: World, job: Job) -> str | None:
        raise NotImplementedError

    def begin(self, world: World, job: Job) -> None:
        """Raises `ApiError` for a race that was lost in the queue."""

    def apply(self, world: World, job: Job) -> None:
        """The hypervisor has done its work."""

    def apply_broken(self, world: World, job: Job) -> None:
        """The hypervisor failed; what it leaves behind."""

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        raise NotImplementedError

    def undo(self, world: World, job: Job) -> None:
        """States after a failure."""

    def again(self, world: World, job: Job) -> list[Effect]:
        """The effects a driver must carry out once more when it was killed while the job ran."""
        del world, job
        return []


def named_volume(world: World, params: Params, name: str = "id") -> Volume:
    """The volume that a parameter names; a removed one passes, as in CloudStack."""
    value = params.get(name)
    volume = world.volumes.find(value.lower())
    if volume is None:
        raise invalid_entity(params.command, name, value)
    return volume


def named_vm(world: World, params: Params, name: str = "id") -> Vm:
    value = params.get(name)
    vm = world.vms.find(value.lower())
    if vm is None:
        raise invalid_entity(params.command, name, value)
    return vm


def named_snapshot(world: World, params: Params, name: str = "id") -> Snapshot:
    value = params.get(name)
    snapshot = world.snapshots.find(value.lower())
    if snapshot is None:
        raise invalid_entity(params.command, name, value)
    return snapshot
