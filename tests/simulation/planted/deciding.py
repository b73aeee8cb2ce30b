"""Planted bugs in what a run decides: what counts as a proof, what may follow what, and how a run ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.domain.actions import Action, ActionKind, PlannedAction
from oma.domain.changes import Change, IssueOpened
from oma.domain.errors import Code, OmaError
from oma.domain.holders import NBD_CLIENT, DeviceHolders
from oma.domain.records import VmRecords
from oma.domain.states import Phase
from oma.domain.undoing import Return, find_returns
from oma.ports import RemoteOutcome, RemoteStatus
from oma.service import cleanup, issues
from oma.workflow import (
    asking_again,
    compensation,
    drivers,
    needs,
    parking,
    released,
    reverting,
    runner,
    snapshot_rules,
    telling,
)
from oma.workflow.actions import perform
from oma.workflow.guards import failovers as guarded_failovers
from oma.workflow.guards import snapshots as guarded_snapshots
from oma.workflow.journal import Journal
from oma.workflow.look import Look, Verdict
from oma.workflow.phases import detach, reattach, reset, snapshots
from oma.workflow.phases.outcome import PhaseOutcome, skipped
from oma.workflow.recovery import find_revert_end
from oma.workflow.run import Failure, Parked, Run

Patch = pytest.MonkeyPatch


def _revert_and_shrug(patch: Patch) -> None:
    async def revert(run: Run, reverts: Sequence[PlannedAction], ask_first: Any) -> None:
        with suppress(Parked):
            await perform(run, reverts, ask_first=ask_first)

    patch.setattr(snapshots, "revert_until_proven", revert)
    patch.setattr(snapshots, "_require_proof", _pass)


def delete_before_proof(patch: Patch) -> None:
    """Snapshots are deleted whether or not every revert is proven."""
    _revert_and_shrug(patch)


def window_is_not_waited_out(patch: Patch) -> None:
    """A revert whose job has ended without proof counts as over at once, whatever the hypervisor may still write."""

    def find_end(action: Action, now: datetime, *, window_s: float, **more: Any) -> Any:
        return find_revert_end(action, now, window_s=0.0 * window_s, **more)

    async def over(*_window: Any) -> float:
        return 0.0

    patch.setattr(reverting, "find_revert_end", find_end)
    for module in (reverting, released):
        patch.setattr(module, "find_window_left_s", over)


def attach_on_unknown(patch: Patch) -> None:
    """A volume goes home although nobody knows how its revert ended; at least its snapshot stays."""
    _revert_and_shrug(patch)
    patch.setattr(snapshots, "_delete", _pass_later)
    patch.setattr(reattach, "_require_proof", _pass)


def applied_deletes(patch: Patch) -> None:
    """A person's APPLIED on a revert is taken for its proof, and the snapshots go."""
    patch.setattr(snapshots, "unproven_reverts", lambda _run: [])


def device_check_skipped(patch: Patch) -> None:
    """Detached in CloudStack is taken for detached, whatever the OMA shows."""

    def is_free(self: Look, volume_id: str) -> bool:
        volume = self.volumes.get(volume_id)
        return volume is not None and volume.vm_id is None and volume.is_settled

    patch.setattr(Look, "is_free", is_free)


def refused_is_detached(patch: Patch) -> None:
    """A detach that CloudStack refuses with 431 is taken for one that was done already."""
    believed: set[str] = set()
    judge = drivers.DRIVERS[ActionKind.DETACH_VOLUME].judge
    is_free = Look.is_free

    async def believe(run: Run, action: Action, outcome: RemoteOutcome) -> Verdict:
        code = outcome.upstream.code if outcome.upstream is not None else ""
        if outcome.status in (RemoteStatus.REFUSED, RemoteStatus.FAILED) and code == "431":
            believed.add(action.target.get_volume_id())
            return Verdict(proven=True, sentence="431: it is not attached.")
        return await judge(run, action, outcome)

    _drive(patch, ActionKind.DETACH_VOLUME, judge=believe)
    patch.setattr(Look, "is_free", lambda self, volume_id: volume_id in believed or is_free(self, volume_id))


def destroy_without_the_volume_check(patch: Patch) -> None:
    """The test VM goes as soon as it has stopped; nobody looks what it still holds."""
    ordinary = detach._detach

    async def detach_after_destroying(run: Run, *args: Any) -> None:
        await perform(run, run.planned(Phase.RESET, ActionKind.DESTROY_VM))
        await ordinary(run, *args)

    patch.setattr(detach, "_detach", detach_after_destroying)


def proven_revert_made_again(patch: Patch) -> None:
    """After a restart a revert that was proven is not remembered as done."""
    is_done = Run.is_done

    def forgets(self: Run, planned: Any) -> bool:
        action = self.find_action(planned)
        found = action is not None and not self.began(action)
        return is_done(self, planned) and not (found and planned.kind is ActionKind.REVERT_SNAPSHOT)

    patch.setattr(Run, "is_done", forgets)


def completed_away_from_home(patch: Patch) -> None:
    """The run completes without attaching anything, and does not look where the volumes are."""

    async def leave(_run: Run) -> PhaseOutcome:
        return skipped("Every volume is home already.")

    patch.setitem(runner.PHASE_RUNS, Phase.REATTACH, leave)
    patch.setattr(reset, "_require_home", _pass_later)


def status_left_wrong(patch: Patch) -> None:
    """The reset leaves the VM at a status that no scheduler and no person expects."""
    ordinary = reset._records
    patch.setattr(reset, "_records", lambda *args: replace(ordinary(*args), new_status="failed_over_test"))


