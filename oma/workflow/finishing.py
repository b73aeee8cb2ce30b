"""Before a run parks for what it saw: what it had sent earlier is followed to its end, so that nothing stays uncertain.

A look at the world can forbid what has not begun; it cannot take back a call of an earlier process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.errors import Code
from oma.domain.states import ActionState
from oma.workflow.actions import perform
from oma.workflow.run import Failure, Parked, Run


async def park_after_sent(run: Run, planned: Sequence[PlannedAction], failures: Sequence[Failure]) -> NoReturn:
    """Raises `Parked` with these failures, and with those of the actions that were begun before; sends nothing."""

    async def send_nothing(_: PlannedAction) -> None:
        raise Parked(failures)

    found = list(failures)
    begun = [one for one in planned if (action := run.find_action(one)) and action.state is ActionState.STARTED]
    try:
        await perform(run, begun, ask_first=send_nothing)
    except Parked as parked:
        found += [one for one in parked.failures if one not in found]
    raise Parked(found)


def unfollowed(run: Run, failures: Sequence[Failure]) -> Iterator[Failure]:
    """One for each action that was begun, whose end nobody saw, and that none of these names.

    The reset of the records is no such action: its transaction would have ended the job.
    """
    named = {failure.action.id for failure in failures if failure.action is not None}
    for action in run.actions:
        if (
            action.state is ActionState.STARTED
            and action.kind is not ActionKind.RESET_RECORDS
            and action.id not in named
        ):
            sentence = f"How {action.words} ended is not known: the run stopped before it could be followed."
            yield Failure(Code.CLEANUP_FAILED, sentence, action.phase, action, unknown=True)
