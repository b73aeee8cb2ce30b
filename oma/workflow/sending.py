"""One call on its way: sent, found again where its answer was lost, and never left in the air when it is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.changes import ActionEnded, ActionSent
from oma.domain.forcing import EARLIER, kept_evidence
from oma.domain.states import ActionState
from oma.ports import Burn, Fault, RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.drivers import DRIVERS, Driver
from oma.workflow.expiring import has_expired, until_leased
from oma.workflow.failures import did_not, fail
from oma.workflow.finding import find_call
from oma.workflow.giving_up import adopt, give_up, try_to_burn
from oma.workflow.retry import build_sending_policy
from oma.workflow.run import Failure, Parked, Run, code_of

Sent = tuple[Action, RemoteOutcome | None]
"""What was sent, and its outcome where that is known already."""


EXPIRED: Final = "401"
"""What CloudStack says to a call whose `expires` has passed, among other things."""


class NeverRan(Exception):
    """Nothing of the call has run; it may be sent again under its id."""


async def send(run: Run, driver: Driver, action: Action, *, sent_before: bool = False, last: bool = False) -> Sent:
    """Sends the call; a lost answer is looked for by the call's own id. Raises `NeverRan`, `Parked` as the `last`.

    `sent_before`: an earlier sending under the same id was not answered and may still be on its way.
    """
    await until_leased(run)
    try:
        tools = run.tools
        policy = build_sending_policy(tools.clock, tools.figures.retries, tools.stop.is_set)
        remote_id: str = await policy(driver.submit, run, action)
    except UpstreamError as error:
        match error.fault:
            case Fault.REFUSED if error.upstream.code == EXPIRED and not last and await _has_expired(run, action):
                raise NeverRan from error
            case Fault.REFUSED:
                refused = action, RemoteOutcome(RemoteStatus.REFUSED, error.upstream)
                return await _unless_it_arrived(run, action, error) or refused if sent_before else refused
            case Fault.FAILED:
                return await _find_failed(run, driver, action, error, last=last)
            case Fault.NOT_SENT:
                return await _not_sent(run, action, error, sent_before=sent_before, last=last)
        return await _find_lost(run, driver, action, error, last=last)
    action = run.remember(action.with_remote_id(remote_id, run.tools.clock.now()))
    await run.journal.write(ActionSent(action.id, remote_id, f"{action.sentence.rstrip('.')}: sent as {remote_id}."))
    return action, None


async def abandon(run: Run, action: Action, parked: Parked) -> Action:
    """A call of an earlier process, or one whose answer was lost, that may not be sent again: `parked` says why.

    Returns it where it had arrived all the same, to be followed; else its id is spent, it counts as never run, and
    `parked` is raised. Where nobody answers it stays begun, and the run parks with it.
    """
    try:
        arrived = await give_up(run, action)
    except UpstreamError as error:
        raise parked from error
    if arrived:
        return await adopt(run, action)
    words = action.words.removeprefix("the ")
    sentence = f"The {words} never ran, and its id is spent: whenever it arrives, it can't run any more."
    evidence = {**kept_evidence(action), "call": Burn.SPENT.value}
    await run.journal.write(ActionEnded(action.id, ActionState.ROLLED_BACK, sentence, evidence))
    run.remember(replace(action, state=ActionState.ROLLED_BACK, sentence=sentence, evidence=evidence))
    raise parked


async def settle_former(run: Run, released: Action | None) -> None:
    """Before another attempt: the one before, whose end nobody knew, is given up or brought to its end.

    A revert whose own job was known has ended. Raises `Parked` where nobody answers, and `Stopped`.
    """
    if released is None or released.state is not ActionState.PLANNED or released.attempt == 1:
        return
    earlier = released.evidence.get(EARLIER, ())
    if not (released.error or {}).get("unknown", False) or (earlier and earlier[-1].get("job_id") is not None):
        return
    former = replace(released, attempt=released.attempt - 1)
    try:
        if await give_up(run, former):
            await DRIVERS[former.kind].follow(run, former)
    except UpstreamError as error:
        sentence = f"Whether {former.words} of before may still arrive can't be told: {error}"
        raise Parked([Failure(code_of(error), sentence, former.phase, upstream=error.upstream)]) from error


async def _unless_it_arrived(run: Run, action: Action, error: UpstreamError) -> Sent | None:
    """The call where it had arrived; None: its id is spent. Raises `Parked` where nobody answers."""
    try:
        if not await give_up(run, action):
            return None
    except UpstreamError as silent:
        sentence = f"{did_not(action)}: an earlier sending of it may still arrive."
        raise await fail(run, action, code_of(silent), sentence, silent) from error
    return await adopt(run, action), None


async def _find_failed(run: Run, driver: Driver, action: Action, error: UpstreamError, *, last: bool) -> Sent:
    """An error that does not say whether the call was taken: its id tells, and can't run any more where it was not.

    Where the id can't be spent, or nobody answers, the call is looked for as one whose answer was lost.
    """
    if action.kind is ActionKind.END_HOLDER:
        return action, RemoteOutcome(RemoteStatus.FAILED, error.upstream)
    try:
        burnt = await try_to_burn(run, action)
    except UpstreamError:
        burnt = Burn.UNPROVEN
    match burnt:
        case Burn.ARRIVED:
            return await adopt(run, action), None
        case Burn.SPENT:
            return action, RemoteOutcome(RemoteStatus.REFUSED, error.upstream)
    return await _find_lost(run, driver, action, error, last=last)


async def _not_sent(run: Run, action: Action, error: UpstreamError, *, sent_before: bool, last: bool) -> Sent:
    """Raises `NeverRan` where only its time had passed, as after this process stood still."""
    await run.stop_if_away(error.upstream.system)
    if not last and await _has_expired(run, action):
        raise NeverRan from error
    if sent_before and (arrived := await _unless_it_arrived(run, action, error)) is not None:
        return arrived
    raise await fail(run, action, code_of(error), f"{did_not(action)}: it was never sent.", error) from error


async def _has_expired(run: Run, action: Action) -> bool:
    try:
        return await has_expired(run, action)
    except UpstreamError:
        return False


async def _find_lost(run: Run, driver: Driver, action: Action, error: UpstreamError, *, last: bool) -> Sent:
    finding = await find_call(run, driver, action, error)
    if not finding.send:
        return finding.action, finding.outcome
    if not last:
        raise NeverRan from error
    arrived = await _unless_it_arrived(run, finding.action, error)
    if arrived is not None:
        return arrived
    sentence = f"{did_not(action)}: its call was lost each time, never arrived and can't any more."
    raise await fail(run, action, code_of(error), sentence, error, unknown=False) from error
