"""What a command is: how it is checked, run, applied and ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from ossea.simulator.model.catalog import ACCOUNT
from ossea.simulator.model.effects import Effect
from ossea.simulator.model.entities import Job, Snapshot, Vm, Volume
from ossea.simulator.model.errors import invalid_entity, not_allowed
from ossea.simulator.model.params import Params
from ossea.simulator.model.world import R, Table, World

Owned = TypeVar("Owned", Vm, Volume, Snapshot)


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
    doing: ClassVar[str | None] = None
    """What the event log calls it, as in "Successfully completed stopping Vm. Vm Id: …"."""

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

    def tells_end(self, job: Job) -> bool:
        """Whether the event log has more than that the job was scheduled."""
        del job
        return True

    def describe(self, job: Job) -> str:
        """The event log's words for it."""
        return f"{self.doing or self.event} {job.instance_id or ''}".rstrip()

    def again(self, world: World, job: Job) -> list[Effect]:
        """The effects a driver must carry out once more when it was killed while the job ran."""
        del world, job
        return []


def named_volume(world: World, params: Params, name: str = "id") -> Volume:
    """The volume that a parameter names; a removed one passes, as in CloudStack. Another account's is refused (531)."""
    return _ours(known_row(world.volumes, params, name))


def named_vm(world: World, params: Params, name: str = "id") -> Vm:
    return _ours(known_row(world.vms, params, name))


def named_snapshot(world: World, params: Params, name: str = "id") -> Snapshot:
    return _ours(known_row(world.snapshots, params, name))


def known_row(table: Table[R], params: Params, name: str = "id") -> R:
    """The row that a parameter names, whoever's it is."""
    value = params.get(name)
    row = table.find(value.lower())
    if row is None:
        raise invalid_entity(params.command, name, value)
    return row


def _ours(row: Owned) -> Owned:
    if row.account != ACCOUNT:
        raise not_allowed(ACCOUNT, row.account)
    return row
