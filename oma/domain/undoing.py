"""What has to be undone before the point of no return, in which order, and how a run ends that undid it. Pure.

Source: sections 6 and 8 of the safety rules. Before the first revert a failure or a person's `cancel` puts every volume
that the run detached back on the OMA; from the first action on that nothing undoes, the way is forward only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from oma.domain.actions import MARKER_KINDS, Action, ActionKind, PlannedAction, Target
from oma.domain.plan import Plan, VolumePlan
from oma.domain.states import ActionState, JobState, Phase
from oma.domain.world import CloudVolume

UNDOABLE: Final = MARKER_KINDS | {ActionKind.STOP_VM, ActionKind.END_HOLDER, ActionKind.DETACH_VOLUME}
"""Kinds after which the way back is open: a detach is undone and a marker cleared; a stop and the end of an injection
stay as they are."""
RUNNING: Final = "Running"


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A person's word that a run is to stop between its actions."""

    actor: str
    reason: str | None
    at: datetime

    @property
    def sentence(self) -> str:
        return f"{self.actor} cancelled the run{f': {self.reason}' if self.reason else ''}"

    def as_json(self) -> dict[str, Any]:
        return {"actor": self.actor, "reason": self.reason, "at": self.at.isoformat()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CancelAsked:
        return cls(data["actor"], data["reason"], datetime.fromisoformat(data["at"]))


@dataclass(frozen=True, slots=True)
class Undoing:
    """A run that is on its way back, and why: it never goes forward again, in whatever process."""

    ends: JobState
    """`failed` or `cancelled`, once every volume is proven to be back."""
    error: dict[str, Any]
    """The run's last words as they were when it turned back: code, detail, phase, action, upstream."""
    told_status: str | None = None
    """What somebody else set the VM's status to, as a park has told it already: whoever lets the run go on knows."""
    told_gone: tuple[str, ...] = ()
    """Volumes that CloudStack no longer listed, as a park has told it already."""

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"told_status": self.told_status} if self.told_status is not None else {}
        if self.told_gone:
            told["told_gone"] = list(self.told_gone)
        return {"ends": self.ends.value, "error": self.error, **told}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Undoing:
        told_gone = tuple(data.get("told_gone", ()))
        return cls(JobState(data["ends"]), data["error"], data.get("told_status"), told_gone)

    @property
    def tells_more(self) -> bool:
        """It is written again, with what a park of the run tells."""
        return self.told_status is not None or bool(self.told_gone)


@dataclass(frozen=True, slots=True)
class Return:
    """One detach that may have taken effect, and the attach that undoes it."""

    detach: Action
    volume: VolumePlan
    attach: PlannedAction


class Way(StrEnum):
    """What a volume needs, as CloudStack and the OMA show it."""

    HOME = "home"
    NEVER_LEFT = "never left"
    ATTACH = "attach"
    BLOCKED = "blocked"
    MISSING = "missing"
    """CloudStack no longer lists it."""
    GONE = "gone"
    """The same, and a person has been told: it stays away, named."""


@dataclass(frozen=True, slots=True)
class Found:
    way: Way
    sentence: str


def can_turn_back(actions: Collection[Action], *, reverted: bool) -> bool:
    """Whether everything that was begun leaves the way back open."""
    begun = [one for one in actions if one.state is not ActionState.SKIPPED]
    return not reverted and all(one.kind in UNDOABLE or one.target.unexported for one in begun)


def has_something_to_undo(actions: Collection[Action]) -> bool:
    """A detach was begun. A failure before that leaves every volume where it was, and parks as it is."""
    return any(one.kind is ActionKind.DETACH_VOLUME and one.state is not ActionState.SKIPPED for one in actions)


def find_returns(plan: Plan, actions: Iterable[Action]) -> tuple[Return, ...]:
    """Every detach of this run that may have taken effect, in disk order: so they are attached."""
    detaches = {
        one.target.get_volume_id(): one
        for one in actions
        if one.kind is ActionKind.DETACH_VOLUME and one.state not in (ActionState.SKIPPED, ActionState.PLANNED)
    }
    ordered = sorted(plan.volumes, key=lambda volume: volume.order)
    return tuple(
        Return(detaches[volume.volume_id], volume, build_return(plan, volume))
        for volume in ordered
        if volume.volume_id in detaches
    )


def build_return(plan: Plan, volume: VolumePlan) -> PlannedAction:
    """A volume whose content is not proven comes home without its NBD export: nothing may write to it."""
    without = ", without its NBD export" if volume.needs_revert else ""
    return PlannedAction(
        Phase.DETACH,
        ActionKind.ATTACH_VOLUME,
        Target(
            volume_id=volume.volume_id,
            volume_name=volume.name,
            vm_id=plan.oma_vm_id,
            unexported=volume.needs_revert,
        ),
        f"Put {volume.name} back on the OMA{without}.",
    )


def find_way(one: Return, seen: CloudVolume | None, *, device_shown: bool, oma_vm_id: str, oma_state: str) -> Found:
    """Where one volume is, and so what it needs. Only what hangs nowhere is attached; nothing is ever taken off."""
    name = one.volume.name
    if seen is None:
        return Found(Way.MISSING, f"Alarm: CloudStack no longer lists {name}.")
    if not seen.is_settled:
        return Found(Way.BLOCKED, f"{name} stayed in transition; it is not attached under it.")
    if seen.vm_id == oma_vm_id:
        if not device_shown:
            return Found(Way.BLOCKED, f"CloudStack shows {name} on the OMA, but the OMA shows no device for it.")
        return Found(Way.HOME, f"{name} is back on the OMA: CloudStack and the OMA agree.")
    if seen.vm_id is not None and seen.vm_id == one.detach.target.vm_id:
        return Found(Way.NEVER_LEFT, f"{name} never left {seen.vm_name or seen.vm_id}: its detach had no effect.")
    if seen.vm_id is not None:
        return Found(Way.BLOCKED, f"{name} hangs on {seen.vm_name or seen.vm_id}; it is left there.")
    if device_shown:
        return Found(Way.BLOCKED, f"CloudStack shows {name} as detached, but the OMA still shows its device.")
    if oma_state != RUNNING:
        return Found(Way.BLOCKED, f"CloudStack shows the OMA as {oma_state}, not Running; {name} is not attached.")
    return Found(Way.ATTACH, f"{name} hangs nowhere.")


def restores_status(plan: Plan, *, touched: bool) -> bool:
    """Whether the VM gets its former status back; where a volume needs a revert, `cleanup_required` stays."""
    return not touched or not any(volume.needs_revert for volume in plan.volumes)
