"""Phase 4: bring every volume home to the OMA, in disk order, and see its device appear."""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.errors import Code
from oma.domain.states import Phase
from oma.workflow.actions import perform, skip
from oma.workflow.finishing import park_after_sent
from oma.workflow.look import Look, settled_look
from oma.workflow.phases.outcome import PhaseOutcome, completed, count, skipped
from oma.workflow.run import Failure, Parked, Run


async def run(run: Run) -> PhaseOutcome:
    attaches = run.planned(Phase.REATTACH, ActionKind.ATTACH_VOLUME)
    if not attaches:
        return skipped("Every volume is home already.")
    _require_proof(run)
    todo = [one for one in attaches if run.is_unsent(one)]
    if todo:
        look = await settled_look(run, [one.target.get_volume_id() for one in todo], [run.plan.oma_vm_id])
        failures = _what_moved(run, todo, look)
        if failures:
            await park_after_sent(run, attaches, failures)
        for one in todo:
            if run.find_action(one) is None and look.is_home(one.target.get_volume_id(), run.plan.oma_vm_id):
                sentence = f"{run.name_of(one.target)} is home already; CloudStack and the OMA agree."
                await skip(run, one, sentence, look.describe(one.target.get_volume_id()))
    await perform(run, attaches, in_order=True)
    done = sum(run.is_executed(one) for one in attaches)
    return completed(f"Attached {count(done, 'volume')} to the OMA; every device is there.")


def _require_proof(run: Run) -> None:
    """No volume is attached before its own revert is proven, however the phases were asked for."""
    unproven = [
        run.name_of(one.target)
        for one in run.planned(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT)
        if not run.is_executed(one)
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
        sentence = f"Alarm: CloudStack no longer lists {name}."
    elif not volume.is_settled:
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
