"""Runs actions: intent row, send, keep the remote id, wait, prove, commit; or takes up one that was begun before.

A call whose answer was lost has an unknown outcome. It is looked for by its own id, never repeated blindly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Final

from oma.domain.actions import Action, ActionKind, PlannedAction, Upstream
from oma.domain.changes import ActionEnded, ActionSent, ActionSkipped, ActionStarted
from oma.domain.errors import Code
from oma.domain.forcing import kept_evidence
from oma.domain.states import ActionState
from oma.ports import Fault, RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.drivers import DRIVERS, Driver, expiry
from oma.workflow.forcing import LEAK, build_forced_stop, find_passage
from oma.workflow.look import Verdict, settle
from oma.workflow.retry import build_sending_policy
from oma.workflow.run import Failure, Parked, Run, Stopped, code_of

NEVER_ARRIVED: Final = frozenset({Fault.NOT_SENT, Fault.REFUSED})
CLOUD_KINDS: Final = frozenset(
    {ActionKind.STOP_VM, ActionKind.REVERT_SNAPSHOT, ActionKind.DELETE_SNAPSHOT, ActionKind.DESTROY_VM}
)
Sent = tuple[Action, RemoteOutcome | None]
"""What was sent, and its outcome where that is known already."""


async def perform(
    run: Run,
    planned: Sequence[PlannedAction],
    *,
    in_order: bool = False,
    ask_first: Callable[[PlannedAction], Awaitable[None]] | None = None,
) -> None:
    """Runs the actions beside each other; those done before are left alone.

    `in_order` submits them one after the other, without waiting for one to end. `ask_first` looks at the world right
    before each one is begun, and raises `Parked` where it must not be. After the first failure, also one that
    an earlier process journaled, and while one is overdue, nothing new is begun; what was sent is followed to its end.
    Raises `Parked` with every failure, or `Stopped`.
    """
    failures = [known for one in planned if (known := _known_failure(run, one)) is not None]
    crew = _Crew(run, in_order=in_order, failed=bool(failures), ask_first=ask_first)
    results = await asyncio.gather(
        *(crew.run_one(one) for one in planned if not run.is_done(one)),
        return_exceptions=True,
    )
    stopped = False
    for result in results:
        if isinstance(result, Parked):
            failures.extend(result.failures)
        elif isinstance(result, Stopped):
            stopped = True
        elif isinstance(result, BaseException):
            raise result
    if failures:
        raise Parked(failures)
    if stopped:
        raise Stopped


async def skip(run: Run, planned: PlannedAction, sentence: str, evidence: dict[str, object]) -> None:
    """Journals that an action need not be done, with the evidence."""
    action = replace(run.new_action(planned, ActionState.SKIPPED), evidence=dict(evidence), sentence=sentence)
    await run.journal.write(ActionSkipped(action, sentence))
    run.remember(action)


class _Crew:
    """The actions of one `perform`: a bound on how many at once, the order of sending, and whether one has failed."""

    def __init__(
        self,
        run: Run,
        *,
        in_order: bool,
        failed: bool,
        ask_first: Callable[[PlannedAction], Awaitable[None]] | None,
    ) -> None:
        self._run = run
        self._ask_first = ask_first
        self._places = asyncio.Semaphore(run.tools.figures.parallel)
        self._turn: AbstractAsyncContextManager[object] = asyncio.Lock() if in_order else nullcontext()
        self._failed = failed

    async def run_one(self, planned: PlannedAction) -> None:
        async with self._places:
            try:
                await self._run_one(planned)
            except Parked:
                self._failed = True
                raise

    async def _run_one(self, planned: PlannedAction) -> None:
        run, driver = self._run, DRIVERS[planned.kind]
        async with self._turn:
            begun = run.find_action(planned)
            if begun is not None and begun.state is ActionState.STARTED:
                action, outcome = await self._take_up(driver, planned, begun)
            else:
                self._stop_where_nothing_new_begins()
                if self._ask_first is not None:
                    await self._ask_first(planned)
                    self._stop_where_nothing_new_begins()
                action, outcome = await _begin(run, driver, planned)
        await _conclude(run, driver, action, outcome or await _follow(run, driver, action))

    async def _take_up(self, driver: Driver, planned: PlannedAction, begun: Action) -> Sent:
        """What was sent is followed, whatever has happened since; only what would be sent now is asked for first."""
        action = await _find_sent(self._run, driver, begun)
        if action.remote_id is not None:
            return action, None
        if self._ask_first is not None:
            await self._ask_first(planned)
        return await _send(self._run, driver, action)

    def _stop_where_nothing_new_begins(self) -> None:
        if self._failed or self._run.overdue or self._run.tools.stop.is_set():
            raise Stopped


async def _begin(run: Run, driver: Driver, planned: PlannedAction) -> Sent:
    action = replace(run.new_action(planned), expires_at=expiry(run))
    await run.journal.write(ActionStarted(action, planned.sentence))
    run.remember(action)
    return await _send(run, driver, action)


async def _send(run: Run, driver: Driver, action: Action) -> Sent:
    """Sends the call; a lost answer is looked for by the call's own id."""
    try:
        remote_id: str = await build_sending_policy(run.tools.clock)(driver.submit, run, action)
    except UpstreamError as error:
        if error.fault is Fault.REFUSED:
            return action, RemoteOutcome(RemoteStatus.REFUSED, error.upstream)
        if error.fault is Fault.FAILED:
            return action, RemoteOutcome(RemoteStatus.FAILED, error.upstream)
        if error.fault is Fault.NOT_SENT:
            raise await _fail(run, action, code_of(error), f"{_did_not(action)}: it was never sent.", error) from error
        await _look_for(run, driver, action, error)
        remote_id = action.request_id
    action = run.remember(action.with_remote_id(remote_id, run.tools.clock.now()))
    await run.journal.write(ActionSent(action.id, remote_id, f"{action.sentence.rstrip('.')}: sent as {remote_id}."))
    return action, None


