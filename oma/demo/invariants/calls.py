"""What must never have been sent to CloudStack, or accepted by it, whatever became of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.demo.invariants.facts import Call, History
from oma.domain.actions import Action, ActionKind
from oma.domain.resolving import resolution_of
from oma.domain.states import ActionState

Found = Iterator[tuple[str, str]]
"""The VM's name, and what was seen."""
EPOCH_KEY: Final = "oma-epoch"
"""Tag on the OMA: the installation's epoch, and the harmless job on which an id is spent that is given up."""
PROBE_KEY: Final = "oma-probe"
"""Tag that nothing carries: by its deletion a daemon learns whether ids are taken, and spends the id of a marking."""
POWER: Final = frozenset({"stopVirtualMachine", "startVirtualMachine", "destroyVirtualMachine"})
TAGS: Final = frozenset({"createTags", "deleteTags"})
NEVER: Final = frozenset({"expungeVirtualMachine", "startVirtualMachine", "deleteVolume", "createVolume"})
"""Commands that a clean-up has no use for."""
BY_WORD: Final = frozenset({ActionState.MANUAL_MARKED_AS_EXECUTED, ActionState.SKIPPED})
NOTHING_RUNS: Final = frozenset({"Stopped", "Destroyed", None})
"""States of a VM that may be destroyed; None: the log that would tell died with the simulator."""


def nothing_held_is_reverted(history: History) -> Found:
    for call in _reverts(history):
        if call.seen.holder is not None:
            yield _about(
                history, call, f"{call.volume_id} was reverted while CloudStack showed it on {call.seen.holder}"
            )
        if call.seen.shown_on:
            seen = ", ".join(call.seen.shown_on)
            yield _about(history, call, f"{call.volume_id} was reverted while {seen} still had its device")


def no_snapshot_goes_before_its_proof(history: History) -> Found:
    for call in history.accepted:
        if call.command != "deleteSnapshot":
            continue
        for volume_id in sorted(_not_reverted(history, call)):
            yield _about(history, call, f"{call.snapshot_id} was deleted before {volume_id} was reverted")
        for snapshot_id in sorted(_reverted_to_by_its_run(history, call)):
            reverts = [one for one in _reverts(history) if one.snapshot_id == snapshot_id]
            before = [one for one in reverts if one.number < call.number]
            if not any(history.is_proven(one, call.at) for one in before):
                words = f"{call.snapshot_id} was deleted before the revert to {snapshot_id} was proven"
                yield _about(history, call, words)
            elif not history.is_proven(before[-1], call.at):
                words = f"{call.snapshot_id} was deleted while a later revert to {snapshot_id} was open"
                yield _about(history, call, words)


def none_is_reverted_again_after_a_touch(history: History) -> Found:
    first: dict[tuple[str | None, str | None], Call] = {}
    for call in _reverts(history):
        key = (call.volume_id, call.snapshot_id)
        before = first.setdefault(key, call)
        if call.seen.touches > before.seen.touches:
            words = f"{call.volume_id} was reverted again after a guest had been given its device"
            yield _about(history, call, words)
        earlier = [one for one in _reverts(history) if one.number < call.number and one.volume_id == call.volume_id]
        known = [one for one in earlier if _same(one, call) and one.request_id not in history.forgotten]
        if any(history.was_provable(one, call.at) for one in known):
            yield _about(history, call, f"{call.volume_id} was reverted again although its revert was proven")
        for sentence in _too_early(history, call, earlier):
            yield _about(history, call, f"{call.volume_id} was reverted again {sentence}")


def nothing_unproven_is_attached(history: History) -> Found:
    for call in history.accepted:
        if call.command != "attachVolume":
            continue
        reverts = [one for one in _reverts(history) if one.volume_id == call.volume_id and one.number < call.number]
        if not reverts or history.is_proven(reverts[-1], call.at):
            continue
        action = history.journal.find_action(reverts[-1].request_id)
        if action is None or not _is_released(action):
            yield _about(history, call, f"{call.volume_id} was attached while its last revert was not proven")
        else:
            for sentence in _too_early(history, call, reverts):
                yield _about(history, call, f"{call.volume_id} was attached by a word {sentence}")


