"""What to do with a volume, decided from what was seen of it. Nothing here has an effect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ossea.models import JobResult, JobStatus, Volume
from volume_daemon.models import FaultKind, OperationError, OperationType
from volume_daemon.server.cloud import pending_job
from volume_daemon.server.records import Entry


@dataclass(frozen=True, slots=True)
class Follow:
    """Somebody's job is at work on the volume; see its end first (#14214: a late detach wipes a newer attachment)."""

    job_id: str
    state: str = field(default="", compare=False)
    """The volume's, as CloudStack shows it meanwhile."""


@dataclass(frozen=True, slots=True)
class Already:
    """CloudStack shows what is wanted; nothing is sent."""

    volume: Volume | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the call, in the queue of this VM (None: CloudStack queues it nowhere)."""

    vm_id: str | None


@dataclass(frozen=True, slots=True)
class Refuse:
    error: OperationError


@dataclass(frozen=True, slots=True)
class Applied:
    """It is as ordered, by CloudStack's word."""

    volume: Volume | None
    sentence: str
    job_error: OperationError | None = None
    """What CloudStack's job said, where it failed and the state is nevertheless the wanted one."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A call whose end is known: its job (None: there was none), and why it did not succeed (None: it did)."""

    job_id: str | None
    error: OperationError | None
    entity_id: str | None = None


Decision = Follow | Already | Ask | Refuse
Verdict = Follow | Applied | Refuse


def refused(code: str, text: str) -> Refuse:
    """Before anything was sent: nothing was changed."""
    return Refuse(OperationError(code, FaultKind.REFUSED, text))


def failed(code: str, text: str) -> Refuse:
    return Refuse(OperationError(code, FaultKind.FAILED, text))


