"""Guards about snapshots, and about replications that ran since."""

from __future__ import annotations

from collections.abc import Iterator

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.workflow.guards.places import to_revert
from oma.workflow.snapshot_rules import choose_snapshot, replications_since


def snapshots_are_there(evidence: Evidence) -> Iterator[Refusal]:
    """Each volume that needs a revert has a snapshot that CloudStack lists."""
    for volume, cloud in to_revert(evidence):
        choice = choose_snapshot(evidence, cloud)
        if choice.missing:
            dead = f" CloudStack no longer lists {', '.join(choice.dead)}." if choice.dead else ""
            yield Refusal(
                Code.SNAPSHOT_MISSING,
                f"{volume.volume_name} needs a revert and has no usable snapshot.{dead}",
                "Look for its snapshot in CloudStack; without one the replica has to be copied again from the source.",
                choice.evidence,
            )


def snapshots_fit(evidence: Evidence) -> Iterator[Refusal]:
    """Exactly one tracked snapshot of each volume passes every check."""
    for _, cloud in to_revert(evidence):
        choice = choose_snapshot(evidence, cloud)
        if not choice.missing and choice.snapshot is None:
            yield Refusal(
                Code.SNAPSHOT_MISMATCH,
                " ".join(choice.problems),
                "Compare both sides; a revert to the wrong snapshot would overwrite the disk. Nothing was touched.",
                choice.evidence,
            )


def not_replicated_since(evidence: Evidence) -> Iterator[Refusal]:
    """A revert behind a later replication would leave the disk older than its change id says."""
    for volume, cloud in to_revert(evidence):
        snapshot = choose_snapshot(evidence, cloud).snapshot
        if snapshot is None or snapshot.created is None:
            continue
        for sentence in replications_since(evidence.records, snapshot.created):
            yield Refusal(
                Code.REPLICATED_SINCE_SNAPSHOT,
                f"{volume.volume_name}: {sentence}",
                "Don't revert: the next increment would corrupt the disk silently. Plan a full copy from the source.",
                {"volume_id": volume.volume_id, "snapshot_id": snapshot.id, "created": snapshot.created.isoformat()},
            )
