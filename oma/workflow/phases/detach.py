"""Phase 2: stop the test VM that holds volumes, end the injection that a person gave up, detach what must be reverted.

A device that anybody holds on the OMA is never taken away: who does is asked again right before each detach from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.errors import Code
from oma.domain.states import Phase
from oma.workflow.actions import perform, skip
from oma.workflow.asking_again import refuse_detach, told_once
from oma.workflow.finishing import park_after_sent
from oma.workflow.look import Look, settled_look
from oma.workflow.phases.outcome import PhaseOutcome, completed, count, skipped
from oma.workflow.run import Failure, Parked, Run


async def run(run: Run) -> PhaseOutcome:
    stops = run.planned(Phase.DETACH, ActionKind.STOP_VM)
    ends = run.planned(Phase.DETACH, ActionKind.END_HOLDER)
    detaches = run.planned(Phase.DETACH, ActionKind.DETACH_VOLUME)
    if not stops and not ends and not detaches:
        return skipped("Nothing hangs where it has to be detached.")
    # What an earlier process sent has had its turn: it is followed at once, however many go on after a restart.
    async with nullcontext() if run.has_open_actions else run.tools.pace.turn():
        await perform(run, stops)
        await perform(run, ends)
        await _detach(run, detaches)
    done = sum(run.is_executed(one) for one in detaches)
    ended = f" Ended {count(len(ends), 'driver injection')}." if ends else ""
    return completed(
        f"Detached {count(done, 'volume')}; {count(len(detaches) - done, 'volume')} already detached.{ended}"
    )


async def _detach(run: Run, detaches: Sequence[PlannedAction]) -> None:
    todo = [one for one in detaches if run.is_unsent(one)]
    if todo:
        vm_ids = sorted({one.target.get_vm_id() for one in todo})
        look = await settled_look(run, [one.target.get_volume_id() for one in todo], vm_ids)
        failures = [failure for one in todo if (failure := _problem(run, one, look)) is not None]
        if failures:
            await park_after_sent(run, detaches, failures)
        for one in todo:
            if run.find_action(one) is None and look.is_free(one.target.get_volume_id()):
                sentence = f"{run.name_of(one.target)} is detached already; CloudStack and the OMA agree."
                await skip(run, one, sentence, look.describe(one.target.get_volume_id()))
    try:
        await perform(run, detaches, ask_first=lambda one: refuse_detach(run, one))
    except Parked as parked:
        raise Parked(told_once(parked.failures)) from parked


def _problem(run: Run, one: PlannedAction, look: Look) -> Failure | None:
    """The volume is no longer where the plan saw it, or its VM does not stand still."""
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
