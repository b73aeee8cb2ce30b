"""A job that outlives nobody who works on it: after a bounded number of recoveries a person looks at it.

Without a bound it would take one daemon after the other with it, and every other job with them.
"""

from __future__ import annotations

from oma.domain.errors import Code
from oma.domain.jobs import ClaimedJob
from oma.domain.states import PHASES, ActionState, Phase
from oma.workflow.failures import find_known_failures
from oma.workflow.finishing import unfollowed
from oma.workflow.parking import park
from oma.workflow.run import Failure, Run


def is_poisoned(run: Run, claimed: ClaimedJob) -> bool:
    return claimed.recoveries > run.tools.figures.job_recoveries


async def park_poisoned(run: Run, claimed: ClaimedJob) -> str:
    """Parks it without a look at the world; every action that is uncertain gets an issue of its own beside it."""
    run.phase = next((phase for phase in PHASES if not run.step_is_over(phase)), Phase.RESET)
    begun = [one for one in run.actions if one.state is ActionState.STARTED]
    last = f"; {begun[-1].words} was on its way" if begun else ""
    sentence = (
        f"The clean-up of {run.plan.vm_name} was taken over {claimed.recoveries} times in a row from a daemon that "
        f"died or lost its lease over it, in {run.phase.value}{last}; it is not tried any more."
    )
    evidence = {"recoveries": claimed.recoveries, "phase": run.phase.value}
    failure = Failure(Code.CLEANUP_FAILED, sentence, run.phase, unknown=True, evidence=evidence)
    known = find_known_failures(run)
    return await park(run, (failure, *known, *unfollowed(run, known)))
