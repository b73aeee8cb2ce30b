"""Ends the driver injection that holds a volume's device, and nothing else (6-safety 3).

What is ended was found by a fresh, complete scan, is the process that the caller saw, and is journaled before the first
signal. One refusal refuses the whole request: nothing is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from structlog import get_logger

from volume_daemon.holders.ended import EndedTree, EndOutcome, EndReport
from volume_daemon.holders.report import Holder, HolderKind, HolderState, ProcessId
from volume_daemon.server.endings import EndOrder
from volume_daemon.server.holders import Found, HolderFigures, HolderWatch
from volume_daemon.server.lanes import Lanes
from volume_daemon.server.refusals import Problem
from volume_daemon.server.signals import Ended, end_tree
from volume_daemon.server.store import Store

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Planned:
    """One holder as asked for; `root` None: it is gone already."""

    asked: ProcessId
    root: ProcessId | None = None
    command: str | None = None
    members: tuple[ProcessId, ...] = ()


class HolderEnder:
    """One request at a time per volume."""

    def __init__(self, watch: HolderWatch, store: Store, figures: HolderFigures, now: Callable[[], datetime]) -> None:
        self._watch = watch
        self._store = store
        self._figures = figures
        self._now = now
        self._lanes = Lanes()

    async def end(self, order: EndOrder) -> EndReport:
        """Raises `Problem`, `DatabaseUnavailable`."""
        async with self._lanes.lane(order.volume_id):
            ended = await self._store.find_end_outcome(order)
            if ended is None:
                ended = await self._end(order)
            return EndReport(order.id, order.volume_id, ended, await self._watch.report(order.volume_id))

    async def _end(self, order: EndOrder) -> tuple[EndedTree, ...]:
        found = await self._watch.find(order.volume_id)
        planned = plan_end(found, order)
        await self._store.save_end_intent(order, [_tree_json(one) for one in planned])
        roots = {one.root: one for one in planned if one.root is not None}
        log.warning(
            "A driver injection that holds a device is ended.",
            volume_id=order.volume_id,
            device=found.report.target,
            request_id=order.id,
            reason=order.reason,
            roots=[one.root.pid for one in roots.values() if one.root is not None],
        )
        outcomes = await asyncio.gather(*(self._end_one(one) for one in roots.values()))
        by_root = dict(zip(roots, outcomes, strict=True))
        ended = tuple(_outcome(one, by_root.get(one.root) if one.root else None) for one in planned)
        await self._store.save_end_outcome(order, ended)
        log.info("Holders were ended.", volume_id=order.volume_id, outcomes=[one.outcome.value for one in ended])
        return ended

    async def _end_one(self, planned: Planned) -> Ended:
        root = planned.root or planned.asked
        return await end_tree(root, planned.members, self._figures.term_s, self._figures.kill_s)


def plan_end(found: Found, order: EndOrder) -> tuple[Planned, ...]:
    """What would be ended, by what the scan saw; pure. Raises `Problem` for the first that may not be."""
    report = found.report
    if report.state is HolderState.UNKNOWN:
        raise Problem(
            HTTPStatus.CONFLICT,
            "state_unknown",
            "The scan for holders is not complete, so nothing is ended: "
            + ("; ".join(report.unread) or report.proof.detail),
            unread=list(report.unread),
            proof=report.proof.as_json(),
        )
    return tuple(_plan_one(found, order.volume_id, asked) for asked in order.holders)


def _plan_one(found: Found, volume_id: str, asked: ProcessId) -> Planned:
    processes = [one for one in found.report.holders if one.kind is HolderKind.PROCESS]
    holder = next((one for one in processes if asked in (one.process, one.tree)), None)
    if holder is not None:
        if not holder.endable or holder.tree is None:
            raise _refused(holder, asked)
        members = tuple(one.id for one in found.tree_of(holder.tree))
        return Planned(asked, holder.tree, holder.tree_command, members)
    for one in processes:
        for seen in (one.process, one.tree):
            if seen is not None and seen.pid == asked.pid:
                raise Problem(
                    HTTPStatus.CONFLICT,
                    "holder_changed",
                    f"Process {asked.pid} started at tick {seen.start_ticks}, not at {asked.start_ticks} as asked: "
                    "it is another process; look at the holders again.",
                    holder=one.as_json(),
                )
    living = found.table.get(asked.pid)
    if living is not None and living.id == asked and not living.is_dead:
        raise Problem(
            HTTPStatus.CONFLICT,
            "holder_refused",
            f"Process {asked.pid} ({living.name}) does not hold the device of {volume_id}; it is left alone.",
            **asked.as_json(),
        )
    return Planned(asked)


def _refused(holder: Holder, asked: ProcessId) -> Problem:
    detail = f"Process {asked.pid} ({holder.name}) is not ended: {holder.why_not}."
    return Problem(HTTPStatus.CONFLICT, "holder_refused", detail, holder=holder.as_json())


def _outcome(planned: Planned, ended: Ended | None) -> EndedTree:
    if ended is None or not ended.members:
        return EndedTree(planned.asked, EndOutcome.GONE, planned.command)
    outcome = EndOutcome.KILLED if ended.killed else EndOutcome.TERMINATED
    if ended.remaining:
        outcome = EndOutcome.SURVIVED
    return EndedTree(planned.asked, outcome, planned.command, ended.members, ended.remaining)


def _tree_json(planned: Planned) -> dict[str, object]:
    return {
        "asked": planned.asked.as_json(),
        "root": planned.root.as_json() if planned.root else None,
        "command": planned.command,
        "members": [one.as_json() for one in planned.members],
    }
