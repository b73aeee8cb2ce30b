"""The markers of a plan: what a run puts on its volumes and snapshots, and what it takes off. Pure.

Source: section 6 of the safety rules.
"""

from __future__ import annotations

from dataclasses import replace

from oma.domain.actions import MARKER_KINDS, ActionKind, PlannedAction, Target
from oma.domain.plan import Plan
from oma.domain.states import Phase
from oma.domain.world import Mark, Marked


def keep_markers(before: Plan, plan: Plan) -> Plan:
    """What the run has marked already stays as it is; only what the new plan names besides is marked as well."""
    kept = [one for one in before.actions if one.phase is Phase.ANALYZE and one.kind in MARKER_KINDS]
    marked = {each for one in kept if one.kind is ActionKind.SET_MARKER for each in one.target.marked_ids}
    new: list[PlannedAction] = []
    for one in plan.actions:
        if one.kind is not ActionKind.SET_MARKER:
            continue
        target = Target(
            volume_ids=tuple(each for each in one.target.volume_ids if each not in marked),
            snapshot_ids=tuple(each for each in one.target.snapshot_ids if each not in marked),
        )
        if target.marked_ids:
            new.append(replace(one, target=target))
    rest = (one for one in plan.actions if one.phase is not Phase.ANALYZE)
    return replace(plan, actions=(*kept, *new, *rest))


def build_own_marking(volumes: tuple[str, ...], snapshots: tuple[str, ...]) -> list[PlannedAction]:
    """One call for all volumes, one for all snapshots."""
    planned = [_set(Target(volume_ids=volumes), "volume", len(volumes))]
    if snapshots:
        planned.append(_set(Target(snapshot_ids=snapshots), "snapshot", len(snapshots)))
    return planned


def build_unmarking(phase: Phase, target: Target, sentence: str) -> PlannedAction:
    return PlannedAction(phase, ActionKind.CLEAR_MARKER, target, sentence)


def build_leftover_unmarking(marks: tuple[Mark, ...]) -> list[PlannedAction]:
    """Markers that finished runs of ours have left: one call per run and kind of resource."""
    wanted = dict.fromkeys((one.value, one.what) for one in marks)
    planned: list[PlannedAction] = []
    for value, what in wanted:
        ids = tuple(one.volume_id for one in marks if (one.value, one.what) == (value, what))
        target = Target(volume_ids=ids, mark=value) if what is Marked.VOLUME else Target(snapshot_ids=ids, mark=value)
        sentence = f"Take the marker {value} off, which a finished run of ours has left."
        planned.append(build_unmarking(Phase.ANALYZE, target, sentence))
    return planned


def _set(target: Target, thing: str, number: int) -> PlannedAction:
    sentence = f"Mark {number} {thing}{'' if number == 1 else 's'} as being worked on by this run."
    return PlannedAction(Phase.ANALYZE, ActionKind.SET_MARKER, target, sentence)
