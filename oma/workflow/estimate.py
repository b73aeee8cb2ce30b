"""How long a plan will take: pure, from its actions, the sizes of its disks, and how long ours took before.

CloudStack works through one queue per VM, so that detaches from one VM, and attaches to it, add up; reverts and
deletions go beside each other. Source: `VmWorkJob` queues in CloudStack's `AsyncJobManagerImpl`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.estimate import Estimate
from oma.domain.plan import Plan
from oma.domain.states import PHASES, Phase

GIB: Final = 1024**3
QUEUED_KINDS: Final = frozenset({ActionKind.DETACH_VOLUME, ActionKind.ATTACH_VOLUME})
"""Kinds that wait for each other on the same VM."""
LOOKING_S: Final = 1.0
"""The analysis and the looks between the phases."""
ENOUGH: Final = 2
"""Runs from which a median of ours is worth more than a typical figure."""


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds: what is likely, and between what it usually lies."""

    likely: float
    low: float
    high: float

    def times(self, count: int) -> Span:
        return Span(self.likely * count, self.low * count, self.high * count)

    def plus(self, other: Span) -> Span:
        return Span(self.likely + other.likely, self.low + other.low, self.high + other.high)


NOTHING: Final = Span(0.0, 0.0, 0.0)
TYPICAL: Final[Mapping[ActionKind, Span]] = {
    ActionKind.STOP_VM: Span(15.0, 3.0, 120.0),
    ActionKind.END_HOLDER: Span(2.0, 0.5, 12.0),
    ActionKind.DETACH_VOLUME: Span(4.0, 3.0, 8.0),
    ActionKind.REVERT_SNAPSHOT: Span(5.0, 2.0, 20.0),
    ActionKind.DELETE_SNAPSHOT: Span(2.0, 1.0, 20.0),
    ActionKind.ATTACH_VOLUME: Span(4.0, 3.0, 8.0),
    ActionKind.DESTROY_VM: Span(5.0, 2.0, 60.0),
}
"""Of one action, as installations of the field show them; kinds that are not named take no time worth telling."""
REVERT_OF_GIB: Final = Span(0.05, 0.0, 1.0)
"""Besides, per GiB: storage that copies the snapshot back takes as long as its disks are large."""
SPREAD: Final = (0.7, 2.5)
"""How far a run of ours may lie from the median of those before."""


def build_estimate(plan: Plan, medians: Mapping[ActionKind, float], phases: Iterable[Phase] = PHASES) -> Estimate:
    """The time of these phases of the plan; `medians` are seconds of one action of the kind, measured here."""
    chosen = frozenset(phases)
    counts = Counter(action.kind for action in plan.actions if action.phase in chosen)
    total = Span(LOOKING_S, 0.5, 3 * LOOKING_S)
    for kind in counts:
        total = total.plus(_kind_span(plan, kind, chosen, medians.get(kind)))
    measured = [kind for kind in counts if kind in medians]
    typical = [kind for kind in counts if kind in TYPICAL and kind not in medians]
    return Estimate(total.likely, total.low, total.high, _basis(measured, typical))


def measure_medians(actions: Sequence[Action]) -> dict[ActionKind, float]:
    """Seconds of one proven action by kind, from past runs.

    Actions of one queue are begun together and end one after the other: their run as a whole, divided by their number.
    """
    samples: dict[ActionKind, list[float]] = defaultdict(list)
    begun: dict[tuple[str, ActionKind, str | None], list[tuple[datetime, datetime]]] = defaultdict(list)
    for action in actions:
        if action.intent_at is None or action.ended_at is None:
            continue
        if action.kind in QUEUED_KINDS:
            key = (action.job_id, action.kind, action.target.vm_id)
            begun[key].append((action.intent_at, action.ended_at))
        else:
            samples[action.kind].append((action.ended_at - action.intent_at).total_seconds())
    for (_, kind, _), times in begun.items():
        took = max(end for _, end in times) - min(start for start, _ in times)
        samples[kind].append(took.total_seconds() / len(times))
    return {kind: max(median(found), 0.0) for kind, found in samples.items() if len(found) >= ENOUGH}


def _kind_span(plan: Plan, kind: ActionKind, phases: frozenset[Phase], measured: float | None) -> Span:
    actions = [action for action in plan.actions if action.kind is kind and action.phase in phases]
    one = TYPICAL.get(kind, NOTHING)
    if measured is not None:
        one = Span(measured, measured * SPREAD[0], max(measured * SPREAD[1], measured + 1.0))
    if kind in QUEUED_KINDS:
        return one.times(max(Counter(action.target.vm_id for action in actions).values(), default=0))
    if kind is ActionKind.REVERT_SNAPSHOT and measured is None:
        largest = max((volume.size_bytes for volume in plan.volumes if volume.needs_revert), default=0) / GIB
        return one.plus(Span(*(part * largest for part in (REVERT_OF_GIB.likely, 0.0, REVERT_OF_GIB.high))))
    return one


def _basis(measured: Sequence[ActionKind], typical: Sequence[ActionKind]) -> str:
    if not measured:
        return "typical times; none of ours are known yet"
    return "times of earlier runs here" if not typical else "times of earlier runs here, typical ones for the rest"
