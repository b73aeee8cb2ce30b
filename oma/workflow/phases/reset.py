"""Phase 5: destroy the leftover test VM, then reset the records and end the job, all in one transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from oma.domain import verdict
from oma.domain.actions import Action, ActionKind, PlannedAction
from oma.domain.changes import ActionEnded, ActionStarted, JobEnded, RecordsReset, StepEnded
from oma.domain.errors import Code, ConcurrentChange
from oma.domain.jobs import OPERATION
from oma.domain.records import CLEANUP_REQUIRED, FAILED, FAILED_OVER, READY_FOR_FAILOVER, REPLICATING
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.domain.world import CloudVm
from oma.workflow.actions import perform, skip
from oma.workflow.asking_again import refuse_reset
from oma.workflow.expiring import find_expiry_of_unmarking
from oma.workflow.failures import known_failure
from oma.workflow.forcing import is_left_behind, leak_sentences, leaks_of
from oma.workflow.gone import build_gone, leave_gone_of, left_away
from oma.workflow.look import ask, settled_look
from oma.workflow.phases.outcome import count
from oma.workflow.released import copied_whole, demand_resync, may_go_home, released_reverts, resync_summary
from oma.workflow.run import Failure, Parked, Run
from oma.workflow.unmarking import end_markers_by

FOUND: Final = "found"
"""In the action's evidence and its issue's: the status and the current job that somebody else had written."""
USED: Final = FAILED_OVER | {REPLICATING}
"""Statuses under which somebody is at the VM; no word writes over them."""


async def run(run: Run) -> str:
    """Ends the job itself, because the records, the step and the job must change together. Returns its sentence."""
    await _require_home(run)
    for planned in run.planned(Phase.RESET, ActionKind.DESTROY_VM):
        await _destroy(run, planned)
    # It may have to be waited for, so that it is asked for before the last look at the others.
    expires_at = await find_expiry_of_unmarking(run.tools.cloud, run.tools.figures.expires_s)
    # Looked up before, so that whatever is written after the last look at the others breaks the guard.
    guard = await _find_guard(run)
    await refuse_reset(run)
    return await _reset_records(run, expires_at, guard)


async def _require_home(run: Run) -> None:
    """CloudStack and the OMA show every volume home, and every revert is proven or given up by a person.

    But for a volume that is nowhere any more, and that a person gave up.
    """
    plan = run.plan
    expected = [volume for volume in plan.volumes if volume.volume_id not in left_away(run)]
    look = await settled_look(run, [volume.volume_id for volume in expected])
    await leave_gone_of(run, expected, look)
    left = left_away(run)
    away = [
        volume
        for volume in expected
        if volume.volume_id not in left and not look.is_home(volume.volume_id, plan.oma_vm_id)
    ]
    failures = [
        build_gone(run, volume.volume_id, look, Phase.RESET)
        if volume.volume_id not in look.volumes
        else Failure(
            Code.CLEANUP_FAILED,
            f"{volume.name} is not home: CloudStack and the OMA don't both show it there.",
            Phase.RESET,
            evidence=look.describe(volume.volume_id),
        )
        for volume in away
    ]
    failures += [
        Failure(Code.CLEANUP_FAILED, f"The revert of {run.name_of(one.target)} is not proven.", Phase.RESET)
        for one in run.planned(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT)
        if not may_go_home(run, one)
    ]
    if failures:
        raise Parked(failures)


async def _destroy(run: Run, planned: PlannedAction) -> None:
    vm_id = planned.target.get_vm_id()
    if run.is_unbegun(planned) and await _find_listed(run, vm_id) is None:
        await skip(run, planned, f"The test VM {vm_id} is gone already.", {"vm_state": "gone"})
        return
    await perform(run, [planned], ask_first=lambda one: _refuse_destroy(run, one))


async def _refuse_destroy(run: Run, planned: PlannedAction) -> None:
    """Right before each sending: the VM is stopped, and holds no volume that any record knows. Raises `Parked`."""
    vm_id = planned.target.get_vm_id()
    vm = await _find_listed(run, vm_id)
    if vm is None:
        return
    held = [volume.id for volume in await ask(run, lambda: run.tools.cloud.list_volumes_of_vm(vm_id))]
    known = list(await run.tools.inventory.list_known_volume_ids(held))
    if not vm.is_stopped or known:
        holds = f" and holds the known volumes {', '.join(known)}" if known else ""
        sentence = f"The test VM {vm.name} is {vm.state}{holds}; it is not destroyed."
        evidence = {"vm_state": vm.state, "known_volumes": known}
        raise Parked([Failure(Code.CLEANUP_FAILED, sentence, Phase.RESET, evidence=evidence)])


async def _find_listed(run: Run, vm_id: str) -> CloudVm | None:
    """None where it is gone already, or going."""
    vms = await ask(run, lambda: run.tools.cloud.list_vms([vm_id]))
    return vms[0] if vms and not vms[0].is_gone else None


async def _reset_records(run: Run, expires_at: datetime | None, guard: tuple[str, str | None]) -> str:
    (planned,) = run.planned(Phase.RESET, ActionKind.RESET_RECORDS)
    failed = known_failure(run, planned)
    if failed is not None:
        raise Parked([failed])
    action = run.find_action(planned)
    if action is None or run.is_unbegun(planned):
        shown = _shown(action)
        action = run.new_action(planned)
        action = replace(action, evidence={**action.evidence, **shown})
        await run.journal.write(ActionStarted(action, planned.sentence))
        run.remember(action)
    now = run.tools.clock.now()
    resync = copied_whole(run)
    sentence = f"{run.plan.vm_name} is cleaned up and {'awaits a full resync' if resync else 'ready for failover'}."
    said = await _last_words(run)
    try:
        await run.journal.write(
            _records(run, now, said, guard),
            *([demand_resync(run, resync)] if resync else []),
            ActionEnded(action.id, ActionState.EXECUTED, "The records are reset, in one transaction."),
            StepEnded(Phase.RESET, StepStatus.COMPLETED, _step_sentence(run)),
            *end_markers_by(run, expires_at),
            JobEnded(JobState.COMPLETED, sentence, result=_result(run, said)),
        )
    except ConcurrentChange as error:
        failure = await _changed_meanwhile(run, action, error)
        await run.journal.write(
            ActionEnded(action.id, ActionState.EXECUTION_FAILED, failure.sentence, failure.evidence)
        )
        raise Parked([failure]) from error
    run.mark(action, ActionState.EXECUTED, sentence)
    return sentence


async def _find_guard(run: Run) -> tuple[str, str | None]:
    """The status and the current job that the reset is guarded by: as this run left them.

    Where somebody else wrote over that, the first try fails; a person who has it tried again takes over what the issue
    showed, nothing newer, and never what somebody does with the VM.
    """
    as_left = (CLEANUP_REQUIRED, run.plan.former_job_id)
    (planned,) = run.planned(Phase.RESET, ActionKind.RESET_RECORDS)
    shown = _shown(run.find_action(planned)).get(FOUND)
    if shown is None or shown["current_status"] in USED or await _find_written(run) != shown:
        return as_left
    return shown["current_status"], shown["current_job_id"]


def _shown(action: Action | None) -> dict[str, Any]:
    return {FOUND: action.evidence[FOUND]} if action is not None and FOUND in action.evidence else {}


async def _find_written(run: Run) -> dict[str, Any]:
    context = (await run.tools.inventory.get_records(run.plan.context_id)).context
    return {"current_status": context.current_status, "current_job_id": context.current_job_id}


async def _last_words(run: Run) -> dict[str, str]:
    """What this run left behind is named, and what the partial runs before it did."""
    records = await run.tools.inventory.get_records(run.plan.context_id)
    before = [leak.sentence for leak in records.partial_leaks]
    left = [*before, *leak_sentences(run)]
    resync = [run.name_of(one.target) for one in copied_whole(run)]
    by_word = [run.name_of(one.target) for one in released_reverts(run, Resolution.APPLIED)]
    if resync:
        return verdict.of_resync(run.plan, resync, left).as_json()
    if by_word:
        return verdict.of_taken_on_trust(run.plan, by_word, left).as_json()
    return verdict.of_finished(run.plan, left).as_json()


def _records(run: Run, now: datetime, said: dict[str, str], guard: tuple[str, str | None]) -> RecordsReset:
    plan = run.plan
    resync = copied_whole(run)
    status = FAILED if resync else READY_FOR_FAILOVER
    ended = count(len(plan.open_failover_ids), "failover")
    return RecordsReset(
        context_id=plan.context_id,
        observed_job_id=guard[1],
        new_status=status,
        failover_ids=plan.open_failover_ids,
        joblog_ids=plan.open_joblog_ids,
        volume_ids=tuple(one.volume_id for one in plan.volumes if one.volume_id not in left_away(run)),
        summary={
            "operation": OPERATION,
            "status": FAILED if resync else "completed",
            "job_id": run.job.id,
            **(resync_summary(run, resync, now) if resync else {"completed_at": now.isoformat()}),
            **said,
        },
        sentence=f"{plan.vm_name} is {status}; {ended} ended as failed.",
        observed_status=guard[0],
    )


def _result(run: Run, said: dict[str, str]) -> dict[str, Any]:
    message = f"Failed execution cleanup completed for {run.plan.vm_name}"
    leaks = leaks_of(run)
    return {"message": message, **({"leaks": leaks} if leaks else {}), **said}


def _step_sentence(run: Run) -> str:
    planned = run.planned(Phase.RESET, ActionKind.DESTROY_VM)
    left = any(is_left_behind(run.find_action(one)) for one in planned)
    fate = "could not be destroyed and is left" if left else "is destroyed"
    test_vm = f" The leftover test VM {fate}." if planned else ""
    whose = "Every other volume" if left_away(run) else "Every volume"
    return f"{whose} is home; the records are reset.{test_vm}"


async def _changed_meanwhile(run: Run, action: Action, error: ConcurrentChange) -> Failure:
    found = await _find_written(run)
    status, job_id = found["current_status"], found["current_job_id"] or "none"
    more = (
        f"The status {status} is never written over: wait for its end."
        if status in USED
        else f"Said again, the reset takes over the status {status} and the current job {job_id}, and nothing newer."
    )
    sentence = f"Somebody else changed the records of {run.plan.vm_name} meanwhile; nothing was reset. {error}. {more}"
    return Failure(
        Code.CLEANUP_FAILED, sentence, Phase.RESET, replace(action, sentence=sentence), evidence={FOUND: found}
    )
