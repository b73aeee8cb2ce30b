"""What became of a call that may have been sent: asked by its own id, or, where no id can be asked for, observed.

What follows from it stands in the table (`workflow.recovery`). Nothing is sent here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oma.domain.actions import MARKER_KINDS, Action, ActionKind
from oma.domain.changes import ActionSent, Noted
from oma.domain.circuit import CLOUDSTACK, VOLUME_DAEMON
from oma.domain.errors import Code
from oma.domain.states import LogLevel
from oma.ports import RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.drivers import Driver
from oma.workflow.expiring import wait_until_it_cannot_arrive
from oma.workflow.failures import did_not, fail
from oma.workflow.look import Verdict, ask, settle, settled_look
from oma.workflow.recovery import Decision, Found, decide, is_still_known
from oma.workflow.run import Run, code_of

CLOUD_KINDS: Final = frozenset(
    {ActionKind.STOP_VM, ActionKind.REVERT_SNAPSHOT, ActionKind.DELETE_SNAPSHOT, ActionKind.DESTROY_VM, *MARKER_KINDS}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The action as it is journaled now. `send`: nothing of it has run, and it is to be sent; else it is followed.

    `outcome` where nothing can be followed: it was seen by observation alone.
    """

    action: Action
    send: bool
    outcome: RemoteOutcome | None = None


async def find_call(run: Run, driver: Driver, action: Action, lost: UpstreamError | None = None) -> Finding:
    """`lost`: this process sent it and had no answer, so that it may still be on its way for a moment.

    Raises `Parked` where nobody can tell, and `Stopped`.
    """
    if action.remote_id is not None:
        return Finding(action, send=False)
    found, outcome = await _ask_by_id(run, driver, action, lost)
    if decide(action, found) is Decision.WAIT:
        found, outcome = await _wait_and_observe(run, driver, action, outcome)
    decision = decide(action, found)
    if found is Found.SILENT:
        await run.stop_if_away(CLOUDSTACK, VOLUME_DAEMON)
    if decision is Decision.PARK:
        raise await _park(run, action, found, outcome, lost)
    if found is Found.KNOWN:
        action = run.remember(action.with_remote_id(action.request_id, run.tools.clock.now()))
        sentence = "Found by its own id after its answer was lost." if lost else "Found by its own id after a restart."
        await run.journal.write(ActionSent(action.id, action.request_id, sentence))
        return Finding(action, send=False)
    return Finding(action, send=decision is Decision.SEND, outcome=outcome)


async def _ask_by_id(
    run: Run, driver: Driver, action: Action, lost: UpstreamError | None
) -> tuple[Found, RemoteOutcome | None]:
    outcome: RemoteOutcome | None = None

    async def ask() -> Verdict:
        nonlocal outcome
        outcome = None
        outcome = await driver.probe(run, action)
        return Verdict(proven=outcome.status is not RemoteStatus.ABSENT, sentence="")

    await settle(run, ask, patience_s=run.tools.figures.settle_s if lost else 0.0)
    # Assigned by the look above, which the type checker cannot see.
    seen: RemoteOutcome | None = outcome
    if seen is None:
        return Found.SILENT, None
    if seen.status is RemoteStatus.UNTRACEABLE:
        return Found.MAY_ARRIVE, seen
    if seen.status is not RemoteStatus.ABSENT:
        return Found.KNOWN, seen
    if action.kind in CLOUD_KINDS and not await _is_still_known(run, action):
        return Found.MAY_ARRIVE, RemoteOutcome(RemoteStatus.UNTRACEABLE, seen.upstream)
    return Found.NEVER_ARRIVED, seen


async def _is_still_known(run: Run, action: Action) -> bool:
    """By the server's time; where that can't be told its word does not count."""
    figures = run.tools.figures
    try:
        now = await ask(run, run.tools.cloud.find_server_time)
    except UpstreamError:
        return False
    return is_still_known(action, now, memory_s=figures.job_memory_s, expires_s=figures.expires_s)


async def _wait_and_observe(
    run: Run, driver: Driver, action: Action, asked: RemoteOutcome | None
) -> tuple[Found, RemoteOutcome | None]:
    try:
        await wait_until_it_cannot_arrive(run, action, f"Whether {action.words} arrived can't be asked by its id")
    except UpstreamError:
        return Found.SILENT, asked
    return await _observe(run, driver, action, asked)


async def _observe(
    run: Run, driver: Driver, action: Action, asked: RemoteOutcome | None
) -> tuple[Found, RemoteOutcome | None]:
    """Its job may run under an id that we do not know: it is at an end only when nothing is at its volume any more."""
    outcome = RemoteOutcome(RemoteStatus.UNTRACEABLE, asked.upstream if asked else None)
    if action.target.volume_id is not None:
        try:
            look = await settled_look(run, [action.target.volume_id])
        except UpstreamError:
            return Found.SILENT, outcome
        if not look.is_settled:
            return Found.BUSY, outcome
    patience_s = 0.0 if action.kind is ActionKind.REVERT_SNAPSHOT else run.tools.figures.settle_s
    verdict = await settle(run, lambda: driver.judge(run, action, outcome), patience_s=patience_s)
    if not verdict.evidence:
        return Found.SILENT, outcome
    if verdict.in_transition:
        return Found.BUSY, outcome
    found = Found.SHOWN if verdict.proven else Found.NOT_SHOWN
    sentence = (
        f"No id tells how {action.words} went, so it was judged by observation alone: {verdict.sentence} "
        f"Therefore: {decide(action, found).value}."
    )
    await run.journal.write(Noted(LogLevel.WARN, sentence, action.phase, {"found": found.name, **verdict.evidence}))
    return found, outcome


async def _park(
    run: Run, action: Action, found: Found, outcome: RemoteOutcome | None, lost: UpstreamError | None
) -> Exception:
    """The action ends as failed with an unknown effect."""
    upstream = outcome.upstream if outcome else lost.upstream if lost else None
    system = upstream.system if upstream else "the other side"
    if lost is None:
        sentence = f"Whether {action.words} was sent before the restart can't be told: {found.value}."
    elif found is Found.SILENT:
        sentence = f"{did_not(action)}: its call was not answered, and whether it arrived can't be told: {found.value}."
    else:
        sentence = f"{did_not(action)}: its call was not answered, and {system} can't tell by its id: {found.value}."
    return await fail(run, action, code_of(lost) if lost else Code.CLEANUP_FAILED, sentence, lost)
