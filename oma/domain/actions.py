"""The kinds of action, as data: what proves one, what follows when its outcome is unknown, and what undoes it.

The table is section 8 of the safety rules. Settings may make a strategy stricter, never looser.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid5

from oma.domain.holders import ProcessId
from oma.domain.states import ActionState, Phase


class ActionKind(StrEnum):
    SET_MARKER = "set_marker"
    CLEAR_MARKER = "clear_marker"
    STOP_VM = "stop_vm"
    END_HOLDER = "end_holder"
    DETACH_VOLUME = "detach_volume"
    REVERT_SNAPSHOT = "revert_snapshot"
    DELETE_SNAPSHOT = "delete_snapshot"
    ATTACH_VOLUME = "attach_volume"
    DESTROY_VM = "destroy_vm"
    RESET_RECORDS = "reset_records"


ACTION_NOUNS: Final[dict[ActionKind, str]] = {
    ActionKind.SET_MARKER: "marking",
    ActionKind.CLEAR_MARKER: "unmarking",
    ActionKind.STOP_VM: "stop",
    ActionKind.END_HOLDER: "end of the holders",
    ActionKind.DETACH_VOLUME: "detach",
    ActionKind.REVERT_SNAPSHOT: "revert",
    ActionKind.DELETE_SNAPSHOT: "deletion of the snapshot",
    ActionKind.ATTACH_VOLUME: "attach",
    ActionKind.DESTROY_VM: "removal of the test VM",
    ActionKind.RESET_RECORDS: "reset",
}
"""What operators call it: "the revert of …"."""


class Strategy(StrEnum):
    """What recovery does with an action whose outcome cannot be told."""

    ALWAYS_RETRY = "ALWAYS_RETRY"
    MANUAL_INTERVENTION = "MANUAL_INTERVENTION"


class Proof(StrEnum):
    """What counts as proof that an action happened."""

    LISTED_TAGS = "listTags"
    VM_STATE = "VM state"
    PROCESS_GONE = "pid with its start time gone"
    DETACHED_AND_DEVICE_GONE = "CloudStack and device gone"
    OWN_JOB = "its own job's success"
    NOT_LISTED = "not listed"
    ATTACHED_AND_DEVICE_THERE = "CloudStack and device there"
    TRANSACTION = "its transaction"


@dataclass(frozen=True, slots=True)
class KindRule:
    """One row of the table."""

    kind: ActionKind
    proof: Proof
    strategy: Strategy
    undone_by: ActionKind | None
    passes_point_of_no_return: bool = False
    forced: bool = False
    """Whether `force` may pass it, leaving a tracked leak."""


KIND_RULES: Final[dict[ActionKind, KindRule]] = {
    rule.kind: rule
    for rule in (
        KindRule(ActionKind.SET_MARKER, Proof.LISTED_TAGS, Strategy.ALWAYS_RETRY, ActionKind.CLEAR_MARKER),
        KindRule(ActionKind.CLEAR_MARKER, Proof.LISTED_TAGS, Strategy.ALWAYS_RETRY, None),
        KindRule(ActionKind.STOP_VM, Proof.VM_STATE, Strategy.ALWAYS_RETRY, None, forced=True),
        KindRule(ActionKind.END_HOLDER, Proof.PROCESS_GONE, Strategy.ALWAYS_RETRY, None),
        KindRule(
            ActionKind.DETACH_VOLUME, Proof.DETACHED_AND_DEVICE_GONE, Strategy.ALWAYS_RETRY, ActionKind.ATTACH_VOLUME
        ),
        KindRule(
            ActionKind.REVERT_SNAPSHOT,
            Proof.OWN_JOB,
            Strategy.MANUAL_INTERVENTION,
            None,
            passes_point_of_no_return=True,
        ),
        KindRule(ActionKind.DELETE_SNAPSHOT, Proof.NOT_LISTED, Strategy.ALWAYS_RETRY, None, forced=True),
        KindRule(ActionKind.ATTACH_VOLUME, Proof.ATTACHED_AND_DEVICE_THERE, Strategy.ALWAYS_RETRY, None),
        KindRule(ActionKind.DESTROY_VM, Proof.VM_STATE, Strategy.ALWAYS_RETRY, None, forced=True),
        KindRule(ActionKind.RESET_RECORDS, Proof.TRANSACTION, Strategy.ALWAYS_RETRY, None),
    )
}


MARKER_KINDS: Final = frozenset({ActionKind.SET_MARKER, ActionKind.CLEAR_MARKER})
"""Tags that say who is at work: they change nothing that a run would have to come back from."""
VOLUME_DAEMON_KINDS: Final = frozenset({ActionKind.DETACH_VOLUME, ActionKind.ATTACH_VOLUME})
"""Carried out by the Volume Daemon, which asks CloudStack itself."""


def build_request_id(action_id: str, kind: ActionKind, attempt: int) -> str:
    """See `Action.request_id`."""
    if attempt == 1:
        return action_id
    words = f"operation {attempt}" if kind in VOLUME_DAEMON_KINDS else str(attempt)
    return str(uuid5(UUID(action_id), words))


@dataclass(frozen=True, slots=True)
class Target:
    """What an action is done to; ids are CloudStack's UUIDs."""

    volume_id: str | None = None
    volume_name: str | None = None
    vm_id: str | None = None
    snapshot_id: str | None = None
    processes: tuple[ProcessId, ...] = ()
    """Of an injection that is ended: the root of its tree as it was seen, then those of it that hold the device."""
    unexported: bool = False
    """Of an attach to the OMA: without the volume's NBD export, because its content is not proven."""
    volume_ids: tuple[str, ...] = ()
    """Of a marker: everything that one call marks or unmarks, volumes or snapshots."""
    snapshot_ids: tuple[str, ...] = ()
    mark: str | None = None
    """Of a marker that is taken off: its value where an earlier run has left it; None: this run's own."""

    @property
    def marked_ids(self) -> tuple[str, ...]:
        return self.volume_ids or self.snapshot_ids

    def get_volume_id(self) -> str:
        """Raises `ValueError` when the target names no volume: a journal row that makes no sense."""
        return _required(self.volume_id, "volume")

    def get_vm_id(self) -> str:
        return _required(self.vm_id, "VM")

    def get_snapshot_id(self) -> str:
        return _required(self.snapshot_id, "snapshot")

    def get_root(self) -> ProcessId:
        """The root of the process tree that is ended."""
        if not self.processes:
            raise ValueError("the action's target names no process")
        return self.processes[0]

    def as_json(self) -> dict[str, Any]:
        pairs = (
            ("volume_id", self.volume_id),
            ("volume_name", self.volume_name),
            ("vm_id", self.vm_id),
            ("snapshot_id", self.snapshot_id),
            ("processes", [one.as_json() for one in self.processes] or None),
            ("unexported", self.unexported or None),
            ("volume_ids", list(self.volume_ids) or None),
            ("snapshot_ids", list(self.snapshot_ids) or None),
            ("mark", self.mark),
        )
        return {key: value for key, value in pairs if value is not None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Target:
        return cls(
            volume_id=data.get("volume_id"),
            volume_name=data.get("volume_name"),
            vm_id=data.get("vm_id"),
            snapshot_id=data.get("snapshot_id"),
            processes=tuple(ProcessId.from_json(one) for one in data.get("processes", ())),
            unexported=bool(data.get("unexported", False)),
            volume_ids=tuple(data.get("volume_ids", ())),
            snapshot_ids=tuple(data.get("snapshot_ids", ())),
            mark=data.get("mark"),
        )


def _required(value: str | None, what: str) -> str:
    if value is None:
        raise ValueError(f"the action's target names no {what}")
    return value


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One action as the plan names it, before it has an id."""

    phase: Phase
    kind: ActionKind
    target: Target
    sentence: str

    def as_json(self) -> dict[str, Any]:
        return {
            "phase": self.phase.value,
            "kind": self.kind.value,
            "target": self.target.as_json(),
            "sentence": self.sentence,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PlannedAction:
        return cls(
            phase=Phase(data["phase"]),
            kind=ActionKind(data["kind"]),
            target=Target.from_json(data["target"]),
            sentence=data["sentence"],
        )


@dataclass(frozen=True, slots=True)
class Upstream:
    """What another system answered, kept word for word."""

    system: str
    code: str
    text: str

    def as_json(self) -> dict[str, str]:
        return {"system": self.system, "code": self.code, "text": self.text}


@dataclass(frozen=True, slots=True)
class Action:
    """A journaled call that changes the world.

    `id` is chosen before the first attempt; `request_id` travels with the call.
    """

    id: str
    job_id: str
    phase: Phase
    seq: int
    kind: ActionKind
    target: Target
    state: ActionState
    attempt: int = 1
    remote_id: str | None = None
    intent_at: datetime | None = None
    expires_at: datetime | None = None
    sent_at: datetime | None = None
    ended_at: datetime | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    sentence: str = ""

    @property
    def request_id(self) -> str:
        """The Volume Daemon's Idempotency-Key, CloudStack's `customjobid`: `id`, and uuid5(id, n) for attempt n.

        The Volume Daemon derives ids for its own further attempts in the same way from the key that it was given;
        a new operation of ours must not meet one of those.
        """
        return build_request_id(self.id, self.kind, self.attempt)

    @property
    def words(self) -> str:
        """`the revert of pgtest1-disk-0`."""
        target = self.target
        if self.kind in MARKER_KINDS:
            things = "volume" if target.volume_ids else "snapshot"
            number = len(target.marked_ids)
            return f"the {ACTION_NOUNS[self.kind]} of {number} {things}{'' if number == 1 else 's'}"
        name = target.volume_name or target.volume_id or target.vm_id or target.snapshot_id or "the records"
        return f"the {ACTION_NOUNS[self.kind]} of {name}"

    def with_remote_id(self, remote_id: str, sent_at: datetime) -> Action:
        return replace(self, remote_id=remote_id, sent_at=sent_at)
