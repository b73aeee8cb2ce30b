"""How a VM may be left when nothing moves any more: whole, back where it was, or with an issue for the uncertain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.demo.invariants.calls import Found
from oma.demo.invariants.ending import Ending, list_endings
from oma.demo.invariants.facts import History, VolumeFacts
from oma.domain.actions import ActionKind
from oma.domain.issues import DATABASE_OLDER
from oma.domain.leaks import LeakKind
from oma.domain.records import CLEANUP_REQUIRED, FAILED, READY_FOR_FAILOVER
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState

GONE_BACK: Final = frozenset({JobState.FAILED, JobState.CANCELLED})
MARKS: Final = frozenset({ActionKind.SET_MARKER, ActionKind.CLEAR_MARKER})
"""They move nothing; and nobody waits for the end of a clearing."""
UNDER_WAY: Final = frozenset({JobState.QUEUED, JobState.RUNNING})
GONE: Final = frozenset({"Destroyed", "Expunging", "Expunged"})
Said = Iterator[str]


def completed_means_whole(history: History) -> Found:
    """Never completed otherwise."""
    for ending in list_endings(history):
        if ending.job.state is not JobState.COMPLETED:
            continue
        if ending.partial:
            found = [] if ending.is_status(CLEANUP_REQUIRED) else [f"a partial run left {ending.status}"]
        else:
            found = [
                *(one for volume in ending.vm.volumes for one in _not_home(ending, volume)),
                *_left_over(ending),
                *_not_reset(ending),
                *(one for volume in ending.vm.volumes for one in _change_id(ending, volume)),
            ]
        found += [f"{one.kind} {one.id} is {one.state}" for one in ending.uncertain]
        found += [f"issue {row['id']} is open" for row in history.journal.open_issues(ending.job.id)]
        for sentence in found:
            yield ending.vm.name, f"completed, but {sentence}"


def parked_means_named(history: History) -> Found:
    for ending in list_endings(history):
        if ending.job.state is not JobState.PARKED:
            continue
        if not ending.issues:
            yield ending.vm.name, "parked without an open issue"
        if not ending.is_status(CLEANUP_REQUIRED):
            yield ending.vm.name, f"parked at {ending.status}"
        for sentence in (*_unnamed(ending), *_exported(ending)):
            yield ending.vm.name, f"parked, but {sentence}"


def what_makes_no_sense_is_parked(history: History) -> Found:
    """A run whose row can't be read is parked by an issue, and nothing else is done with it."""
    names = {vm.context_id: vm.name for vm in history.vms}
    for row in history.journal.unreadable:
        name = names.get(row["context_id"])
        if name is None:
            continue
        if row["state"] in UNDER_WAY:
            yield name, f"the row of the run {row['id']} can't be read, and it is {row['state']}"
        elif row["state"] == JobState.PARKED.value and not history.journal.open_issues(row["id"]):
            yield name, f"the run {row['id']}, whose row can't be read, is parked without an open issue"


def gone_back_means_back(history: History) -> Found:
    """A run that failed or was cancelled left the VM as it was, or put back what it had moved."""
    for ending in list_endings(history):
        if ending.job.state not in GONE_BACK:
            continue
        acted = any(one.state is not ActionState.SKIPPED for one in ending.actions)
        found = _not_back(ending) if acted else _not_untouched(ending)
        if (ending.job.error or {}).get("given_up"):
            found = _not_given_up(ending)
        for sentence in (*found, *_exported(ending)):
            yield ending.vm.name, f"{ending.job.state}, but {sentence}"


def _not_given_up(ending: Ending) -> Said:
    """A person ended it for good: nothing of it is open, and every disk is copied whole, wherever it is."""
    journal = ending.history.journal
    said = [row for row in journal.issues if row["job_id"] == ending.job.id and row["resolution"] == Resolution.RESYNC]
    if not said:
        yield "given up without a person's word"
    if journal.open_issues(ending.job.id):
        yield "an issue is open"
    for one in ending.uncertain:
        yield f"{one.kind} {one.id} is {one.state}"
    if not ending.is_status(CLEANUP_REQUIRED):
        yield f"the status is {ending.status}, not {CLEANUP_REQUIRED}"
    for row in journal.disks:
        if row["vm_context_id"] == ending.vm.context_id and row["disk_change_id"]:
            yield f"{row['disk_id']} keeps the change id {row['disk_change_id']}"


