"""What `force` passes: exactly four failures, each only after the ordinary way came to its end, each tracked as a leak.

Source: sections 4 and 8 of the safety rules. It never passes what is unknown: the other side's job has ended, and the
world was seen afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from oma.domain.actions import Action, ActionKind
from oma.domain.changes import LeakTracked, Noted
from oma.domain.errors import Code
from oma.domain.forcing import FORCED, HOST, UNFORCED, is_export_fault, was_forced
from oma.domain.leaks import Leak, LeakKind
from oma.domain.states import DONE_ACTION_STATES, ActionState, LogLevel, Phase
from oma.domain.world import VmHost
from oma.ports import RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.look import Verdict, ask, until_stopped
from oma.workflow.run import Failure, Run

LEAK: Final = "leak"
"""In an action's evidence: what it left behind."""
ENDED: Final = frozenset({RemoteStatus.SUCCEEDED, RemoteStatus.REFUSED, RemoteStatus.FAILED})
HOST_UP: Final = "Up"


@dataclass(frozen=True, slots=True)
class Passage:
    """How an action ends that leaves something behind."""

    state: ActionState
    leak: Leak

    @property
    def change(self) -> LeakTracked:
        return LeakTracked(self.leak, f"Left behind by force: {self.leak.sentence}")


def find_passage(run: Run, action: Action, outcome: RemoteOutcome, verdict: Verdict) -> Passage | None:
    """How force lets this action end; None where it ends as any other does, or fails."""
    if action.kind is ActionKind.STOP_VM:
        if not (verdict.proven and was_forced(action)):
            return None
        host = action.evidence.get(HOST) or {}
        where = f" on the host {host.get('name') or host.get('id')}" if host else ""
        sentence = f"The test VM {action.target.vm_id} was stopped by force; see that no process of it is left{where}."
        return Passage(ActionState.EXECUTED, _build_leak(run, action, LeakKind.FORCED_STOP, sentence))
    if not run.job.request.words.passes_failures or not _failed_for_good(outcome, verdict):
        return None
    target = action.target
    match action.kind:
        case ActionKind.DELETE_SNAPSHOT:
            sentence = (
                f"The snapshot {target.snapshot_id} of {run.name_of(target)} could not be deleted and is kept, "
                f"untracked; delete it: cs deleteSnapshot id={target.snapshot_id}"
            )
            return Passage(ActionState.SKIPPED, _build_leak(run, action, LeakKind.SNAPSHOT_KEPT, sentence))
        case ActionKind.DESTROY_VM:
            sentence = (
                f"The test VM {target.vm_id} could not be destroyed and is left; when nothing hangs on it any more, "
                f"destroy it: cs destroyVirtualMachine id={target.vm_id}"
            )
            return Passage(ActionState.SKIPPED, _build_leak(run, action, LeakKind.TEST_VM_KEPT, sentence))
        case ActionKind.ATTACH_VOLUME if verdict.evidence.get("export"):
            sentence = (
                f"{run.name_of(target)} is home, but its NBD export did not come back; put it back before the next "
                f"replication, and see it: curl http://127.0.0.1:8090/api/v1/exports/{target.volume_id}"
            )
            return Passage(ActionState.EXECUTED, _build_leak(run, action, LeakKind.EXPORT_MISSING, sentence))
        case _:
            return None


async def build_forced_stop(run: Run, action: Action, outcome: RemoteOutcome, verdict: Verdict) -> Action | None:
    """The next attempt at a stop that came to no end unforced; None where it may not be forced.

    The host is asked for while the VM still has one: afterwards CloudStack names none.
    """
    if (
        action.kind is not ActionKind.STOP_VM
        or not run.job.request.words.passes_failures
        or action.evidence.get(FORCED)
    ):
        return None
    if outcome.status not in (*ENDED, RemoteStatus.PENDING) or not verdict.evidence.get("vm_state"):
        return None
    try:
        host: VmHost | None = await ask(run, lambda: run.tools.cloud.find_host(action.target.get_vm_id()))
    except UpstreamError:
        return None
    return replace(
        action,
        state=ActionState.STARTED,
        attempt=action.attempt + 1,
        remote_id=None,
        intent_at=run.tools.clock.now(),
        sent_at=None,
        ended_at=None,
        evidence={
            FORCED: True,
            UNFORCED: {**verdict.evidence, "job": outcome.status.value},
            HOST: {"id": host.id, "name": host.name} if host else action.evidence.get(HOST),
        },
        error=None,
        sentence=f"Stop the test VM {action.target.vm_id} by force: {run.job.request.words.force_reason}",
    )


