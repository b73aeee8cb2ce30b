"""What a person does about a parked run: numbered steps with the commands filled in. Data, one list per cause."""

from __future__ import annotations

from typing import Final

from oma.domain.actions import ActionKind, Target
from oma.domain.issues import CANCELLED, INTERNAL, UNBELIEVABLE, VOLUME_GONE
from oma.domain.resolving import possible_words
from oma.domain.states import Phase

FOR_GOOD: Final = "If it parks so again and again, RESYNC ends the run for good, and every disk is copied whole"

LOOK: Final[dict[str, tuple[str, ...]]] = {
    CANCELLED: ("Let the run go on: oma jobs resume {job_id}",),
    INTERNAL: (
        "Read what was done: oma jobs show {job_id}",
        "Find the fault in the daemon's log under the correlation id of the run",
        "Compare every action that is STARTED with CloudStack before anything is repeated",
        FOR_GOOD,
    ),
    UNBELIEVABLE: (
        "Do not attach or start anything on this VM's volumes before it is clear what was done to them.",
        "See whether the database is whole and the clocks are right: oma db check",
        "Wait for a time that is yet to come; put a row right that can't be true",
        "Compare what was begun with CloudStack: oma jobs show {job_id}",
        FOR_GOOD,
    ),
    VOLUME_GONE: (
        "Look for it among the removed volumes: cs listVolumes id={volume_id} listall=true",
        "If it is found again, say ROLLED_BACK; if it is lost, RESYNC lets the run go on without it",
    ),
    Phase.RESET.value: (
        "See whether a replication began on this VM since its disks came home, and wait for its end",
        "If one did, say RESYNC: what it wrote over a revert proves nothing, and the next one copies the disks whole",
    ),
    ActionKind.RESET_RECORDS: (
        "See who wrote what this issue shows: said again, the reset takes over that, and nothing newer",
    ),
    ActionKind.STOP_VM: ("See how the test VM stands: cs listVirtualMachines id={vm_id}",),
    ActionKind.END_HOLDER: (
        "See who holds the device now: curl http://127.0.0.1:8090/api/v1/volumes/{volume_id}/holders",
        "A process that KILL does not end hangs in the kernel: restart the OMA when nothing else runs there",
    ),
    ActionKind.DETACH_VOLUME: (
        "See where CloudStack shows the volume: cs listVolumes id={volume_id} listall=true",
        "See whether its VM carries a VM snapshot, which forbids a detach: cs listVMSnapshot virtualmachineid={vm_id}",
    ),
    ActionKind.REVERT_SNAPSHOT: (
        "Do not attach or start anything on this volume: its content is not proven.",
        "See the volume: cs listVolumes id={volume_id} listall=true",
        "See the snapshot, which is kept: cs listSnapshots id={snapshot_id} listall=true",
        "See how the revert's own job ended: cs queryAsyncJobResult jobid={remote_id}",
    ),
    ActionKind.DELETE_SNAPSHOT: ("See whether the snapshot is still there: cs listSnapshots id={snapshot_id}",),
    ActionKind.ATTACH_VOLUME: (
        "See where CloudStack shows the volume: cs listVolumes id={volume_id} listall=true",
        "See whether the OMA shows its device: curl http://127.0.0.1:8090/api/v1/devices",
    ),
    ActionKind.DESTROY_VM: ("See the VM and what hangs on it: cs listVolumes virtualmachineid={vm_id} listall=true",),
}
LEAVE_BEHIND: Final = "If what is left may stay behind, as a tracked leak, let the run go on without it: {command}"
UNDO: Final = "When nothing stands in its way any more, let the run look again and go on with its way back: {undo}"
SAY: Final = 'Then say how it stands, and the run goes on: oma audit fix -c {issue_id} --resolution {words} --notes "…"'
CLOSING: Final = "Read the run's log: oma jobs log {job_id}"


def build_guidance(
    kind: str | None,
    target: Target,
    *,
    job_id: str,
    remote_id: str | None,
    force_command: str | None = None,
    undo_command: str | None = None,
    issue_id: str | None = None,
) -> tuple[str, ...]:
    """Numbered steps for a parked action; a value that is not known stays out together with its step.

    `force_command` is what passes it, where force may; `undo_command` what a run needs that is on its way back.
    """
    known = {
        "job_id": job_id,
        "remote_id": remote_id,
        "command": force_command,
        "undo": undo_command,
        "issue_id": issue_id if kind != CANCELLED else None,
    }
    words = "|".join(possible_words(kind))
    values = {**target.as_json(), "words": words, **{name: value for name, value in known.items() if value}}
    steps = [*(LOOK.get(kind, ()) if kind else ()), LEAVE_BEHIND, UNDO, SAY, CLOSING]
    filled: list[str] = []
    for step in steps:
        try:
            filled.append(step.format_map(values))
        except KeyError:
            continue
    return tuple(f"{number}. {step}" for number, step in enumerate(filled, 1))
