"""Brings one ordered change about in CloudStack: decides what it needs, waits for its turn, judges what came of it.

The call itself, and what may get lost of it, is in `calls`.
"""

from __future__ import annotations

from dataclasses import replace

from structlog import get_logger

from ossea.errors import CloudStackError
from ossea.models import JobStatus
from volume_daemon.models import FaultKind, OperationError, OperationType
from volume_daemon.server.asking import ask_patiently
from volume_daemon.server.calls import Calls
from volume_daemon.server.cloud import VolumeReader
from volume_daemon.server.decisions import (
    Already,
    Applied,
    Ask,
    Decision,
    Ended,
    Follow,
    Refuse,
    decide,
    judge,
    judge_beside,
    refused,
)
from volume_daemon.server.link import Clouds
from volume_daemon.server.live import Live
from volume_daemon.server.pauses import Pauses
from volume_daemon.server.queue import Turns
from volume_daemon.server.records import Entry, Figures, Stage
from volume_daemon.server.store import Store
from volume_daemon.server.withdrawal import Stopped

log = get_logger(__name__)
Outcome = Already | Applied | Refuse


class Pursuit:
    """One for all operations; what belongs to one operation is in its `Live`."""

    def __init__(
        self,
        *,
        cloud: Clouds,
        reader: VolumeReader,
        store: Store,
        turns: Turns,
        calls: Calls,
        figures: Figures,
    ) -> None:
        self._cloud = cloud
        self._reader = reader
        self._store = store
        self._turns = turns
        self._calls = calls
        self._figures = figures

    async def bring_about(self, live: Live) -> Outcome:
        """The operation's outcome in CloudStack; follows it however long it takes."""
        # An earlier life may have taken its exports from nbd-server, whatever it came to afterwards.
        live.withdrawn = bool(live.entry.exports)
        try:
            if live.entry.stage is Stage.SENT:
                call = await self._calls.adopt(live)
            else:
                found = await self._begin(live)
                if not isinstance(found, Ended):
                    return found
                call = found
        except Stopped as stopped:
            return Refuse(stopped.error)
        return await self._judge(live, call)

    async def see_off(self, live: Live) -> None:
        """Returns when nothing of the operation can happen in CloudStack any more, whatever it came to."""
        if live.entry.stage is Stage.SENT:
            await self._calls.outlast(live)

    async def _begin(self, live: Live) -> Ended | Already | Refuse:
        """Decides, waits for the turn, sends. What was decided before a wait is decided again after it."""
        entry = live.entry
        requester = await self._requester(entry)
        pauses, patience = self._figures.pauses(), self._figures.patience()
        while True:
            decision = await self._decide(live)
            match decision:
                case Already() | Refuse():
                    return decision
                case Follow(job_id, state):
                    left_s = patience.left_s()
                    if left_s <= 0:
                        return _busy(job_id, state, self._figures.cloudstack_wait_s)
                    await self._wait_for_other(live, job_id, pauses, left_s)
                case Ask(None):
                    return await self._calls.send(live, None)
                case Ask(vm_id):
                    live.queue_vm_id = vm_id
                    async with self._turns.turn(vm_id or "", requester, entry.id) as waited:
                        if not waited or await self._decide(live) == decision:
                            return await self._calls.send(live, vm_id)
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

    async def _decide(self, live: Live) -> Decision:
        """Waits for CloudStack where it does not answer. Raises `Stopped` in the end: nothing was sent."""
        entry = live.entry
        if entry.volume_id is None:
            return decide(entry, None)
        volume_id = entry.volume_id
        volume = await ask_patiently(live, lambda: self._reader.find(volume_id), self._figures.patience())
        if entry.type is OperationType.DETACH and entry.vm_id is None and volume is not None:
            # From the first look on it belongs to that VM, whatever happens to the volume while it waits.
            live.entry = replace(live.entry, vm_id=volume.vm_id)
        return decide(live.entry, volume)

    async def _wait_for_other(self, live: Live, job_id: str, pauses: Pauses, longest_s: float) -> None:
        """Every earlier job of the volume is brought to its end before anything is done to it."""
        live.waiting_for = f"CloudStack's job {job_id}, which is at work on the volume"
        try:
            job = await self._cloud().wait_job(job_id, longest_s)
        except CloudStackError as error:
            log.warning("A job could not be followed.", job_id=job_id, reason=error.text)
            await pauses.pause()
        else:
            if job.status is JobStatus.ABSENT:
                await pauses.pause()
        live.waiting_for = None

    async def _judge(self, live: Live, call: Ended) -> Outcome:
        """Reads the volume again until CloudStack shows it, however long.

        Somebody else's job on the volume is waited for so long; then what is shown counts, and the job is named.
        """
        pauses, patience = self._figures.pauses(), self._figures.patience()
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
            left_s = patience.left_s()
            if left_s <= 0:
                return judge_beside(live.entry, call, volume, verdict.job_id)
            await self._wait_for_other(live, verdict.job_id, pauses, left_s)


def _busy(job_id: str, state: str, waited_s: float) -> Refuse:
    text = (
        f"CloudStack's job {job_id} has been at work on the volume (state {state or 'not told'}) for more than "
        f"{waited_s:g} s; nothing was sent."
    )
    return refused("volume_busy", text)
