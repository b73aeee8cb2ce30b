"""Before anything attaches a volume, every earlier operation on it is brought to its end.

Source: section 6 of the safety rules; a late detach takes a volume off whatever VM holds it by then, also off the OMA
(CloudStack issue 14214). Jobs of CloudStack's own are waited for by `look.settled_look`; here it is the Volume Daemon's
operations, whoever asked for them: an earlier run of ours, the failover that died, a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oma.domain.actions import ActionKind
from oma.domain.changes import Noted
from oma.domain.errors import Code
from oma.domain.states import LogLevel
from oma.ports import VolumeOperation
from oma.workflow.drivers import LONG_POLL_S
from oma.workflow.look import ask
from oma.workflow.run import Failure, Run


async def end_stragglers(run: Run, volume_ids: Sequence[str]) -> dict[str, Failure]:
    """Waits for `busy_wait_s` at most; returns the volumes under which one has not ended then, none as a rule.

    Raises `UpstreamError`, `Stopped`.
    """
    volume_ids = list(dict.fromkeys(volume_ids))
    found = await asyncio.gather(*(_end_those_of(run, one) for one in volume_ids))
    return {one: failure for one, failure in zip(volume_ids, found, strict=True) if failure is not None}


async def _end_those_of(run: Run, volume_id: str) -> Failure | None:
    clock, figures = run.tools.clock, run.tools.figures
    began = clock.monotonic()
    said = False
    while stragglers := await _find(run, volume_id):
        names = ", ".join(f"{one.type} {one.id}" for one in stragglers)
        if clock.monotonic() - began >= figures.busy_wait_s:
            sentence = (
                f"An earlier operation on {_name(run, volume_id)} has not ended within {figures.busy_wait_s:.0f} s "
                f"({names}); nothing is attached under it."
            )
            evidence = {"volume_id": volume_id, "operations": [one.id for one in stragglers]}
            return Failure(Code.CLEANUP_FAILED, sentence, run.phase, unknown=True, evidence=evidence)
        if not said:
            said = True
            sentence = f"Waiting for the end of what still runs on {_name(run, volume_id)}: {names}."
            await run.journal.write(Noted(LogLevel.WARN, sentence, run.phase, {"volume_id": volume_id}))
        await _wait_for(run, stragglers[0])
    return None


async def _find(run: Run, volume_id: str) -> list[VolumeOperation]:
    """The attaches of this very run are none: they are followed as actions."""
    own = {one.request_id for one in run.actions if one.kind is ActionKind.ATTACH_VOLUME}
    found = await ask(run, lambda: run.tools.volumes.list_open_operations(volume_id))
    return [one for one in found if one.id not in own]


async def _wait_for(run: Run, operation: VolumeOperation) -> None:
    """One long poll; an operation that is overdue answers at once, and is asked again after a moment."""
    began = run.tools.clock.monotonic()
    await ask(run, lambda: run.tools.volumes.wait_operation(operation.id, LONG_POLL_S))
    if run.tools.clock.monotonic() - began < 1:
        await ask(run, lambda: run.tools.clock.sleep(1))


def _name(run: Run, volume_id: str) -> str:
    return next((one.name for one in run.plan.volumes if one.volume_id == volume_id), volume_id)
