"""The words that only a person may say: each passes exactly what the safety rules name, and nothing beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Words:
    """What a person insists on, with the reason that stands in the audit for ever.

    `snapshots` holds pairs of volume id and snapshot id, in the order of the volume ids.
    """

    force: bool = False
    end_test: bool = False
    end_holders: bool = False
    destination_vm_id: str | None = None
    snapshots: tuple[tuple[str, str], ...] = ()
    resume: bool = False
    reason: str | None = None
    forced_because: str | None = None
    """Why force was said, where it was said later than the other words: when a parked run was resumed."""

    @property
    def force_reason(self) -> str:
        return self.forced_because or self.reason or ""

    def with_force(self, reason: str | None) -> Words:
        """The words of a run that goes on by force; those that were said before keep their own reason.

        From then on force is said for what it may pass, no longer for the VM of a live failover.
        """
        if self.reason is None:
            return replace(self, force=True, destination_vm_id=None, reason=reason)
        return replace(self, force=True, destination_vm_id=None, forced_because=reason)

    @property
    def spoken(self) -> tuple[str, ...]:
        """The names of those that were said, as the API has them, without the reason."""
        said = {
            "force": self.force,
            "end_test": self.end_test,
            "end_holders": self.end_holders,
            "destination_vm_id": self.destination_vm_id is not None,
            "snapshots": bool(self.snapshots),
            "resume": self.resume,
        }
        return tuple(name for name, was_said in said.items() if was_said)

    @property
    def passes_failures(self) -> bool:
        """Whether `force` is said for the four failures that it may pass.

        Beside `destination_vm_id` it is said for the VM of a live failover alone, and then needs no failed run.
        """
        return self.force and self.destination_vm_id is None

    @property
    def planned(self) -> tuple[str, ...]:
        """What a plan is made under, with what each word names; why, and resuming it, is no part of a plan."""
        named = {
            "destination_vm_id": self.destination_vm_id,
            "snapshots": ", ".join(f"{volume}={snapshot}" for volume, snapshot in self.snapshots),
        }
        return tuple(f"{name} {named[name]}" if name in named else name for name in self.spoken if name != "resume")

    def snapshot_for(self, volume_id: str) -> str | None:
        """The snapshot that the person named for this volume."""
        return dict(self.snapshots).get(volume_id)

    def as_json(self) -> dict[str, Any]:
        return {
            "force": self.force,
            "end_test": self.end_test,
            "end_holders": self.end_holders,
            "destination_vm_id": self.destination_vm_id,
            "snapshots": dict(self.snapshots),
            "resume": self.resume,
            "reason": self.reason,
            **({"forced_because": self.forced_because} if self.forced_because is not None else {}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Words:
        return cls(**{**data, "snapshots": tuple(sorted(data.get("snapshots", {}).items()))})


SILENT = Words()
"""Nobody insists on anything."""
