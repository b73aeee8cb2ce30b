"""Who may act when: one run per VM and volume, no call under an id that was given up, no word before its COMMIT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.demo.invariants.calls import Found, is_harmless
from oma.demo.invariants.facts import Call, History
from oma.demo.invariants.journal import Row
from oma.domain.events import EventType

OVER: Final = frozenset(
    {EventType.ACTION_EXECUTED.value, EventType.ACTION_ROLLED_BACK.value, EventType.ACTION_SKIPPED.value}
)
"""After these the journal waits for nothing of the action any more."""
JOB_OVER: Final = frozenset({EventType.JOB_COMPLETED.value, EventType.JOB_FAILED.value, EventType.JOB_CANCELLED.value})
GIVEN_UP_BY: Final = frozenset({"ROLLED_BACK", "RESYNC"})
"""Words of a person after which what was sent before is not wanted any more."""


def one_run_per_vm_and_volume(history: History) -> Found:
    active: dict[str, str] = {}
    for row in history.journal.events:
        job = history.journal.jobs.get(row["job_id"] or "")
        if job is None:
            continue
        things = (job.context_id, *(volume.volume_id for volume in job.plan.volumes))
        if row["type"] == EventType.JOB_QUEUED.value:
            for thing in things:
                holder = active.setdefault(thing, job.id)
                if holder != job.id:
                    yield job.vm_name, f"run {job.id} was queued for {thing} while {holder} had it"
        elif row["type"] in JOB_OVER:
            for thing in things:
                if active.get(thing) == job.id:
                    del active[thing]


def no_fence_goes_back(history: History) -> Found:
    """Whoever held the job before has no say on the volume any more."""
    highest: dict[str, Call] = {}
    for call in history.accepted:
        if call.fence is None or not call.volume_id:
            continue
        before = highest.get(call.volume_id)
        if before is not None and (before.fence or 0) > call.fence:
            yield (
                _vm_name(history, call),
                (
                    f"{call.words} on {call.volume_id} came under fence {call.fence} after {before.words} under "
                    f"fence {before.fence}"
                ),
            )
        else:
            highest[call.volume_id] = call


def nothing_is_sent_under_an_id_that_was_given_up(history: History) -> Found:
    over = _list_ends(history)
    burnt: dict[str, Call] = {}
    for call in history.accepted:
        harmless = is_harmless(history, call)
        if call.request_id in burnt and not harmless:
            yield _vm_name(history, call), f"{call.words} was accepted under {call.request_id}, which was burnt"
        if harmless:
            if call.request_id:
                burnt[call.request_id] = call
            continue
        sent = history.journal.ids.get(call.request_id)
        if sent is None:
            continue
        for attempt, row in over.get(sent.action_id, ()):
            if sent.attempt <= attempt and _came_after(call, row):
                yield _vm_name(history, call), f"{call.words} was accepted after the journal said: {row['sentence']}"
                break


def nothing_goes_by_an_older_copy(history: History) -> Found:
    """What the copy says of a run is not how the world stands; the ids under which it would go on may be spent."""
    for call in history.own_calls:
        if is_harmless(history, call) or call.sent_at is None:
            continue
        if any(since <= call.sent_at < until for since, until in history.older):
            yield _vm_name(history, call), f"{call.words} was sent on a restored copy before anybody had looked"


def nothing_is_told_before_it_is_committed(history: History) -> Found:
    committed = {row["seq"]: row["sentence"] for row in history.journal.events}
    for seq, sentence in history.told:
        if committed.get(seq) != sentence:
            yield "somebody", f"event {seq} was told and is not in the journal: {sentence}"


def _list_ends(history: History) -> dict[str, list[tuple[int, Row]]]:
    """Action → the events after which nothing may come under it up to that attempt."""
    attempts: dict[str, int] = {}
    found: dict[str, list[tuple[int, Row]]] = {}
    of_issue = {row["id"]: row["action_id"] for row in history.journal.issues}
    for row in history.journal.events:
        for action_id, attempt in _given_up(history, row, attempts, of_issue):
            found.setdefault(action_id, []).append((attempt, row))
        if row["type"] == EventType.ACTION_STARTED.value:
            attempts[row["data"]["action_id"]] = row["data"].get("attempt", 1)
    return found


def _given_up(
    history: History, row: Row, attempts: dict[str, int], of_issue: dict[str, str | None]
) -> Iterator[tuple[str, int]]:
    kind, data = row["type"], row["data"] or {}
    action_id = data.get("action_id")
    if kind in OVER and action_id in attempts:
        yield action_id, attempts[action_id]
    elif kind == EventType.ACTION_STARTED.value and data.get("attempt", 1) > 1:
        yield data["action_id"], data["attempt"] - 1
    elif kind == EventType.ISSUE_RESOLVED.value and data.get("resolution") in GIVEN_UP_BY:
        named = of_issue.get(data.get("issue_id", ""))
        if named in attempts:
            yield named, attempts[named]
    elif kind in JOB_OVER:
        for action in history.journal.actions_of(row["job_id"]):
            if action.id in attempts and action.kind.value != "clear_marker":
                yield action.id, attempts[action.id]


def _came_after(call: Call, row: Row) -> bool:
    if call.after_seq is not None:
        return bool(call.after_seq >= row["seq"])
    return bool(call.at > row["at"].timestamp())


def _vm_name(history: History, call: Call) -> str:
    vm = history.owner_of(call)
    return vm.name if vm is not None else "nobody"
