"""How each kind of action is sent, followed and proven: one row per kind.

The proof is the one that the table of kinds names (section 8 of the safety rules). A revert's only proof is its own
job's success; for every other kind the world's own state counts, whatever the job said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.changes import ActionOverdue
from oma.domain.errors import Code
from oma.domain.forcing import FORCED
from oma.ports import Fault, RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.completing import HALF_HOME, is_half_home
from oma.workflow.ending import follow_end, judge_ended, probe_end, submit_end
from oma.workflow.forcing import export_words
from oma.workflow.look import LONGEST_PAUSE_S, Verdict, look_at, until_called_off, until_stopped
from oma.workflow.marks import judge_marked, judge_unmarked, submit_mark, submit_unmark
from oma.workflow.run import Run
from oma.workflow.window import note_server_time

LONG_POLL_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Driver:
    """`submit` returns the other side's id; `follow` waits for its end; `judge` looks at the effect."""

    submit: Callable[[Run, Action], Awaitable[str]]
    follow: Callable[[Run, Action], Awaitable[RemoteOutcome]]
    probe: Callable[[Run, Action], Awaitable[RemoteOutcome]]
    judge: Callable[[Run, Action, RemoteOutcome], Awaitable[Verdict]]


async def _follow_revert(run: Run, action: Action) -> RemoteOutcome:
    """However long it takes: one that is only slow is never given up on."""
    work = run.tools.cloud.wait_job(_remote_id(action), action.kind)
    return await until_called_off(run, work, patience_s=run.tools.figures.cancel_patience_s)


async def _follow_cloud_job(run: Run, action: Action) -> RemoteOutcome:
    return await _follow_for(run, action, run.tools.figures.follow_s)


async def _follow_stop(run: Run, action: Action) -> RemoteOutcome:
    return await _follow_for(run, action, run.tools.figures.stop_wait_s)


async def _follow_for(run: Run, action: Action, patience_s: float) -> RemoteOutcome:
    """So long at most; a job that has not ended by then is told as it is, PENDING."""
    job = asyncio.ensure_future(run.tools.cloud.wait_job(_remote_id(action), action.kind))
    patience = asyncio.ensure_future(run.tools.clock.sleep(patience_s))
    ended = asyncio.wait({job, patience}, return_when=asyncio.FIRST_COMPLETED)
    try:
        await until_called_off(run, ended, patience_s=run.tools.figures.cancel_patience_s)
        return job.result() if job.done() else RemoteOutcome(RemoteStatus.PENDING)
    finally:
        for one in (job, patience):
            one.cancel()
        await asyncio.gather(job, patience, return_exceptions=True)


async def _probe_cloud_job(run: Run, action: Action) -> RemoteOutcome:
    return await run.tools.cloud.query_job(action.remote_id or action.request_id, action.kind)


async def _probe_operation(run: Run, action: Action) -> RemoteOutcome:
    return await run.tools.volumes.wait_operation(action.remote_id or action.request_id, 0)


async def _follow_operation(run: Run, action: Action) -> RemoteOutcome:
    """Follows a Volume Daemon operation, through restarts of that daemon; says once when it is overdue.

    For `follow_s` at most, like a job of CloudStack's.
    """
    clock, figures = run.tools.clock, run.tools.figures
    overdue = False
    began = answered_at = clock.monotonic()
    while True:
        asked_at = clock.monotonic()
        if asked_at - began >= figures.cancel_patience_s:
            await run.heed_cancel()
        try:
            outcome = await until_stopped(run, run.tools.volumes.wait_operation(_remote_id(action), LONG_POLL_S))
        except UpstreamError as error:
            if clock.monotonic() - answered_at >= figures.operation_timeout_s:
                raise
            if error.fault is Fault.REFUSED:
                raise
            await until_stopped(run, clock.sleep(LONGEST_PAUSE_S))
            continue
        answered_at = clock.monotonic()
        if outcome.status is not RemoteStatus.PENDING or answered_at - began >= figures.follow_s:
            return RemoteOutcome(outcome.status, outcome.upstream, outcome.detail, overdue or outcome.overdue)
        if outcome.overdue and not overdue:
            overdue = run.overdue = True
            await _say_overdue(run, action)
        elif clock.monotonic() - asked_at < LONGEST_PAUSE_S:
            # A long poll that comes back at once with nothing new must not make this a busy loop.
            await until_stopped(run, clock.sleep(LONGEST_PAUSE_S))


