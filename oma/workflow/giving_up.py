"""A call that may have been sent and is not wanted any more: its id is adopted or burned before anything else is done.

Source: section 6 of the safety rules. CloudStack can't see a lease, and a late `detachVolume` takes a volume off
whatever VM holds it then. So the id is used up by a job that changes nothing: after that the late call fails, whenever
it comes. The Volume Daemon takes its own id back, and learns the lease's fence with it; what it had never heard of it
never sent, and the same id is spent at CloudStack besides. Where no id can be spent, the call's `expires` is waited
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oma.domain.actions import VOLUME_DAEMON_KINDS, Action, ActionKind
from oma.domain.changes import ActionSent
from oma.ports import Burn, Cloud, RemoteStatus, Volumes
from oma.workflow.drivers import DRIVERS
from oma.workflow.expiring import wait_until_it_cannot_arrive
from oma.workflow.look import ask
from oma.workflow.run import Run

WITHOUT_CALL: Final = frozenset({ActionKind.END_HOLDER, ActionKind.RESET_RECORDS})
"""The end of a holder names a process by its start time and can hit no other; the reset is our own transaction."""
UNKNOWN_IDS: Final = frozenset({RemoteStatus.ABSENT, RemoteStatus.UNTRACEABLE})


@dataclass(frozen=True, slots=True)
class Sides:
    """Whom an id is given up at, and for whom."""

    cloud: Cloud
    volumes: Volumes
    oma_vm_id: str
    installation: str
    fence: int


async def burn(sides: Sides, action: Action) -> Burn:
    """Of the action's current attempt; may be repeated. Raises `UpstreamError`."""
    if action.kind in WITHOUT_CALL:
        return Burn.SPENT
    if action.kind in VOLUME_DAEMON_KINDS:
        return await _burn_at_volume_daemon(sides, action)
    return await sides.cloud.burn(action.request_id, action.kind, sides.oma_vm_id, sides.installation)


async def _burn_at_volume_daemon(sides: Sides, action: Action) -> Burn:
    """Its journal tells what it sent; should it have lost that, CloudStack knows the id and is believed instead."""
    volume_id = action.target.get_volume_id()
    burnt = await sides.volumes.burn(action.request_id, action.kind, volume_id, fence=sides.fence)
    if burnt is not Burn.SPENT:
        return burnt
    there = await sides.cloud.burn(action.request_id, action.kind, sides.oma_vm_id, sides.installation)
    if there is not Burn.ARRIVED:
        return Burn.SPENT
    job = await sides.cloud.query_job(action.request_id, action.kind)
    return Burn.ARRIVED if job.status is RemoteStatus.PENDING else Burn.SPENT


async def give_up(run: Run, action: Action) -> bool:
    """True: it did arrive and is to be followed. False: it can never run, now or later.

    Raises `UpstreamError` where nobody answers, and `Stopped`.
    """
    burnt = await ask(run, lambda: burn(_sides(run), action))
    if burnt is Burn.UNPROVEN:
        await wait_until_it_cannot_arrive(run, action, f"The id of {action.words} can't be spent")
        found = await ask(run, lambda: DRIVERS[action.kind].probe(run, action))
        return found.status not in UNKNOWN_IDS
    return burnt is Burn.ARRIVED


async def try_to_burn(run: Run, action: Action) -> Burn:
    """Like `give_up`, without waiting where the id can't be spent."""
    return await ask(run, lambda: burn(_sides(run), action))


async def adopt(run: Run, action: Action) -> Action:
    """A call that was to be given up and had arrived: it is followed like any other, as journaled."""
    adopted = run.remember(action.with_remote_id(action.request_id, run.tools.clock.now()))
    sentence = f"Its id could not be given up, for {action.words} had arrived; it is followed to its end."
    await run.journal.write(ActionSent(action.id, action.request_id, sentence))
    return adopted


def _sides(run: Run) -> Sides:
    tools = run.tools
    return Sides(tools.cloud, tools.volumes, run.plan.oma_vm_id, tools.limits.installation, run.lease.fence)
