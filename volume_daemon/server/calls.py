"""One call to CloudStack, from its intent to its known end, whatever gets lost on the way.

The intent with its `customjobid` is committed before the call. A call whose answer was lost is never blindly repeated:
CloudStack is asked for the job first, and the same id cannot run twice (`ApiServer.queueCommand`). Where an endpoint
does not honour the id, only what CloudStack shows of the volume is left to go by. As long as a sending may still
arrive, the call has no end: a late detach would take the volume off whatever VM holds it then (#14214).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from structlog import get_logger

from appliance.crashpoints import CrashPoint
from ossea.errors import CloudStackError, ErrorKind
from volume_daemon.models import FaultKind, OperationError, OperationStatus, OperationType
from volume_daemon.server.asking import ask_patiently, wait_out
from volume_daemon.server.cloud import VolumeReader, pending_job, probe_custom_job_id, submit, submit_error
from volume_daemon.server.decisions import Ended, find_moved, is_wanted, job_error
from volume_daemon.server.link import Clouds
from volume_daemon.server.live import Live
from volume_daemon.server.pauses import Patience
from volume_daemon.server.queue import Turns
from volume_daemon.server.records import Entry, Figures, Stage
from volume_daemon.server.refusals import Problem
from volume_daemon.server.store import Store
from volume_daemon.server.traces import Traces
from volume_daemon.server.withdrawal import Stopped, Withdrawal

log = get_logger(__name__)
JOB_ENDED = CrashPoint("volume_daemon.call.ended")


class Calls:
    """One for all operations; what belongs to one operation is in its `Live`."""

    def __init__(
        self,
        *,
        cloud: Clouds,
        reader: VolumeReader,
        store: Store,
        turns: Turns,
        withdrawal: Withdrawal,
        figures: Figures,
        now: Callable[[], datetime],
    ) -> None:
        self._cloud = cloud
        self._traces = Traces(cloud, figures, now)
        self._reader = reader
        self._store = store
        self._turns = turns
        self._withdrawal = withdrawal
        self._figures = figures
        self._now = now

    async def send(self, live: Live, vm_id: str | None) -> Ended:
        """Records, commits the intent, sends, and follows. Raises `Stopped`."""
        entry = live.entry
        if entry.type is OperationType.DETACH:
            entry = await self._withdrawal.record(entry)
        waits, patience = live.waits, self._figures.patience()
        await ask_patiently(live, lambda: self._cloud().find_server_time(), patience)
        if live.waits != waits:
            await self._look_again(live, patience)
        offset = self._cloud().server_offset or timedelta()
        now = self._now()
        entry = replace(
            entry,
            stage=Stage.SENT,
            status=OperationStatus.EXECUTING,
            request_id=entry.id,
            queue_vm_id=vm_id,
            vm_id=entry.vm_id or vm_id,
            sent_at=now,
            expires_at=now + offset + timedelta(seconds=self._figures.expires_s),
            updated_at=now,
        )
        await self._commit_intent(live, entry)
        if entry.exports:
            await self._withdrawal.carry_out(live)
        return await self._see_through(live, patience, fresh=True)

    async def adopt(self, live: Live) -> Ended:
        """After a restart: the call may have been sent, so it is looked for first. Raises `Stopped`."""
        entry = live.entry
        self._arm(live)
        live.queue_vm_id = entry.queue_vm_id
        if entry.queue_vm_id is None:
            return await self._see_through(live, self._figures.patience(), fresh=False)
        async with self._turns.adopted(entry.queue_vm_id, entry.id):
            return await self._see_through(live, self._figures.patience(), fresh=False)

    def _arm(self, live: Live) -> None:
        """Starts the clock by which the operation turns overdue: it runs from when CloudStack was asked."""
        at = live.entry.overdue_at(self._figures.operation_timeout_s)
        if at is not None and live.timer is None:
            # A clock that was set back meanwhile must not make it wait for longer than it ever would.
            delay_s = min((at - self._now()).total_seconds(), self._figures.operation_timeout_s)
            if delay_s <= 0:
                live.overdue.set()
            else:
                live.timer = asyncio.get_running_loop().call_later(delay_s, live.overdue.set)

    async def _commit_intent(self, live: Live, entry: Entry) -> None:
        entry = replace(entry, fence=live.entry.fence)  # a newer holder may have given the same order meanwhile
        try:
            await self._store.mark_sent(entry)
        except Problem as problem:
            raise Stopped(OperationError(problem.code, FaultKind.REFUSED, problem.detail)) from None
        live.entry = replace(entry, fence=live.entry.fence)  # a replay may have raised it meanwhile
        self._arm(live)

    async def _see_through(self, live: Live, patience: Patience, *, fresh: bool) -> Ended:
        """Sends where that is safe, looks where it is not known what arrived; ends when the call's end is known.

        `fresh`: no earlier sending of this call may have arrived; `patience` is for that time. Raises `Stopped`.
        """
        send = fresh
        pauses = self._figures.pauses()
        while True:
            try:
                if send:
                    return await self._submit(live)
                found = await self._look_for(live)
                if isinstance(found, Ended):
                    return found
                if found:
                    await self._renew_intent(live)
                    send = True
                    continue
                await pauses.pause()
            except Stopped as stopped:
                return await self._give_up(live, stopped, fresh=fresh)
            except CloudStackError as error:
                refused = Ended(None, submit_error(error, FaultKind.REFUSED))
                if send and error.kind is ErrorKind.REFUSED:
                    return await self._give_up(live, refused, fresh=fresh)
                if not (fresh and error.changed_nothing):
                    send = fresh = False
                    live.waiting_for = f"CloudStack: {error.text}"
                    await pauses.pause(error.retry_after_s or 0.0)
                elif not await wait_out(live, error, patience):
                    return refused
                else:
                    await self._look_again(live, patience)
                    await self._renew_intent(live, fresh=True)

    async def _look_again(self, live: Live, patience: Patience) -> None:
        """Before a detach is sent after a wait: it must not take the volume off another VM. Raises `Stopped`."""
        volume_id = live.entry.volume_id
        if live.entry.type is OperationType.DETACH and volume_id is not None:
            moved = find_moved(live.entry, await ask_patiently(live, lambda: self._reader.find(volume_id), patience))
            if moved is not None:
                raise Stopped(moved)

    async def _submit(self, live: Live) -> Ended:
        await self._store.require_hold()
        try:
            self._store.check_fence(live.entry)
        except Problem as problem:
            raise Stopped(OperationError(problem.code, FaultKind.REFUSED, problem.detail)) from None
        job_id, created_id = await submit(self._cloud(), live.entry)
        live.waiting_for = None
        if job_id is None:
            return Ended(None, None)
        if created_id is not None or job_id != live.entry.request_id:
            remote_job_id = job_id if job_id != live.entry.request_id else None
            volume_id = live.entry.volume_id or created_id
            live.entry = replace(live.entry, remote_job_id=remote_job_id, volume_id=volume_id)
            await self._store.mark(live.entry)
        return await self._follow(live, job_id)

    async def _follow(self, live: Live, job_id: str) -> Ended:
        live.waiting_for = None
        job = await self._cloud().wait_job(job_id)
        JOB_ENDED.reach()
        return Ended(job_id, job_error(job), job.instance_id)

    async def _look_for(self, live: Live) -> Ended | bool:
        """How the call ended; True: send it again, which it survives; False: it cannot be told yet.

        Where the endpoint knows jobs by our id, sending again also settles what is still on its way: that one is then
        refused. So it is done even where the volume stands as ordered already.
        """
        entry = live.entry
        volume = await self._reader.find(entry.volume_id) if entry.volume_id else None
        if entry.type is OperationType.DELETE:
            return Ended(None, None) if volume is None else True
        job = await self._traces.find_job(entry)
        if job is not None:
            return await self._follow(live, job)
        job_id = pending_job(volume) if volume is not None else None
        if job_id is not None:
            live.waiting_for = f"CloudStack's job {job_id}, which is at work on the volume and may be this operation's"
            await self._cloud().wait_job(job_id)
            return False
        arrived = Ended(entry.job_id, None) if is_wanted(entry, volume) else None
        if entry.remote_job_id is None and await probe_custom_job_id(self._cloud()):
            if not self._traces.is_remembered(entry):
                return arrived or _lost(entry)
            moved = find_moved(entry, volume)
            if moved is not None:
                raise Stopped(moved)
            return True
        if arrived is None and self._traces.may_arrive(entry):
            live.waiting_for = "the time by which CloudStack can no longer accept the call whose answer was lost"
            return False
        return arrived or _lost(entry)

    async def _give_up(self, live: Live, end: Ended | Stopped, *, fresh: bool) -> Ended:
        """The call is sent no more. It ends once no earlier sending can arrive any more: with its job, where one did.

        Raises `Stopped`, where that is the `end`.
        """
        late = None if fresh else await self.outlast(live)
        if late is not None:
            return late
        if isinstance(end, Stopped):
            raise end
        return end

    async def outlast(self, live: Live) -> Ended | None:
        """Returns when the call has ended, or can arrive no more (None).

        Its id is spent, so that a late sending is turned away (6-safety 6); where that can't be, its expiry is awaited.
        """
        pauses, may_be_spent = self._figures.pauses(), True
        while True:
            live.waiting_for = "the time by which CloudStack can no longer accept an earlier sending of the call"
            live.entry = self._traces.bound(live.entry)
            may_arrive = self._traces.may_arrive(live.entry)
            try:
                job_id = await self._traces.find_job(live.entry)
                if job_id is not None:
                    return await self._follow(live, job_id)
                if may_arrive and may_be_spent:
                    await self._store.require_hold()
                    is_spent, may_be_spent = await self._traces.spend_id(live.entry), False
                    if is_spent:
                        continue
            except CloudStackError as error:
                live.waiting_for = f"CloudStack: {error.text}"
            except Stopped:
                live.waiting_for = None
                return None
            else:
                if not may_arrive:
                    live.waiting_for = None
                    return None
            await pauses.pause()

    async def _renew_intent(self, live: Live, *, fresh: bool = False) -> None:
        """Sending again, under the same id and a new expiry; not if a newer holder has spoken. Raises `Stopped`.

        `fresh`: CloudStack has not been asked yet, so that the clock of the overdue begins anew too.
        """
        now = self._now()
        expires_at = now + (self._cloud().server_offset or timedelta()) + timedelta(seconds=self._figures.expires_s)
        entry = replace(live.entry, expires_at=expires_at)
        if fresh:
            entry = replace(entry, sent_at=now)
            live.disarm()
        await self._commit_intent(live, entry)
        if live.entry.exports and not fresh:
            await self._withdrawal.carry_out(live)


def _lost(entry: Entry) -> Ended:
    text = "The answer to the call was lost, and CloudStack can no longer tell whether it arrived."
    return Ended(entry.job_id, OperationError("outcome_unknown", FaultKind.FAILED, text))
