"""The plan of a run: a frozen inventory, the actions to take, and the evidence that they rest on.

Later phases read it from the journal; nothing they need lives in a variable.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from oma.domain.actions import MARKER_KINDS, PlannedAction
from oma.domain.states import VolumePlace


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """What is known and intended about one volume."""

    volume_id: str
    name: str
    size_bytes: int
    disk_id: str
    order: int
    """Place in the disk order, from 0; volumes are submitted to the OMA in this order."""
    place: VolumePlace
    vm_id: str | None
    device_id: int | None
    is_root: bool
    mapping: str
    """What the Volume Daemon said, in words."""
    on_oma: bool
    snapshot_id: str | None
    needs_revert: bool
    revert_reason: str
    awaits_copy: bool = False
    """Its content is given up: it goes home without a revert, and the next replication copies it whole."""

    def as_json(self) -> dict[str, Any]:
        return {
            "volume_id": self.volume_id,
            "name": self.name,
            "size_bytes": self.size_bytes,
            "disk_id": self.disk_id,
            "order": self.order,
            "place": self.place.value,
            "vm_id": self.vm_id,
            "device_id": self.device_id,
            "is_root": self.is_root,
            "mapping": self.mapping,
            "on_oma": self.on_oma,
            "snapshot_id": self.snapshot_id,
            "needs_revert": self.needs_revert,
            "revert_reason": self.revert_reason,
            "awaits_copy": self.awaits_copy,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VolumePlan:
        return cls(**{**data, "place": VolumePlace(data["place"])})


@dataclass(frozen=True, slots=True)
class TestVmPlan:
    """The VM that this failover left behind."""

    __test__ = False

    vm_id: str
    name: str
    state: str
    known_by: str
    """How it is known to be this failover's own."""
    kept: bool = False
    """It is emptied and left: a live failover's VM is never destroyed."""

    def as_json(self) -> dict[str, Any]:
        return {
            "vm_id": self.vm_id,
            "name": self.name,
            "state": self.state,
            "known_by": self.known_by,
            "kept": self.kept,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TestVmPlan:
        return cls(
            vm_id=data["vm_id"],
            name=data["name"],
            state=data["state"],
            known_by=data["known_by"],
            kept=data.get("kept", False),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A judged plan. Equal plans have equal digests whenever they were made."""

    context_id: str
    vm_name: str
    former_status: str
    former_job_id: str | None
    oma_vm_id: str
    test_vm: TestVmPlan | None
    volumes: tuple[VolumePlan, ...]
    open_failover_ids: tuple[int, ...]
    """Rows of `failover_jobs` that the reset ends as failed."""
    open_joblog_ids: tuple[str, ...]
    """The failover's own `job_tracking` rows that the reset ends as failed."""
    actions: tuple[PlannedAction, ...]
    observed: tuple[str, ...]
    """What was observed, one sentence each."""
    risks: tuple[str, ...]
    source_powered_off: bool = False
    left_alone: tuple[str, ...] = ()
    """A sentence about every VM that may be left over and is not touched; it stands in `next` when the run ended."""
    words: tuple[str, ...] = ()
    """What a person insisted on (`Words.planned`): who confirms the plan confirms these, and no others."""

    @property
    def changes(self) -> tuple[PlannedAction, ...]:
        """The actions that change something; markers only say who is at work."""
        return tuple(one for one in self.actions if one.kind not in MARKER_KINDS)

    @property
    def awaiting(self) -> tuple[str, ...]:
        """Names of the volumes whose content was given up before."""
        return tuple(volume.name for volume in self.volumes if volume.awaits_copy)

    def get_volume(self, volume_id: str) -> VolumePlan:
        return next(volume for volume in self.volumes if volume.volume_id == volume_id)

    @property
    def digest(self) -> str:
        """SHA-256 over what would be done and the state that it rests on, in canonical JSON."""
        body = self.as_json()
        for key in ("observed", "risks", "left_alone", "plan_digest"):
            body.pop(key, None)
        # Who is at work is no part of what is done: a finished run's marker may go between a dry run and the run.
        body["actions"] = [one.as_json() for one in self.changes]
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {
            "context_id": self.context_id,
            "vm_name": self.vm_name,
            "former_status": self.former_status,
            "former_job_id": self.former_job_id,
            "oma_vm_id": self.oma_vm_id,
            "test_vm": self.test_vm.as_json() if self.test_vm else None,
            "volumes": [volume.as_json() for volume in self.volumes],
            "open_failover_ids": list(self.open_failover_ids),
            "open_joblog_ids": list(self.open_joblog_ids),
            "actions": [action.as_json() for action in self.actions],
            "observed": list(self.observed),
            "risks": list(self.risks),
            "source_powered_off": self.source_powered_off,
            "left_alone": list(self.left_alone),
            "words": list(self.words),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        return cls(
            context_id=data["context_id"],
            vm_name=data["vm_name"],
            former_status=data["former_status"],
            former_job_id=data["former_job_id"],
            oma_vm_id=data["oma_vm_id"],
            test_vm=TestVmPlan.from_json(data["test_vm"]) if data["test_vm"] else None,
            volumes=tuple(VolumePlan.from_json(volume) for volume in data["volumes"]),
            open_failover_ids=tuple(data["open_failover_ids"]),
            open_joblog_ids=tuple(data["open_joblog_ids"]),
            actions=tuple(PlannedAction.from_json(action) for action in data["actions"]),
            observed=tuple(data["observed"]),
            risks=tuple(data["risks"]),
            source_powered_off=data["source_powered_off"],
            left_alone=tuple(data.get("left_alone", ())),
            words=tuple(data.get("words", ())),
        )
