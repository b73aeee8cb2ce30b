"""The two things that every answer ends with: is the replica good, and what comes next? Pure.

`ready` is said only where every revert that was needed is proven by its own job, or none was needed, and nothing that
is still uncertain is about the content of a disk.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oma.domain.actions import Action, ActionKind
from oma.domain.errors import Code, Refusal
from oma.domain.issues import CANCELLED
from oma.domain.jobs import CleanupRequest
from oma.domain.plan import Plan
from oma.domain.records import VmRecords
from oma.domain.states import ActionState, Phase, Replica
from oma.domain.words import Words

POWER_OFF_STEP: Final = "source-vm-power-off"
SOURCE_OFF: Final = "The source VM was powered off by this failover; start it in vCenter."
RUN_EXACTLY: Final = "Run exactly this plan: "
"""Before the command in what is said next about a plan."""
GOOD: Final = "The replica is good; nothing has to be done before the next failover."

HARMLESS_KINDS: Final = frozenset(
    kind.value for kind in ActionKind if kind not in (ActionKind.REVERT_SNAPSHOT, ActionKind.RESET_RECORDS)
) | {CANCELLED}
"""Actions that change no byte of a disk: their failure leaves the content as good as it was."""

WORLD_IN_DOUBT: Final = frozenset({Code.STATE_UNKNOWN, Code.OPERATION_IN_PROGRESS})
"""Refusals after which nobody can say that nothing needs a revert."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`next` is what the operator does now, one sentence or a few; the source VM comes first where it was stopped."""

    replica: Replica
    next: str

    def as_json(self) -> dict[str, str]:
        return {"replica": self.replica.value, "next": self.next}


def was_source_powered_off(records: VmRecords) -> bool:
    """Whether an open failover reached the step that stops the source VM, however that step ended."""
    logs = [records.joblog_of(failover) for failover in records.failovers if failover.is_open]
    return any(log is not None and POWER_OFF_STEP in log.step_names for log in logs)


def say_source_off(sentence: str, *, source_off: bool) -> str:
    """The sentence, behind the one about the source VM where it was powered off; never twice."""
    if not source_off or sentence.startswith(SOURCE_OFF):
        return sentence
    return f"{SOURCE_OFF} {sentence}".rstrip()


def of_finished(plan: Plan, left_behind: Sequence[str] = ()) -> Verdict:
    """A run that reached its end. `left_behind`: sentences about what still lies about and what to do with it."""
    left = [*_test_vm_left(plan), *left_behind]
    words = ["The replica is good.", *left] if left else [GOOD]
    return _verdict(Replica.READY, plan, *words)


def of_resync(plan: Plan, names: Sequence[str], left_behind: Sequence[str] = ()) -> Verdict:
    """A run whose disks are home, and whose content a person gave up: only a full copy makes it good again."""
    what = _given_up(names)
    then = f"Start a full replication of {plan.vm_name}; don't fail over before it has completed."
    return _verdict(Replica.RESYNC_REQUIRED, plan, what, then, *_test_vm_left(plan), *left_behind)


def of_taken_on_trust(plan: Plan, names: Sequence[str], left_behind: Sequence[str] = ()) -> Verdict:
    """A run whose disks are home, one of them by a person's word, which is no proof of its content."""
    what = f"The content of {' and '.join(names)} rests on a person's word; no job has proven its revert."
    then = "In any doubt, make the replica again from the source before the next failover."
    return _verdict(Replica.UNKNOWN, plan, what, then, *_test_vm_left(plan), *left_behind)


def of_partial(plan: Plan, actions: Collection[Action], left_behind: Sequence[str] = ()) -> Verdict:
    """A run that was not asked to reach the last phase; what it proved stands, and so does what it left behind."""
    replica = Replica.UNKNOWN if unproven_volumes(plan, actions) else Replica.READY
    command = cleanup_command(plan.vm_name, "--context-id", shell_word(plan.context_id))
    again = f"Run the clean-up of {plan.vm_name} again; it goes on from here: {command}"
    return _verdict(replica, plan, *left_behind, again)


def of_plan(plan: Plan, request: CleanupRequest) -> Verdict:
    """What a run of exactly this plan will have come to, if all goes well; and the command that runs it."""
    proven = Phase.SNAPSHOTS in request.phases or not any(volume.needs_revert for volume in plan.volumes)
    after = [] if Phase.RESET in request.phases else ["It does not clean the VM up; a later run goes on from there."]
    if plan.awaiting:
        after.append(f"It makes no replica good: {_given_up(plan.awaiting)}")
    words = [*after, f"{RUN_EXACTLY}{plan_command(plan, request)}"]
    return _verdict(Replica.READY if proven else Replica.UNKNOWN, plan, *words)


