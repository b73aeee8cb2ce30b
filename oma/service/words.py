"""The words that a person says, held against the VM's records: what they cannot be about is refused before any look."""

from __future__ import annotations

from oma.domain.errors import Code, OmaError
from oma.domain.records import FailoverRecord, VmRecords
from oma.domain.words import Words


def check_words(records: VmRecords, words: Words) -> None:
    """Raises `invalid_request` with the field, what is allowed there and what to do."""
    if words.destination_vm_id is not None:
        _check_destination(records, words.destination_vm_id)
    if words.force and not records.last_run_failed and words.destination_vm_id is None:
        raise _invalid(
            records,
            "force",
            f"force goes past what a run could not do, and the last clean-up of {records.context.vm_name} did not "
            "fail (or there was none); ask for a clean-up without force first.",
            "after a failed run of the same VM",
        )
    _check_snapshots(records, words)


def _check_destination(records: VmRecords, vm_id: str) -> None:
    """It names the VM of a live failover that is judged: the newest one, or one that never ended."""
    newest, name = records.newest_failover, records.context.vm_name
    live = [one for one in records.failovers if one.job_type != "test" and (one is newest or one.is_open)]
    known = [one.destination_vm_id for one in live if one.destination_vm_id]
    if vm_id in known:
        return
    if not live:
        sentence = (
            f"destination_vm_id is for a live failover, and {name} has none that is open or newest; leave it out."
        )
        raise _invalid(records, "destination_vm_id", sentence)
    if not known:
        sentence = f"{_name(live[0])} of {name} recorded no VM; leave destination_vm_id out."
        raise _invalid(records, "destination_vm_id", sentence)
    other = next((one for one in records.failovers if one.destination_vm_id == vm_id), None)
    whose = f" belongs to the failover {other.job_id}" if other else " is not the VM of any failover of it"
    raise _invalid(
        records,
        "destination_vm_id",
        f"{vm_id}{whose}; {_name(live[0])} of {name} made the VM {known[0]}. Look at that one before you name it.",
        known,
    )


def _check_snapshots(records: VmRecords, words: Words) -> None:
    own = {volume.volume_id for volume in records.volumes}
    foreign = [volume_id for volume_id, _ in words.snapshots if volume_id not in own]
    if foreign:
        raise _invalid(
            records,
            "snapshots",
            f"{', '.join(foreign)} is no volume of {records.context.vm_name}; name only its own.",
            sorted(own),
        )


def _name(failover: FailoverRecord) -> str:
    return f"the {failover.job_type} failover {failover.job_id}"


def _invalid(records: VmRecords, field: str, sentence: str, allowed: object = None) -> OmaError:
    more = {} if allowed is None else {"allowed": allowed}
    text = sentence[:1].upper() + sentence[1:] if sentence.startswith("the ") else sentence
    return OmaError(Code.INVALID_REQUEST, text, field=field, vm_name=records.context.vm_name, **more)
