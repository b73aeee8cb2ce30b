"""Before a detach: what would be lost with the mapping is recorded, and its exports are taken from nbd-server."""

from __future__ import annotations

from dataclasses import replace

from structlog import get_logger

from volume_daemon.models import FaultKind, OperationError
from volume_daemon.server.live import Live
from volume_daemon.server.nbd import NbdFiles, NbdUnwritable, ReloadFailed
from volume_daemon.server.records import Entry
from volume_daemon.server.store import Store

log = get_logger(__name__)


class Stopped(Exception):
    """The operation cannot go on; nothing was sent."""

    def __init__(self, error: OperationError) -> None:
        super().__init__(error.text)
        self.error = error


class Withdrawal:
    """The three steps: record, carry out, and undo where the detach did not happen."""

    def __init__(self, store: Store, nbd: NbdFiles) -> None:
        self._store = store
        self._nbd = nbd

    async def record(self, entry: Entry) -> Entry:
        """The entry with exports and tracking, not yet written. Raises `Stopped` where exports cannot be changed."""
        records = await self._store.read_volume_insisting(entry.volume_id or "")
        exports = records.exports
        if exports:
            try:
                await self._nbd.check_writable()
                exports = await self._nbd.record(exports, records.recorded)
            except NbdUnwritable as error:
                text = f"The volume has an NBD export, and the configuration cannot be changed: {error}"
                raise Stopped(OperationError("nbd_config_unwritable", FaultKind.REFUSED, text)) from None
        tracking = records.mapping.tracking if records.mapping else None
        return replace(entry, exports=exports, tracking=tracking)

    async def carry_out(self, live: Live) -> None:
        """After the recording is committed. Raises `Stopped`; what was taken is put back by `undo`."""
        live.withdrawn = True
        try:
            await self._nbd.withdraw(live.entry.exports)
        except (NbdUnwritable, ReloadFailed) as error:
            text = f"The volume's NBD export could not be taken away: {error}"
            raise Stopped(OperationError("nbd_export_stuck", FaultKind.REFUSED, text)) from None

    async def undo(self, live: Live) -> str | None:
        """The exports as they were; a sentence where that failed."""
        if not live.withdrawn or not live.entry.exports:
            return None
        try:
            await self._nbd.put(live.entry.exports)
        except (NbdUnwritable, ReloadFailed) as error:
            log.exception("An NBD export could not be put back.", operation_id=live.entry.id)
            return f"Its NBD export could not be put back: {error}"
        return None
