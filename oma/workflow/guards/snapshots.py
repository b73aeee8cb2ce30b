"""Guards about snapshots, and about replications that ran since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.records import VolumeRecord
from oma.domain.world import CloudVolume, Unanswered
from oma.workflow.guards.places import command_with, places, to_revert
from oma.workflow.replicated import COPY_WHOLE, made_at, replicated_since
from oma.workflow.snapshot_rules import SnapshotChoice, choose_snapshot, list_candidates

COPY_AGAIN: Final = "without one the replica has to be copied again from the source."


def snapshots_are_there(evidence: Evidence) -> Iterator[Refusal]:
    """Each volume that needs a revert has a snapshot that CloudStack lists, and so has each that a person named."""
    judged = list(_judged(evidence))
    yield from _unasked(judged, "the named snapshots")
    missing = {
        cloud.id: usable[0].snapshot.id
        for _, cloud, choice in judged
        if choice.missing and (usable := [one for one in list_candidates(evidence, cloud) if one.would_pass])
    }
    for volume, cloud, choice in judged:
        if not choice.missing or choice.unknown is not None:
            continue
        if evidence.words.snapshot_for(cloud.id) is not None:
            sentence = " ".join(choice.problems)
        else:
            dead = f" CloudStack no longer lists {', '.join(choice.dead)}." if choice.dead else ""
            sentence = f"{volume.volume_name} needs a revert and has no usable snapshot.{dead}"
        next_step = _next_where_missing(evidence, cloud, missing)
        yield Refusal(Code.SNAPSHOT_MISSING, sentence, next_step, {**choice.evidence, **_own_answer(evidence)})


def snapshots_fit(evidence: Evidence) -> Iterator[Refusal]:
    """Exactly one tracked snapshot of each volume passes every check, or the one that a person named does."""
    judged = list(_judged(evidence))
    yield from _unasked(judged, "the snapshots of test failovers")
    for _, cloud, choice in judged:
        if choice.missing or choice.unknown is not None or choice.snapshot is not None:
            continue
        yield Refusal(
            Code.SNAPSHOT_MISMATCH,
            " ".join(dict.fromkeys(choice.problems)),
            _next_where_unfit(evidence, cloud, choice),
            choice.evidence,
        )


def not_replicated_since(evidence: Evidence) -> Iterator[Refusal]:
    """A revert behind a later replication would leave the disk older than its change id says."""
    for volume, cloud in to_revert(evidence):
        choice = choose_snapshot(evidence, cloud)
        snapshot = choice.snapshot
        made = made_at(evidence.records, snapshot) if snapshot is not None else None
        if snapshot is None or made is None:
            continue
        for sentence in replicated_since(evidence.records, cloud.id, made):
            yield Refusal(
                Code.REPLICATED_SINCE_SNAPSHOT,
                f"{volume.volume_name}: {sentence}",
                COPY_WHOLE,
                {
                    "volume_id": volume.volume_id,
                    "snapshot_id": snapshot.id,
                    "created": made.isoformat(),
                    "known_by": choice.known_by,
                },
            )


def _judged(evidence: Evidence) -> Iterator[tuple[VolumeRecord, CloudVolume, SnapshotChoice]]:
    """Volumes that need a revert; and those that need none, where what a person named for them is not theirs."""
    needing = {cloud.id for _, cloud in to_revert(evidence)}
    for volume, cloud in to_revert(evidence):
        yield volume, cloud, choose_snapshot(evidence, cloud)
    for volume, facts, _ in places(evidence):
        cloud_volume = facts.cloud
        if not isinstance(cloud_volume, CloudVolume) or cloud_volume.id in needing:
            continue
        if evidence.words.snapshot_for(cloud_volume.id) is not None:
            choice = choose_snapshot(evidence, cloud_volume)
            if choice.missing or choice.of_another_volume:
                yield volume, cloud_volume, choice


def _unasked(judged: list[tuple[VolumeRecord, CloudVolume, SnapshotChoice]], question: str) -> Iterator[Refusal]:
    """One refusal where CloudStack did not say what a choice rests on."""
    silent = next(
        (choice.unknown for _, _, choice in judged if choice.unknown and choice.unknown.question == question), None
    )
    if silent is not None:
        yield Refusal(
            Code.STATE_UNKNOWN,
            f"{silent.asked} did not say {silent.question}: {silent.reason}; which snapshot fits can't be told.",
            f"See that {silent.asked} answers (oma doctor), then ask again. Nothing was touched.",
            silent.as_json(),
        )


def _own_answer(evidence: Evidence) -> dict[str, object]:
    """Candidates that nobody could list are not "none"."""
    own = evidence.own_snapshots
    return {"candidates": own.reason} if isinstance(own, Unanswered) else {}


def _next_where_missing(evidence: Evidence, cloud: CloudVolume, usable: Mapping[str, str]) -> str:
    if isinstance(evidence.own_snapshots, Unanswered):
        return (
            "CloudStack did not say which untracked snapshots there are; see that it answers (oma doctor), then ask "
            f"again; {COPY_AGAIN}"
        )
    if cloud.id in usable:
        return (
            f"An untracked snapshot of a test failover fits. If it is the one of {cloud.name}, name it: "
            f"{_command(evidence, usable)}"
        )
    candidates = list_candidates(evidence, cloud)
    if candidates:
        first = candidates[0]
        return f"The untracked {first.snapshot.name} does not fit: {first.problems[0]} Look for another; {COPY_AGAIN}"
    look = f"cs listSnapshots volumeid={cloud.id} listall=true"
    return f"Look for its snapshot in CloudStack ({look}); {COPY_AGAIN}"


def _next_where_unfit(evidence: Evidence, cloud: CloudVolume, choice: SnapshotChoice) -> str:
    """Of two that fit, the older one is told as an example; any usable candidate likewise."""
    if cloud.vm_id is not None and cloud.vm_id in evidence.vm_snapshot_holders:
        return (
            f"Remove the VM snapshots of {cloud.vm_name or cloud.vm_id} in CloudStack if nobody needs them, then ask "
            f"again: cs listVMSnapshot virtualmachineid={cloud.vm_id} listall=true"
        )
    if evidence.words.snapshot_for(cloud.id) is not None:
        return "Name another snapshot, or none. Nothing was touched."
    fitting = sorted((one for one in choice.fitting if one.created), key=lambda one: (one.created, one.id))
    usable = [one.snapshot for one in list_candidates(evidence, cloud) if one.would_pass]
    example = next(iter(fitting if len(fitting) > 1 else usable), None)
    if example is None:
        return "Compare both sides; a revert to the wrong snapshot would overwrite the disk. Nothing was touched."
    return (
        "Compare both sides; a revert to the wrong snapshot would overwrite the disk. Name the right one, for example "
        f"the oldest that fits: {_command(evidence, {cloud.id: example.id})}"
    )


def _command(evidence: Evidence, chosen: Mapping[str, str]) -> str:
    """The same clean-up with these snapshots named beside what was said already."""
    pairs = {**chosen, **dict(evidence.words.snapshots)}
    return command_with(evidence, replace(evidence.words, snapshots=tuple(pairs.items())))