def same_id(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one.lower() == other.lower()


def decide(entry: Entry, volume: Volume | None) -> Decision:
    """Before the call: is it needed, possible, and in whose queue does it stand?"""
    if entry.type is OperationType.CREATE:
        return Ask(None)
    if volume is None:
        return refused("volume_not_found", f"CloudStack does not list the volume {entry.volume_id}.")
    job_id = pending_job(volume)
    if job_id is not None:
        return Follow(job_id, volume.state)
    by_type = {OperationType.ATTACH: _decide_attach, OperationType.DELETE: _decide_delete}
    return by_type.get(entry.type, _decide_detach)(entry, volume)


def _decide_detach(entry: Entry, volume: Volume) -> Decision:
    if volume.vm_id is None:
        return Already(volume, "CloudStack shows the volume detached already; it was not asked again.")
    moved = find_moved(entry, volume)
    return Refuse(moved) if moved is not None else Ask(volume.vm_id)


def find_moved(entry: Entry, volume: Volume | None) -> OperationError | None:
    """Why a detach must not be sent, or not again: CloudStack would take the volume off whatever VM holds it now.

    The VM that it belongs to is the one that its giver named, else the one that held the volume at the first look.
    """
    if entry.type is not OperationType.DETACH or entry.vm_id is None or volume is None or volume.vm_id is None:
        return None
    if same_id(volume.vm_id, entry.vm_id):
        return None
    text = (
        f"The volume is attached to {_holder(volume)}, and was to be taken off the VM {entry.vm_id}: nothing was sent."
    )
    return OperationError("volume_on_foreign_vm", FaultKind.REFUSED, text)


def _decide_delete(_entry: Entry, volume: Volume) -> Decision:
    if volume.vm_id is None:
        return Ask(None)
    return refused("volume_attached", f"The volume is attached to {_holder(volume)}; detach it first.")


def _decide_attach(entry: Entry, volume: Volume) -> Decision:
    if volume.vm_id is None:
        return Ask(entry.vm_id)
    if not same_id(volume.vm_id, entry.vm_id):
        return refused("volume_attached", f"The volume is attached to {_holder(volume)}; detach it there first.")
    if entry.device_id is not None and volume.device_id != entry.device_id:
        where = f"as device {volume.device_id}, not {entry.device_id}"
        return refused("volume_attached", f"The volume is attached to {_holder(volume)} {where}.")
    return Already(volume, "CloudStack shows the volume attached there already; it was not asked again.")


def is_wanted(entry: Entry, volume: Volume | None) -> bool:
    """Whether CloudStack shows what the operation is to bring about."""
    match entry.type:
        case OperationType.ATTACH:
            there = volume is not None and same_id(volume.vm_id, entry.vm_id)
            return there and volume is not None and entry.device_id in {None, volume.device_id}
        case OperationType.DETACH:
            return volume is not None and volume.vm_id is None
        case OperationType.DELETE:
            return volume is None
        case _:
            return False


def judge(entry: Entry, call: Ended, volume: Volume | None) -> Verdict:
    """After the call has ended, with the volume read again: what CloudStack shows decides, not what the job said.

    A job that failed may have been applied, and "431" for a detach is a question: it is said for a free volume, and
    for VM snapshots, a VM in transition and a ROOT volume whose VM runs.
    """
    if entry.type is OperationType.CREATE:
        return _judge_create(call, volume)
    job_id = pending_job(volume) if volume is not None else None
    if job_id is not None and job_id != call.job_id:
        return Follow(job_id)
    return _judge_shown(entry, call, volume)


def judge_beside(entry: Entry, call: Ended, volume: Volume | None, other_job_id: str) -> Applied | Refuse:
    """The same where somebody else's job on the volume does not end: what is shown counts, and the job is named.

    Whatever is to be done to the volume next waits for that job by itself.
    """
    beside = f"CloudStack's job {other_job_id} is still at work on the volume."
    verdict = _judge_shown(entry, call, volume)
    if isinstance(verdict, Applied):
        return replace(verdict, sentence=f"{verdict.sentence} {beside}")
    error = replace(verdict.error, text=f"{verdict.error.text} {beside}", kind=FaultKind.FAILED)
    return Refuse(error)


def _judge_shown(entry: Entry, call: Ended, volume: Volume | None) -> Applied | Refuse:
    error = call.error
    if is_wanted(entry, volume):
        if error is None:
            return Applied(volume, "CloudStack did it, and shows it.")
        return Applied(volume, f"CloudStack shows the volume as ordered, though it said: {error.text}", error)
    if error is not None:
        return Refuse(error)
    shown = "does not list the volume" if volume is None else f"shows it on {_holder(volume)}"
    return failed("cloudstack_contradiction", f"CloudStack said that it succeeded, but it {shown}.")


def _judge_create(call: Ended, volume: Volume | None) -> Applied | Refuse:
    if call.error is not None:
        return Refuse(call.error)
    if volume is None:
        return failed("cloudstack_contradiction", "CloudStack said that it succeeded, but it lists no new volume.")
    return Applied(volume, "CloudStack created the volume, and shows it.")


def job_error(job: JobResult) -> OperationError | None:
    """None where the job succeeded. Only 431 says that nothing was changed; 530 and silence leave it open."""
    if job.status is JobStatus.SUCCEEDED:
        return None
    if job.status is JobStatus.ABSENT:
        text = f"CloudStack does not know the job {job.id} any more; what it did is unknown."
        return OperationError("outcome_unknown", FaultKind.FAILED, text)
    text = job.errortext or "the job failed without a reason"
    return OperationError(
        code="cloudstack_error",
        kind=FaultKind.REFUSED if job.refused else FaultKind.FAILED,
        text=f"CloudStack {job.errorcode or 'job'}: {text}",
        errorcode=job.errorcode,
        errortext=text,
    )


def _holder(volume: Volume) -> str:
    if volume.vm_id is None:
        return "no VM"
    return f"the VM {volume.vm_name} ({volume.vm_id})" if volume.vm_name else f"the VM {volume.vm_id}"


def remote_path(vm_id: str, volume_id: str) -> str:
    """The device path of a volume on another VM: `device_path` is unique and not null, and nothing is there for us."""
    return f"remote-vm-{vm_id}-{volume_id}"


def unlocated_path(volume_id: str) -> str:
    """The device path of a volume that CloudStack attached and the OMA does not show (yet)."""
    return f"unlocated-{volume_id}"
