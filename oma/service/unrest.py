"""Whether anything may still come to the disks of a run that a person gives up: while it may, the run is not ended.

An order of it that is still on its way is told by nobody, and an order to the Volume Daemon never expires. So the
Volume Daemon learns the run's newest fence for every volume before anything is looked at: from then on it takes no
older order. A call to CloudStack has its id spent, or its `expires` waited out, by CloudStack's clock. Source: sections
2, 5 and 6 of the safety rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.issues import Issue
from oma.domain.records import ReplicationRecord, VmRecords, VolumeRecord
from oma.domain.remains import Remains
from oma.domain.resolving import Standing
from oma.domain.world import CloudVolume
from oma.ports import Burn, UpstreamError
from oma.service.deps import Deps
from oma.workflow.doubt import utc
from oma.workflow.giving_up import Sides, burn
from oma.workflow.holding import name_holders, unread_words
from oma.workflow.life import is_recently_touched
from oma.workflow.observe import choose_config
from oma.workflow.probing import find_standing
from oma.workflow.recovery import cannot_arrive_after

TOO_OLD: Final = (
    "The Volume Daemon is too old to be told that the run is given up, so that an order of it may still come; install "
    "the one that came with this program (see oma doctor)."
)


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing of the run and nobody else was at its disks. `server_time`: CloudStack's, right after that look.

    `gone` are the volumes that CloudStack doesn't list, `dead` the replications that are open and show no life.
    """

    volume_ids: tuple[str, ...]
    server_time: datetime
    gone: tuple[VolumeRecord, ...]
    dead: tuple[ReplicationRecord, ...]


async def find_rest(deps: Deps, issue: Issue, remains: Remains, records: VmRecords) -> Rest:
    """Raises `state_unknown` where something may still come, somebody is at it, or nobody says."""
    found: Rest | str
    try:
        async with asyncio.timeout(deps.observe_timeout_s):
            found = await _look(deps, remains, records)
    except TimeoutError:
        found = f"No answer came within {deps.observe_timeout_s:g} s."
    except UpstreamError as error:
        found = f"{error.upstream.system} does not answer: {error.upstream.text}"
    if isinstance(found, Rest):
        return found
    raise OmaError(
        Code.STATE_UNKNOWN,
        f"{found} The run stays as it is.",
        vm_name=issue.vm_name,
        job_id=issue.job_id,
        next="Wait until nothing is at its volumes any more, then say it again.",
    )


async def _look(deps: Deps, remains: Remains, records: VmRecords) -> Rest | str:
    """Else what may still happen, in a sentence. Raises `UpstreamError`."""
    config = choose_config(records)
    if config is None or config.oma_vm_id is None:
        return "Which OMA its volumes belong to can't be told."
    calls_end = (remains.parked_at or deps.clock.now()) + timedelta(seconds=deps.longest_call_s + deps.late_s)
    if deps.clock.now() < calls_end:
        return f"A call of the run may still arrive until {utc(calls_end)}."
    own = [one.volume_id for one in records.volumes]
    targets = (one.target.volume_id for one in remains.actions)
    every = list(dict.fromkeys((*own, *remains.volume_ids, *(one for one in targets if one is not None))))
    if not await _are_fenced(deps, every, remains.fence):
        return TOO_OLD
    sides = Sides(deps.cloud, deps.volumes, config.oma_vm_id, deps.limits.installation, remains.fence)
    for action in remains.uncertain:
        if (said := await _may_come(deps, sides, action)) is not None:
            return said
    listed = await deps.cloud.list_volumes(every)
    said = await _find_work(deps, every, listed) or _find_replication(deps, records)
    said = said or await _find_client(deps, records)
    if said is not None:
        return said
    known = {volume.id for volume in listed}
    gone = {one.volume_id: one for one in records.volumes if one.volume_id not in known}
    dead = tuple(one for one in records.replications if one.is_open)
    return Rest(tuple(own), await deps.cloud.find_server_time(), tuple(gone.values()), dead)


async def _find_work(deps: Deps, volume_ids: Iterable[str], listed: Iterable[CloudVolume]) -> str | None:
    for volume in listed:
        if not volume.is_settled:
            return f"CloudStack shows {volume.name} as {volume.state}, with a job at it."
    for volume_id in volume_ids:
        if await deps.volumes.list_open_operations(volume_id):
            return f"The Volume Daemon is at work on {volume_id}."
    return None


async def _are_fenced(deps: Deps, volume_ids: Iterable[str], fence: int) -> bool:
    """The order that is taken back was never given: what counts is the fence that comes with it."""
    kind = ActionKind.ATTACH_VOLUME
    orders = (deps.volumes.burn(deps.ids.new_id(), kind, one, fence=fence) for one in volume_ids)
    return Burn.UNPROVEN not in await asyncio.gather(*orders)


async def _may_come(deps: Deps, sides: Sides, action: Action) -> str | None:
    """A sentence where it is under way, or may still arrive; else its id is spent, or its time over."""
    try:
        burnt = await burn(sides, action)
        if burnt is Burn.SPENT:
            return None
        until = cannot_arrive_after(action, deps.late_s) if burnt is Burn.UNPROVEN else None
        if until is not None and await deps.cloud.find_server_time() < until:
            return f"The call of {action.words} may still arrive until {utc(until)}, and its id can't be spent."
        standing = await find_standing(sides.cloud, sides.volumes, action)
    except ValueError:
        # Its target can't be told, so that nothing was ever sent by this row.
        return None
    return f"It is still under way: {action.words}." if standing is Standing.UNDER_WAY else None


def _find_replication(deps: Deps, records: VmRecords) -> str | None:
    now = deps.clock.now()
    for one in records.replications:
        if is_recently_touched(one, now, deps.limits):
            return f"Replication {one.id} is {one.status} and was touched at {utc(one.last_touched_at or now)}."
    return None


async def _find_client(deps: Deps, records: VmRecords) -> str | None:
    """Also where no row tells of a replication; a device that is gone has no client."""
    scan = await deps.volumes.scan_devices()
    shown = {one.volume_id: one.volume_name for one in records.volumes if scan.shows(one.volume_id)}
    answers = await asyncio.gather(*(deps.volumes.list_holders(one) for one in shown))
    for name, answer in zip(shown.values(), answers, strict=True):
        if answer is not None and answer.clients:
            return f"{name} is being replicated on the OMA, by {name_holders(answer.clients)}."
        if answer is not None and not answer.complete:
            return f"Who holds the device of {name} on the OMA can't be told: {unread_words(answer)}."
    return None