def of_begun(plan: Plan, job_id: str) -> Verdict:
    """A run that is queued or on its way."""
    return _verdict(_while_unproven(plan), plan, f"The run goes on by itself; follow it: oma jobs follow {job_id}")


def of_parked(plan: Plan, actions: Collection[Action], issue_kinds: Collection[str], job_id: str) -> Verdict:
    """A run that needs a person. `issue_kinds`: the kinds of its issues, an action's or a phase's."""
    unproven = unproven_volumes(plan, actions)
    in_doubt = [kind for kind in issue_kinds if kind not in HARMLESS_KINDS]
    settle = f"settle the open issue; what to do stands there: oma jobs show {job_id}"
    if unproven:
        what = f"The content of {' and '.join(unproven)} is not proven; don't fail over {plan.vm_name}."
        return _verdict(Replica.UNKNOWN, plan, what, _capital(settle))
    if in_doubt:
        return _verdict(Replica.UNKNOWN, plan, f"Don't fail over {plan.vm_name} before you {settle}")
    what = "The disks' content is good, but the VM is not cleaned up."
    if plan.awaiting:
        what = f"The VM is not cleaned up. {_given_up(plan.awaiting)}"
    return _verdict(Replica.READY, plan, what, f"Before the next failover, {settle}")


def of_ended(plan: Plan, job_id: str) -> Verdict:
    """A run that failed or was cancelled without more being known."""
    return _verdict(_while_unproven(plan), plan, f"See why it ended, then run it again: oma jobs show {job_id}")


def of_cancelled(plan: Plan, job_id: str) -> Verdict:
    """A run that a person stopped before it touched anything."""
    command = cleanup_command(plan.vm_name, "--context-id", shell_word(plan.context_id))
    again = f"Nothing was touched. When you want it again: {command}; see this run: oma jobs show {job_id}"
    return _verdict(_while_unproven(plan), plan, again)


def of_undone(plan: Plan, returned: Sequence[str], stayed: Sequence[str], stopped: Sequence[str]) -> Verdict:
    """A run that went back before the first revert.

    `returned`: volumes that it put on the OMA; `stayed`: those whose detach had no effect; `stopped`: VMs that it
    stopped, which stay so.
    """
    words: list[str] = []
    if plan.awaiting or any(volume.needs_revert for volume in plan.volumes):
        words.append(f"Don't fail over {plan.vm_name}: it is not cleaned up.")
    if returned:
        unexported = {volume.name for volume in plan.volumes if volume.needs_revert}.intersection(returned)
        without = ", without an NBD export until a revert is proven" if unexported else ""
        words.append(f"{_and(returned)} {'is' if len(returned) == 1 else 'are'} back on the OMA{without}.")
    if stayed:
        words.append(f"{_and(stayed)} never left {'its' if len(stayed) == 1 else 'their'} place.")
    words += [f"The VM {vm} was stopped and stays so." for vm in stopped]
    command = cleanup_command(plan.vm_name, "--context-id", shell_word(plan.context_id))
    words.append(f"When what stopped it is mended, clean up again: {command}")
    return _verdict(_while_unproven(plan), plan, *words)


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def of_refusal(
    refusals: Sequence[Refusal], *, needs_revert: bool, source_off: bool, awaits_copy: bool = False
) -> Verdict:
    """Nothing was touched: the replica is as it was, which is known only where nothing needs a revert.

    `awaits_copy`: the content of a disk was given up before, whatever else is in doubt.
    """
    in_doubt = needs_revert or any(refusal.code in WORLD_IN_DOUBT for refusal in refusals)
    replica = Replica.RESYNC_REQUIRED if awaits_copy else Replica.UNKNOWN if in_doubt else Replica.READY
    return Verdict(replica, say_source_off(refusals[0].next_step, source_off=source_off))


def of_error(code: str, fields: Mapping[str, Any]) -> Verdict:
    """For errors that know nothing of the VM; what their `fields` say already stands."""
    said = fields.get("replica")
    replica = Replica(said) if said in tuple(Replica) else Replica.UNKNOWN
    return Verdict(replica, str(fields.get("next") or NEXT.get(code, LOOK_AGAIN)))


def unproven_volumes(plan: Plan, actions: Collection[Action]) -> tuple[str, ...]:
    """Names of the volumes that need a revert which is not proven by its own job."""
    proven = {
        action.target.volume_id
        for action in actions
        if action.kind is ActionKind.REVERT_SNAPSHOT and action.state is ActionState.EXECUTED
    }
    return tuple(one.name for one in plan.volumes if one.needs_revert and one.volume_id not in proven)


