"""Phase 2: stop the test VM that holds volumes, then take off what hangs where it must not be reverted."""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.errors import Code
from oma.domain.states import Phase
from oma.workflow.actions import perform, skip
from oma.workflow.look import Look, settled_look
from oma.workflow.phases.outcome import PhaseOutcome, completed, count, skipped
from oma.workflow.run import Failure, Parked, Run


async def run(run: Run) -> PhaseOutcome:
    stops = run.planned(Phase.DETACH, ActionKind.STOP_VM)
    detaches = run.planned(Phase.DETACH, ActionKind.DETACH_VOLUME)
    if not stops and not detaches:
        return skipped("Nothing hangs where it has to be detached.")
    async with run.tools.pace.turn():
        await _stop_and_detach(run, stops, detaches)
    done = sum(run.is_executed(one) for one in detaches)
    return completed(f"Detached {count(done, 'volume')}; {count(len(detaches) - done, 'volume')} already detached.")


async def _stop_and_detach(run: Run, stops: Sequence[PlannedAction], detaches: Sequence[PlannedAction]) -> None:
    await perform(run, stops)
    todo = [one for one in detaches if run.is_unsent(one)]
    if todo:
        vm_ids = sorted({one.target.get_vm_id() for one in todo})
        look = await settled_look(run, [one.target.get_volume_id() for one in todo], vm_ids)
        _refuse_what_moved(run, todo, look)
        for one in todo:
            if run.find_action(one) is None and look.is_free(one.target.get_volume_id()):
                sentence = f"{run.name_of(one.target)} is detached already; CloudStack and the OMA agree."
                await skip(run, one, sentence, look.describe(one.target.get_volume_id()))
    await perform(run, detaches)


def _refuse_what_moved(run: Run, todo: Sequence[PlannedAction], look: Look) -> None:
    """Raises `Parked` for each volume that is no longer where the plan saw it, or whose VM does not stand still."""
    failures = [failure for one in todo if (failure := _problem(run, one, look)) is not None]
    if failures:
        raise Parked(failures)


def _problem(run: Run, one: PlannedAction, look: Look) -> Failure | None:
    volume_id, name = one.target.get_volume_id(), run.name_of(one.target)
    volume = look.volumes.get(volume_id)
    evidence = look.describe(volume_id)
    if volume is None:
        return Failure(
            Code.CLEANUP_FAILED, f"Alarm: CloudStack no longer lists {name}.", Phase.DETACH, evidence=evidence
        )
    if not volume.is_settled:
        sentence = f"{name} stayed in transition for {run.tools.figures.busy_wait_s:.0f} s."
        return Failure(Code.CLEANUP_FAILED, sentence, Phase.DETACH, evidence=evidence)
    if volume.vm_id is None:
        return None
    if volume.vm_id != one.target.vm_id:
        sentence = f"{name} was moved to {volume.vm_name or volume.vm_id} after the analysis; it is left there."
        return Failure(Code.CLEANUP_FAILED, sentence, Phase.DETACH, evidence=evidence)
    vm = look.vms.get(volume.vm_id)
    if volume.vm_id != run.plan.oma_vm_id and (vm is None or not (vm.is_stopped or vm.is_gone)):
        state = vm.state if vm else "not listed"
        sentence = f"The test VM that holds {name} is {state}, not Stopped."
        return Failure(Code.CLEANUP_FAILED, sentence, Phase.DETACH, evidence={**evidence, "vm_state": state})
    return None
