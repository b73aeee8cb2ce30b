"""What a person says of an action, held against a fresh look, after its own call can no longer come as a surprise.

A call that nobody has heard of may still be on its way. Before anything else is done about its action its id is given
up (`workflow.giving_up`), so that what was seen stays true.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from oma.domain.actions import Action
from oma.domain.errors import Code, OmaError
from oma.domain.issues import Issue
from oma.domain.jobs import Job
from oma.domain.resolving import Allowed, Contradicted, Decision, Resolution, Seen, Standing, decide
from oma.domain.states import ActionState
from oma.ports import Burn, UpstreamError
from oma.service.deps import Deps
from oma.workflow.doubt import utc
from oma.workflow.giving_up import Sides, burn
from oma.workflow.probing import probe_action
from oma.workflow.recovery import cannot_arrive_after
from oma.workflow.touched import Times

MAY_BE_ON_ITS_WAY: Final = frozenset({Standing.NEVER_ARRIVED, Standing.UNTRACEABLE})
BEGUN: Final = frozenset({ActionState.STARTED, ActionState.EXECUTION_FAILED})
BURNT: Final = "its_id"
"""In the evidence: what became of the call's id."""


async def look_and_decide(
    deps: Deps, issue: Issue, job: Job, action: Action, resolution: Resolution
) -> tuple[Seen, Decision]:
    """Raises `state_unknown` where somebody does not answer, or while the call may still arrive."""
    seen = await _look(deps, issue, action)
    decision = decide(action.state, action.kind, resolution, seen)
    if not isinstance(decision, Allowed) or decision.state is None:
        return seen, decision
    if action.state not in BEGUN or seen.standing not in MAY_BE_ON_ITS_WAY:
        return seen, decision
    burnt = await _give_up(deps, issue, job, action)
    if burnt is not Burn.ARRIVED:
        return replace(seen, evidence={**seen.evidence, BURNT: burnt.value}), decision
    seen = await _look(deps, issue, action)
    return seen, decide(action.state, action.kind, resolution, seen)


def contradicted(issue: Issue, resolution: Resolution, decision: Contradicted, evidence: dict[str, Any]) -> OmaError:
    return OmaError(
        Code.RESOLUTION_CONTRADICTED,
        decision.sentence,
        vm_name=issue.vm_name,
        job_id=issue.job_id,
        resolution=resolution.value,
        evidence=evidence,
        guidance=list(issue.guidance),
        next=decision.next_step,
    )


async def _give_up(deps: Deps, issue: Issue, job: Job, action: Action) -> Burn:
    sides = Sides(deps.cloud, deps.volumes, job.plan.oma_vm_id, deps.limits.installation, job.lease_fence)
    try:
        async with asyncio.timeout(deps.observe_timeout_s):
            burnt = await burn(sides, action)
            now = await deps.cloud.find_server_time() if burnt is Burn.UNPROVEN else None
    except TimeoutError:
        raise _silence(issue, action, f"no answer within {deps.observe_timeout_s:g} s") from None
    except UpstreamError as error:
        raise _silence(issue, action, str(error)) from error
    until = cannot_arrive_after(action, deps.late_s)
    if now is not None and until is not None and now < until:
        raise OmaError(
            Code.STATE_UNKNOWN,
            f"The call of {action.words} may still arrive until {utc(until)}, and its id can't be spent; nothing was "
            "written.",
            vm_name=issue.vm_name,
            job_id=issue.job_id,
            next=f"Say it again after {utc(until)}.",
        )
    return burnt


async def _look(deps: Deps, issue: Issue, action: Action) -> Seen:
    try:
        async with asyncio.timeout(deps.observe_timeout_s):
            times = Times(deps.clock.now(), deps.longest_call_s, deps.late_s)
            return await probe_action(deps.cloud, deps.volumes, action, times)
    except TimeoutError:
        said = f"no answer within {deps.observe_timeout_s:g} s"
    except UpstreamError as error:
        said = str(error)
    raise _silence(issue, action, said)


def _silence(issue: Issue, action: Action, said: str) -> OmaError:
    return OmaError(
        Code.STATE_UNKNOWN,
        f"What became of {action.words} can't be told now ({said}); nothing was written.",
        vm_name=issue.vm_name,
        job_id=issue.job_id,
        next="See that CloudStack and the Volume Daemon answer (oma doctor), then say it again.",
    )