async def _say_overdue(run: Run, action: Action) -> None:
    sentence = (
        f"The Volume Daemon has not finished {action.words} within "
        f"{run.tools.figures.operation_timeout_s:.0f} s; it is followed to its end and nothing else is begun."
    )
    error = {
        "code": Code.VOLUME_DAEMON_TIMEOUT.value,
        "detail": sentence,
        "phase": action.phase.value,
        "action": {"id": action.id, "kind": action.kind.value, "target": action.target.as_json()},
    }
    await run.journal.write(ActionOverdue(action.id, error, sentence))


async def _submit_stop(run: Run, action: Action) -> str:
    return await run.tools.cloud.submit_stop_vm(
        action.target.get_vm_id(),
        forced=bool(action.evidence.get(FORCED)),
        request_id=action.request_id,
        expires_at=action.expires_at,
    )


async def _submit_destroy(run: Run, action: Action) -> str:
    return await run.tools.cloud.submit_destroy_vm(
        action.target.get_vm_id(), request_id=action.request_id, expires_at=action.expires_at
    )


async def _submit_revert(run: Run, action: Action) -> str:
    return await run.tools.cloud.submit_revert(
        action.target.get_snapshot_id(), request_id=action.request_id, expires_at=action.expires_at
    )


async def _submit_delete(run: Run, action: Action) -> str:
    return await run.tools.cloud.submit_delete_snapshot(
        action.target.get_snapshot_id(), request_id=action.request_id, expires_at=action.expires_at
    )


async def _submit_detach(run: Run, action: Action) -> str:
    return await run.tools.volumes.submit_detach(
        action.target.get_volume_id(),
        request_id=action.request_id,
        fence=run.lease.fence,
        vm_id=action.target.vm_id,
    )


async def _submit_attach(run: Run, action: Action) -> str:
    return await run.tools.volumes.submit_attach(
        action.target.get_volume_id(),
        action.target.get_vm_id(),
        request_id=action.request_id,
        fence=run.lease.fence,
        export=not action.target.unexported,
    )


async def _judge_stopped(run: Run, action: Action, outcome: RemoteOutcome) -> Verdict:
    vms = await run.tools.cloud.list_vms([action.target.get_vm_id()])
    state = vms[0].state if vms else "not listed"
    endless = outcome.status is RemoteStatus.PENDING
    waited = f"Its job {_remote_id(action)} has not ended within {run.tools.figures.stop_wait_s:.0f} s, and "
    return Verdict(
        proven=state == "Stopped",
        sentence=f"{waited if endless else ''}CloudStack shows the VM {action.target.get_vm_id()} as {state}.",
        evidence={"vm_state": state, **({"job": outcome.status.value} if endless else {})},
        in_transition=state == "Stopping" and not endless,
    )


async def _judge_destroyed(run: Run, action: Action, _: RemoteOutcome) -> Verdict:
    vms = await run.tools.cloud.list_vms([action.target.get_vm_id()])
    state = vms[0].state if vms else "not listed"
    return Verdict(
        proven=not vms or vms[0].is_gone,
        sentence=f"CloudStack shows the VM {action.target.get_vm_id()} as {state}.",
        evidence={"vm_state": state},
    )


async def _judge_detached(run: Run, action: Action, _: RemoteOutcome) -> Verdict:
    volume_id = action.target.get_volume_id()
    look = await look_at(run, [volume_id])
    volume = look.volumes.get(volume_id)
    name = run.name_of(action.target)
    if volume is None:
        sentence = f"Alarm: CloudStack no longer lists {name}."
    elif volume.vm_id is not None:
        sentence = f"CloudStack still shows {name} on {volume.vm_name or volume.vm_id}."
    elif look.shows_device(volume_id):
        sentence = f"CloudStack shows {name} as detached, but the OMA still shows its device."
    else:
        sentence = f"{name} is detached: CloudStack shows it on no VM, and the OMA shows no device."
    return Verdict(
        proven=look.is_free(volume_id),
        sentence=sentence,
        evidence=look.describe(volume_id),
        in_transition=volume is not None and not volume.is_settled,
    )


