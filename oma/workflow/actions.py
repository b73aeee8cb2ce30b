"""Runs actions: intent row, send, keep the remote id, wait, prove, commit; or takes up one that was begun before.

A call whose answer was lost has an unknown outcome. It is looked for by its own id, never repeated blindly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Final, NoReturn

from oma.domain.actions import MARKER_KINDS, Action, ActionKind, PlannedAction
from oma.domain.changes import ActionEnded, ActionSentAgain, ActionSkipped, ActionStarted
from oma.domain.errors import Code
from oma.domain.forcing import kept_evidence
from oma.domain.states import ActionState
from oma.ports import RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.completing import build_completion
from oma.workflow.drivers import DRIVERS, Driver
from oma.workflow.expiring import find_expiry
from oma.workflow.failures import answer_of, fail, known_failure, not_proven
from oma.workflow.finding import find_call
from oma.workflow.forcing import LEAK, build_forced_stop, find_passage
from oma.workflow.look import settle, unless_away
from oma.workflow.run import Cancelled, Failure, Parked, Run, Stopped, code_of
from oma.workflow.sending import NeverRan, Sent, abandon, send, settle_former

SENDINGS: Final = 3
"""Times that one call is sent under one id, where it is lost each time and certainly never arrived."""
AT_ONCE: Final = MARKER_KINDS | {ActionKind.REVERT_SNAPSHOT}
"""A revert is judged by its job alone, a marker by its job or by the tags that it has left."""


async def perform(
    run: Run,
    planned: Sequence[PlannedAction],
    *,
    in_order: bool = False,
    each_for_itself: bool = False,
    ask_first: Callable[[PlannedAction], Awaitable[None]] | None = None,
) -> None:
    """Runs the actions beside each other; those done before are left alone.

    `in_order` submits them one after the other, without waiting for one to end. `ask_first` looks at the world right
    before each one is begun, and raises `Parked` where it must not be. After the first failure, also one that
    an earlier process journaled, and while one is overdue, nothing new is begun; what was sent is followed to its end.
    `each_for_itself`: the failure of one keeps no other from being begun.
    Raises `Parked` with every failure, `Cancelled`, or `Stopped`.
    """
    failures = [known for one in planned if (known := known_failure(run, one)) is not None]
    todo = [one for one in planned if not run.is_done(one)]
    crew = _Crew(
        run,
        begun=sum(_is_begun(run, one) for one in todo),
        in_order=in_order,
        failed=bool(failures),
        ask_first=ask_first,
        each_for_itself=each_for_itself,
    )
    results = await asyncio.gather(*(crew.run_one(one) for one in todo), return_exceptions=True)
    stopped: Stopped | Cancelled | None = None
    for result in results:
        if isinstance(result, Parked):
            failures.extend(result.failures)
        elif isinstance(result, Stopped | Cancelled):
            stopped = result if stopped is None or isinstance(result, Cancelled) else stopped
        elif isinstance(result, BaseException):
            raise result
    if failures:
        raise Parked(failures)
    if stopped is not None:
        raise stopped


async def skip(run: Run, planned: PlannedAction, sentence: str, evidence: dict[str, object]) -> None:
    """Journals that an action need not be done, with the evidence."""
    action = replace(run.new_action(planned, ActionState.SKIPPED), evidence=dict(evidence), sentence=sentence)
    await run.journal.write(ActionSkipped(action, sentence))
    run.remember(action)


class _Crew:
    """The actions of one `perform`: a bound on how many at once, the order of sending, and whether one has failed.

    What was begun before is found again, sent again or given up before anything new is begun.
    """

    def __init__(
        self,
        run: Run,
        *,
        begun: int,
        in_order: bool,
        failed: bool,
        ask_first: Callable[[PlannedAction], Awaitable[None]] | None,
        each_for_itself: bool,
    ) -> None:
        self._run = run
        self._ask_first = ask_first
        self._places = asyncio.Semaphore(run.tools.figures.parallel)
        self._turn: AbstractAsyncContextManager[object] = asyncio.Lock() if in_order else nullcontext()
        self._failed = failed
        self._each_for_itself = each_for_itself
        self._begun = begun
        self._taken_up = asyncio.Event()
        if not begun:
            self._taken_up.set()

    async def run_one(self, planned: PlannedAction) -> None:
        if not _is_begun(self._run, planned):
            await self._taken_up.wait()
        async with self._places:
            try:
                await self._run_one(planned)
            except Parked:
                self._failed = not self._each_for_itself
                raise

    async def _run_one(self, planned: PlannedAction) -> None:
        run, driver = self._run, DRIVERS[planned.kind]
        async with self._turn:
            begun = run.find_action(planned)
            if begun is not None and begun.state is ActionState.STARTED:
                action, outcome = await self._take_up(driver, planned, begun)
            else:
                self._stop_where_nothing_new_begins()
                await run.heed_cancel()
                await settle_former(run, begun)
                if self._ask_first is not None:
                    await self._ask_first(planned)
                    self._stop_where_nothing_new_begins()
                action, outcome = await self._send(driver, planned, await _begin(run, planned))
        await _conclude(run, driver, action, outcome or await _follow(run, driver, action))

    async def _take_up(self, driver: Driver, planned: PlannedAction, begun: Action) -> Sent:
        """What was sent is followed, whatever has happened since; only what would be sent now is asked for first."""
        try:
            return await self._find_again(driver, planned, begun)
        finally:
            self._begun -= 1
            if not self._begun:
                self._taken_up.set()

    async def _find_again(self, driver: Driver, planned: PlannedAction, begun: Action) -> Sent:
        finding = await find_call(self._run, driver, begun)
        if not finding.send:
            return finding.action, finding.outcome
        try:
            renewed = await self._renew(planned, finding.action)
        except Parked as parked:
            await self._leave(driver, finding.action, parked)
        return await self._send(driver, planned, renewed, sent_before=True)

    async def _send(self, driver: Driver, planned: PlannedAction, action: Action, *, sent_before: bool = False) -> Sent:
        """A call that certainly never ran is sent again under its own id, a few times."""
        for _ in range(SENDINGS - 1):
            try:
                return await send(self._run, driver, action, sent_before=sent_before)
            except NeverRan:
                sent_before = True
            try:
                action = await self._renew(planned, action)
            except Parked as parked:
                await self._leave(driver, action, parked)
        return await send(self._run, driver, action, sent_before=sent_before, last=True)

    async def _leave(self, driver: Driver, action: Action, parked: Parked) -> NoReturn:
        """It may not be sent again; one that had arrived all the same is brought to its end before the run parks."""
        arrived = await abandon(self._run, action, parked)
        await _conclude(self._run, driver, arrived, await _follow(self._run, driver, arrived))
        raise parked

    async def _renew(self, planned: PlannedAction, action: Action) -> Action:
        """The world is looked at again, and the call gets a new time until which it may arrive, journaled before."""
        if self._ask_first is not None:
            await self._ask_first(planned)
        run = self._run
        expires_at = await find_expiry(run)
        sentence = f"{action.sentence.rstrip('.')}: sent again under the same id; none of it has run."
        await run.journal.write(ActionSentAgain(action.id, expires_at, sentence))
        return run.remember(replace(action, expires_at=expires_at))

    def _stop_where_nothing_new_begins(self) -> None:
        if self._failed or self._run.overdue or self._run.tools.stop.is_set():
            raise Stopped


def _is_begun(run: Run, planned: PlannedAction) -> bool:
    action = run.find_action(planned)
    return action is not None and action.state is ActionState.STARTED


async def _begin(run: Run, planned: PlannedAction) -> Action:
    expires_at = await find_expiry(run)
    action = replace(run.new_action(planned), expires_at=expires_at)
    await run.journal.write(ActionStarted(action, planned.sentence))
    return run.remember(action)


async def _follow(run: Run, driver: Driver, action: Action) -> RemoteOutcome:
    try:
        return await unless_away(run, driver.follow(run, action))
    except UpstreamError as error:
        sentence = f"How {action.words} ended can't be told: {error.upstream.system} does not answer."
        raise await fail(run, action, code_of(error), sentence, error) from error


async def _conclude(run: Run, driver: Driver, action: Action, outcome: RemoteOutcome) -> None:
    """Proves the effect and journals the outcome; raises `Parked` when it is not proven, or was overdue."""
    verdict = await settle(
        run, lambda: driver.judge(run, action, outcome), patience_s=_patience_s(run, action, outcome)
    )
    passage = find_passage(run, action, outcome, verdict)
    if not verdict.proven and passage is None:
        again = build_completion(run, action, verdict) or await build_forced_stop(run, action, outcome, verdict)
        failed, failure = not_proven(action, outcome, verdict)
        if again is None:
            await run.journal.write(failed)
            run.mark_ended(action, failed)
            raise Parked([failure])
        await _send_next(run, driver, failed, replace(again, expires_at=await find_expiry(run)))
        return
    state = passage.state if passage else ActionState.EXECUTED
    evidence = {**kept_evidence(action), **verdict.evidence, **answer_of(outcome)}
    if passage is not None:
        evidence[LEAK] = passage.leak.as_json()
    ended = ActionEnded(action.id, state, verdict.sentence, evidence)
    await run.journal.write(ended, *([passage.change] if passage else []))
    run.remember(replace(action, state=state, sentence=verdict.sentence, evidence=evidence))
    if outcome.overdue:
        sentence = f"{verdict.sentence} It took longer than the {run.tools.figures.operation_timeout_s:.0f} s agreed."
        raise Parked([Failure(Code.VOLUME_DAEMON_TIMEOUT, sentence, action.phase, action)])


async def _send_next(run: Run, driver: Driver, failed: ActionEnded, again: Action) -> None:
    """The end of one attempt and the intent of the next are one transaction."""
    await run.journal.write(failed, ActionStarted(again, again.sentence))
    run.remember(again)
    action, outcome = await send(run, driver, again, last=True)
    await _conclude(run, driver, action, outcome or await _follow(run, driver, action))


def _patience_s(run: Run, action: Action, outcome: RemoteOutcome) -> float:
    """How long the effect may take to show: none where nothing was changed, or where it stands when the job ends."""
    if outcome.status is RemoteStatus.REFUSED or action.kind in AT_ONCE:
        return 0.0
    return run.tools.figures.settle_s
