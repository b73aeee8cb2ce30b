"""A run whose journal can't be true: a person looks at it before anything is done, and every other run goes on."""

from __future__ import annotations

from oma.domain.errors import Code
from oma.domain.issues import UNBELIEVABLE
from oma.domain.jobs import ClaimedJob
from oma.domain.nonsense import find_nonsense
from oma.domain.states import PHASES, Phase
from oma.workflow.failures import find_known_failures
from oma.workflow.finishing import unfollowed
from oma.workflow.parking import park
from oma.workflow.run import Failure, Run


def find_problem(run: Run, claimed: ClaimedJob) -> str | None:
    return find_nonsense(claimed.job, claimed.steps, claimed.actions, run.tools.clock.now())


async def park_unbelievable(run: Run, problem: str) -> str:
    """Nothing is asked and nothing is sent; every action that is uncertain gets an issue of its own beside it."""
    run.phase = next((phase for phase in PHASES if not run.step_is_over(phase)), Phase.RESET)
    sentence = f"The journal of the clean-up of {run.plan.vm_name} can't be true: {problem}. Nothing was done."
    failure = Failure(
        Code.CLEANUP_FAILED, sentence, run.phase, unknown=True, evidence={"problem": problem}, issue_kind=UNBELIEVABLE
    )
    known = find_known_failures(run)
    return await park(run, (failure, *known, *unfollowed(run, known)))
