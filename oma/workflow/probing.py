"""A fresh look at what one action did, for a person who is about to say how it ended. Nothing is changed."""

from __future__ import annotations

import asyncio
from typing import Final

from oma.domain.actions import VOLUME_DAEMON_KINDS, Action, ActionKind
from oma.domain.resolving import Effect, Seen, Standing
from oma.domain.world import CloudVolume, DeviceScan
from oma.ports import Cloud, Fault, RemoteOutcome, RemoteStatus, UpstreamError, Volumes
from oma.workflow.completing import is_half_home
from oma.workflow.marks import marked_kind
from oma.workflow.touched import Times, Touch, look_for_touch, untold

STANDINGS: Final = {
    RemoteStatus.PENDING: Standing.UNDER_WAY,
    RemoteStatus.SUCCEEDED: Standing.SUCCEEDED,
    RemoteStatus.REFUSED: Standing.FAILED,
    RemoteStatus.FAILED: Standing.FAILED,
    RemoteStatus.ABSENT: Standing.NEVER_ARRIVED,
    RemoteStatus.UNTRACEABLE: Standing.UNTRACEABLE,
}


async def probe_action(cloud: Cloud, volumes: Volumes, action: Action, times: Times) -> Seen:
    """What CloudStack, the Volume Daemon and the OMA show of it now; raises `UpstreamError`."""
    match action.kind:
        case ActionKind.DETACH_VOLUME | ActionKind.ATTACH_VOLUME:
            return await _probe_attachment(cloud, volumes, action)
        case ActionKind.REVERT_SNAPSHOT:
            return await _probe_revert(cloud, volumes, action, times)
        case ActionKind.DELETE_SNAPSHOT:
            return await _probe_snapshot(cloud, action)
        case ActionKind.STOP_VM | ActionKind.DESTROY_VM:
            return await _probe_vm(cloud, action)
        case ActionKind.END_HOLDER:
            return await _probe_holders(volumes, action)
        case ActionKind.RESET_RECORDS:
            sentence = "The transaction that resets the records did not commit."
            return Seen(Effect.NOT_THERE, Standing.NEVER_ARRIVED, sentence)
        case ActionKind.SET_MARKER | ActionKind.CLEAR_MARKER:
            return await _probe_marker(cloud, volumes, action)


async def find_standing(cloud: Cloud, volumes: Volumes, action: Action) -> Standing:
    """By the id that was kept, else by the one that the call travelled with."""
    remote_id = action.remote_id or action.request_id
    outcome: RemoteOutcome
    if action.kind in VOLUME_DAEMON_KINDS:
        outcome = await volumes.wait_operation(remote_id, 0)
    else:
        outcome = await cloud.query_job(remote_id, action.kind)
    return STANDINGS[outcome.status]


async def _probe_attachment(cloud: Cloud, volumes: Volumes, action: Action) -> Seen:
    volume_id, name = action.target.get_volume_id(), _name(action)
    outcome, listed, scan = await asyncio.gather(
        volumes.wait_operation(action.remote_id or action.request_id, 0),
        cloud.list_volumes([volume_id]),
        volumes.scan_devices(),
    )
    standing = STANDINGS[outcome.status]
    volume = next(iter(listed), None)
    evidence = _place(volume, scan, volume_id) | {"own_call": standing.value}
    if volume is None:
        return Seen(Effect.UNKNOWN, standing, f"Alarm: CloudStack no longer lists {name}.", evidence)
    shown = scan.shows(volume_id)
    if not volume.is_settled:
        return Seen(Effect.CHANGING, standing, f"CloudStack shows {name} as {volume.state}.", evidence)
    if volume.vm_id is None and not shown:
        effect, sentence = Effect.THERE, f"CloudStack shows {name} on no VM, and the OMA shows no device."
    elif volume.vm_id is None:
        effect, sentence = Effect.HALF, f"CloudStack shows {name} as detached, but the OMA still shows its device."
    else:
        effect, sentence = Effect.NOT_THERE, f"CloudStack shows {name} on {volume.vm_name or volume.vm_id}."
    if action.kind is ActionKind.ATTACH_VOLUME:
        effect = _as_attached(effect, home=volume.vm_id == action.target.vm_id, shown=shown)
        if effect is Effect.HALF and volume.vm_id is not None:
            sentence += " The OMA shows no device for it."
        if effect is Effect.THERE and is_half_home(outcome):
            # Run again, it changes nothing in CloudStack and gets its mapping and export.
            effect = Effect.NOT_THERE
            sentence += " The Volume Daemon did not finish its part: mapping and export are missing."
    return Seen(effect, standing, sentence, evidence)


