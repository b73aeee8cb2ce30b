"""What a failed action leaves: its end in the journal, and the failure that the run parks with."""

from __future__ import annotations

from typing import Final

from oma.domain.actions import Action, PlannedAction, Upstream
from oma.domain.changes import ActionEnded
from oma.domain.errors import Code
from oma.domain.forcing import kept_evidence
from oma.domain.states import ActionState
from oma.ports import Fault, RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.look import Verdict
from oma.workflow.run import Failure, Parked, Run

NEVER_ARRIVED: Final = frozenset({Fault.NOT_SENT, Fault.REFUSED})


def not_proven(action: Action, outcome: RemoteOutcome, verdict: Verdict) -> tuple[ActionEnded, Failure]:
    upstream = outcome.upstream
    said = f" {upstream.system} said: {upstream.text}" if upstream is not None else ""
    sentence = f"{did_not(action)}. {verdict.sentence}{said}"
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


async def fail(
    run: Run,
    action: Action,
    code: Code,
    sentence: str,
    error: UpstreamError | None,
    *,
    unknown: bool | None = None,
) -> Parked:
    """`unknown`: whether its effect can't be told; None: as the error says it."""
    upstream = error.upstream if error else None
    full = f"{sentence} {upstream.system}: {upstream.text}" if upstream else sentence
    open_end = error is None or error.fault not in NEVER_ARRIVED
    failure = Failure(code, full, action.phase, action, upstream, unknown=open_end if unknown is None else unknown)
    kept = kept_evidence(action)
    ended = ActionEnded(action.id, ActionState.EXECUTION_FAILED, full, kept, _error(failure))
    await run.journal.write(ended)
    run.mark_ended(action, ended)
    return Parked([failure])


def did_not(action: Action) -> str:
    return f"The {action.words.removeprefix('the ')} failed"


def answer_of(outcome: RemoteOutcome) -> dict[str, str]:
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


def known_failure(run: Run, planned: PlannedAction) -> Failure | None:
    """The failure of an action that an earlier process journaled and could not park any more; it is not repeated."""
    action = run.find_action(planned)
    return None if action is None or action.state is not ActionState.EXECUTION_FAILED else _as_journaled(action)


def find_known_failures(run: Run) -> list[Failure]:
    """Those of all the actions that ended badly."""
    return [_as_journaled(action) for action in run.actions if action.state is ActionState.EXECUTION_FAILED]


def _as_journaled(action: Action) -> Failure:
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
