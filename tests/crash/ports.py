"""The daemon's crash points: one before and one after everything that leaves it and changes something.

The daemon reaches the world and its database through the ports alone, so the points stand around the ports and around
the door to the database, and its code has none. Each method of each port is classified here; the points of what is
journaled carry the name of the change and what it is about, so that the intent of a detach is another point than that
of a revert.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import replace
from typing import Any, Final, TypeVar, cast, get_args

from sqlalchemy.engine import Connection

from appliance.crashpoints import AFTER, BEFORE, CrashPoint
from oma import ports
from oma.domain import changes
from oma.domain.actions import Action
from oma.store.epoch_store import SqlEpochs
from oma.store.transactions import DatabaseDoor
from tests.fakes.stage import Stage

T = TypeVar("T")

COMMITTING: Final = "committing"
"""Inside the transaction, when all of it is written and COMMIT comes next."""
APPLY: Final = "apply"
"""The one method whose points are named by what it is given."""

CHANGING: Final[dict[type, frozenset[str]]] = {
    ports.Cloud: frozenset(
        {
            "submit_set_marks",
            "submit_clear_marks",
            "submit_stop_vm",
            "submit_destroy_vm",
            "submit_revert",
            "submit_delete_snapshot",
            "burn",
            "put_epoch",
        }
    ),
    ports.Volumes: frozenset({"submit_attach", "submit_detach", "end_holders", "burn"}),
    ports.JournalStore: frozenset(
        {
            "queue_job",
            "resume_job",
            "cancel_job",
            "resolve_issue",
            "append_audit",
            "claim_job",
            "renew_leases",
            "apply",
            "end_unmarking",
            "open_world_issues",
            "close_world_issues",
        }
    ),
    ports.Controls: frozenset({"pause", "lift"}),
    ports.Watch: frozenset({"settle_watched"}),
    ports.Epochs: frozenset({"raise_epoch", "mark_older", "accept"}),
    ports.EpochNote: frozenset({"write"}),
    ports.Peers: frozenset({"end_leases"}),
}
"""What changes something: in the world, or in the database."""

LOOKING: Final[dict[type, frozenset[str]]] = {
    ports.Cloud: frozenset(
        {
            "list_volumes",
            "list_volumes_of_vm",
            "list_snapshots",
            "list_vms",
            "list_vm_snapshot_holders",
            "list_vms_named",
            "list_snapshots_named",
            "list_vm_events",
            "list_volume_events",
            "list_marks",
            "list_marks_of",
            "find_epoch",
            "find_server_time",
            "find_host",
            "find_host_state",
            "wait_job",
            "query_job",
            "check",
        }
    ),
    ports.Volumes: frozenset(
        {"find_mapping", "scan_devices", "list_holders", "wait_operation", "list_open_operations", "check"}
    ),
    ports.JournalStore: frozenset({"find_cancel", "list_unmarkings"}),
    ports.Controls: frozenset({"list_pauses"}),
    ports.Watch: frozenset({"list_slow_jobs"}),
    ports.Epochs: frozenset({"read"}),
    ports.EpochNote: frozenset({"read"}),
    ports.Peers: frozenset({"list_owners"}),
}
"""What only looks. `Inventory` and `JobReader` have nothing else."""

ONLY_LOOKING: Final = (ports.Inventory, ports.JobReader, ports.Clock, ports.Ids)
DATABASE: Final = (ports.JournalStore, ports.Controls, ports.Watch, ports.Epochs, ports.Peers)

_points: dict[str, CrashPoint] = {}
_written: ContextVar[tuple[str, ...]] = ContextVar("written", default=())
"""The names of what the present call writes; the door's function runs under them."""


def methods_of(port: type) -> frozenset[str]:
    return frozenset(
        name for name, member in vars(port).items() if inspect.isfunction(member) and not name.startswith("_")
    )


def build_registry() -> frozenset[str]:
    """Every point by its bare name, without what it is about."""
    names: set[str] = set()
    for port, methods in CHANGING.items():
        inner = [COMMITTING] if port in DATABASE else []
        names |= {
            f"{_prefix(port)}.{method}.{when}" for method in methods - {APPLY} for when in (BEFORE, *inner, AFTER)
        }
    kinds = get_args(changes.Change)
    names |= {
        f"{_prefix(ports.JournalStore)}.{kind.__name__}.{when}"
        for kind in kinds
        for when in (BEFORE, COMMITTING, AFTER)
    }
    return frozenset(names)


