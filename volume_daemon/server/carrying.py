"""Carries one accepted operation out, whatever happens on the way: it ends, and what it ends in is true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from structlog import get_logger

from volume_daemon.models import FaultKind, OperationError, OperationStatus
from volume_daemon.server.finish import Finisher
from volume_daemon.server.journal import JournalConflict
from volume_daemon.server.live import Live
from volume_daemon.server.pursuit import Outcome, Pursuit
from volume_daemon.server.queue import Turns
from volume_daemon.server.records import Figures
from volume_daemon.server.store import Store

log = get_logger(__name__)


class Carrier:
    """One for all operations; what belongs to one operation is in its `Live`."""

    def __init__(
        self,
        *,
        store: Store,
        pursuit: Pursuit,
        finisher: Finisher,
        turns: Turns,
        figures: Figures,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._pursuit = pursuit
        self._finisher = finisher
        self._turns = turns
        self._figures = figures
        self._now = now

    async def carry_out(self, live: Live) -> None:
        """To its end. Raises `JournalConflict`."""
        if live.entry.is_condemned:
            await self._end_condemned(live)
            return
        outcome: Outcome | None = None
        try:
            outcome = await self._pursuit.bring_about(live)
            async with live.turning_point:
                live.is_decided = True
            await self._finisher.finish(live, outcome)
        except JournalConflict:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await self._give_up(live, outcome, error)  # something that it waited for was cancelled, not it
        except Exception as error:
            log.exception("An operation failed in a way nobody foresaw.", id=live.entry.id)
            await self._give_up(live, outcome, error)

    async def _end_condemned(self, live: Live) -> None:
        """Nothing of it is gone on with; it ends, and its volume is free, when its call can do nothing any more."""
        try:
            await self._see_off(live)
        finally:
            if live.entry.queue_vm_id is not None:
                self._turns.end(live.entry.queue_vm_id, live.entry.id)
        ended = live.entry.ended(OperationStatus.FAILED, self._now())
        await self._store.end_condemned(ended)
        live.entry = ended

    async def _see_off(self, live: Live) -> None:
        """Before an operation ends with its outcome unknown: its call must not do anything after that (#14214)."""
        patience = self._figures.patience()
        while True:
            try:
                await self._pursuit.see_off(live)
            except Exception:
                log.exception("Whether its call is still under way could not be told.", id=live.entry.id)
                if await patience.pause():
                    continue
            return

    async def _give_up(self, live: Live, outcome: Outcome | None, error: BaseException) -> None:
        """A fault of ours: what was changed is unknown, and saying so is better than standing still for ever."""
        if outcome is None:
            await self._see_off(live)
        text = f"The daemon failed in a way nobody foresaw ({type(error).__name__}); its log tells more."
        fault = OperationError("internal_error", FaultKind.FAILED, text)
        try:
            await self._finisher.abandon(live, outcome, fault)
        except Exception:
            log.exception("What is known of the volume could not be written.", id=live.entry.id)
        else:
            return
        ended = live.entry.ended(OperationStatus.FAILED, self._now(), error=fault)
        try:
            await self._store.finish(ended, None)
        except Exception:
            log.exception("Its end could not be written either.", id=live.entry.id)
            return
        live.entry = ended
