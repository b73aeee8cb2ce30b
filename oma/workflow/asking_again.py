"""Is anybody else at it meanwhile? Asked right before each detach from the OMA, before the first revert and the reset.

Source: sections 3 and 6 of the safety rules. Between an analysis and a change minutes may pass, and neither the
existing programs nor a person heeds our leases: a replication may have begun, a process opened a device, a failover
started. What is found parks the run with its evidence; nothing more is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.errors import Code
from oma.domain.holders import DeviceHolders
from oma.domain.records import CLEANUP_REQUIRED, ReplicationRecord, VmRecords
from oma.domain.resolving import Resolution
from oma.domain.states import Phase
from oma.domain.world import CloudSnapshot, Unanswered
from oma.ports import Fault, UpstreamError
from oma.workflow.holding import how_to_let_go, name_holders, unread_words
from oma.workflow.life import is_recently_touched
from oma.workflow.look import ask
from oma.workflow.released import released_reverts
from oma.workflow.replicated import change_ids_since, made_at, replicated_since
from oma.workflow.run import Failure, Parked, Run
from oma.workflow.since import to_the_second

NOTHING_RESET: Final = "Nothing was reset. When it has ended, say RESYNC, and the reverted disks are copied whole."


@dataclass(frozen=True, slots=True)
class Others:
    """What others do to the VM, by questions asked after this look began."""

    records: VmRecords
    holders: Mapping[str, DeviceHolders | Unanswered | None]
    """Of the plan's volumes whose device the OMA shows; None: the device came or went while it was looked at."""
    at: datetime


async def look_for_others(run: Run) -> Others:
    """Raises `OmaError` and `Stopped`; a Volume Daemon that does not say who holds a device is in the answer."""
    tools = run.tools
    at = tools.clock.now()
    records = await tools.inventory.get_records(run.plan.context_id)
    scan = await ask(run, tools.volumes.scan_devices)
    shown = [volume.volume_id for volume in run.plan.volumes if scan.shows(volume.volume_id)]
    answers = await asyncio.gather(*(_holders(run, volume_id) for volume_id in shown))
    return Others(records, dict(zip(shown, answers, strict=True)), at)


async def refuse_detach(run: Run, planned: PlannedAction) -> None:
    """Right before one volume is detached: from the OMA only where nobody holds its device and nothing replicates.

    Raises `Parked`. A stopped test VM has no writer; a detach from it needs none of this.
    """
    if planned.target.vm_id != run.plan.oma_vm_id:
        return
    others = await look_for_others(run)
    failures = [*_status_problems(run, others, Phase.DETACH), *_alive(run, others, Phase.DETACH, scan_matters=True)]
    failures += _held(run, others, planned)
    if failures:
        raise Parked(_about_begun(run, planned, failures))


def told_once(failures: Sequence[Failure]) -> list[Failure]:
    """The same reason may have stopped several detaches."""
    return list({(one.sentence, one.action.id if one.action else None): one for one in failures}.values())


async def problems_before_revert(run: Run, records: VmRecords, snapshots: Sequence[CloudSnapshot]) -> list[Failure]:
    """Why the first revert must not be sent: its snapshots are those of this run, `records` were read just now.

    A replication after the oldest of the snapshots counts also when it has ended: a revert would put the disk behind
    its change id. A status or a failover of somebody else's counts because then the VM is no longer ours.
    """
    others = await look_for_others(run)
    made = [(one.volume_id, at) for one in snapshots if one.volume_id and (at := made_at(records, one)) is not None]
    since = dict.fromkeys(sentence for volume_id, at in made for sentence in replicated_since(records, volume_id, at))
    alive = list(_alive(run, others, Phase.SNAPSHOTS))
    failures = [*_status_problems(run, others, Phase.SNAPSHOTS), *alive]
    if not alive:
        failures += [_failure(Phase.SNAPSHOTS, Code.REPLICATED_SINCE_SNAPSHOT, sentence) for sentence in since]
    return failures


