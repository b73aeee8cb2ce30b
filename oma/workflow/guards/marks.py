"""The guard about markers: another installation may be at work on the same volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.world import MARK_KEY, Mark, Unanswered
from oma.workflow.guards.places import asked_in_vain, name_of

VOLUMES_QUESTION: Final = "where the volumes are"


def foreign_marker(evidence: Evidence) -> Iterator[Refusal]:
    """No volume carries the marker of another installation; only a person lifts one."""
    marks = evidence.marks
    if isinstance(marks, Unanswered):
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
        if mark.installation == evidence.limits.installation:
            continue
        name = names.get(mark.volume_id) or mark.volume_id
        yield Refusal(
            Code.FOREIGN_MARKER,
            f"{name} carries the marker {mark.value or '(empty)'} of {_owner(mark)}; ours is "
            f"{evidence.limits.installation}.",
            "See on that installation whether its run still works on the volume. Only when it does not, take the "
            f"marker off: cs deleteTags resourcetype=Volume resourceids={mark.volume_id} tags[0].key={MARK_KEY}",
            {
                "volume_id": mark.volume_id,
                "volume_name": name,
                "value": mark.value,
                "installation": evidence.limits.installation,
            },
        )


def _owner(mark: Mark) -> str:
    return f"the installation {mark.installation}" if mark.installation else "an installation without a name"
