"""The end of an operation: what the OMA shows, exports and mapping, and the outcome, committed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from appliance.crashpoints import CrashPoint
from ossea.models import Volume
from volume_daemon.models import FaultKind, OperationError, OperationStatus, OperationType
from volume_daemon.server.asking import ask_patiently
from volume_daemon.server.decisions import Already, Applied, Refuse, remote_path, unlocated_path
from volume_daemon.server.devices import DeviceWatch, Seen, Sight
from volume_daemon.server.link import Clouds
from volume_daemon.server.live import Live
from volume_daemon.server.mappings import Doubtful, ExportNameTaken, MappingChange, PathTaken, Placed, Removed
from volume_daemon.server.nbd import NbdFiles, NbdUnwritable, ReloadFailed, plan_exports
from volume_daemon.server.pursuit import Outcome
from volume_daemon.server.records import Figures, MappingRow, RecordedExport, Tracking, VolumeRecords
from volume_daemon.server.store import Store
from volume_daemon.server.withdrawal import Stopped, Withdrawal

DEVICE_SEEN = CrashPoint("volume_daemon.device.seen")
DEVICE_GONE = CrashPoint("volume_daemon.device.gone")


class Finisher:
    """What follows CloudStack's part. Every step may be repeated after a crash, up to the one commit at its end."""

    def __init__(
        self,
        *,
        cloud: Clouds,
        store: Store,
        devices: DeviceWatch,
        nbd: NbdFiles,
        withdrawal: Withdrawal,
        figures: Figures,
        now: Callable[[], datetime],
    ) -> None:
        self._cloud = cloud
        self._store = store
        self._devices = devices
        self._nbd = nbd
        self._withdrawal = withdrawal
        self._figures = figures
        self._now = now

    async def finish(self, live: Live, outcome: Outcome) -> None:
        if isinstance(outcome, Refuse):
            note = await self._withdrawal.undo(live)
            await self._fail(live, outcome.error, None, note)
            return
        match live.entry.type:
            case OperationType.ATTACH:
                await self._finish_attach(live, outcome)
            case OperationType.DETACH:
                await self._finish_detach(live, outcome)
            case OperationType.DELETE:
                await self._complete(live, _response(live, outcome), Removed())
            case _:
                await self._complete(live, _response(live, outcome), None)

    async def abandon(self, live: Live, outcome: Outcome | None, fault: OperationError) -> None:
        """After a fault of ours: ends the operation, and keeps what is known of what it did.

        `outcome`: what CloudStack was seen to have made of it; None where the fault came before that. An attachment
        gets the barest mapping that tells where the volume is; what was taken from nbd-server for a detach that is not
        known to have happened is put back.
        """
        entry = live.entry
        change: MappingChange = None
        note: str | None = None
        if outcome is None or isinstance(outcome, Refuse):
            note = await self._withdrawal.undo(live)
        elif entry.type is OperationType.ATTACH:
            change = await self._barest(live, outcome)
        elif entry.type is OperationType.DETACH:
            change = Doubtful("detached", "unknown")
        await self._fail(live, fault, change, note)

    async def _barest(self, live: Live, outcome: Applied | Already) -> Placed:
        volume_id, vm_id = live.entry.volume_id or "", live.entry.vm_id or ""
        records = await self._store.read_volume_insisting(volume_id)
        is_oma = records.is_oma(vm_id)
        path = unlocated_path(volume_id) if is_oma else remote_path(vm_id, volume_id)
        mapping = self._mapping(records, records.tracking, outcome.volume, vm_id, path)
        mode, linux_state = ("oma", "unknown") if is_oma else ("failover", "n/a")
        # Exports that stand keep standing with the row that they hang on.
        return Placed(replace(mapping, operation_mode=mode, linux_state=linux_state), records.exports)

    async def _finish_attach(self, live: Live, outcome: Applied | Already) -> None:
        entry = live.entry
        volume_id, vm_id = entry.volume_id or "", entry.vm_id or ""
        records = await self._store.read_volume_insisting(volume_id)
        tracking, note = await self._still_tracked(live, records)
        response = _response(live, outcome)
        if note is not None:
            response["snapshot_note"] = note
        if not records.is_oma(vm_id):
            mapping = self._mapping(records, tracking, outcome.volume, vm_id, remote_path(vm_id, volume_id))
            mapping = replace(mapping, operation_mode="failover", linux_state="n/a")
            await self._place(live, response, Placed(mapping), None)
            return
        cloud_bytes = outcome.volume.size_bytes if outcome.volume else 0
        live.waiting_for = "the device to appear on the OMA"
        seen = await self._devices.wait_present(volume_id, cloud_bytes, self._figures.device_wait_s)
        DEVICE_SEEN.reach()
        live.waiting_for = None
        is_link = seen.sight in {Sight.PRESENT, Sight.WRONG_SIZE}
        path = str(seen.link) if is_link else unlocated_path(volume_id)
        mapping = self._mapping(records, tracking, outcome.volume, vm_id, path)
        if seen.sight is Sight.PRESENT:
            await self._come_home(live, response, records, replace(mapping, size=seen.size_bytes or cloud_bytes))
            return
        mapping = replace(mapping, linux_state="size_mismatch" if is_link else "unknown")
        await self._place(
            live,
            response,
            Placed(mapping, records.exports),
            _device_error(seen, cloud_bytes, self._figures.device_wait_s),
        )

    async def _come_home(
        self, live: Live, response: dict[str, Any], records: VolumeRecords, mapping: MappingRow
    ) -> None:
        """Attached to the OMA and seen there: its exports are put in place, files first, then all rows at once."""
        entry = live.entry
        error: OperationError | None = None
        exports: tuple[RecordedExport, ...] = ()
        if entry.wants_export:
            try:
                standing = await self._nbd.record(records.exports, records.recorded)
                exports = plan_exports(
                    replace(records, exports=standing),
                    mapping.device_path,
                    self._nbd.config_dir,
                    self._figures.nbd_port,
                    mapping.vm_context_id,
                )
                await self._store.check_export_names(mapping.volume_uuid, [export.name for export in exports])
                await self._nbd.put(exports)
            except ExportNameTaken as problem:
                exports, error = (), _name_taken(problem)
            except NbdUnwritable as problem:
                error = OperationError("nbd_export_missing", FaultKind.FAILED, f"Attached, but not exported: {problem}")
            except ReloadFailed as problem:
                text = f"Attached and configured, but nbd-server did not take the export: {problem}"
                error = OperationError("nbd_reload_failed", FaultKind.FAILED, text)
        response["exports"] = [{"name": export.name, "port": export.port} for export in exports]
        await self._place(live, response, Placed(mapping, exports), error)

    async def _place(self, live: Live, response: dict[str, Any], placed: Placed, error: OperationError | None) -> None:
        """Commits an attachment; where its device path or an export's name is another volume's, as far as it goes."""
        mapping = placed.mapping
        response |= {
            "device_path": mapping.device_path,
            "device_id": mapping.cloudstack_device_id,
            "operation_mode": mapping.operation_mode,
        }
        try:
            await self._end(live, response, placed, error)
        except ExportNameTaken as problem:
            await self._end(live, response, Placed(mapping), _name_taken(problem))
        except PathTaken as problem:
            error = OperationError("device_path_taken", FaultKind.FAILED, f"Attached, but not mapped there: {problem}")
            elsewhere = replace(mapping, device_path=unlocated_path(mapping.volume_uuid), linux_state="unknown")
            await self._end(live, response, Placed(elsewhere), error)

    async def _finish_detach(self, live: Live, outcome: Applied | Already) -> None:
        if isinstance(outcome, Already):
            try:
                await self._withdraw_late(live)
            except Stopped as stopped:
                await self._fail(live, stopped.error, None, await self._withdrawal.undo(live))
                return
        entry = live.entry
        live.waiting_for = "the device to go from the OMA"
        seen = await self._devices.wait_absent(entry.volume_id or "", self._figures.device_wait_s)
        DEVICE_GONE.reach()
        live.waiting_for = None
        if seen.sight is Sight.UNKNOWN:
            text = f"CloudStack shows the volume detached; whether the OMA does cannot be told: {seen.problem}."
            error = OperationError("device_unknown", FaultKind.FAILED, text)
            await self._fail(live, error, Doubtful("detached", "unknown"))
            return
        if seen.sight is not Sight.ABSENT:
            text = (
                f"CloudStack shows the volume detached, but the OMA still shows {seen.link} "
                f"{self._figures.device_wait_s:g} s later; nothing may be done to its content while it is there."
            )
            error = OperationError("device_still_visible", FaultKind.FAILED, text)
            await self._fail(live, error, Doubtful("detached", "still_visible"))
            return
        response = _response(live, outcome)
        response["already_detached"] = isinstance(outcome, Already) or outcome.job_error is not None
        response["exports"] = [{"name": export.name, "port": export.port} for export in entry.exports]
        await self._complete(live, response, Removed())

    async def _withdraw_late(self, live: Live) -> None:
        """The volume is off already, its export may still stand: recorded and taken all the same."""
        entry = await self._withdrawal.record(live.entry)
        if entry.exports or entry.tracking:
            await self._store.mark(entry)
            live.entry = replace(entry, fence=live.entry.fence)
            await self._withdrawal.carry_out(live)

    async def _still_tracked(self, live: Live, records: VolumeRecords) -> tuple[Tracking | None, str | None]:
        """What the mapping said of a snapshot, unless CloudStack knows that snapshot no more.

        Older installations track snapshots in the mapping alone, which goes with a detach. One that was reverted to
        and deleted meanwhile must not come back as a dead reference, and one that is there must not be lost: where
        CloudStack does not answer, it is asked again as long as that makes sense. Where it does not tell, as to a role
        that may not list snapshots, what was recorded is kept, with a sentence that says so.
        """
        tracking = records.tracking
        if tracking is None or not tracking.snapshot_id or records.mapping is not None:
            return tracking, None
        snapshot_id = tracking.snapshot_id
        patience = self._figures.patience()
        try:
            listed = await ask_patiently(live, lambda: self._cloud().list_snapshots(ids=[snapshot_id]), patience)
        except Stopped as stopped:
            live.waiting_for = None
            return tracking, f"Whether the snapshot {snapshot_id} is still there was not told: {stopped.error.text}"
        if any(snapshot.volume_id == records.volume_id for snapshot in listed):
            return tracking, None
        return replace(tracking, snapshot_id=None, snapshot_status=None, snapshot_created_at=None), None

    def _mapping(
        self,
        records: VolumeRecords,
        tracking: Tracking | None,
        volume: Volume | None,
        vm_id: str,
        device_path: str,
    ) -> MappingRow:
        """The mapping of an attachment to the OMA, seen there."""
        return MappingRow(
            id=tracking.mapping_id if tracking else records.volume_id,
            volume_uuid=records.volume_id,
            vm_id=vm_id,
            vm_context_id=(tracking.vm_context_id if tracking else None) or records.context_id,
            operation_mode="oma",
            device_path=device_path,
            cloudstack_device_id=volume.device_id if volume else None,
            cloudstack_state="attached",
            linux_state="detected",
            size=volume.size_bytes if volume else 0,
            snapshot_id=tracking.snapshot_id if tracking else None,
            snapshot_status=tracking.snapshot_status if tracking else None,
            snapshot_created_at=tracking.snapshot_created_at if tracking else None,
        )

    async def _complete(self, live: Live, response: dict[str, Any], change: MappingChange) -> None:
        await self._end(live, response, change, None)

    async def _fail(self, live: Live, error: OperationError, change: MappingChange, note: str | None = None) -> None:
        if note:
            error = replace(error, text=f"{error.text} {note}", kind=FaultKind.FAILED)
        await self._end(live, None, change, error)

    async def _end(
        self, live: Live, response: dict[str, Any] | None, change: MappingChange, error: OperationError | None
    ) -> None:
        status = OperationStatus.FAILED if error else OperationStatus.COMPLETED
        ended = live.entry.ended(status, self._now(), response=response, error=error)
        await self._store.finish(ended, change)
        live.entry = ended


