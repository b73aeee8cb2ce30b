"""What a person does about a parked run: numbered steps with the commands filled in. Data, one list per cause."""

from __future__ import annotations

from typing import Final

from oma.domain.actions import ActionKind, Target

LOOK: Final[dict[ActionKind, tuple[str, ...]]] = {
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
CLOSING: Final = "Read the run's log: oma jobs log {job_id}"


def build_guidance(
    kind: ActionKind | None, target: Target, *, job_id: str, remote_id: str | None, force_command: str | None = None
) -> tuple[str, ...]:
    """Numbered steps for a parked action; a value that is not known stays out together with its step.

    `force_command` is what passes it, where force may.
    """
    known = {"job_id": job_id, "remote_id": remote_id, "command": force_command}
    values = {**target.as_json(), **{name: value for name, value in known.items() if value}}
    steps = [*(LOOK.get(kind, ()) if kind else ()), LEAVE_BEHIND, CLOSING]
    filled: list[str] = []
    for step in steps:
        try:
            filled.append(step.format_map(values))
        except KeyError:
            continue
    return tuple(f"{number}. {step}" for number, step in enumerate(filled, 1))