async def wait_until_dead(run: Run) -> list[Failure]:
    """Before the first revert after a forced stop: `Stopped` seen twice, some time apart, and the host Up.

    A QEMU that a forced stop left behind would write into the reverted file. Where CloudStack names no host, or
    `listHosts` is not allowed, the person's word counts, and the log says so. A VM that is destroyed or not listed any
    more is not seen `Stopped`: CloudStack no longer compares it with what its host reports.
    """
    stop = await _find_forced_stop(run)
    if stop is None:
        return []
    vm_id, wait_s = stop.target.get_vm_id(), run.tools.figures.stopped_again_s
    for last in (False, True):
        vms = await ask(run, lambda: run.tools.cloud.list_vms([vm_id]))
        state = vms[0].state if vms else "not listed"
        if not vms or not vms[0].is_stopped:
            name = vms[0].name if vms else vm_id
            sentence = f"The test VM {name} was stopped by force and is {state}, not Stopped; nothing is reverted."
            return [Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS, evidence={"vm_state": state})]
        if not last:
            message = f"The test VM was stopped by force: it is to be seen {state} again in {wait_s:.0f} s."
            await run.journal.write(Noted(LogLevel.INFO, message, Phase.SNAPSHOTS, {"vm_id": vm_id}))
            await until_stopped(run, run.tools.clock.sleep(wait_s))
    return await _host_failures(run, stop)


async def _host_failures(run: Run, stop: Action) -> list[Failure]:
    host: dict[str, Any] = stop.evidence.get(HOST) or {}
    name = host.get("name") or host.get("id")
    state = await ask(run, lambda: run.tools.cloud.find_host_state(host["id"])) if host else None
    if state is None:
        message = (
            f"CloudStack does not tell how the host {name or 'of the test VM'} stands; the word of "
            f"{run.job.requested_by} counts: {run.job.request.words.force_reason}"
        )
        await run.journal.write(Noted(LogLevel.WARN, message, Phase.SNAPSHOTS, {"host": host}))
        return []
    if state == HOST_UP:
        return []
    sentence = (
        f"The test VM was stopped by force, and its host {name} is {state}: whether a process of it still writes there "
        "can't be told; nothing is reverted."
    )
    evidence = {"host": name, "host_state": state}
    return [Failure(Code.CLEANUP_FAILED, sentence, Phase.SNAPSHOTS, unknown=True, evidence=evidence)]


async def _find_forced_stop(run: Run) -> Action | None:
    """The one of this run, or that of a run before it that was partial or went back."""
    test_vm = run.plan.test_vm
    records = await run.tools.inventory.get_records(run.plan.context_id)
    stops = [
        one
        for one in (*records.proven, *records.undone, *run.actions)
        if one.kind is ActionKind.STOP_VM and one.state in DONE_ACTION_STATES and was_forced(one)
    ]
    mine = [one for one in stops if test_vm is None or one.target.vm_id == test_vm.vm_id]
    return mine[-1] if mine else None


def leaks_of(run: Run) -> list[dict[str, Any]]:
    """What this run left behind by force, also before a restart: it stands in its actions' evidence."""
    found = [action.evidence[LEAK] for action in run.actions if action.evidence.get(LEAK)]
    return sorted(found, key=lambda leak: str(leak["since"]))


def leak_sentences(run: Run) -> list[str]:
    return [str(leak["sentence"]) for leak in leaks_of(run)]


def is_left_behind(action: Action | None) -> bool:
    return action is not None and bool(action.evidence.get(LEAK))


def _failed_for_good(outcome: RemoteOutcome, verdict: Verdict) -> bool:
    """The job has ended, and the world was seen to stand still without the effect."""
    return not verdict.proven and outcome.status in ENDED and bool(verdict.evidence) and not verdict.in_transition


def _build_leak(run: Run, action: Action, kind: LeakKind, sentence: str) -> Leak:
    return Leak(
        id=run.tools.ids.new_id(),
        context_id=run.plan.context_id,
        vm_name=run.plan.vm_name,
        job_id=run.job.id,
        kind=kind,
        target=action.target.as_json(),
        sentence=sentence,
        reason=run.job.request.words.force_reason,
        since=run.tools.clock.now(),
    )


def export_words(outcome: RemoteOutcome) -> str | None:
    """What the Volume Daemon said of an attachment that stands and whose export failed."""
    upstream = outcome.upstream
    return upstream.text if upstream is not None and is_export_fault(upstream.as_json()) else None