async def _find_sent(run: Run, driver: Driver, action: Action) -> Action:
    """With its remote id where an earlier process sent it; raises `Parked` where nobody can tell, or it must not go."""
    if action.remote_id is not None:
        return action
    try:
        found = await driver.probe(run, action)
    except UpstreamError as error:
        raise await _fail(run, action, code_of(error), "Whether it was sent can't be told.", error) from error
    if found.status is not RemoteStatus.ABSENT:
        action = run.remember(action.with_remote_id(action.request_id, run.tools.clock.now()))
        await run.journal.write(ActionSent(action.id, action.request_id, "Found again after a restart by its own id."))
        return action
    if action.kind in CLOUD_KINDS:
        sentence = "It was about to be sent when the daemon stopped; CloudStack does not know its id."
        raise await _fail(run, action, Code.CLEANUP_FAILED, sentence, None)
    return action


async def _look_for(run: Run, driver: Driver, action: Action, lost: UpstreamError) -> None:
    """Asks for the call by its own id until it is found; raises `Parked` where it is not, or where nobody answers."""
    found: RemoteOutcome | None = None

    async def ask() -> Verdict:
        nonlocal found
        found = await driver.probe(run, action)
        return Verdict(proven=found.status is not RemoteStatus.ABSENT, sentence="")

    verdict = await settle(run, ask, patience_s=run.tools.figures.settle_s)
    if not verdict.proven:
        system = lost.upstream.system
        known = f"{system} does not know its id" if found else f"whether it arrived can't be told, {system} is silent"
        sentence = f"{_did_not(action)}: its call was not answered, and {known}."
        raise await _fail(run, action, code_of(lost), sentence, lost) from lost


async def _follow(run: Run, driver: Driver, action: Action) -> RemoteOutcome:
    try:
        return await driver.follow(run, action)
    except UpstreamError as error:
        sentence = f"How {action.words} ended can't be told: {error.upstream.system} does not answer."
        raise await _fail(run, action, code_of(error), sentence, error) from error