def everything_comes_to_rest(history: History) -> Found:
    for ending in list_endings(history):
        if ending.job.state in UNDER_WAY:
            yield ending.vm.name, f"the run {ending.job.id} is still {ending.job.state} in {ending.job.phase}"


def _not_home(ending: Ending, volume: VolumeFacts) -> Said:
    place = ending.find_place(volume.volume_id)
    if _left_away(ending, volume) and (place is None or place.vm_id is None):
        return
    if place is None:
        if volume.volume_id not in ending.history.disturbed:
            yield f"{volume.name} is not there any more"
        return
    if place.vm_id != ending.history.oma_vm_id:
        yield f"{volume.name} is on {place.vm_id}"
    if not place.shown_on_oma:
        yield f"the OMA shows no device for {volume.name}"
    if volume.volume_id not in ending.words and place.content != volume.good:
        yield f"{volume.name} holds {place.content!r}"
    if place.mode != "oma":
        yield f"{volume.name} is mapped as {place.mode}"
    missing = {row["target"].get("volume_id") for row in ending.leaks(LeakKind.EXPORT_MISSING)}
    if place.exported is False and ending.came_home(volume.volume_id) and volume.volume_id not in missing:
        yield f"{volume.name} has no NBD export"


def _left_away(ending: Ending, volume: VolumeFacts) -> bool:
    """It is nowhere any more, and a person gave it up."""
    gone = {row["target"].get("volume_id") for row in ending.leaks(LeakKind.VOLUME_GONE)}
    return volume.volume_id in gone and ending.words.get(volume.volume_id) is Resolution.RESYNC


def _left_over(ending: Ending) -> Said:
    rest, vm = ending.history.rest, ending.vm
    kept = {row["target"].get("snapshot_id") for row in ending.leaks(LeakKind.SNAPSHOT_KEPT)}
    tracked = {one.snapshot_id for one in ending.job.plan.volumes if one.snapshot_id}
    tracked |= {one for volume in vm.volumes for one in volume.tracked_ids}
    for snapshot_id in sorted(tracked & rest.snapshot_ids - kept):
        yield f"snapshot {snapshot_id} is still there"
    state = rest.vm_states.get(vm.test_vm_id or "", "gone")
    there = state != "gone" and state not in GONE
    if vm.test_vm_goes and there and not ending.leaks(LeakKind.TEST_VM_KEPT):
        yield f"the test VM is {state}"


def _not_reset(ending: Ending) -> Said:
    journal, context_id = ending.history.journal, ending.vm.context_id
    resync = Resolution.RESYNC in ending.words.values()
    if not ending.is_status(FAILED if resync else READY_FOR_FAILOVER):
        yield f"the status is {ending.status}"
    replica = (ending.job.result or {}).get("replica")
    wanted = "resync_required" if resync else "unknown"
    if ending.words and replica != wanted:
        yield f"the replica is said to be {replica}, by a person's word it is {wanted}"
    current_job_id = journal.contexts[context_id]["current_job_id"]
    if current_job_id and context_id not in ending.history.taken:
        yield f"the context's current job is {current_job_id}"
    for row in journal.failovers:
        if row["vm_context_id"] == context_id and row["status"] not in {"failed", "completed"}:
            yield f"the failover {row['job_id']} is {row['status']}"
    yield from _tracked(ending)


def _tracked(ending: Ending) -> Said:
    """Snapshots that one of the three places still names."""
    journal, vm = ending.history.journal, ending.vm
    for row in journal.volumes:
        if row["vm_context_id"] == vm.context_id and (row["snapshot_id"] or row["snapshot_status"] != "none"):
            yield f"{row['volume_id']} still tracks {row['snapshot_id']}"
    for row in journal.mappings:
        if row["volume_uuid"] in vm.volume_ids and row["ossea_snapshot_id"]:
            yield f"the mapping of {row['volume_uuid']} still tracks {row['ossea_snapshot_id']}"
    for row in journal.failovers:
        if row["vm_context_id"] == vm.context_id and row["ossea_snapshot_id"]:
            yield f"the failover {row['job_id']} still tracks {row['ossea_snapshot_id']}"