async def refuse_reset(run: Run) -> None:
    """Right before the records are reset: nothing replicates, and since a revert nothing has. Raises `Parked`.

    What was written to a disk that is copied whole anyway does not count. The status, the current job and the open
    failovers are guarded by the reset's own transaction.
    """
    others = await look_for_others(run)
    failures = list(_alive(run, others, Phase.RESET))
    reverted = _kept_reverts(run)
    if run.reverted and reverted and not failures:
        failures += [
            _failure(Phase.RESET, Code.OPERATION_IN_PROGRESS, f"{sentence} {NOTHING_RESET}", _row(replication))
            for replication, sentence in _begun_meanwhile(run, others)
        ]
        failures += [
            _failure(Phase.RESET, Code.OPERATION_IN_PROGRESS, f"{sentence} {NOTHING_RESET}")
            for sentence in _change_ids_meanwhile(run, others, reverted)
        ]
    if failures:
        raise Parked(failures)


def _kept_reverts(run: Run) -> list[str]:
    """Volumes whose content rests on their revert, not on a full copy that is yet to come."""
    given_up = {one.target.volume_id for one in released_reverts(run, Resolution.RESYNC)}
    planned = (one.target.get_volume_id() for one in run.planned(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT))
    return [one for one in planned if one not in given_up]


def _about_begun(run: Run, planned: PlannedAction, failures: list[Failure]) -> list[Failure]:
    """An action that an earlier process began is named, with all reasons at once: it has one issue."""
    action = run.find_action(planned)
    if action is None:
        return failures
    sentence = " ".join(failure.sentence for failure in failures)
    evidence = {"reasons": [dict(failure.evidence) for failure in failures]}
    return [Failure(Code.CLEANUP_FAILED, sentence, planned.phase, action, unknown=True, evidence=evidence)]


async def _holders(run: Run, volume_id: str) -> DeviceHolders | Unanswered | None:
    volumes = run.tools.volumes
    try:
        return await ask(run, lambda: volumes.list_holders(volume_id))
    except UpstreamError as error:
        code = error.upstream.code if error.fault is Fault.REFUSED else None
        return Unanswered(f"who holds {volume_id}", error.upstream.system, error.upstream.text, code)


def _status_problems(run: Run, others: Others, phase: Phase) -> Iterator[Failure]:
    """Somebody else took the VM over: its status or current job is no longer what this run left, or a failover began.

    Source of the guard: the reset compares the same (`RecordsReset`); asked here before bytes change.
    """
    context, plan = others.records.context, run.plan
    if context.current_status != CLEANUP_REQUIRED:
        sentence = (
            f"Somebody else set the status of {plan.vm_name} to {context.current_status} during this run, which had "
            f"set {CLEANUP_REQUIRED}; nothing more is sent."
        )
        yield _failure(phase, Code.OPERATION_IN_PROGRESS, sentence, {"current_status": context.current_status})
    if (context.current_job_id or None) != (plan.former_job_id or None):
        sentence = (
            f"Somebody else set the current job of {plan.vm_name} to {context.current_job_id or 'none'} during this "
            "run; nothing more is sent."
        )
        yield _failure(phase, Code.OPERATION_IN_PROGRESS, sentence, {"current_job_id": context.current_job_id})
    for failover in others.records.failovers:
        if failover.is_open and failover.id not in plan.open_failover_ids:
            sentence = f"Failover {failover.job_id} of {plan.vm_name} began during this run; nothing more is sent."
            yield _failure(phase, Code.OPERATION_IN_PROGRESS, sentence, {"failover_job_id": failover.job_id})


