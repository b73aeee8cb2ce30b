"""How the end of a driver injection is sent and proven: the Volume Daemon ends it, a scan begun afterwards proves it.

Source: sections 3 and 8 of the safety rules; unknown means "again, after a fresh scan", which the Volume Daemon makes
each time before it sends any signal.
"""

from __future__ import annotations

from typing import Final

from oma.domain.actions import Action
from oma.ports import Fault, RemoteOutcome, RemoteStatus, UpstreamError
from oma.workflow.expiring import until_leased
from oma.workflow.look import LONGEST_PAUSE_S, Verdict, until_stopped
from oma.workflow.run import Run

TRIES: Final = 3
"""Times that it is sent under one id, where no answer comes."""


async def submit_end(run: Run, action: Action) -> str:
    """Returns when the Volume Daemon has ended the tree. Without an answer it is sent again under the same id.

    It looks anew each time, ends only what is still the process as seen, and does what it did once only once.
    """
    volumes, target = run.tools.volumes, action.target
    reason = run.job.request.words.reason or action.sentence
    for tried in range(1, TRIES + 1):
        try:
            await until_stopped(
                run,
                volumes.end_holders(
                    target.get_volume_id(),
                    [target.get_root()],
                    reason,
                    request_id=action.request_id,
                    fence=run.lease.fence,
                ),
            )
        except UpstreamError as error:
            if error.fault not in (Fault.NO_ANSWER, Fault.BROKEN_ANSWER):
                raise
            if tried == TRIES:
                raise UpstreamError(Fault.FAILED, error.upstream) from error
            await until_stopped(run, run.tools.clock.sleep(LONGEST_PAUSE_S))
            await until_leased(run)
        else:
            break
    return action.request_id


async def follow_end(_run: Run, _action: Action) -> RemoteOutcome:
    """The Volume Daemon answers only when it is done."""
    return RemoteOutcome(RemoteStatus.SUCCEEDED)


async def probe_end(run: Run, action: Action) -> RemoteOutcome:
    """Always to be sent again, which is safe, as soon as the Volume Daemon says anything about the device."""
    await run.tools.volumes.list_holders(action.target.get_volume_id())
    return RemoteOutcome(RemoteStatus.ABSENT)


async def judge_ended(run: Run, action: Action, outcome: RemoteOutcome) -> Verdict:
    """The Volume Daemon's word that the tree is gone, and a complete scan begun afterwards that shows none of it.

    The word is needed too: a process that let go of the device and lives could open it again.
    """
    found = await run.tools.volumes.list_holders(action.target.get_volume_id())
    wanted = set(action.target.processes)
    left = [one for one in found.holders if {one.process, one.tree} & wanted] if found is not None else []
    name = run.name_of(action.target)
    told = found is None or found.complete
    done = outcome.status is RemoteStatus.SUCCEEDED
    if not told and found is not None:
        sentence = f"Whether the injection still holds {name} can't be told: {'; '.join(found.unread)}."
    elif left:
        sentence = f"{name} is still held by {', '.join(one.sentence for one in left)}."
    elif not done:
        sentence = f"Nothing of the injection holds {name} any more, but whether it has ended is not proven."
    else:
        sentence = f"The driver injection that held {name} has ended, and nothing of it holds the device any more."
    return Verdict(
        proven=told and not left and done,
        sentence=sentence,
        evidence={
            "processes": [one.as_json() for one in action.target.processes],
            "holders": [one.as_json() for one in found.holders] if found is not None else [],
            "unread": list(found.unread) if found is not None else [],
        },
    )