async def _probe_marker(cloud: Cloud, volumes: Volumes, action: Action) -> Seen:
    """By the tags themselves; somebody else's marker is none of this action's."""
    ids = action.target.marked_ids
    standing, marks = await asyncio.gather(
        find_standing(cloud, volumes, action), cloud.list_marks_of(marked_kind(action), ids)
    )
    mark = action.target.mark
    ours = [one for one in marks if (one.value == mark if mark else one.job_id == action.job_id)]
    evidence = {"marked": [one.volume_id for one in ours], "own_call": standing.value}
    sentence = f"CloudStack shows this marker on {len(ours)} of {len(ids)} {marked_kind(action).value.lower()}s."
    if action.kind is ActionKind.CLEAR_MARKER:
        return Seen(Effect.NOT_THERE if ours else Effect.THERE, standing, sentence, evidence)
    whole = Effect.THERE if len(ours) == len(ids) else Effect.HALF
    return Seen(whole if ours else Effect.NOT_THERE, standing, sentence, evidence)


def _as_attached(detached: Effect, *, home: bool, shown: bool) -> Effect:
    """The same look, for an attachment. A volume on another VM is not attached to the OMA."""
    if detached is Effect.HALF:
        return Effect.HALF
    if not home:
        return Effect.NOT_THERE
    return Effect.THERE if shown else Effect.HALF


async def _probe_revert(cloud: Cloud, volumes: Volumes, action: Action, times: Times) -> Seen:
    """A revert leaves no trace but its own job; what counts besides is whether anything may have written since."""
    volume_id, name = action.target.get_volume_id(), _name(action)
    standing, listed, scan, snapshots = await asyncio.gather(
        find_standing(cloud, volumes, action),
        cloud.list_volumes([volume_id]),
        volumes.scan_devices(),
        cloud.list_snapshots([action.target.get_snapshot_id()]),
    )
    volume = next(iter(listed), None)
    snapshot = next(iter(snapshots), None)
    kept = snapshot is not None and snapshot.volume_id == volume_id
    evidence = _place(volume, scan, volume_id) | {
        "own_job": standing.value,
        "job_id": action.remote_id or action.request_id,
        "snapshot": snapshot.state if snapshot is not None else "not listed",
    }
    if volume is None:
        return Seen(Effect.UNKNOWN, standing, f"Alarm: CloudStack no longer lists {name}.", evidence, kept)
    job = f"The revert's own job {_job_words(standing)}"
    if volume.vm_id is not None:
        sentence = f"{job}, and {name} hangs on {volume.vm_name or volume.vm_id}."
        return Seen(Effect.ATTACHED, standing, sentence, evidence, kept)
    if not volume.is_settled:
        return Seen(Effect.CHANGING, standing, f"{job}, and {name} is {volume.state}.", evidence, kept)
    if scan.shows(volume_id):
        return Seen(Effect.ATTACHED, standing, f"{job}, and the OMA shows the device of {name}.", evidence, kept)
    gone = "" if kept else f" Its snapshot {action.target.snapshot_id} is not listed on it."
    touch = await _find_touch(cloud, action, times)
    if touch is not None:
        evidence["touched"] = touch.sentence
        gone += f" But {touch.sentence}."
    effect = Effect.TOUCHED if touch is not None and touch.told else Effect.FREE
    return Seen(effect, standing, f"{job}, and {name} is attached nowhere.{gone}", evidence, kept)


