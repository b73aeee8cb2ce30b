"""The words that only a person may say: each passes exactly what the safety rules name, and nothing beside it."""

from __future__ import annotations

from dataclasses import dataclass
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
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Words:
        return cls(**{**data, "snapshots": tuple(sorted(data.get("snapshots", {}).items()))})


SILENT = Words()
"""Nobody insists on anything."""