def parked_without_an_issue(patch: Patch) -> None:
    """A run parks, and nobody is told what to settle."""
    _drop(patch, lambda change: isinstance(change, IssueOpened))


def only_the_first_is_named(patch: Patch) -> None:
    """Of several uncertain actions only the first gets an issue."""
    ordinary = parking.park

    async def park(run: Run, failures: tuple[Failure, ...], **more: Any) -> str:
        return await ordinary(run, failures[:1], **more)

    patch.setattr(runner, "park", park)
    patch.setattr(compensation, "park", park)


def one_left_behind(patch: Patch) -> None:
    """A run that goes back forgets one of the volumes that it had detached."""
    ordinary = find_returns

    def find_all_but_one(*args: Any) -> tuple[Return, ...]:
        return ordinary(*args)[:-1]

    patch.setattr(compensation, "find_returns", find_all_but_one)


def exported_unproven(patch: Patch) -> None:
    """What comes home on the way back is exported as ever, though its content is not proven."""

    async def submit(run: Run, action: Action) -> str:
        return await run.tools.volumes.submit_attach(
            action.target.get_volume_id(),
            action.target.get_vm_id(),
            request_id=action.request_id,
            fence=run.lease.fence,
        )

    _drive(patch, ActionKind.ATTACH_VOLUME, submit=submit)


def marker_left(patch: Patch) -> None:
    """No run takes its marker off."""

    async def keep(_run: Run) -> list[Change]:
        return []

    for module in (compensation, parking, runner):
        patch.setattr(module, "end_markers", keep)
    patch.setattr(reset, "end_markers_by", lambda *_: [])


def attached_to_the_test_vm(patch: Patch) -> None:
    """The volumes are attached to the VM that they were taken from."""

    async def submit(run: Run, action: Action) -> str:
        test_vm = run.plan.test_vm
        return await run.tools.volumes.submit_attach(
            action.target.get_volume_id(),
            test_vm.vm_id if test_vm is not None else action.target.get_vm_id(),
            request_id=action.request_id,
            fence=run.lease.fence,
        )

    _drive(patch, ActionKind.ATTACH_VOLUME, submit=submit)


def forced_by_itself(patch: Patch) -> None:
    """The test VM is stopped by force at once."""

    async def submit(run: Run, action: Action) -> str:
        return await run.tools.cloud.submit_stop_vm(
            action.target.get_vm_id(), forced=True, request_id=action.request_id, expires_at=action.expires_at
        )

    _drive(patch, ActionKind.STOP_VM, submit=submit)


def everything_is_refused(patch: Patch) -> None:
    """No clean-up is ever begun."""

    def refuse(_records: VmRecords) -> None:
        raise OmaError(Code.STATE_UNKNOWN, "Nothing is done today.")

    patch.setattr(cleanup, "_refuse_if_occupied", refuse)


def no_word_is_taken(patch: Patch) -> None:
    """Whatever a person says of an issue is contradicted: what is parked stays parked."""

    async def contradict(*_args: object) -> None:
        raise OmaError(Code.RESOLUTION_CONTRADICTED, "It is otherwise.")

    patch.setattr(issues, "_judge", contradict)


def replications_are_not_asked_about(patch: Patch) -> None:
    """Nobody looks whether a replication has begun, or has stored a change id, since the snapshots were made."""
    for module in (asking_again, snapshot_rules, guarded_snapshots):
        patch.setattr(module, "replicated_since", _none)
    for module in (asking_again, telling, needs, guarded_failovers):
        patch.setattr(module, "is_recently_touched", _none)
    patch.setattr(asking_again, "change_ids_since", _none)
    patch.setattr(asking_again, "_begun_meanwhile", _none)
    _hide_clients(patch)


def clients_are_not_seen(patch: Patch) -> None:
    """An NBD client that is connected to a device is taken for nobody, and its replication for a dead one."""
    _hide_clients(patch)
    for module in (asking_again, telling, needs, guarded_failovers):
        patch.setattr(module, "is_recently_touched", _none)
    for module in (snapshot_rules, guarded_snapshots):
        patch.setattr(module, "replicated_since", _none)


def _hide_clients(patch: Patch) -> None:
    ordinary = VolumeDaemonVolumes.list_holders

    async def list_holders(self: VolumeDaemonVolumes, volume_id: str) -> DeviceHolders | None:
        found = await ordinary(self, volume_id)
        return found and replace(found, holders=tuple(one for one in found.holders if one.kind != NBD_CLIENT))

    patch.setattr(VolumeDaemonVolumes, "list_holders", list_holders)


def unproven_counts_as_executed(patch: Patch) -> None:
    """A revert whose job failed is journaled as EXECUTED all the same."""

    async def judge(_run: Run, _action: Action, outcome: RemoteOutcome) -> Verdict:
        return Verdict(proven=True, sentence="It is reverted.", evidence={"job": outcome.status.value})

    _drive(patch, ActionKind.REVERT_SNAPSHOT, judge=judge)


def _drive(patch: Patch, kind: ActionKind, **fields: Any) -> None:
    patch.setitem(drivers.DRIVERS, kind, replace(drivers.DRIVERS[kind], **fields))


def _drop(patch: Patch, unwanted: Any) -> None:
    ordinary = Journal.write

    async def write(self: Journal, *changes: Change) -> None:
        kept: Sequence[Change] = [change for change in changes if not unwanted(change)]
        if kept:
            await ordinary(self, *kept)

    patch.setattr(Journal, "write", write)


def _pass(*_args: object) -> None:
    return None


def _none(*_args: object) -> tuple[()]:
    return ()


async def _pass_later(*_args: object) -> None:
    return None
