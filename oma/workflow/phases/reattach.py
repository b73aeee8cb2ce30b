"""Phase 4: bring every volume home to the OMA, in disk order, and see its device appear."""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.errors import Code
from oma.domain.states import Phase
from oma.workflow.actions import perform
from oma.workflow.finishing import park_after_sent
from oma.workflow.gone import build_gone, leave_gone, left_away
from oma.workflow.look import Look, settled_look
from oma.workflow.phases.outcome import PhaseOutcome, completed, count, skipped
from oma.workflow.released import may_go_home, released_reverts, wait_before_attach
from oma.workflow.run import Failure, Parked, Run
from oma.workflow.stragglers import end_stragglers


async def run(run: Run) -> PhaseOutcome:
    attaches = run.planned(Phase.REATTACH, ActionKind.ATTACH_VOLUME)
    if not attaches:
        return skipped("Every volume is home already.")
    _require_proof(run)
    by_word = {action.target.volume_id for action in released_reverts(run)}
    await _attach(run, attaches, [one for one in attaches if one.target.volume_id not in by_word])
    await _attach(run, attaches, [one for one in attaches if one.target.volume_id in by_word])
    done = sum(run.is_executed(one) for one in attaches)
    away = "".join(f" {run.plan.get_volume(one).name} stays away." for one in sorted(left_away(run)))
    return completed(f"Attached {count(done, 'volume')} to the OMA; every device is there.{away}")


async def _attach(run: Run, attaches: Sequence[PlannedAction], group: Sequence[PlannedAction]) -> None:
    """Those of the group; volumes that go home by a person's word wait first, and nobody waits for them."""
    todo = [one for one in group if run.is_unsent(one)]
    if todo:
        await wait_before_attach(run, todo)
        straggling = await end_stragglers(run, [one.target.get_volume_id() for one in todo])
        if straggling:
            await park_after_sent(run, attaches, list(straggling.values()))
        look = await settled_look(run, [one.target.get_volume_id() for one in todo], [run.plan.oma_vm_id])
        todo = [one for one in todo if not await leave_gone(run, one, look)]
        failures = _what_moved(run, todo, look)
        if failures:
            await park_after_sent(run, attaches, failures)
        # One that is home already is asked for all the same: the Volume Daemon changes nothing in CloudStack then, and
        # sees to mapping and export, which whoever brought it home may not have made.
    await perform(run, group, in_order=True)


def _require_proof(run: Run) -> None:
    """No volume is attached before its own revert is proven or given up, however the phases were asked for."""
    unproven = [
        run.name_of(one.target)
        for one in run.planned(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT)
        if not may_go_home(run, one)
    ]
    if unproven:
        sentence = f"The revert of {', '.join(unproven)} is not proven; nothing is attached."
        raise Parked([Failure(Code.CLEANUP_FAILED, sentence, Phase.REATTACH)])


def _what_moved(run: Run, todo: Sequence[PlannedAction], look: Look) -> list[Failure]:
    oma = look.vms.get(run.plan.oma_vm_id)
    failures: list[Failure] = []
    if oma is None or oma.state != "Running":
        state = oma.state if oma else "not listed"
        failures.append(
            Failure(Code.CLEANUP_FAILED, f"CloudStack shows the OMA as {state}, not Running.", Phase.REATTACH)
        )
    failures += [failure for one in todo if (failure := _problem(run, one, look)) is not None]
    return failures


def _problem(run: Run, one: PlannedAction, look: Look) -> Failure | None:
    volume_id, name = one.target.get_volume_id(), run.name_of(one.target)
    volume = look.volumes.get(volume_id)
    if volume is None:
        return build_gone(run, volume_id, look, Phase.REATTACH)
    if not volume.is_settled:
        sentence = (
            f"{name} stayed in transition for {run.tools.figures.busy_wait_s:.0f} s; it is not attached under it."
        )
    elif volume.vm_id not in (None, run.plan.oma_vm_id):
        sentence = f"{name} hangs on {volume.vm_name or volume.vm_id}; it is left there."
    elif volume.vm_id is None and look.shows_device(volume_id):
        sentence = f"CloudStack shows {name} as detached, but the OMA still shows its device."
    else:
        return None
    return Failure(Code.CLEANUP_FAILED, sentence, Phase.REATTACH, evidence=look.describe(volume_id))
