"""The guard about markers: another installation may be at work on the same volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.world import MARK_KEY, Mark, Marked, Unanswered
from oma.workflow.guards.places import asked_in_vain, name_of

NOT_ALLOWED: Final = frozenset({"401", "432", "531"})
"""What a role that may not list tags is told."""
VOLUMES_QUESTION: Final = "where the volumes are"


def foreign_marker(evidence: Evidence) -> Iterator[Refusal]:
    """No volume and no tracked snapshot carries the marker of another installation; only a person lifts one.

    One of ours counts as another's where this database knows no such run: it may be older than the world.
    """
    marks = evidence.marks
    if isinstance(marks, Unanswered):
        if not evidence.limits.markers_required and marks.code in NOT_ALLOWED:
            return
        # Where CloudStack is away altogether, another guard has said so.
        if not asked_in_vain(evidence, VOLUMES_QUESTION):
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"Whether another installation works on {name_of(evidence)} can't be told: {marks.asked} did not say "
                f"{marks.question}: {marks.reason}.",
                "See that CloudStack answers and that our role may call listTags, then ask again. Nothing was touched.",
                marks.as_json(),
            )
        return
    names = {volume.volume_id: volume.volume_name for volume in evidence.records.volumes}
    for mark in marks:
        if is_own(evidence, mark):
            continue
        name = names.get(mark.volume_id) or f"{'the snapshot ' if mark.what is Marked.SNAPSHOT else ''}{mark.volume_id}"
        yield Refusal(
            Code.FOREIGN_MARKER,
            f"{name} carries the marker {mark.value or '(empty)'} of {_owner(evidence, mark)}; ours is "
            f"{evidence.limits.installation}.",
            "See on that installation whether its run still works on the volume. Only when it does not, take the "
            f"marker off: cs deleteTags resourcetype={mark.what} resourceids={mark.volume_id} tags[0].key={MARK_KEY}",
            {
                **({"snapshot_id": mark.volume_id} if mark.what is Marked.SNAPSHOT else {"volume_id": mark.volume_id}),
                "volume_name": name,
                "value": mark.value,
                "installation": evidence.limits.installation,
            },
        )


def is_own(evidence: Evidence, mark: Mark) -> bool:
    """Of a run that this database knows: one that has ended, or the one at work."""
    records = evidence.records
    known = mark.job_id in records.ended_job_ids or mark.job_id == records.active_job_id
    return mark.installation == evidence.limits.installation and known


def _owner(evidence: Evidence, mark: Mark) -> str:
    if mark.installation == evidence.limits.installation:
        return f"a run of ours that this database does not know ({mark.job_id or 'without an id'})"
    return f"the installation {mark.installation}" if mark.installation else "an installation without a name"
