"""Phase 3: revert every volume that needs it; when all reverts are proven, delete the snapshots; clear the tracking.

The first revert is the point of no return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.changes import PointOfNoReturnPassed, TrackingCleared
from oma.domain.errors import Code
from oma.domain.records import VmRecords
from oma.domain.states import ActionState, Phase
from oma.domain.world import CloudSnapshot, CloudVolume
from oma.ports import UpstreamError
from oma.workflow.actions import perform, skip
from oma.workflow.asking_again import problems_before_revert
from oma.workflow.finishing import park_after_sent
from oma.workflow.forcing import is_left_behind, wait_until_dead
from oma.workflow.look import Look, ask, settled_look
from oma.workflow.phases.outcome import PhaseOutcome, completed, count, skipped
from oma.workflow.released import keep_snapshots, may_go_home, unproven_reverts, wait_before_reverts
from oma.workflow.reverting import revert_until_proven
from oma.workflow.run import Failure, Parked, Run, code_of
from oma.workflow.since import oldest_failover_at, written_since
from oma.workflow.snapshot_rules import older_in_between, snapshot_problems
from oma.workflow.touched import find_touch_before_sending
from oma.workflow.tracking import SNAPSHOT_NAME, is_ours_by_name, tracked_by_failovers


async def run(run: Run) -> PhaseOutcome:
    reverts = run.planned(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT)
    deletes = run.planned(Phase.SNAPSHOTS, ActionKind.DELETE_SNAPSHOT)
    await _revert(run, reverts)
    _require_proof(run, reverts)
    unproven = unproven_reverts(run)
    await (keep_snapshots(run, deletes) if unproven else _delete(run, deletes))
    await _clear_tracking(run, deletes)
    if not reverts and not deletes:
        return skipped("No volume needs a revert and no snapshot of ours is left; the tracking is clear.")
    if unproven:
        proven = sum(run.is_executed(one) for one in reverts)
        return completed(
            f"Reverted {count(proven, 'volume')}, each proven by its own job; "
            f"{count(len(unproven), 'volume')} left by a person's word without a proof, so that "
            f"{count(len(deletes), 'snapshot')} are kept; cleared the tracking."
        )
    kept = sum(is_left_behind(run.find_action(one)) for one in deletes)
    left = f"left {count(kept, 'snapshot')} behind by force; " if kept else ""
    return completed(
        f"Reverted {count(len(reverts), 'volume')}, each proven by its own job; deleted "
        f"{count(len(deletes) - kept, 'snapshot')}; {left}cleared the tracking."
    )


async def _revert(run: Run, reverts: Sequence[PlannedAction]) -> None:
    await wait_before_reverts(run, reverts)
    todo = [one for one in reverts if run.is_unbegun(one)]
    if run.plan.awaiting and not todo:
        # No process that a forced stop left behind may write under the next copy either.
        failures = await wait_until_dead(run)
        if failures:
            await park_after_sent(run, reverts, failures)
    if todo:
        failures = await wait_until_dead(run) or await _problems_before_revert(run, todo)
        if failures:
            await park_after_sent(run, reverts, failures)
        if not run.reverted:
            await run.journal.write(
                PointOfNoReturnPassed(f"Point of no return: {count(len(todo), 'revert')} of {run.plan.vm_name} next.")
            )
            run.reverted = True
    await revert_until_proven(run, reverts, lambda one: _ask_again(run, one))


async def _ask_again(run: Run, one: PlannedAction) -> None:
    """Right before this very revert: since the first one hours may have passed. Raises `Parked`."""
    try:
        failures = await _problems_before_revert(run, [one])
    except UpstreamError as error:
        said = f"{error.upstream.system}: {error.upstream.text}"
        sentence = f"{run.name_of(one.target)} was not reverted: nobody said that it still may be. {said}"
        failures = [Failure(code_of(error), sentence, Phase.SNAPSHOTS, upstream=error.upstream)]
    if failures:
        raise Parked(failures)
    await _refuse_touched(run, one)


async def _refuse_touched(run: Run, one: PlannedAction) -> None:
    """None is repeated over what somebody may have written; where nobody can tell, a person's word decides."""
    action = run.find_action(one)
    touch = await find_touch_before_sending(run, action)
    by_word = action is not None and action.state is ActionState.MANUAL_MARKED_AS_ROLLED_BACK
    if touch is None or (by_word and not touch.told):
        return
    sentence = f"{run.name_of(one.target)} is not reverted again: {touch.sentence}."
    raise Parked([Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS, evidence={"touched": touch.sentence})])


async def _problems_before_revert(run: Run, todo: Sequence[PlannedAction]) -> list[Failure]:
    """The last look before bytes change: free everywhere, last test VM stopped, each snapshot on its very volume."""
    test_vm = run.plan.test_vm
    ids = [one.target.get_volume_id() for one in todo]
    look = await settled_look(run, ids, [test_vm.vm_id] if test_vm else [])
    records = await run.tools.inventory.get_records(run.plan.context_id)
    seen = await _look_at_snapshots(run, todo, look)
    wanted = [one.target.get_snapshot_id() for one in todo]
    listed = [snapshot for snapshot in seen.planned if snapshot.id in wanted]
    failures = await problems_before_revert(run, records, listed)
    vm = look.vms.get(test_vm.vm_id) if test_vm else None
    if vm is not None and not (vm.is_stopped or vm.is_gone):
        sentence = f"The test VM {vm.name} is {vm.state}; nothing is reverted under a VM that may write."
        failures.append(Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS, evidence={"vm_state": vm.state}))
    for one in todo:
        problems = _free_problems(run, one, look)
        volume = look.volumes.get(one.target.get_volume_id())
        if volume is not None:
            problems += _snapshot_problems(run, one, volume, seen, records)
        failures += [
            Failure(Code.CLEANUP_FAILED, problem, Phase.SNAPSHOTS, evidence=look.describe(one.target.get_volume_id()))
            for problem in problems
        ]
    return failures


