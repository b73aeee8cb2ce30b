"""Reverts that a person settled by a word: the disk goes home, but nothing is proven by it.

Nothing attaches such a volume, and nothing reverts it again, before its last revert job has ended and the window after
that is over; no snapshot of the run is deleted then. Source: section 5 of the safety rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from oma.domain.actions import Action, ActionKind, PlannedAction, Target
from oma.domain.changes import ActionSkipped, LeakTracked, Noted, ResyncDemanded, RevertEndSeen
from oma.domain.leaks import Leak, LeakKind
from oma.domain.resolving import JOB_ENDED_BY, RESOLVED, Resolution, ended_by_of, resolution_of, window_end
from oma.domain.states import ActionState, LogLevel, Phase
from oma.ports import RemoteStatus
from oma.workflow.forcing import LEAK
from oma.workflow.look import ask, until_called_off
from oma.workflow.run import Run
from oma.workflow.window import find_window_left_s, wait_out

WORDS_THAT_RELEASE = frozenset({Resolution.APPLIED, Resolution.RESYNC})


def is_released(run: Run, planned: PlannedAction) -> bool:
    """Whether a person's word, and no proof, lets this revert's volume go home."""
    action = run.find_action(planned)
    return action is not None and _is_by_word(action)


def _is_by_word(action: Action) -> bool:
    if action.kind is not ActionKind.REVERT_SNAPSHOT:
        return False
    by_word = action.state in (ActionState.MANUAL_MARKED_AS_EXECUTED, ActionState.SKIPPED)
    return by_word and resolution_of(action) in WORDS_THAT_RELEASE


def may_go_home(run: Run, planned: PlannedAction) -> bool:
    return run.is_executed(planned) or is_released(run, planned)


def released_reverts(run: Run, *resolutions: Resolution) -> list[Action]:
    """Those of this run, by the resolutions given, else by any; also of volumes that needed none and are gone."""
    wanted = resolutions or tuple(WORDS_THAT_RELEASE)
    order = {volume.volume_id: volume.order for volume in run.plan.volumes}
    found = [one for one in run.actions if _is_by_word(one) and resolution_of(one) in wanted]
    return sorted(found, key=lambda one: order[one.target.get_volume_id()])


def copied_whole(run: Run) -> list[Action]:
    """Every disk whose content is given up: by a word in this run, or by an earlier one that its plan knows of."""
    said = released_reverts(run, Resolution.RESYNC)
    known = {one.target.volume_id for one in said}
    return [*said, *(one for one in _given_up_before(run) if one.target.volume_id not in known)]


def _given_up_before(run: Run) -> list[Action]:
    """As the reverts that they would be, did they need one; of the plan, and in no journal."""
    return [
        Action(
            id="",
            job_id=run.job.id,
            phase=Phase.SNAPSHOTS,
            seq=0,
            kind=ActionKind.REVERT_SNAPSHOT,
            target=Target(volume_id=volume.volume_id, volume_name=volume.name),
            state=ActionState.SKIPPED,
            sentence=volume.revert_reason,
            evidence={RESOLVED: {"resolution": Resolution.RESYNC.value, "notes": volume.revert_reason}},
        )
        for volume in run.plan.volumes
        if volume.awaits_copy
    ]


def unproven_reverts(run: Run) -> list[Action]:
    """Every disk that goes home without a proof, whoever let it."""
    return [*released_reverts(run, Resolution.APPLIED), *copied_whole(run)]


async def wait_before_reverts(run: Run, reverts: Sequence[PlannedAction]) -> None:
    """A revert that a person wants repeated: the hypervisor may still be at the last one."""
    again = [
        action
        for one in reverts
        if (action := run.find_action(one)) and action.state is ActionState.MANUAL_MARKED_AS_ROLLED_BACK
    ]
    await _wait_out(run, again, Phase.SNAPSHOTS, "reverted again")


async def wait_before_attach(run: Run, attaches: Sequence[PlannedAction]) -> None:
    """The volumes of these attaches that go home by a person's word wait out the window of their last revert."""
    wanted = {one.target.volume_id for one in attaches}
    await _wait_out(
        run, [one for one in released_reverts(run) if one.target.volume_id in wanted], Phase.REATTACH, "attached"
    )