async def _judge_reverted(run: Run, action: Action, outcome: RemoteOutcome) -> Verdict:
    name = run.name_of(action.target)
    done = outcome.status is RemoteStatus.SUCCEEDED
    return Verdict(
        proven=done,
        sentence=f"The revert of {name} is proven: its own job succeeded."
        if done
        else f"Its own job ended {outcome.status.value}.",
        evidence={
            "job_id": action.remote_id,
            "job": outcome.status.value,
            **({} if done else await note_server_time(run)),
        },
    )


async def _judge_deleted(run: Run, action: Action, _: RemoteOutcome) -> Verdict:
    listed = await run.tools.cloud.list_snapshots([action.target.get_snapshot_id()])
    gone = not listed or listed[0].state == "Destroyed"
    state = "not listed" if not listed else listed[0].state
    return Verdict(
        proven=gone,
        sentence=f"CloudStack shows the snapshot {action.target.get_snapshot_id()} as {state}.",
        evidence={"snapshot_state": state},
        in_transition=state == "Destroying",
    )


async def _judge_attached(run: Run, action: Action, outcome: RemoteOutcome) -> Verdict:
    volume_id = action.target.get_volume_id()
    look = await look_at(run, [volume_id])
    volume = look.volumes.get(volume_id)
    name = run.name_of(action.target)
    home = look.is_home(volume_id, action.target.get_vm_id())
    lost_export = export_words(outcome) if home else None
    half_home = home and is_half_home(outcome)
    if lost_export is not None:
        sentence = f"{name} is home, but its NBD export did not come back."
    elif half_home:
        sentence = (
            f"{name} is on the OMA, but the Volume Daemon did not finish its part: mapping and export are missing."
        )
    elif home:
        sentence = f"{name} is home: CloudStack shows it on the OMA, and the OMA shows its device."
    elif volume is not None and volume.vm_id == action.target.get_vm_id():
        sentence = f"CloudStack shows {name} on the OMA, but the OMA shows no device for it."
    else:
        sentence = f"CloudStack does not show {name} on the OMA."
    return Verdict(
        proven=home and lost_export is None and not half_home,
        sentence=sentence,
        evidence={
            **look.describe(volume_id),
            **({"export": lost_export} if lost_export else {}),
            **({HALF_HOME: True} if half_home else {}),
        },
        in_transition=volume is not None and not volume.is_settled,
    )


def _remote_id(action: Action) -> str:
    return action.remote_id or action.request_id


DRIVERS: Final[dict[ActionKind, Driver]] = {
    ActionKind.SET_MARKER: Driver(submit_mark, _follow_cloud_job, _probe_cloud_job, judge_marked),
    ActionKind.CLEAR_MARKER: Driver(submit_unmark, _follow_cloud_job, _probe_cloud_job, judge_unmarked),
    ActionKind.STOP_VM: Driver(_submit_stop, _follow_stop, _probe_cloud_job, _judge_stopped),
    ActionKind.END_HOLDER: Driver(submit_end, follow_end, probe_end, judge_ended),
    ActionKind.DETACH_VOLUME: Driver(_submit_detach, _follow_operation, _probe_operation, _judge_detached),
    ActionKind.REVERT_SNAPSHOT: Driver(_submit_revert, _follow_revert, _probe_cloud_job, _judge_reverted),
    ActionKind.DELETE_SNAPSHOT: Driver(_submit_delete, _follow_cloud_job, _probe_cloud_job, _judge_deleted),
    ActionKind.ATTACH_VOLUME: Driver(_submit_attach, _follow_operation, _probe_operation, _judge_attached),
    ActionKind.DESTROY_VM: Driver(_submit_destroy, _follow_cloud_job, _probe_cloud_job, _judge_destroyed),
}
"""Kinds that other systems carry out; `reset_records` is our own transaction."""
