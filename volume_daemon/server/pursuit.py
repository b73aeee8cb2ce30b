"""Brings one ordered change about in CloudStack, and finds out how it ended, whatever gets lost on the way.

The intent with its `customjobid` is committed before the call. A call whose answer was lost is never blindly repeated:
CloudStack is asked for the job first, and the same id cannot run twice (`ApiServer.queueCommand`). Where an endpoint
does not honour the id, only what CloudStack shows of the volume is left to go by, after the signed call has expired.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from structlog import get_logger

from ossea.errors import CloudStackError, ErrorKind
from ossea.models import JobStatus
from volume_daemon.models import FaultKind, OperationError, OperationStatus, OperationType
from volume_daemon.server.cloud import VolumeReader, pending_job, submit, submit_error
from volume_daemon.server.decisions import (
    Already,
    Applied,
    Ask,
    Decision,
    Ended,
    Follow,
    Refuse,
    decide,
    is_wanted,
    job_error,
    judge,
)
from volume_daemon.server.link import Clouds
from volume_daemon.server.live import Live
from volume_daemon.server.pauses import Pauses
from volume_daemon.server.queue import Turns
from volume_daemon.server.records import Entry, Figures, Stage
from volume_daemon.server.refusals import Problem
from volume_daemon.server.store import Store
from volume_daemon.server.withdrawal import Stopped, Withdrawal

log = get_logger(__name__)
Outcome = Already | Applied | Refuse


def request_id_for(operation_id: str, attempt: int) -> str:
    """CloudStack's `customjobid`: the operation's own id, and one derived from it for each further attempt."""
    return operation_id if attempt == 1 else str(uuid.uuid5(uuid.UUID(operation_id), str(attempt)))


class Pursuit:
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
        self._reader = reader
        self._store = store
        self._turns = turns
        self._withdrawal = withdrawal
        self._figures = figures
        self._now = now

    async def bring_about(self, live: Live) -> Outcome:
        """The operation's outcome in CloudStack; follows it however long it takes."""
        try:
            if live.entry.stage is Stage.SENT:
                call = await self._adopt(live)
            else:
                found = await self._begin(live)
                if not isinstance(found, Ended):
                    return found
                call = found
        except Stopped as stopped:
            return Refuse(stopped.error)
        return await self._judge(live, call)

    def arm(self, live: Live) -> None:
        """Starts the clock by which the operation turns overdue: it runs from when CloudStack was asked."""
        at = live.entry.overdue_at(self._figures.operation_timeout_s)
        if at is not None and live.timer is None:
            delay_s = max(0.0, (at - self._now()).total_seconds())
            live.timer = asyncio.get_running_loop().call_later(delay_s, live.overdue.set)

    async def _begin(self, live: Live) -> Ended | Already | Refuse:
        """Decides, waits for the turn, sends. What was decided before a wait is decided again after it."""
        entry = live.entry
        requester = await self._requester(entry)
        pauses = Pauses(self._figures.pause_min_s, self._figures.pause_max_s)
        while True:
            decision = await self._decide(entry)
            match decision:
                case Already() | Refuse():
                    return decision
                case Follow(job_id):
                    await self._wait_for_other(live, job_id, pauses)
                case Ask(None):
                    return await self._send(live, None)
                case Ask(vm_id):
                    live.queue_vm_id = vm_id
                    async with self._turns.turn(vm_id or "", requester, entry.id) as waited:
                        if not waited or await self._decide(entry) == decision:
                            return await self._send(live, vm_id)
                    live.queue_vm_id = None

    async def _requester(self, entry: Entry) -> str:
        """Whose turn it uses: that of the volume's VM context."""
        if entry.volume_id is None:
            return ""
        records = await self._store.read_volume_insisting(entry.volume_id)
        if entry.type is OperationType.ATTACH and len(records.oma_vm_ids) != 1:
            found = "several VMs" if records.oma_vm_ids else "no VM"
            text = (
                f"The configuration of the volume (ossea_configs, by its ossea_config_id, else the active row) names "
                f"{found} as the OMA, so that it cannot be told what attaching means."
            )
            raise Stopped(OperationError("oma_unknown", FaultKind.REFUSED, text))
        return records.context_id or (records.mapping and records.mapping.vm_context_id) or ""

    async def _decide(self, entry: Entry) -> Decision:
        """Raises `Stopped` where CloudStack does not answer: nothing was sent."""
        if entry.volume_id is None:
            return decide(entry, None)
        pauses = iter(self._figures.retry_pauses_s)
        while True:
            try:
                return decide(entry, await self._reader.find(entry.volume_id))
            except CloudStackError as error:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise Stopped(submit_error(error, FaultKind.REFUSED)) from None
                await asyncio.sleep(max(pause_s, error.retry_after_s or 0.0))

    async def _wait_for_other(self, live: Live, job_id: str, pauses: Pauses) -> None:
        """Every earlier job of the volume is brought to its end before anything is done to it."""
        live.waiting_for = f"CloudStack's job {job_id}, which is at work on the volume"
        try:
            job = await self._cloud().wait_job(job_id)
        except CloudStackError as error:
            log.warning("A job could not be followed.", job_id=job_id, reason=error.text)
            await pauses.pause()
        else:
            if job.status is JobStatus.ABSENT:
                await pauses.pause()
        live.waiting_for = None

    async def _send(self, live: Live, vm_id: str | None) -> Ended:
        """Records, commits the intent, sends, and follows. Raises `Stopped`."""
        entry = live.entry
        if entry.type is OperationType.DETACH:
            entry = await self._withdrawal.record(entry)
        attempt = entry.attempt + 1
        offset = await self._learn_offset()
        now = self._now()
        entry = replace(
            entry,
            stage=Stage.SENT,
            status=OperationStatus.EXECUTING,
            attempt=attempt,
            request_id=request_id_for(entry.id, attempt),
            queue_vm_id=vm_id,
            vm_id=entry.vm_id or vm_id,
            sent_at=now,
            expires_at=now + offset + timedelta(seconds=self._figures.expires_s),
            updated_at=now,
        )
        await self._commit_intent(live, entry)
        if entry.exports:
            await self._withdrawal.carry_out(live)
        return await self._see_through(live, fresh=True)

    async def _learn_offset(self) -> timedelta:
        """The server's clock minus ours. Raises `Stopped` where it cannot be told: nothing is sent then."""
        cloud = self._cloud()
        try:
            if cloud.server_offset is None:
                await cloud.list_zones()
        except CloudStackError as error:
            raise Stopped(submit_error(error, FaultKind.REFUSED)) from None
        return cloud.server_offset or timedelta()

    async def _commit_intent(self, live: Live, entry: Entry) -> None:
        try:
            await self._store.mark_sent(entry)
        except Problem as problem:
            raise Stopped(OperationError(problem.code, FaultKind.REFUSED, problem.detail)) from None
        live.entry = entry
        self.arm(live)

    async def _adopt(self, live: Live) -> Ended:
        """After a restart: the call may have been sent, so it is looked for first."""
        entry = live.entry
        self.arm(live)
        live.withdrawn = bool(entry.exports)
        live.queue_vm_id = entry.queue_vm_id
        if entry.queue_vm_id is None:
            return await self._see_through(live, fresh=False)
        async with self._turns.adopted(entry.queue_vm_id, entry.id):
            return await self._see_through(live, fresh=False)

    async def _see_through(self, live: Live, *, fresh: bool) -> Ended:
        """Sends where that is safe, looks where it is not known what arrived; ends when the call's end is known.

        `fresh`: no earlier sending of this call may have arrived.
        """
        send = fresh
        pauses = Pauses(self._figures.pause_min_s, self._figures.pause_max_s)
        refusals = iter(self._figures.retry_pauses_s)
        while True:
            try:
                if send:
                    return await self._submit(live)
                found = await self._look_for(live)
            except CloudStackError as error:
                live.waiting_for = f"CloudStack: {error.text}"
                if send and error.kind is ErrorKind.REFUSED:
                    return Ended(None, submit_error(error, FaultKind.REFUSED))
                if fresh and error.changed_nothing:
                    pause_s = next(refusals, None)
                    if pause_s is None:
                        return Ended(None, submit_error(error, FaultKind.REFUSED))
                    await asyncio.sleep(max(pause_s, error.retry_after_s or 0.0))
                    continue
                send = fresh = False
                await pauses.pause(error.retry_after_s or 0.0)
                continue
            if isinstance(found, Ended):
                return found
            if found:
                await self._renew_intent(live)
                send = True
            else:
                await pauses.pause()

    async def _submit(self, live: Live) -> Ended:
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
        return Ended(job_id, job_error(job), job.instance_id)

    async def _look_for(self, live: Live) -> Ended | bool:
        """How the call ended; True: it never arrived, send it again; False: it cannot be told yet."""
        entry = live.entry
        if entry.type is not OperationType.DELETE:
            job = await self._cloud().query_job(entry.job_id or "")
            if job.status is not JobStatus.ABSENT:
                return await self._follow(live, job.id)
        volume = await self._reader.find(entry.volume_id) if entry.volume_id else None
        if entry.type is OperationType.DELETE:
            return Ended(None, None) if volume is None else True
        job_id = pending_job(volume) if volume is not None else None
        if job_id is not None:
            live.waiting_for = f"CloudStack's job {job_id}, which is at work on the volume and may be this operation's"
            await self._cloud().wait_job(job_id)
            return False
        if is_wanted(entry, volume):
            return Ended(entry.job_id, None)
        if entry.remote_job_id is None and await self._cloud().honours_custom_job_id():
            return self._remembered(entry) or _lost(entry)
        return self._look_without_id(live)

    def _look_without_id(self, live: Live) -> Ended | bool:
        """CloudStack chose the job's id and we did not learn it, or has forgotten it; the volume shows nothing."""
        offset, expires_at = self._cloud().server_offset, live.entry.expires_at
        margin = timedelta(seconds=self._figures.expiry_margin_s)
        if offset is None or (expires_at is not None and self._now() + offset < expires_at + margin):
            live.waiting_for = "the time by which CloudStack can no longer accept the call whose answer was lost"
            return False
        return _lost(live.entry)

    def _remembered(self, entry: Entry) -> bool:
        """Whether CloudStack would still know the job if it had arrived (its rows live `job.expire.minutes`)."""
        sent_at = entry.sent_at or entry.created_at
        return (self._now() - sent_at).total_seconds() < self._figures.job_memory_s

    async def _renew_intent(self, live: Live) -> None:
        """Sending again, under the same id and a new expiry; not if a newer holder has spoken. Raises `Stopped`."""
        offset = self._cloud().server_offset or timedelta()
        expires_at = self._now() + offset + timedelta(seconds=self._figures.expires_s)
        await self._commit_intent(live, replace(live.entry, expires_at=expires_at))
        if live.entry.exports:
            await self._withdrawal.carry_out(live)

    async def _judge(self, live: Live, call: Ended) -> Outcome:
        """Reads the volume again until CloudStack shows it, however long."""
        pauses = Pauses(self._figures.pause_min_s, self._figures.pause_max_s)
        if live.entry.volume_id is None and call.entity_id is not None:
            live.entry = replace(live.entry, volume_id=call.entity_id)
        while True:
            try:
                volume = await self._reader.find(live.entry.volume_id) if live.entry.volume_id else None
            except CloudStackError as error:
                live.waiting_for = f"CloudStack: {error.text}"
                await pauses.pause(error.retry_after_s or 0.0)
                continue
            verdict = judge(live.entry, call, volume)
            if not isinstance(verdict, Follow):
                live.waiting_for = None
                return verdict
            await self._wait_for_other(live, verdict.job_id, pauses)


def _lost(entry: Entry) -> Ended:
    text = "The answer to the call was lost, and CloudStack can no longer tell whether it arrived."
    return Ended(entry.job_id, OperationError("outcome_unknown", FaultKind.FAILED, text))
