"""Planted bugs in what survives a death: journal, leases, fences, ids that are adopted or burned, the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from database.commits import GroupCommit, Member
from oma.domain.actions import Action, ActionKind
from oma.domain.changes import ActionEnded, ActionStarted, Change
from oma.domain.states import ActionState
from oma.ports import UpstreamError
from oma.service import epochs
from oma.workflow import actions, finding, sending
from oma.workflow.drivers import Driver
from oma.workflow.finding import Finding
from oma.workflow.journal import Journal
from oma.workflow.run import Run
from volume_daemon.server import calls, endings
from volume_daemon.server import journal as volume_daemon_journal
from volume_daemon.server.records import Entry, Stage
from volume_daemon.server.store import Store

Patch = pytest.MonkeyPatch
LATE_S = 0.02


def skip_the_probe(patch: Patch) -> None:
    """What an earlier process began is sent once more as a new call; nobody asks what became of it."""

    async def blind(run: Run, _driver: Driver, action: Action, lost: UpstreamError | None = None) -> Finding:
        again = replace(action, attempt=action.attempt + 1, remote_id=None)
        return Finding(again if lost is None else action, send=True)

    patch.setattr(actions, "find_call", blind)


def no_burn(patch: Patch) -> None:
    """What an earlier process may have sent is given up for a new call; its id is not spent, and it never expires."""
    ordinary = finding.find_call

    async def forget(run: Run, driver: Driver, action: Action, lost: UpstreamError | None = None) -> Finding:
        found = await ordinary(run, driver, action, lost)
        if lost is not None or not found.send:
            return found
        await run.journal.write(ActionEnded(action.id, ActionState.ROLLED_BACK, "It never arrived."))
        again = replace(action, attempt=action.attempt + 1)
        await run.journal.write(ActionStarted(again, again.sentence))
        return Finding(run.remember(again), send=True)

    async def much_later(run: Run) -> datetime:
        return await run.tools.cloud.find_server_time() + timedelta(hours=1)

    patch.setattr(actions, "find_call", forget)
    patch.setattr(actions, "find_expiry", much_later)


def epoch_is_not_looked_at(patch: Patch) -> None:
    """Whatever the tag and the state directory say, no database is held for older than the world."""
    patch.setattr(epochs, "find_older", lambda *_seen: None)


def ignore_the_fence(patch: Patch) -> None:
    """The Volume Daemon takes every fence, so that an order of a former holder, who was given up, is carried out."""

    def deaf(*_args: Any) -> None:
        return None

    def mark_sent(connection: Connection, entry: Any) -> None:
        volume_daemon_journal._update(connection, entry, (Stage.ACCEPTED, Stage.SENT))

    no_burn(patch)
    patch.setattr(volume_daemon_journal, "raise_fence", deaf)
    patch.setattr(endings, "raise_fence", deaf)
    patch.setattr(volume_daemon_journal, "mark_sent", mark_sent)
    patch.setattr(Store, "check_fence", deaf)


def sent_again_without_a_look(patch: Patch) -> None:
    """A detach whose request was lost is sent again, whatever VM holds the volume by then."""

    def unseen(_entry: Entry, _volume: Any) -> None:
        return None

    patch.setattr(calls, "find_moved", unseen)


def told_before_commit(patch: Patch) -> None:
    """Whoever writes is told at once, and the commit comes a moment later, in which the process may die."""
    ordinary = GroupCommit.run

    def commit(self: GroupCommit) -> None:
        late: list[Member] = self.__dict__.setdefault("late", [])
        while late:
            ordinary(self, [late.pop(0)], _tell_nobody)

    def run(self: GroupCommit, members: Sequence[Member], settled: Callable[[Sequence[Member]], None]) -> None:
        for member in members:
            commit(self)
            ordinary(self, [_undone(member)], _keep(member))
            if member.error is None:
                self.__dict__["late"].append(Member(member.fn, member.confirm))
        settled(members)
        asyncio.get_running_loop().call_later(LATE_S, commit, self)

    patch.setattr(GroupCommit, "run", run)


def _tell_nobody(_done: Sequence[Member]) -> None:
    """They were told before."""


class _Undone(Exception):
    """Carries a result out of a transaction that is rolled back."""

    def __init__(self, result: Any) -> None:
        super().__init__("not yet")
        self.result = result


def _undone(member: Member) -> Member:
    def tell_only(connection: Connection) -> None:
        raise _Undone(member.fn(connection))

    return Member(tell_only)


def _keep(member: Member) -> Callable[[Sequence[Member]], None]:
    def keep(done: Sequence[Member]) -> None:
        for one in done:
            told = isinstance(one.error, _Undone)
            member.result = one.error.result if isinstance(one.error, _Undone) else None
            member.error = None if told else one.error

    return keep


def journaled_after_sending(patch: Patch) -> None:
    """The intent is committed only together with the answer."""
    ordinary = Journal.write

    async def write(self: Journal, *changes: Change) -> None:
        held: list[Change] = self.__dict__.setdefault("held", [])
        if len(changes) == 1 and _is_intent(changes[0]):
            held.append(changes[0])
            return
        waiting, held[:] = [*held], []
        await ordinary(self, *waiting, *changes)

    patch.setattr(Journal, "write", write)


def _is_intent(change: Change) -> bool:
    return isinstance(change, ActionStarted) and change.action.kind is not ActionKind.RESET_RECORDS


def lost_is_not_sent(patch: Patch) -> None:
    """A call without an answer counts as one that never left, and gets a new id for its next attempt."""
    ordinary = finding.find_call

    async def never(run: Run, driver: Driver, action: Action, lost: UpstreamError | None = None) -> Finding:
        if lost is None:
            return await ordinary(run, driver, action, lost)
        run.remember(replace(action, attempt=action.attempt + 1))
        return Finding(action, send=True)

    renew = actions._Crew._renew

    async def as_another(self: Any, planned: Any, action: Action) -> Action:
        return await renew(self, planned, self._run.find_action(planned) or action)

    patch.setattr(sending, "find_call", never)
    patch.setattr(actions._Crew, "_renew", as_another)


def export_forgotten(patch: Patch) -> None:
    """The Volume Daemon attaches and leaves the export to whoever cares."""
    patch.setattr(Entry, "wants_export", property(lambda _self: False))
