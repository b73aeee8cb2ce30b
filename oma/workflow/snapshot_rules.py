"""Which snapshot a volume goes back to, and whether that snapshot fits: pure, used in analysis and before each revert.

Source of the rules: section 5 of the safety rules. CloudStack itself checks neither the snapshot's state nor, because
a revert takes only the snapshot's id, whose volume it overwrites.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oma.domain.evidence import Evidence, SnapshotFacts
from oma.domain.world import CloudSnapshot, CloudVolume, Unanswered
from oma.workflow.replicated import made_at, replicated_since
from oma.workflow.since import oldest_failover_at, written_since
from oma.workflow.tracking import ours_on, untracked

BACKED_UP = "BackedUp"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An untracked snapshot of ours; `problems` say why it would not be used even if a person named it."""

    snapshot: CloudSnapshot
    problems: tuple[str, ...]

    @property
    def would_pass(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "snapshot_id": self.snapshot.id,
            "name": self.snapshot.name,
            "created": _time(self.snapshot),
            "state": self.snapshot.state,
            "would_pass": self.would_pass,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class SnapshotChoice:
    """The one snapshot that fits, or why there is none.

    `dead` ids are tracked, but CloudStack lists them no more; `unknown` is an answer without which nothing is chosen.
    """

    snapshot: CloudSnapshot | None
    missing: bool
    problems: tuple[str, ...]
    dead: tuple[str, ...]
    evidence: dict[str, Any]
    known_by: str = ""
    """Where it is tracked, or that a person named it."""
    unknown: Unanswered | None = None
    fitting: tuple[CloudSnapshot, ...] = ()
    """Tracked ones that fit by themselves; two of them are none."""
    of_another_volume: bool = False
    """The one that a person named hangs on another volume."""


def choose_snapshot(evidence: Evidence, volume: CloudVolume) -> SnapshotChoice:
    """The one that a person named for the volume, or else the one tracked snapshot that passes every check."""
    named = evidence.words.snapshot_for(volume.id)
    return _choose_tracked(evidence, volume) if named is None else _choose_named(evidence, volume, named)


def list_candidates(evidence: Evidence, volume: CloudVolume) -> tuple[Candidate, ...]:
    """Untracked snapshots of ours on the volume, oldest first, each with what speaks against it."""
    found = sorted(untracked(evidence, volume.id), key=lambda one: (one.created is None, one.created, one.id))
    return tuple(Candidate(one, _candidate_problems(evidence, volume, one)) for one in found)


def snapshot_problems(
    snapshot: CloudSnapshot, volume: CloudVolume, *, not_before: datetime | None, vm_snapshot_on_holder: bool
) -> list[str]:
    """Why this snapshot by itself may not be reverted to; empty when nothing speaks against it. A sentence per reason.

    CloudStack dates snapshots to the second, so `not_before` counts to the second too.
    """
    problems: list[str] = []
    name = f"Snapshot {snapshot.id}"
    if snapshot.volume_id != volume.id:
        problems.append(
            f"{name} is to be one of {volume.name} ({volume.id}), "
            f"but CloudStack shows it on volume {snapshot.volume_id}."
        )
    if snapshot.state != BACKED_UP:
        problems.append(f"{name} of {volume.name} is {snapshot.state}, not {BACKED_UP}.")
    if snapshot.created is None:
        problems.append(f"{name} of {volume.name} carries no creation time.")
    elif not_before is not None and snapshot.created < not_before.replace(microsecond=0):
        problems.append(
            f"{name} of {volume.name} was made {snapshot.created.isoformat()}, before the oldest failover since the "
            f"last completed replication or clean-up ({not_before.isoformat()})."
        )
    if snapshot.size_bytes is not None and snapshot.size_bytes != volume.size_bytes:
        problems.append(
            f"{name} is {snapshot.size_bytes} bytes, {volume.name} is {volume.size_bytes}; a revert would resize it."
        )
    if snapshot.revertable is False:
        problems.append(f"CloudStack says that {name.lower()} of {volume.name} can't be reverted to.")
    if vm_snapshot_on_holder:
        problems.append(f"The VM that holds {volume.name} carries a VM snapshot; CloudStack then refuses a revert.")
    return problems


def older_in_between(snapshot: CloudSnapshot, ours: Iterable[CloudSnapshot], since: datetime | None) -> list[str]:
    """Sentences about older snapshots of ours, made since `since`: after them something may have been written.

    `since` None: nothing dates the first write, so that every older one counts; so does one without a time.
    """
    made = snapshot.created
    if made is None:
        return []
    floor = None if since is None else since.replace(microsecond=0)
    between = [
        one
        for one in ours
        if one.id != snapshot.id
        and (one.created is None or (one.created < made and (floor is None or one.created >= floor)))
    ]
    return [
        f"Snapshot {snapshot.id} may already hold what a failover wrote: the older {one.name} ({one.id}) of the same "
        f"volume was made before it ({_time(one) or 'at an unknown time'}, then {made.isoformat()})."
        for one in between
    ]


def _choose_tracked(evidence: Evidence, volume: CloudVolume) -> SnapshotChoice:
    tracked = evidence.snapshots_of(volume.id)
    listed = {facts.snapshot_id: facts.cloud for facts in tracked if isinstance(facts.cloud, CloudSnapshot)}
    problems: list[str] = []
    fitting: list[CloudSnapshot] = []
    for snapshot in listed.values():
        found = _own_problems(evidence, volume, snapshot)
        problems += found
        if not found:
            fitting.append(snapshot)
    late = [sentence for snapshot in fitting for sentence in _late(evidence, volume, snapshot)]
    if len(fitting) > 1:
        both = ", ".join(f"{one.id} ({_time(one)})" for one in fitting)
        late.append(f"Two snapshots fit {volume.name}: {both}.")
    chosen = fitting[0] if len(fitting) == 1 and not late else None
    dead = tuple(facts.snapshot_id for facts in tracked if facts.cloud is None)
    if not listed:
        dead += tuple(facts.snapshot_id for facts in evidence.snapshots_of(None) if facts.cloud is None)
    places = next((facts.tracked_in for facts in tracked if chosen is not None and facts.snapshot_id == chosen.id), ())
    return SnapshotChoice(
        snapshot=chosen,
        missing=not listed,
        problems=(*problems, *late),
        dead=dead,
        evidence=_sides(evidence, volume, tracked),
        known_by=f"tracked in {' and '.join(places)}" if places else "",
        unknown=_unanswered(evidence.own_snapshots) if fitting else None,
        fitting=tuple(fitting),
    )


def _choose_named(evidence: Evidence, volume: CloudVolume, named: str) -> SnapshotChoice:
    """Checked like a tracked one; where it does not pass, no other takes its place."""
    listed = () if isinstance(evidence.named_snapshots, Unanswered) else evidence.named_snapshots
    snapshot = next((one for one in listed if one.id == named), None)
    silent = _unanswered(evidence.named_snapshots)
    if snapshot is None:
        problems = [f"CloudStack does not list the snapshot {named} that was named for {volume.name}."]
    else:
        problems = [*_own_problems(evidence, volume, snapshot), *_late(evidence, volume, snapshot)]
    return SnapshotChoice(
        snapshot=None if problems else snapshot,
        missing=snapshot is None,
        problems=tuple(problems),
        dead=(),
        evidence={
            **_sides(evidence, volume, evidence.snapshots_of(volume.id)),
            "named": {"snapshot_id": named, "cloudstack": _cloud_side(snapshot)},
        },
        known_by="named by a person",
        unknown=silent or (_unanswered(evidence.own_snapshots) if snapshot else None),
        of_another_volume=snapshot is not None and snapshot.volume_id != volume.id,
    )


def _own_problems(evidence: Evidence, volume: CloudVolume, snapshot: CloudSnapshot) -> list[str]:
    held = volume.vm_id is not None and volume.vm_id in evidence.vm_snapshot_holders
    not_before = oldest_failover_at(evidence.records)
    return snapshot_problems(snapshot, volume, not_before=not_before, vm_snapshot_on_holder=held)


def _late(evidence: Evidence, volume: CloudVolume, snapshot: CloudSnapshot) -> list[str]:
    return older_in_between(snapshot, ours_on(evidence, volume.id), written_since(evidence.records))


def _candidate_problems(evidence: Evidence, volume: CloudVolume, snapshot: CloudSnapshot) -> tuple[str, ...]:
    problems = [*_own_problems(evidence, volume, snapshot), *_late(evidence, volume, snapshot)]
    made = made_at(evidence.records, snapshot)
    if made is not None:
        problems += replicated_since(evidence.records, volume.id, made)
    return tuple(problems)


def _unanswered(answer: object) -> Unanswered | None:
    return answer if isinstance(answer, Unanswered) else None


def _time(snapshot: CloudSnapshot) -> str | None:
    return snapshot.created.isoformat() if snapshot.created else None


def _sides(evidence: Evidence, volume: CloudVolume, tracked: tuple[SnapshotFacts, ...]) -> dict[str, Any]:
    stray = evidence.snapshots_of(None)
    return {
        "volume_id": volume.id,
        "volume_size_bytes": volume.size_bytes,
        "tracked": [_both_sides(facts) for facts in tracked],
        **({"tracked_for_no_volume": [_both_sides(facts) for facts in stray]} if stray else {}),
        "candidates": [one.as_json() for one in list_candidates(evidence, volume)],
    }


def _both_sides(facts: SnapshotFacts) -> dict[str, Any]:
    return {
        "snapshot_id": facts.snapshot_id,
        "tracked_in": list(facts.tracked_in),
        "cloudstack": _cloud_side(facts.cloud),
    }


def _cloud_side(snapshot: CloudSnapshot | Unanswered | None) -> dict[str, Any] | str:
    if snapshot is None:
        return "not listed"
    if isinstance(snapshot, Unanswered):
        return snapshot.reason
    return {
        "volume_id": snapshot.volume_id,
        "state": snapshot.state,
        "created": _time(snapshot),
        "size_bytes": snapshot.size_bytes,
        "revertable": snapshot.revertable,
    }
