"""Phase 3: revert every volume that needs it; when all reverts are proven, delete the snapshots; clear the tracking.

The first revert is the point of no return.
"""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.changes import PointOfNoReturnPassed, TrackingCleared
from oma.domain.errors import Code
from oma.domain.states import Phase
from oma.domain.world import CloudSnapshot
from oma.workflow.actions import perform, skip
from oma.workflow.look import Look, ask, settled_look
from oma.workflow.phases.outcome import PhaseOutcome, completed, count, skipped
from oma.workflow.run import Failure, Parked, Run
from oma.workflow.snapshot_rules import oldest_failover_at, replication_problems, snapshot_problems


async def run(run: Run) -> PhaseOutcome:
    reverts = run.planned(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT)
    deletes = run.planned(Phase.SNAPSHOTS, ActionKind.DELETE_SNAPSHOT)
    await _revert(run, reverts)
    _require_proof(run, reverts)
    await _delete(run, deletes)
    await _clear_tracking(run, deletes)
    if not reverts and not deletes:
        return skipped("No volume needs a revert and no snapshot of ours is left; the tracking is clear.")
    return completed(
        f"Reverted {count(len(reverts), 'volume')}, each proven by its own job; deleted "
        f"{count(len(deletes), 'snapshot')}; cleared the tracking."
    )


async def _revert(run: Run, reverts: Sequence[PlannedAction]) -> None:
    todo = [one for one in reverts if run.find_action(one) is None]
    if todo:
        failures = await _problems_before_revert(run, todo)
        if failures:
            raise Parked(failures)
        if not run.reverted:
            await run.journal.write(
                PointOfNoReturnPassed(f"Point of no return: {count(len(todo), 'revert')} of {run.plan.vm_name} next.")
            )
            run.reverted = True
    await perform(run, reverts)


async def _problems_before_revert(run: Run, todo: Sequence[PlannedAction]) -> list[Failure]:
    """The last look before bytes change: free everywhere, last test VM stopped, each snapshot on its very volume."""
    test_vm = run.plan.test_vm
    ids = [one.target.get_volume_id() for one in todo]
    look = await settled_look(run, ids, [test_vm.vm_id] if test_vm else [])
    records = await run.tools.inventory.get_records(run.plan.context_id)
    listed = await ask(run, lambda: run.tools.cloud.list_snapshots([one.target.get_snapshot_id() for one in todo]))
    by_id = {snapshot.id: snapshot for snapshot in listed}
    failures = [
        Failure(Code.CLEANUP_FAILED, problem, Phase.SNAPSHOTS) for problem in replication_problems(records, listed)
    ]
    vm = look.vms.get(test_vm.vm_id) if test_vm else None
    if vm is not None and not (vm.is_stopped or vm.is_gone):
        sentence = f"The test VM {vm.name} is {vm.state}; nothing is reverted under a VM that may write."
        failures.append(Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS, evidence={"vm_state": vm.state}))
    not_before = oldest_failover_at(records)
    for one in todo:
        problems = _free_problems(run, one, look)
        volume = look.volumes.get(one.target.get_volume_id())
        snapshot: CloudSnapshot | None = by_id.get(one.target.get_snapshot_id())
        if snapshot is None:
            problems.append(f"CloudStack no longer lists the snapshot {one.target.snapshot_id}.")
        elif volume is not None:
            problems += snapshot_problems(snapshot, volume, not_before=not_before, vm_snapshot_on_holder=False)
        failures += [
            Failure(Code.CLEANUP_FAILED, problem, Phase.SNAPSHOTS, evidence=look.describe(one.target.get_volume_id()))
            for problem in problems
        ]
    return failures


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
    """No snapshot is deleted before every revert is proven by its own job."""
    unproven = [run.name_of(one.target) for one in reverts if not run.is_executed(one)]
    if unproven:
        sentence = f"Not every revert is proven ({', '.join(unproven)}); the snapshots are kept."
        raise Parked([Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS, unknown=True)])


async def _delete(run: Run, deletes: Sequence[PlannedAction]) -> None:
    todo = [one for one in deletes if run.find_action(one) is None]
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
            raise Parked(failures)
    await perform(run, deletes)


async def _clear_tracking(run: Run, deletes: Sequence[PlannedAction]) -> None:
    snapshot_ids = tuple(one.target.snapshot_id for one in deletes if one.target.snapshot_id)
    await run.journal.write(
        TrackingCleared(
            run.plan.context_id,
            tuple(volume.volume_id for volume in run.plan.volumes),
            snapshot_ids,
            f"Snapshot tracking of {run.plan.vm_name} cleared in all three places.",
        )
    )
