"""When a run has ended its markers go: journaled in the transaction that ends it, sent after the commit.

Nobody waits for it. What a process could not finish is swept up later under the same id; a marker that still stays is
taken off by the next run on the same volumes. Source: section 6 of the safety rules.
"""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from oma.domain.actions import Action, ActionKind, Target
from oma.domain.changes import ActionEnded, ActionStarted, Change
from oma.domain.marking import build_unmarking
from oma.domain.states import ActionState, Phase
from oma.domain.world import MARK_KEY
from oma.ports import Clock, Cloud, JournalStore, RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.expiring import find_expiry_of_unmarking
from oma.workflow.look import until_stopped
from oma.workflow.marks import find_unmarked, mark_value, marked_kind, send_unmark
from oma.workflow.run import Run, Stopped

FOLLOW_S: Final = 30.0
"""Longest time that the job which takes a marker off is followed; the sweep comes back to it."""
GIVEN_UP_S: Final = 86_400.0
"""What cannot be taken off for so long is a leak: it would keep the sweep from younger ones for ever."""
STOPPED_S: Final = 5.0
"""What is left of that time once the daemon drains."""


@dataclass(frozen=True, slots=True)
class Unmarker:
    """What taking a marker off needs, in a run and long after it."""

    cloud: Cloud
    journal: JournalStore
    clock: Clock
    installation: str


async def end_markers(run: Run) -> list[Change]:
    """The intents that belong into the transaction which ends the run, before its end; they are sent by `unmark`."""
    return end_markers_by(run, await find_expiry_of_unmarking(run.tools.cloud, run.tools.figures.expires_s))


def end_markers_by(run: Run, expires_at: datetime | None) -> list[Change]:
    """`end_markers`, where nothing may be waited for any more."""
    run.unmarking.clear()
    for target in _still_marked(run):
        number = len(target.marked_ids)
        thing = f"{'volume' if target.volume_ids else 'snapshot'}{'' if number == 1 else 's'}"
        planned = build_unmarking(Phase.RESET, target, f"Take this run's marker off {number} {thing}.")
        action = replace(run.new_action(planned), expires_at=expires_at, phase=run.phase)
        run.unmarking.append(action)
    return [ActionStarted(action, action.sentence) for action in run.unmarking]


async def unmark(run: Run) -> None:
    """After the run's last commit; what is silent or slow is left to the sweep."""
    tools = run.tools
    unmarker = Unmarker(tools.cloud, tools.journal_store, tools.clock, tools.limits.installation)
    work = asyncio.create_task(_take_all_off(unmarker, run.unmarking))
    patience: asyncio.Task[None] | None = None
    try:
        await until_stopped(run, asyncio.shield(work))
    except Stopped:
        # The daemon waits for its runs to reach a safe point; this one has only this left.
        patience = asyncio.create_task(tools.clock.sleep(STOPPED_S))
        await asyncio.wait({work, patience}, return_when=FIRST_COMPLETED)
    finally:
        left = [one for one in (work, patience) if one is not None]
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _take_all_off(unmarker: Unmarker, actions: Sequence[Action]) -> None:
    await asyncio.gather(*(take_off(unmarker, action) for action in actions))


async def take_off(unmarker: Unmarker, action: Action) -> bool:
    """Sends it under its own id, follows it for a while and journals its proof; whether it is proven."""
    job_id = None
    try:
        job_id = await send_unmark(unmarker.cloud, unmarker.installation, action)
        outcome = await _follow(unmarker, job_id)
    except UpstreamError as error:
        outcome = RemoteOutcome(RemoteStatus.UNTRACEABLE, error.upstream)
    try:
        verdict = await find_unmarked(unmarker.cloud, unmarker.installation, action, outcome)
    except UpstreamError:
        return False
    if verdict.proven:
        ended = ActionEnded(action.id, ActionState.EXECUTED, verdict.sentence, verdict.evidence)
        await unmarker.journal.end_unmarking(action.job_id, ended, job_id, unmarker.clock.now())
    return verdict.proven


async def sweep_markers(unmarker: Unmarker, *, older_s: float, expires_s: float) -> str | None:
    """Takes off what ended runs meant to take off `older_s` ago or before; a sentence where there was any."""
    now = unmarker.clock.now()
    left = await unmarker.journal.list_unmarkings(now - timedelta(seconds=older_s))
    done = 0
    for action in left:
        expires_at = await find_expiry_of_unmarking(unmarker.cloud, expires_s)
        if await take_off(unmarker, replace(action, expires_at=expires_at)):
            done += 1
        elif action.intent_at is not None and action.intent_at < now - timedelta(seconds=GIVEN_UP_S):
            await _leave(unmarker, action)
    return f"Took {done} of {len(left)} markers off that ended runs had left." if left else None


async def _leave(unmarker: Unmarker, action: Action) -> None:
    value, what = mark_value(unmarker.installation, action), marked_kind(action).value
    ids = ",".join(action.target.marked_ids)
    sentence = (
        f"The marker {value} could not be taken off for a day. It keeps other installations away; the next clean-up of "
        f"this VM takes it off, or by hand: cs deleteTags resourceids={ids} resourcetype={what} "
        f"tags[0].key={MARK_KEY} tags[0].value={value}"
    )
    ended = ActionEnded(action.id, ActionState.EXECUTION_FAILED, sentence, {"mark": value})
    await unmarker.journal.end_unmarking(action.job_id, ended, None, unmarker.clock.now())


def _still_marked(run: Run) -> list[Target]:
    """What this run has marked, or may have, and what CloudStack still has: a deleted snapshot's tags went with it."""
    deleted = {
        one.target.snapshot_id
        for one in run.actions
        if one.kind is ActionKind.DELETE_SNAPSHOT and one.state is ActionState.EXECUTED
    }
    begun = [
        one
        for one in run.actions
        if one.kind is ActionKind.SET_MARKER and one.state not in (ActionState.SKIPPED, ActionState.PLANNED)
    ]
    # Some may have been marked twice, where a person took the first marker off.
    volumes = tuple(dict.fromkeys(each for one in begun for each in one.target.volume_ids))
    snapshots = tuple(dict.fromkeys(each for one in begun for each in one.target.snapshot_ids if each not in deleted))
    return [target for target in (Target(volume_ids=volumes), Target(snapshot_ids=snapshots)) if target.marked_ids]


async def _follow(unmarker: Unmarker, job_id: str) -> RemoteOutcome:
    job = asyncio.ensure_future(unmarker.cloud.wait_job(job_id))
    patience = asyncio.ensure_future(unmarker.clock.sleep(FOLLOW_S))
    try:
        await asyncio.wait({job, patience}, return_when=asyncio.FIRST_COMPLETED)
        return job.result() if job.done() else RemoteOutcome(RemoteStatus.PENDING)
    finally:
        for one in (job, patience):
            one.cancel()
        await asyncio.gather(job, patience, return_exceptions=True)