def plan_command(plan: Plan, request: CleanupRequest) -> str:
    """The `oma cleanup …` that runs exactly this plan with the same words, ready to be pasted into a shell."""
    words = request.words
    parts = ["--context-id", shell_word(plan.context_id)]
    if frozenset(request.phases) != frozenset(Phase):
        parts += ["--phases", ",".join(phase.value for phase in request.phases)]
    parts += [flag for flag, said in _flags(words) if said]
    if words.destination_vm_id is not None:
        parts += ["--destination-vm-id", shell_word(words.destination_vm_id)]
    for volume_id, snapshot_id in words.snapshots:
        parts += ["--snapshot", f"{shell_word(volume_id)}={shell_word(snapshot_id)}"]
    if words.reason is not None and words.spoken:
        parts += ["--reason", shell_word(words.reason)]
    return cleanup_command(plan.vm_name, *parts, "--expect-plan", plan.digest)


def cleanup_command(vm_name: str, *options: str) -> str:
    """`oma cleanup …` for a shell; a name that begins with a dash stands where it is no option."""
    name = shell_word(vm_name)
    parts = [*options, "--", name] if vm_name.startswith("-") else [name, *options]
    return " ".join(["oma cleanup", *parts])


def forced_resume_command(vm_name: str, context_id: str | None) -> str:
    """What passes the open issues of a parked run that force may pass."""
    which = ("--context-id", shell_word(context_id)) if context_id else ()
    return cleanup_command(vm_name, *which, "--resume", "--force", "--reason", '"…"')


def _flags(words: Words) -> tuple[tuple[str, bool], ...]:
    return (
        ("--end-holders", words.end_holders),
        ("--end-test", words.end_test),
        ("--force", words.force),
        ("--resume", words.resume),
    )


def shell_word(text: str) -> str:
    """Quoted where a shell would take it apart; a name may begin with a dash or hold a quote."""
    plain = text.isascii() and text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return text if plain and not text.startswith("-") else "'" + text.replace("'", "'\\''") + "'"


def _verdict(replica: Replica, plan: Plan, *words: str) -> Verdict:
    """Where a full copy is awaited, nothing but that makes the replica good again."""
    replica = Replica.RESYNC_REQUIRED if plan.awaiting else replica
    return Verdict(replica, say_source_off(" ".join(words), source_off=plan.source_powered_off))


def _while_unproven(plan: Plan) -> Replica:
    return Replica.UNKNOWN if any(volume.needs_revert for volume in plan.volumes) else Replica.READY


def _test_vm_left(plan: Plan) -> list[str]:
    """A leftover that the plan does not destroy is named, so that somebody else removes it."""
    if plan.test_vm is None or any(action.kind is ActionKind.DESTROY_VM for action in plan.actions):
        return list(plan.left_alone)
    vm = plan.test_vm
    if vm.kept:
        emptied = f"The VM {vm.name} of the live failover was emptied and left"
        return [f"{emptied}; remove it in CloudStack if nobody needs it.", *plan.left_alone]
    return [*plan.left_alone, f"The test VM {vm.name} is {vm.state} and was left as it is; remove it in CloudStack."]


def _given_up(names: Sequence[str]) -> str:
    return f"The content of {' and '.join(names)} is not proven, and the next replication copies it whole."


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


LOOK_AGAIN: Final = "Nothing was touched; mend what the sentence says and ask again."
NEXT: Final[Mapping[str, str]] = {
    Code.VM_NOT_FOUND.value: "Look the name up and ask again: oma vms",
    Code.AMBIGUOUS_VM_NAME.value: "Ask again with the context_id of the one that you mean (--context-id).",
    Code.INVALID_REQUEST.value: "Correct the field that is named and ask again; nothing was touched.",
    Code.IDEMPOTENCY_KEY_REUSED.value: "Choose a new Idempotency-Key for this request; nothing was touched.",
    Code.CROSS_SITE.value: "Use the page of this daemon itself, curl or the oma command; nothing was touched.",
    Code.DATABASE_UNAVAILABLE.value: "See that the database runs (oma doctor), then ask again.",
    Code.DATABASE_OLDER_THAN_WORLD.value: "Nothing runs until a person has looked at what is newer than the database.",
    Code.PAUSED.value: "Wait until the daemon is resumed, then ask again; nothing was touched.",
    Code.SHUTTING_DOWN.value: "Ask again in a moment; nothing was touched.",
    Code.INTERNAL_ERROR.value: "See what runs (oma jobs list), and find the correlation id in the daemon's log.",
}
"""What to do about an error that says no next step of its own."""