def nothing_foreign_is_touched(history: History) -> Found:
    for call in history.accepted:
        vm = history.owner_of(call)
        own_vms = vm.vm_ids if vm is not None else frozenset()
        allowed = {history.oma_vm_id, None, *own_vms}
        name = vm.name if vm is not None else "nobody"
        if call.vm_id not in allowed:
            yield name, f"{call.words} touched the foreign VM {call.vm_id}"
        if call.command == "attachVolume" and call.vm_id != history.oma_vm_id:
            yield name, f"{call.volume_id} was attached to {call.vm_id}"
        if call.command in POWER and call.vm_id not in own_vms:
            yield name, f"{call.command} was sent to {call.vm_id}"
        if call.command in NEVER or str(call.params.get("expunge", "")).lower() == "true":
            yield name, f"CloudStack was asked for {call.command} with {dict(call.params)}"
        mine = vm.volume_ids if vm is not None else frozenset()
        if call.volume_id and call.snapshot_id is None and call.volume_id not in mine:
            yield name, f"{call.words} touched the foreign volume {call.volume_id}"
        ours = {*mine, *(vm.snapshot_ids if vm is not None else ()), history.oma_vm_id}
        for resource_id in call.seen.resource_ids:
            if resource_id not in ours and not is_harmless(history, call):
                yield name, f"{call.words} tagged the foreign {resource_id}"


def no_foreign_snapshot_is_touched(history: History) -> Found:
    for call in history.own_calls:
        vm = history.owner_of(call)
        if call.snapshot_id is None or (vm is not None and call.snapshot_id in vm.snapshot_ids):
            continue
        name = vm.name if vm is not None else "nobody"
        yield name, f"the foreign snapshot {call.snapshot_id} was named by {call.command}"


def no_vm_is_destroyed_with_a_known_volume(history: History) -> Found:
    for call in history.accepted:
        held = sorted(history.known.intersection(call.seen.held_volume_ids))
        if call.command == "destroyVirtualMachine" and held:
            yield _about(history, call, f"{call.vm_id} was destroyed while it held {', '.join(held)}")
        if call.command == "destroyVirtualMachine" and call.seen.vm_state not in NOTHING_RUNS:
            yield _about(history, call, f"{call.vm_id} was destroyed while it was {call.seen.vm_state}")


def nobody_is_forced_without_a_word(history: History) -> Found:
    """A forced stop needs a person's `force`, and comes after an unforced one."""
    for call in history.accepted:
        if not _is_forced(call):
            continue
        action = history.journal.find_action(call.request_id)
        said = action is not None and history.journal.jobs[action.job_id].request.words.force
        gently = [
            one
            for one in history.own_calls
            if one.number < call.number
            and (one.command, one.vm_id) == (call.command, call.vm_id)
            and not _is_forced(one)
        ]
        if call.command != "stopVirtualMachine" or not said or not gently:
            words = f"{call.command} of {call.vm_id} was forced without a person's word or an unforced one before"
            yield _about(history, call, words)


def every_call_is_in_the_journal(history: History) -> Found:
    """And was when it came: what is committed afterwards says nothing to whoever finds a dead daemon's journal.

    Not there are the tag by which a start raises the epoch on the OMA, which goes under no id, and the harmless call
    by which a daemon learns whether ids are taken.
    """
    for call in history.own_calls:
        sent = history.journal.ids.get(call.request_id)
        if sent is None:
            if call.request_id not in history.forgotten and not is_unjournaled(history, call):
                words = f"{call.words} was sent as {call.request_id or 'nothing'}, which no action has"
                yield _about(history, call, words)
        elif call.after_seq is not None and call.request_id not in history.forgotten:
            begun = history.journal.begun.get(sent)
            # What a process committed right before its death nobody was told: then its time decides.
            if begun is None or (begun["seq"] > call.after_seq and begun["at"].timestamp() > call.at):
                words = f"{call.words} came before attempt {sent.attempt} of its action was in the journal"
                yield _about(history, call, words)