@dataclass(frozen=True, slots=True)
class _Snapshots:
    """What CloudStack says of snapshots right now."""

    planned: Sequence[CloudSnapshot]
    """Those of the plan that it still lists."""
    named: Sequence[CloudSnapshot]
    """All that carry the name of a test failover, of any volume."""
    vm_snapshot_holders: Sequence[str]


async def _look_at_snapshots(run: Run, todo: Sequence[PlannedAction], look: Look) -> _Snapshots:
    """The holders that are asked for are those that the plan saw and those of now. Raises `UpstreamError`."""
    cloud = run.tools.cloud
    ids = {one.target.get_snapshot_id() for one in run.planned(Phase.SNAPSHOTS)}
    volumes = [run.plan.get_volume(one.target.get_volume_id()) for one in todo]
    holders = {one.vm_id for one in volumes} | {one.vm_id for one in look.volumes.values()}
    vm_ids = sorted(vm_id for vm_id in holders if vm_id is not None)
    planned, named, with_vm_snapshot = await asyncio.gather(
        ask(run, lambda: cloud.list_snapshots(sorted(ids))),
        ask(run, lambda: cloud.list_snapshots_named(SNAPSHOT_NAME)),
        ask(run, lambda: cloud.list_vm_snapshot_holders(vm_ids)),
    )
    return _Snapshots(planned, named, with_vm_snapshot)


def _snapshot_problems(
    run: Run, one: PlannedAction, volume: CloudVolume, seen: _Snapshots, records: VmRecords
) -> list[str]:
    """The same checks as in the analysis, on what CloudStack and the records say now."""
    snapshot = next((each for each in seen.planned if each.id == one.target.snapshot_id), None)
    if snapshot is None:
        return [f"CloudStack no longer lists the snapshot {one.target.snapshot_id}."]
    held_by = {run.plan.get_volume(volume.id).vm_id, volume.vm_id} - {None}
    ours = {each.id: each for each in (*seen.planned, *filter(is_ours_by_name, seen.named))}
    return [
        *snapshot_problems(
            snapshot,
            volume,
            not_before=oldest_failover_at(records),
            vm_snapshot_on_holder=not held_by.isdisjoint(seen.vm_snapshot_holders),
        ),
        *older_in_between(
            snapshot, (each for each in ours.values() if each.volume_id == volume.id), written_since(records)
        ),
    ]


def _free_problems(run: Run, one: PlannedAction, look: Look) -> list[str]:
    name, volume_id = run.name_of(one.target), one.target.get_volume_id()
    volume = look.volumes.get(volume_id)
    if volume is None:
        return [f"Alarm: CloudStack no longer lists {name}."]
    if look.is_free(volume_id):
        return []
    if volume.vm_id is not None:
        return [f"{name} is attached to {volume.vm_name or volume.vm_id}; an attached volume is never reverted."]
    if look.shows_device(volume_id):
        return [f"The OMA still shows the device of {name}; something may hold it, so it is not reverted."]
    return [f"{name} is {volume.state} with a pending job; it is not reverted under it."]


def _require_proof(run: Run, reverts: Sequence[PlannedAction]) -> None:
    """Nothing goes on before every revert is proven by its own job, or given up by a person."""
    unproven = [run.name_of(one.target) for one in reverts if not may_go_home(run, one)]
    if unproven:
        sentence = f"Not every revert is proven ({', '.join(unproven)}); the snapshots are kept."
        raise Parked([Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS, unknown=True)])


async def _delete(run: Run, deletes: Sequence[PlannedAction]) -> None:
    todo = [one for one in deletes if run.is_unbegun(one)]
    if todo:
        ids = [one.target.get_snapshot_id() for one in todo]
        listed = await ask(run, lambda: run.tools.cloud.list_snapshots(ids))
        by_id = {snapshot.id: snapshot for snapshot in listed}
        failures: list[Failure] = []
        for one in todo:
            snapshot = by_id.get(one.target.get_snapshot_id())
            if snapshot is None:
                sentence = f"Snapshot {one.target.snapshot_id} is gone already."
                await skip(run, one, sentence, {"snapshot_state": "not listed"})
            elif snapshot.volume_id != one.target.volume_id:
                sentence = f"Snapshot {snapshot.id} belongs to volume {snapshot.volume_id}; it is not ours to delete."
                failures.append(Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS))
        if failures:
            await park_after_sent(run, deletes, failures)
    await perform(run, deletes)


async def _clear_tracking(run: Run, deletes: Sequence[PlannedAction]) -> None:
    """Ids that only a failover's row names are cleared too, dead ones and those of nobody's volume among them."""
    records = await run.tools.inventory.get_records(run.plan.context_id)
    deleted = tuple(one.target.snapshot_id for one in deletes if one.target.snapshot_id)
    snapshot_ids = tuple(dict.fromkeys((*deleted, *tracked_by_failovers(records))))
    await run.journal.write(
        TrackingCleared(
            run.plan.context_id,
            tuple(volume.volume_id for volume in run.plan.volumes),
            snapshot_ids,
            f"Snapshot tracking of {run.plan.vm_name} cleared in all three places.",
        )
    )