async def _wait_out(run: Run, reverts: Sequence[Action], phase: Phase, what: str) -> None:
    """Raises `UpstreamError` where nobody says how a job stands, and `Stopped`; the log says until when it waits."""
    for action in reverts:
        if not was_begun(action):
            continue
        name = run.name_of(action.target)
        ended_by = ended_by_of(action)
        if ended_by is None:
            await _follow(run, action, phase, name)
            ended_by = await _keep_end(run, action)
        until = window_end(ended_by, run.tools.figures.revert_window_s)
        left_s = await find_window_left_s(run, action, until)
        if left_s > 0:
            until = run.tools.clock.now() + timedelta(seconds=left_s)
            message = f"{name} is not {what} before {until.isoformat(timespec='seconds')}: its last revert may go on."
            await run.journal.write(Noted(LogLevel.INFO, message, phase, {"waits_until": until.isoformat()}))
            await wait_out(run, left_s)


async def _follow(run: Run, action: Action, phase: Phase, name: str) -> None:
    job_id = action.remote_id or action.request_id
    outcome = await ask(run, lambda: run.tools.cloud.query_job(job_id, action.kind))
    if outcome.status is RemoteStatus.PENDING:
        message = f"The last revert of {name} is still under way; its job {job_id} is followed to its end."
        await run.journal.write(Noted(LogLevel.INFO, message, phase, {"job_id": job_id}))
        await until_called_off(run, run.tools.cloud.wait_job(job_id, action.kind))


async def _keep_end(run: Run, action: Action) -> datetime:
    """Seen once, it is journaled: no restart begins the window anew."""
    ended_by = run.tools.clock.now()
    word = {**action.evidence[RESOLVED], JOB_ENDED_BY: ended_by.isoformat()}
    evidence = {**action.evidence, RESOLVED: word}
    sentence = f"The last revert of {run.name_of(action.target)} has ended; the window after it begins."
    await run.journal.write(RevertEndSeen(action.id, evidence, sentence))
    run.remember(replace(action, evidence=evidence))
    return ended_by


def was_begun(action: Action) -> bool:
    """Whether a revert may ever have been sent; one that was given up before has no job to wait for."""
    return action.intent_at is not None


async def keep_snapshots(run: Run, deletes: Sequence[PlannedAction]) -> None:
    """Not every revert is proven, so no snapshot of the run goes; each is tracked as a leak with its date."""
    released = unproven_reverts(run)
    names = " and ".join(run.name_of(one.target) for one in released)
    notes = "; ".join(dict.fromkeys(str(one.evidence[RESOLVED].get("notes", "")) for one in released))
    for one in deletes:
        if run.is_done(one):
            continue
        now = run.tools.clock.now()
        sentence = (
            f"The snapshot {one.target.snapshot_id} of {run.name_of(one.target)} is kept since "
            f"{now.date().isoformat()}, because the content of {names} is not proven; delete it only after a completed "
            f"replication: cs deleteSnapshot id={one.target.snapshot_id}"
        )
        leak = Leak(
            id=run.tools.ids.new_id(),
            context_id=run.plan.context_id,
            vm_name=run.plan.vm_name,
            job_id=run.job.id,
            kind=LeakKind.SNAPSHOT_KEPT,
            target=one.target.as_json(),
            sentence=sentence,
            reason=notes,
            since=now,
        )
        kept = replace(
            run.new_action(one, ActionState.SKIPPED), evidence={LEAK: leak.as_json()}, sentence=sentence, ended_at=now
        )
        await run.journal.write(ActionSkipped(kept, sentence), LeakTracked(leak, f"Kept: {sentence}"))
        run.remember(kept)


def demand_resync(run: Run, reverts: Sequence[Action]) -> ResyncDemanded:
    names = " and ".join(run.name_of(one.target) for one in reverts)
    return ResyncDemanded(
        run.plan.context_id,
        tuple(one.target.get_volume_id() for one in reverts),
        f"The change id of {names} is emptied: the next replication copies it whole. {_who(reverts)}",
    )


def resync_summary(run: Run, reverts: Sequence[Action], at: datetime) -> dict[str, Any]:
    """What the VM's records keep. It has no `completed_at`: only a replication settles what came before."""
    names = " and ".join(run.name_of(one.target) for one in reverts)
    reason = f"The content of {names} is not proven; it is to be copied whole. {_who(reverts)}"
    return {"ended_at": at.isoformat(), "reason": reason}


def _who(reverts: Sequence[Action]) -> str:
    said = (one.evidence[RESOLVED] for one in reverts)
    return " ".join(
        dict.fromkeys(
            f"{one['actor']} said RESYNC: {one.get('notes')}" if "actor" in one else f"{one['notes']}." for one in said
        )
    )
