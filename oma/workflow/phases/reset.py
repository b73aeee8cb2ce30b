"""Phase 5: destroy the leftover test VM, then reset the records and end the job, all in one transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from oma.domain import verdict
from oma.domain.actions import Action, ActionKind, PlannedAction
from oma.domain.changes import ActionEnded, ActionStarted, JobEnded, RecordsReset, StepEnded
from oma.domain.errors import Code, ConcurrentChange
from oma.domain.jobs import OPERATION
from oma.domain.records import READY_FOR_FAILOVER
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.workflow.actions import perform, skip
from oma.workflow.asking_again import refuse_reset
from oma.workflow.forcing import is_left_behind, leak_sentences, leaks_of
from oma.workflow.look import ask, settled_look
from oma.workflow.phases.outcome import count
from oma.workflow.run import Failure, Parked, Run


async def run(run: Run) -> str:
    """Ends the job itself, because the records, the step and the job must change together. Returns its sentence."""
    await _require_home(run)
    for planned in run.planned(Phase.RESET, ActionKind.DESTROY_VM):
        await _destroy(run, planned)
    await refuse_reset(run)
    return await _reset_records(run)


async def _require_home(run: Run) -> None:
    """CloudStack and the OMA show every volume home, and no revert is open."""
    plan = run.plan
    look = await settled_look(run, [volume.volume_id for volume in plan.volumes])
    away = [volume for volume in plan.volumes if not look.is_home(volume.volume_id, plan.oma_vm_id)]
    failures = [
        Failure(
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
        if not run.is_executed(one)
    ]
    if failures:
        raise Parked(failures)


async def _destroy(run: Run, planned: PlannedAction) -> None:
    """Right before: the VM is stopped, and holds no volume that any record knows."""
    if run.is_unbegun(planned):
        vm_id = planned.target.get_vm_id()
        vms = await ask(run, lambda: run.tools.cloud.list_vms([vm_id]))
        if not vms or vms[0].is_gone:
            await skip(run, planned, f"The test VM {vm_id} is gone already.", {"vm_state": "gone"})
            return
        held = [volume.id for volume in await ask(run, lambda: run.tools.cloud.list_volumes_of_vm(vm_id))]
        known = list(await run.tools.inventory.list_known_volume_ids(held))
        if not vms[0].is_stopped or known:
            holds = f" and holds the known volumes {', '.join(known)}" if known else ""
            sentence = f"The test VM {vms[0].name} is {vms[0].state}{holds}; it is not destroyed."
            evidence = {"vm_state": vms[0].state, "known_volumes": known}
            raise Parked([Failure(Code.CLEANUP_FAILED, sentence, Phase.RESET, evidence=evidence)])
    await perform(run, [planned])


async def _reset_records(run: Run) -> str:
    (planned,) = run.planned(Phase.RESET, ActionKind.RESET_RECORDS)
    action = run.find_action(planned)
    if action is None:
        action = run.new_action(planned)
        await run.journal.write(ActionStarted(action, planned.sentence))
        run.remember(action)
    now = run.tools.clock.now()
    sentence = f"{run.plan.vm_name} is cleaned up and ready for failover."
    said = await _last_words(run)
    try:
        await run.journal.write(
            _records(run, now, said),
            ActionEnded(action.id, ActionState.EXECUTED, "The records are reset, in one transaction."),
            StepEnded(Phase.RESET, StepStatus.COMPLETED, _step_sentence(run)),
            JobEnded(JobState.COMPLETED, sentence, result=_result(run, said)),
        )
    except ConcurrentChange as error:
        failure = _changed_meanwhile(run, action, error)
        await run.journal.write(ActionEnded(action.id, ActionState.EXECUTION_FAILED, failure.sentence))
        raise Parked([failure]) from error
    run.mark(action, ActionState.EXECUTED, sentence)
    return sentence


async def _last_words(run: Run) -> dict[str, str]:
    """What this run left behind is named, and what the partial runs before it did."""
    records = await run.tools.inventory.get_records(run.plan.context_id)
    before = [leak.sentence for leak in records.partial_leaks]
    return verdict.of_finished(run.plan, [*before, *leak_sentences(run)]).as_json()


def _records(run: Run, now: datetime, said: dict[str, str]) -> RecordsReset:
    plan = run.plan
    ended = count(len(plan.open_failover_ids), "failover")
    return RecordsReset(
        context_id=plan.context_id,
        observed_job_id=plan.former_job_id,
        new_status=READY_FOR_FAILOVER,
        failover_ids=plan.open_failover_ids,
        joblog_ids=plan.open_joblog_ids,
        volume_ids=tuple(volume.volume_id for volume in plan.volumes),
        summary={
            "operation": OPERATION,
            "status": "completed",
            "job_id": run.job.id,
            "completed_at": now.isoformat(),
            **said,
        },
        sentence=f"{plan.vm_name} is {READY_FOR_FAILOVER}; {ended} ended as failed.",
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
    return f"Every volume is home; the records are reset.{test_vm}"


def _changed_meanwhile(run: Run, action: Action, error: ConcurrentChange) -> Failure:
    sentence = f"Somebody else changed the records of {run.plan.vm_name} meanwhile; nothing was reset. {error}"
    return Failure(Code.CLEANUP_FAILED, sentence, Phase.RESET, replace(action, sentence=sentence))