def _alive(run: Run, others: Others, phase: Phase, *, scan_matters: bool = False) -> Iterator[Failure]:
    """A replication is alive while a client is connected, or its row is open and was touched lately.

    An open row whose writer can't be told to be gone counts too. `scan_matters`: without any row as well.
    """
    for volume_id, answer in others.holders.items():
        name = run.plan.get_volume(volume_id).name
        if isinstance(answer, DeviceHolders) and answer.clients:
            sentence = (
                f"{name} is being replicated on the OMA, by {name_holders(answer.clients)}; nothing more is sent."
            )
            yield _failure(phase, Code.OPERATION_IN_PROGRESS, sentence, _evidence(volume_id, answer))
    still_open = [replication for replication in others.records.replications if replication.is_open]
    for replication in still_open:
        if is_recently_touched(replication, others.at, run.tools.limits):
            sentence = (
                f"Replication {replication.id} is {replication.status} and was touched at "
                f"{_time(replication.last_touched_at)}; nothing more is sent."
            )
            yield _failure(phase, Code.OPERATION_IN_PROGRESS, sentence, _row(replication))
    if still_open or scan_matters:
        for volume_id, answer in others.holders.items():
            # A device that is gone by now has no client; the run itself may have detached it.
            if isinstance(answer, Unanswered) or (answer is not None and not answer.complete):
                yield _untold(run, phase, volume_id, answer)


def _untold(run: Run, phase: Phase, volume_id: str, answer: DeviceHolders | Unanswered | None) -> Failure:
    sentence = (
        f"Who holds the device of {run.plan.get_volume(volume_id).name} on the OMA can't be told: "
        f"{unread_words(answer)}; nothing more is sent."
    )
    return _failure(phase, Code.STATE_UNKNOWN, sentence, _evidence(volume_id, answer))


def _held(run: Run, others: Others, planned: PlannedAction) -> Iterator[Failure]:
    """Nobody holds the device that is about to go; its clients have been told of as a replication."""
    volume_id = planned.target.get_volume_id()
    answer = others.holders.get(volume_id)
    if answer is None and volume_id in others.holders:
        yield _untold(run, Phase.DETACH, volume_id, answer)
    if not isinstance(answer, DeviceHolders):
        return
    holders = [one for one in answer.holders if one not in answer.clients]
    if holders:
        steps = "; ".join(dict.fromkeys(how_to_let_go(one) for one in holders))
        sentence = (
            f"{run.name_of(planned.target)} is held on the OMA by {name_holders(holders)}; it is not "
            f"detached. Close what holds it: {steps}."
        )
        evidence = _evidence(answer.volume_id, answer)
        yield _failure(Phase.DETACH, Code.DEVICE_IN_USE, sentence, evidence)


def _begun_meanwhile(run: Run, others: Others) -> Iterator[tuple[ReplicationRecord, str]]:
    """Replications that started or ended after this run was asked for: they may have written over what was reverted."""
    since = to_the_second(run.job.created_at)
    for replication in others.records.replications:
        for verb, at in (("started", replication.started_at), ("ended", replication.completed_at)):
            if at is not None and at >= since:
                yield replication, f"Replication {replication.id} {verb} at {_time(at)}, during this run."
                break


def _change_ids_meanwhile(run: Run, others: Others, reverted: Sequence[str]) -> list[str]:
    """Sentences about change ids that were stored for a reverted volume after this run was asked for."""
    since = to_the_second(run.job.created_at)
    found = (change_ids_since(others.records, volume_id, since) for volume_id in reverted)
    return list(dict.fromkeys(sentence for sentences in found for sentence in sentences))


def _row(replication: ReplicationRecord) -> dict[str, Any]:
    return {
        "replication_id": replication.id,
        "status": replication.status,
        "touched_at": _time(replication.last_touched_at),
    }


def _time(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None


def _evidence(volume_id: str, answer: DeviceHolders | Unanswered | None) -> dict[str, Any]:
    if not isinstance(answer, DeviceHolders):
        return {"volume_id": volume_id, "answer": answer.as_json() if answer else None}
    return {
        "volume_id": volume_id,
        "holders": [one.as_json() for one in answer.holders],
        "unread": list(answer.unread),
        "scanned_at": answer.scanned_at.isoformat(),
    }


def _failure(phase: Phase, code: Code, sentence: str, evidence: Mapping[str, Any] | None = None) -> Failure:
    """The job and its issue say `cleanup_failed`; which guard it was stands in the sentence and the evidence."""
    return Failure(Code.CLEANUP_FAILED, sentence, phase, evidence={"code": code.value, **(evidence or {})}, guard=code)