def _change_id(ending: Ending, volume: VolumeFacts) -> Said:
    """The next replication goes on from where the replica stands, or copies the disk whole."""
    if volume.change_id is None or volume.volume_id in ending.history.disturbed:
        return
    wanted = {"" if ending.words.get(volume.volume_id) is Resolution.RESYNC else volume.change_id}
    if volume.volume_id in ending.demanded_before:
        # Since then nothing has been copied; where it is not known whether something has, both may be.
        wanted = {""} if volume.needs_revert is not None else {"", *wanted}
    for row in ending.history.journal.disks:
        if (row["vm_context_id"], row["disk_id"]) != (ending.vm.context_id, volume.disk_id):
            continue
        stored = row["disk_change_id"] or ""
        if stored not in wanted:
            yield f"the change id of {volume.name} is {stored!r}"


def _unnamed(ending: Ending) -> Said:
    if any(row["kind"] == DATABASE_OLDER for row in ending.issues):
        return  # it is about everything that was in flight
    named = {one for row in ending.issues for one in (row["action_id"], *(row["evidence"] or {}).get("action_ids", ()))}
    about = {(row["target"] or {}).get("volume_id") for row in ending.issues}
    for one in ending.uncertain:
        if one.id not in named:
            yield f"no open issue names the uncertain {one.kind} {one.id}"
    for one in ending.actions:
        if one.state is ActionState.ROLLBACK_FAILED and one.target.volume_id not in about:
            yield f"no open issue is about {one.target.volume_id}, which was not put back"


def _exported(ending: Ending) -> Said:
    for volume_id in sorted(ending.unproven):
        place = ending.find_place(volume_id)
        home = place is not None and place.vm_id == ending.history.oma_vm_id
        if place is not None and home and place.exported and ending.came_home(volume_id):
            yield f"{volume_id} came home with an export and unproven content"


def _not_untouched(ending: Ending) -> Said:
    if not ending.is_status(ending.job.plan.former_status):
        yield f"nothing was done, and the status is {ending.status}, not {ending.job.plan.former_status} again"


def _not_back(ending: Ending) -> Said:
    history, plan = ending.history, ending.job.plan
    sent = (history.journal.find_action(one.request_id) for one in ending.reverts)
    if ending.job.reverted or any(one is not None and one.job_id == ending.job.id for one in sent):
        yield "a revert was sent"
    if history.journal.open_issues(ending.job.id):
        yield "an issue is open"
    # Of a volume that is nowhere nobody can tell how its detach ended; the leak names it, and is no word where it is.
    gone = {row["target"].get("volume_id") for row in ending.leaks(LeakKind.VOLUME_GONE)} - history.rest.volumes.keys()
    for one in ending.uncertain:
        if one.state is not ActionState.EXECUTION_FAILED or one.target.volume_id not in gone:
            yield f"{one.kind} {one.id} is {one.state}"
    for one in ending.actions:
        if one.kind is not ActionKind.DETACH_VOLUME or one.state is ActionState.SKIPPED:
            continue
        if one.state is not ActionState.ROLLED_BACK and one.target.volume_id not in gone:
            yield f"the detach of {one.target.volume_id} is {one.state}"
        place = ending.find_place(one.target.get_volume_id())
        if place is not None and place.vm_id not in (history.oma_vm_id, one.target.vm_id):
            yield f"{one.target.volume_id} is on {place.vm_id}"
    touched = any(one.state is not ActionState.SKIPPED for one in ending.actions if one.kind not in MARKS)
    careful = touched and any(volume.needs_revert for volume in plan.volumes)
    wanted = [CLEANUP_REQUIRED] if touched and ending.needy else [plan.former_status]
    # The plan may be more careful than the world asks for: what could not be excluded needs a revert too.
    if not ending.is_status(*wanted, *([CLEANUP_REQUIRED] if careful else [])):
        yield f"the status is {ending.status}, not {' or '.join(wanted)}"