def nothing_is_repeated_blindly(history: History) -> Found:
    """One action has one call under way, but for a stop: a person may insist on another while the first hangs."""
    last: dict[str, Call] = {}
    for call in history.accepted:
        sent = history.journal.ids.get(call.request_id)
        if sent is None or is_harmless(history, call):
            continue
        before = last.get(sent.action_id)
        last[sent.action_id] = call
        again = before is not None and before.request_id == call.request_id and not history.honours_ids
        if before is None or again or call.command == "stopVirtualMachine":
            continue
        end = history.end_of(before)
        if end is None or end.at > call.at:
            words = f"{call.words} was sent while {before.words} of the same action was under way"
            yield _about(history, call, words)


def _too_early(history: History, call: Call, reverts: list[Call]) -> Iterator[str]:
    """What the hypervisor may still be writing by then, as far as the journal could know of it."""
    for one in reverts:
        if history.is_proven(one, call.at) or one.request_id in history.forgotten:
            continue
        window = history.window_of(one)
        if window is None or window[0] > call.at:
            yield f"while {one.words} still ran"
        elif call.at < window[1]:
            yield f"{window[1] - call.at:.0f} s before the window of {one.words} had passed"


def _reverts(history: History) -> list[Call]:
    return [call for call in history.accepted if call.command == "revertSnapshot"]


def _same(one: Call, other: Call) -> bool:
    return (one.volume_id, one.snapshot_id) == (other.volume_id, other.snapshot_id)


def _reverted_to_by_its_run(history: History, delete: Call) -> set[str]:
    """Snapshots that the run of this deletion had to revert to; the deleted one counts where no run is known."""
    action = history.journal.find_action(delete.request_id)
    if action is None:
        return {delete.snapshot_id or ""}
    plan = history.journal.jobs[action.job_id].plan
    reverts = (one for one in plan.actions if one.kind is ActionKind.REVERT_SNAPSHOT)
    return {one.target.snapshot_id for one in reverts if one.target.snapshot_id is not None}


def _not_reverted(history: History, delete: Call) -> set[str]:
    """Volumes of its VM that had to be reverted, as they were seeded, and were not by then, whatever was planned."""
    vm = history.owner_of(delete)
    needy = {one.volume_id for one in vm.volumes if one.needs_revert} if vm is not None else set()
    return needy - {one.volume_id for one in _reverts(history) if one.number < delete.number}


def _is_released(revert: Action) -> bool:
    """A person's word, and no proof, lets its volume go home."""
    return revert.state in BY_WORD and resolution_of(revert) is not None


def _is_forced(call: Call) -> bool:
    return str(call.params.get("forced", "")).lower() == "true"


def is_harmless(history: History, call: Call) -> bool:
    """The epoch's tag on the OMA, or the deletion of a tag that nothing carries: on these, ids are spent."""
    keys = {value for name, value in call.params.items() if name.endswith(".key")}
    if call.command == "deleteTags" and keys == {PROBE_KEY}:
        return True
    return call.command in TAGS and keys == {EPOCH_KEY} and set(call.seen.resource_ids) == {history.oma_vm_id}


def is_unjournaled(history: History, call: Call) -> bool:
    """What a daemon sends for itself, for no run."""
    return is_harmless(history, call) and (not call.request_id or PROBE_KEY in call.params.values())


def _about(history: History, call: Call, sentence: str) -> tuple[str, str]:
    vm = history.owner_of(call)
    return (vm.name if vm is not None else "nobody"), sentence