async def _find_touch(cloud: Cloud, action: Action, times: Times) -> Touch | None:
    """An event log that never tells leaves it to the person who was asked."""
    try:
        return await look_for_touch(cloud, action, times)
    except UpstreamError as error:
        if error.fault is not Fault.REFUSED:
            raise
        return untold(error)


async def _probe_snapshot(cloud: Cloud, action: Action) -> Seen:
    snapshot_id = action.target.get_snapshot_id()
    outcome, listed = await asyncio.gather(
        cloud.query_job(action.remote_id or action.request_id, action.kind), cloud.list_snapshots([snapshot_id])
    )
    standing = STANDINGS[outcome.status]
    state = listed[0].state if listed else "not listed"
    effect = Effect.THERE if state in ("not listed", "Destroyed") else Effect.NOT_THERE
    if state == "Destroying":
        effect = Effect.CHANGING
    sentence = f"CloudStack shows the snapshot {snapshot_id} as {state}."
    return Seen(effect, standing, sentence, {"snapshot_state": state, "own_job": standing.value})


async def _probe_vm(cloud: Cloud, action: Action) -> Seen:
    vm_id = action.target.get_vm_id()
    outcome, listed = await asyncio.gather(
        cloud.query_job(action.remote_id or action.request_id, action.kind), cloud.list_vms([vm_id])
    )
    standing = STANDINGS[outcome.status]
    state = listed[0].state if listed else "not listed"
    gone = not listed or listed[0].is_gone
    done = gone or (action.kind is ActionKind.STOP_VM and state == "Stopped")
    effect = Effect.THERE if done else Effect.NOT_THERE
    if state in ("Stopping", "Starting", "Migrating") and not done:
        effect = Effect.CHANGING
    sentence = f"CloudStack shows the VM {vm_id} as {state}."
    return Seen(effect, standing, sentence, {"vm_state": state, "own_job": standing.value})


async def _probe_holders(volumes: Volumes, action: Action) -> Seen:
    found = await volumes.list_holders(action.target.get_volume_id())
    wanted = set(action.target.processes)
    left = [one for one in found.holders if {one.process, one.tree} & wanted] if found is not None else []
    evidence = {"holders": [one.as_json() for one in left], "unread": list(found.unread) if found is not None else []}
    if left:
        sentence = f"{_name(action)} is still held by {', '.join(one.sentence for one in left)}."
        return Seen(Effect.NOT_THERE, Standing.FAILED, sentence, evidence)
    if found is not None and not found.complete:
        sentence = f"Who holds {_name(action)} can't be told: {'; '.join(found.unread)}."
        return Seen(Effect.UNKNOWN, Standing.FAILED, sentence, evidence)
    return Seen(Effect.THERE, Standing.FAILED, f"Nothing of the injection holds {_name(action)} any more.", evidence)


def _place(volume: CloudVolume | None, scan: DeviceScan, volume_id: str) -> dict[str, object]:
    if volume is None:
        return {"cloudstack": "not listed", "device_on_oma": scan.shows(volume_id)}
    told = {"state": volume.state, "vm_id": volume.vm_id, "job_id": volume.pending_job_id}
    return {"cloudstack": told, "device_on_oma": scan.shows(volume_id)}


def _job_words(standing: Standing) -> str:
    words = {
        Standing.UNDER_WAY: "is still under way",
        Standing.NEVER_ARRIVED: "is not known to CloudStack",
        Standing.UNTRACEABLE: "can't be asked for",
    }
    return words.get(standing, standing.value)


def _name(action: Action) -> str:
    return action.target.volume_name or action.target.volume_id or "the volume"
