"""A volume that CloudStack no longer lists and whose content a person gave up: it stays away, the others go home."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from oma.domain.actions import ActionKind, PlannedAction, Target
from oma.domain.changes import ActionEnded, ActionSkipped, LeakTracked
from oma.domain.errors import Code
from oma.domain.issues import VOLUME_GONE
from oma.domain.leaks import Leak, LeakKind
from oma.domain.plan import VolumePlan
from oma.domain.resolving import RESOLVED, Resolution
from oma.domain.states import ActionState, Phase
from oma.domain.undoing import Return
from oma.workflow.forcing import LEAK
from oma.workflow.late_detaches import end_operation
from oma.workflow.look import Look
from oma.workflow.released import released_reverts
from oma.workflow.run import Failure, Run


async def leave_gone(run: Run, attach: PlannedAction, look: Look) -> bool:
    """Whether this attach is skipped, because a person said `RESYNC` of a volume that is nowhere; tracked as a leak."""
    volume_id = attach.target.get_volume_id()
    said = [one for one in released_reverts(run, Resolution.RESYNC) if one.target.volume_id == volume_id]
    if not said or volume_id in look.volumes or look.shows_device(volume_id) or not run.is_unbegun(attach):
        return False
    now = run.tools.clock.now()
    leak = _build_leak(run, attach.target, str(said[0].evidence[RESOLVED].get("notes", "")))
    sentence = leak.sentence
    evidence = {**look.describe(volume_id), LEAK: leak.as_json()}
    left = replace(run.new_action(attach, ActionState.SKIPPED), evidence=evidence, sentence=sentence, ended_at=now)
    await run.journal.write(ActionSkipped(left, sentence), LeakTracked(leak, f"Left away: {sentence}"))
    run.remember(left)
    return True


async def leave_gone_of(run: Run, volumes: Iterable[VolumePlan], look: Look) -> None:
    """The same before the reset, of volumes that had no way home, or had come home already."""
    for volume in volumes:
        target = Target(volume_id=volume.volume_id, volume_name=volume.name, vm_id=run.plan.oma_vm_id, unexported=True)
        stay = PlannedAction(Phase.RESET, ActionKind.ATTACH_VOLUME, target, f"Attach {volume.name} to the OMA.")
        await leave_gone(run, stay, look)


def build_gone(run: Run, volume_id: str, look: Look, phase: Phase) -> Failure:
    """Named by its revert, so that a person may give the volume up although what it held was proven.

    One that needed no revert is named by itself.
    """
    reverts = run.planned(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT)
    revert = next((one for one in reverts if one.target.volume_id == volume_id), None)
    action = run.find_action(revert) if revert is not None else None
    name = run.plan.get_volume(volume_id).name
    shown = " The OMA still shows its device; the run goes on without it only when that is gone too."
    return Failure(
        Code.CLEANUP_FAILED,
        f"Alarm: CloudStack no longer lists {name}.{shown if look.shows_device(volume_id) else ''}",
        phase,
        action,
        evidence=look.describe(volume_id),
        issue_kind=VOLUME_GONE if action is None else None,
        target=Target(volume_id=volume_id, volume_name=name),
    )


async def end_return(run: Run, one: Return) -> None:
    """A way home that was begun and leads nowhere any more: its call is brought to its end."""
    action = run.find_action(one.attach)
    if action is None or action.state not in (ActionState.STARTED, ActionState.EXECUTION_FAILED):
        return
    await end_operation(run, action)
    sentence = f"{one.volume.name} is nowhere any more; nothing is left to be attached."
    await run.journal.write(ActionEnded(action.id, ActionState.ROLLED_BACK, sentence, action.evidence, action.error))
    run.mark(action, ActionState.ROLLED_BACK, sentence)


def track_gone(run: Run, returns: Sequence[Return]) -> list[LeakTracked]:
    """Of a run that went back: what a person was told of and let be."""
    leaks = (_build_leak(run, one.attach.target, "A person was told, and let the run go on.") for one in returns)
    return [LeakTracked(leak, f"Left away: {leak.sentence}") for leak in leaks]


def _build_leak(run: Run, target: Target, reason: str) -> Leak:
    volume_id = target.get_volume_id()
    return Leak(
        id=run.tools.ids.new_id(),
        context_id=run.plan.context_id,
        vm_name=run.plan.vm_name,
        job_id=run.job.id,
        kind=LeakKind.VOLUME_GONE,
        target=target.as_json(),
        sentence=gone_sentence(run.name_of(target), volume_id),
        reason=reason,
        since=run.tools.clock.now(),
    )


def gone_sentence(name: str, volume_id: str) -> str:
    return (
        f"CloudStack no longer lists {name}, and it was given up: it stays away. Should it be listed again, see what "
        f"it holds before anything is done with it: cs listVolumes id={volume_id} listall=true"
    )


def left_away(run: Run) -> frozenset[str]:
    """The volumes of this run that were left so."""
    attaches = (one for one in run.actions if one.kind is ActionKind.ATTACH_VOLUME)
    found = (one for one in attaches if one.state is ActionState.SKIPPED)
    return frozenset(
        one.target.get_volume_id()
        for one in found
        if (one.evidence.get(LEAK) or {}).get("kind") == LeakKind.VOLUME_GONE.value
    )