async def _conclude(run: Run, driver: Driver, action: Action, outcome: RemoteOutcome) -> None:
    """Proves the effect and journals the outcome; raises `Parked` when it is not proven, or was overdue."""
    verdict = await settle(
        run, lambda: driver.judge(run, action, outcome), patience_s=_patience_s(run, action, outcome)
    )
    passage = find_passage(run, action, outcome, verdict)
    if not verdict.proven and passage is None:
        forced = await build_forced_stop(run, action, outcome, verdict)
        failed, failure = _not_proven(action, outcome, verdict)
        if forced is None:
            await run.journal.write(failed)
            run.mark(action, failed.state, failed.sentence)
            raise Parked([failure])
        await _stop_by_force(run, driver, failed, replace(forced, expires_at=expiry(run)))
        return
    state = passage.state if passage else ActionState.EXECUTED
    evidence = {**kept_evidence(action), **verdict.evidence, **_answer(outcome)}
    if passage is not None:
        evidence[LEAK] = passage.leak.as_json()
    ended = ActionEnded(action.id, state, verdict.sentence, evidence)
    await run.journal.write(ended, *([passage.change] if passage else []))
    run.remember(replace(action, state=state, sentence=verdict.sentence, evidence=evidence))
    if outcome.overdue:
        sentence = f"{verdict.sentence} It took longer than the {run.tools.figures.operation_timeout_s:.0f} s agreed."
        raise Parked([Failure(Code.VOLUME_DAEMON_TIMEOUT, sentence, action.phase, action)])


async def _stop_by_force(run: Run, driver: Driver, failed: ActionEnded, forced: Action) -> None:
    """The end of the unforced attempt and the intent of the forced one are one transaction."""
    await run.journal.write(failed, ActionStarted(forced, forced.sentence))
    run.remember(forced)
    action, outcome = await _send(run, driver, forced)
    await _conclude(run, driver, action, outcome or await _follow(run, driver, action))


def _patience_s(run: Run, action: Action, outcome: RemoteOutcome) -> float:
    """How long the effect may take to show. A refusal changed nothing, and a revert is judged by its job alone."""
    if action.kind is ActionKind.REVERT_SNAPSHOT or outcome.status is RemoteStatus.REFUSED:
        return 0.0
    return run.tools.figures.settle_s


def _not_proven(action: Action, outcome: RemoteOutcome, verdict: Verdict) -> tuple[ActionEnded, Failure]:
    upstream = outcome.upstream
    said = f" {upstream.system} said: {upstream.text}" if upstream is not None else ""
    sentence = f"{_did_not(action)}. {verdict.sentence}{said}"
    failure = Failure(
        Code.CLEANUP_FAILED,
        sentence,
        action.phase,
        action,
        upstream,
        unknown=outcome.status is not RemoteStatus.REFUSED,
        evidence=verdict.evidence,
    )
    evidence = {**kept_evidence(action), **verdict.evidence}
    return ActionEnded(action.id, ActionState.EXECUTION_FAILED, sentence, evidence, _error(failure)), failure


async def _fail(run: Run, action: Action, code: Code, sentence: str, error: UpstreamError | None) -> Parked:
    upstream = error.upstream if error else None
    full = f"{sentence} {upstream.system}: {upstream.text}" if upstream else sentence
    failure = Failure(
        code, full, action.phase, action, upstream, unknown=error is None or error.fault not in NEVER_ARRIVED
    )
    kept = kept_evidence(action)
    await run.journal.write(ActionEnded(action.id, ActionState.EXECUTION_FAILED, full, kept, _error(failure)))
    run.mark(action, ActionState.EXECUTION_FAILED, full)
    return Parked([failure])


def _did_not(action: Action) -> str:
    return f"The {action.words.removeprefix('the ')} failed"


def _answer(outcome: RemoteOutcome) -> dict[str, str]:
    if outcome.upstream is None:
        return {"job": outcome.status.value}
    return {"job": outcome.status.value, "upstream": f"{outcome.upstream.code}: {outcome.upstream.text}"}


def _error(failure: Failure) -> dict[str, object]:
    upstream: Upstream | None = failure.upstream
    return {
        "code": failure.code.value,
        "detail": failure.sentence,
        "unknown": failure.unknown,
        "upstream": upstream.as_json() if upstream else None,
    }


def _known_failure(run: Run, planned: PlannedAction) -> Failure | None:
    """The failure of an action that an earlier process journaled and could not park any more; it is not repeated."""
    action = run.find_action(planned)
    if action is None or action.state is not ActionState.EXECUTION_FAILED:
        return None
    error = action.error or {}
    said = error.get("upstream")
    return Failure(
        Code(error.get("code", Code.CLEANUP_FAILED.value)),
        str(error.get("detail") or action.sentence),
        action.phase,
        action,
        Upstream(**said) if said else None,
        unknown=bool(error.get("unknown", True)),
        evidence=action.evidence,
    )