def _name_taken(problem: ExportNameTaken) -> OperationError:
    return OperationError("nbd_export_name_taken", FaultKind.FAILED, f"Attached, but not exported: {problem}")


def _response(live: Live, outcome: Applied | Already) -> dict[str, Any]:
    response: dict[str, Any] = {"volume_id": live.entry.volume_id, "sentence": outcome.sentence}
    if live.entry.vm_id is not None:
        response["vm_id"] = live.entry.vm_id
    if isinstance(outcome, Applied) and outcome.job_error is not None:
        response["cloudstack_error"] = outcome.job_error.as_json()
    return response


def _device_error(seen: Seen, cloud_bytes: int, waited_s: float) -> OperationError:
    """Attached by CloudStack's word, and not there, or not as described."""
    if seen.sight is Sight.UNKNOWN:
        text = f"CloudStack attached the volume; whether the OMA shows it cannot be told: {seen.problem}."
        return OperationError("device_unknown", FaultKind.FAILED, text)
    if seen.sight is Sight.ABSENT:
        text = f"CloudStack attached the volume, but the OMA shows no {seen.link} after {waited_s:g} s."
        return OperationError("device_not_found", FaultKind.FAILED, text)
    if seen.size_bytes is None:
        text = f"CloudStack attached the volume, but {seen.link} leads to nothing on the OMA."
        return OperationError("device_not_found", FaultKind.FAILED, text)
    text = f"{seen.link} has {seen.size_bytes} bytes on the OMA, where CloudStack says {cloud_bytes}."
    return OperationError("device_size_mismatch", FaultKind.FAILED, text)