def bare(name: str) -> str:
    """Without what the change is about: `oma.journalstore.ActionStarted[detach_volume].before` loses the brackets."""
    head, _, tail = name.partition("[")
    return head + tail.partition("]")[2] if tail else name


def watched(port: T, protocol: type) -> T:
    """The same port, with the points around it; one of the database must stand over a `WatchedDoor`."""
    return cast("T", _Watched(port, protocol))


def watch(stage: Stage) -> None:
    """Puts the points around the ports of one daemon."""
    deps = stage.deps
    journal, controls = watched(deps.journal, ports.JournalStore), watched(deps.controls, ports.Controls)
    cloud, volumes = watched(deps.cloud, ports.Cloud), watched(deps.volumes, ports.Volumes)
    epochs = watched(SqlEpochs(stage.door, deps.bus.publish), ports.Epochs)
    stage.deps = replace(deps, journal=journal, controls=controls, cloud=cloud, volumes=volumes, epochs=epochs)
    stage.tools = replace(stage.tools, journal_store=journal, cloud=cloud, volumes=volumes)


class WatchedDoor:
    """The door to the database, with a point inside each transaction."""

    def __init__(self, door: DatabaseDoor) -> None:
        self._door = door

    async def read(self, fn: Callable[[Connection], T]) -> T:
        return await self._door.read(fn)

    async def check(self) -> str:
        return await self._door.check()

    async def write(self, fn: Callable[[Connection], T], *, confirm: Callable[[Connection], bool] | None = None) -> T:
        names, context = _written.get(), copy_context()

        def write(connection: Connection) -> T:
            result = fn(connection)
            # In the writer's thread, which knows nothing of the caller.
            context.copy().run(_reach, names, COMMITTING)
            return result

        return await self._door.write(write, confirm=confirm)


class _Watched:
    """A port whose changing methods reach their points; whatever else is asked of it passes through."""

    def __init__(self, port: Any, protocol: type) -> None:
        self._port = port
        self._prefix = _prefix(protocol)
        self._changing = CHANGING[protocol]
        self._kinds: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        return self._around(name, method) if name in self._changing else method

    def _around(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            subjects = [self._name(change) for change in args[1]] if name == APPLY else [name]
            names = tuple(dict.fromkeys(f"{self._prefix}.{subject}" for subject in subjects))
            token = _written.set(names)
            try:
                _reach(names, BEFORE)
                result = await method(*args, **kwargs)
                _reach(names, AFTER)
            finally:
                _written.reset(token)
            return result

        return call

    def _name(self, change: object) -> str:
        about = self._about(change)
        return f"{type(change).__name__}[{about}]" if about else type(change).__name__

    def _about(self, change: Any) -> str | None:
        """An action's kind, a phase, a state: whatever makes this change another one than its like."""
        match change:
            case changes.ActionStarted(action=Action() as action) | changes.ActionSkipped(action=Action() as action):
                self._kinds[action.id] = action.kind.value
                return action.kind.value
            case changes.ActionEnded(action_id=action_id, state=state):
                return f"{self._kinds.get(action_id, 'earlier')} {state.value}"
            case changes.ActionSent() | changes.ActionSentAgain() | changes.ActionOverdue():
                return self._kinds.get(change.action_id, "earlier")
            case changes.StepStarted() | changes.StepEnded():
                return change.phase.value
            case changes.JobEnded(state=state):
                return state.value
            case changes.IssueOpened(issue=issue):
                return issue.kind
            case changes.LeakTracked(leak=leak):
                return leak.kind.value
            case _:
                return None


def _prefix(protocol: type) -> str:
    return f"oma.{protocol.__name__.lower()}"


def _reach(names: Sequence[str], when: str) -> None:
    for name in names:
        full = f"{name}.{when}"
        point = _points.get(full)
        if point is None:
            point = _points.setdefault(full, CrashPoint(full))
        point.reach()
