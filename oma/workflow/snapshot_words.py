"""What a plan does with the snapshots and says about them: which one, where it is tracked, its age, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from oma.domain.evidence import Evidence, SnapshotFacts
from oma.domain.plan import VolumePlan
from oma.domain.world import CloudSnapshot, CloudVolume, Unanswered
from oma.workflow.snapshot_rules import choose_snapshot
from oma.workflow.tracking import is_ours_by_name, untracked

HOUR_S: Final = 3600
DAY_S: Final = 86_400


def snapshots_to_delete(evidence: Evidence, volumes: tuple[VolumePlan, ...]) -> dict[str, list[str]]:
    """Volume id → its snapshots that go once every revert is proven.

    Those that are tracked and that CloudStack lists on this very volume, and the one that a person named, if a test
    failover made it: to go back to somebody's own snapshot is not to say that it may be deleted.
    """
    others = {one.id for one in _named(evidence) if not is_ours_by_name(one)}
    found: dict[str, list[str]] = {}
    for facts in evidence.snapshots:
        if isinstance(facts.cloud, CloudSnapshot) and facts.volume_id == facts.cloud.volume_id and facts.volume_id:
            found.setdefault(facts.volume_id, []).append(facts.snapshot_id)
    for volume in volumes:
        known = (*others, *found.get(volume.volume_id, ()))
        if volume.snapshot_id is not None and volume.snapshot_id not in known:
            found.setdefault(volume.volume_id, []).append(volume.snapshot_id)
    return found


def revert_words(evidence: Evidence, volume: VolumePlan) -> str:
    """`goes back to snapshot … (tracked in …, made …)`, or that it needs none."""
    if not volume.needs_revert:
        return "needs no revert"
    cloud = evidence.get_facts(volume.volume_id).cloud
    if not isinstance(cloud, CloudVolume):
        raise TypeError("a plan is told of only after the guards have passed")
    choice = choose_snapshot(evidence, cloud)
    made = choice.snapshot.created if choice.snapshot else None
    dated = f", made {made.isoformat()}, {_age(evidence.observed_at - made)} old" if made is not None else ""
    return f"goes back to snapshot {volume.snapshot_id} ({choice.known_by}{dated})"


def snapshot_observations(evidence: Evidence, volumes: tuple[VolumePlan, ...]) -> Iterator[str]:
    """Dead ids, ids of nobody's, tracked ones that are not used and why, and what a person's word passed."""
    names = {volume.volume_id: volume.name for volume in volumes}
    for facts in evidence.snapshots:
        where = " and ".join(facts.tracked_in)
        of_whom = f" of {names[facts.volume_id]}" if facts.volume_id in names else ""
        if facts.cloud is None:
            yield f"The snapshot {facts.snapshot_id}{of_whom}, tracked in {where}, is no longer listed by CloudStack."
        elif isinstance(facts.cloud, CloudSnapshot) and facts.cloud.volume_id != facts.volume_id:
            yield (
                f"The snapshot {facts.snapshot_id}{of_whom}, tracked in {where}, is on volume {facts.cloud.volume_id} "
                "in CloudStack; it is left alone."
            )
    for volume in volumes:
        yield from _unused(evidence, volume)
    for volume_id, snapshot_id in evidence.words.snapshots:
        name = names.get(volume_id, volume_id)
        used = any(volume.volume_id == volume_id and volume.snapshot_id == snapshot_id for volume in volumes)
        if used:
            yield f"Snapshot {snapshot_id} of {name} passed by snapshots: {evidence.words.reason}"
        else:
            yield f"Snapshot {snapshot_id} was named for {name}, which needs no revert; it is not used."
    if isinstance(evidence.own_snapshots, Unanswered):
        yield f"Whether untracked snapshots are left can't be told: {evidence.own_snapshots.reason}."


def leftover_risks(evidence: Evidence, volumes: tuple[VolumePlan, ...]) -> Iterator[str]:
    """Untracked snapshots that the run leaves: nobody said that they may go."""
    used = {volume.snapshot_id for volume in volumes}
    names = {volume.volume_id: volume.name for volume in volumes}
    gone = {snapshot_id for ids in snapshots_to_delete(evidence, volumes).values() for snapshot_id in ids}
    for snapshot in _named(evidence):
        if snapshot.id in used - gone:
            whose = names.get(snapshot.volume_id or "", "a disk")
            yield (
                f"The snapshot {snapshot.name} ({snapshot.id}), to which {whose} goes back, carries no test failover's "
                "name; it is not deleted."
            )
    for snapshot in untracked(evidence):
        if snapshot.id not in used:
            yield (
                f"The untracked snapshot {snapshot.name} ({snapshot.id}) of "
                f"{names.get(snapshot.volume_id or '', snapshot.volume_id)} is left as it is; look at it in CloudStack "
                "and delete it there when nobody needs it."
            )


def _named(evidence: Evidence) -> tuple[CloudSnapshot, ...]:
    return () if isinstance(evidence.named_snapshots, Unanswered) else evidence.named_snapshots


def _unused(evidence: Evidence, volume: VolumePlan) -> Iterator[str]:
    """Tracked ones beside the chosen one; they go with it, once every revert is proven."""
    for facts in evidence.snapshots_of(volume.volume_id):
        if volume.snapshot_id is not None and _is_another(facts, volume.snapshot_id):
            yield (
                f"The snapshot {facts.snapshot_id} of {volume.name}, tracked in {' and '.join(facts.tracked_in)}, is "
                f"not the one that it goes back to; it is deleted with the other."
            )


def _is_another(facts: SnapshotFacts, chosen: str) -> bool:
    listed = facts.cloud
    return isinstance(listed, CloudSnapshot) and listed.volume_id == facts.volume_id and facts.snapshot_id != chosen


def _age(age: timedelta) -> str:
    """In the two largest units."""
    seconds = max(int(age.total_seconds()), 0)
    if seconds < HOUR_S:
        return f"{seconds // 60} min"
    if seconds < DAY_S:
        return f"{seconds // HOUR_S} h {seconds % HOUR_S // 60} min"
    return f"{seconds // DAY_S} d {seconds % DAY_S // HOUR_S} h"
