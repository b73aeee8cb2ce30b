"""Detaches whose end a run did not see: each is brought to its end before its volume is attached again.

A late detach takes a volume off whatever VM holds it then (CloudStack issue 14214).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.changes import ActionEnded
from oma.domain.states import ActionState, Phase
from oma.domain.undoing import Return
from oma.ports import RemoteStatus, UpstreamError
from oma.workflow.drivers import DRIVERS
from oma.workflow.giving_up import UNKNOWN_IDS, give_up
from oma.workflow.look import ask
from oma.workflow.run import Failure, Run, code_of

NOT_UNDONE: Final = frozenset({ActionKind.STOP_VM, ActionKind.SET_MARKER})


async def end_detaches(run: Run, returns: Sequence[Return]) -> dict[str, Failure]:
    """Follows every one whose end is open, and gives up the id of every one that nobody has heard of.

    Returns the failures by volume of those whose end nobody tells; all others can have no effect any more.
    """
    untold: dict[str, Failure] = {}
    for one in returns:
        action = one.detach
        if action.state not in (ActionState.STARTED, ActionState.EXECUTION_FAILED):
            continue
        try:
            await end_operation(run, action)
        except UpstreamError as error:
            sentence = f"How {action.words} ended can't be told: {error.upstream.system}: {error.upstream.text}"
            untold[one.volume.volume_id] = Failure(
                code_of(error), sentence, Phase.DETACH, action, error.upstream, unknown=True
            )
    run.overdue = False
    return untold


async def end_operation(run: Run, action: Action) -> None:
    """Follows the operation to its end; one that the Volume Daemon does not know can never run from here on.

    Raises `UpstreamError` where that can't be told.
    """
    driver = DRIVERS[action.kind]
    found = await ask(run, lambda: driver.probe(run, action))
    if found.status in UNKNOWN_IDS and not await give_up(run, action):
        return
    if found.status in (RemoteStatus.PENDING, *UNKNOWN_IDS):
        await driver.follow(run, action)


async def end_others(run: Run) -> list[Failure]:
    """A stop or a marking whose call may still be on its way: neither is undone, and neither comes later."""
    failures: list[Failure] = []
    for action in [one for one in run.actions if one.kind in NOT_UNDONE and _may_be_on_its_way(one)]:
        try:
            if await give_up(run, action):
                outcome = await DRIVERS[action.kind].follow(run, action)
                verdict = await DRIVERS[action.kind].judge(run, action, outcome)
                state = ActionState.EXECUTED if verdict.proven else ActionState.EXECUTION_FAILED
                sentence, evidence = verdict.sentence, verdict.evidence
            else:
                state = ActionState.ROLLED_BACK
                sentence, evidence = f"{action.words.removeprefix('the ')}: never ran, and its id is spent.", {}
        except UpstreamError as error:
            said = (
                f"Whether {action.words} may still come can't be told: {error.upstream.system}: {error.upstream.text}"
            )
            failures.append(Failure(code_of(error), said, Phase.DETACH, action, error.upstream, unknown=True))
            continue
        if action.state is not state:
            await run.journal.write(ActionEnded(action.id, state, sentence, evidence, action.error))
            run.mark(action, state, sentence)
    return failures


def _may_be_on_its_way(action: Action) -> bool:
    unknown = action.state is ActionState.EXECUTION_FAILED and bool((action.error or {}).get("unknown", True))
    return action.remote_id is None and (action.state is ActionState.STARTED or unknown)
