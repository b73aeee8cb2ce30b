"""What the daemon asks CloudStack: volumes, many at once, and the changes that it was ordered to make."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from appliance.crashpoints import Change
from ossea.client import CloudStack
from ossea.errors import CloudStackError, ErrorKind
from ossea.models import Volume
from ossea.submitting import Spent
from volume_daemon.models import FaultKind, OperationError, OperationType
from volume_daemon.server.link import Clouds
from volume_daemon.server.records import Entry

IDS_PER_CALL: Final = 100
"""A list call's ids stand in its address, which servers bound at 8 kB."""
GATHER_S: Final = 0.005
"""How long a look waits for others who ask at the same moment: a VM's volumes are asked for one by one."""
GIB: Final = 1024**3
ROOT_DEVICE: Final = 0

DEFINITE: Final = frozenset({ErrorKind.REFUSED, ErrorKind.UNAUTHORIZED})
"""Asking again would not help; 401 is never tried again blindly."""

ATTACH = Change("volume_daemon.cloud.attach")
DETACH = Change("volume_daemon.cloud.detach")
DELETE = Change("volume_daemon.cloud.delete")
CREATE = Change("volume_daemon.cloud.create")
PROBE = Change("volume_daemon.cloud.probe")
SPEND = Change("volume_daemon.cloud.spend")


class VolumeReader:
    """Looks volumes up. Whoever asks while a call is under way shares the next one, so a look is never an old one."""

    def __init__(self, cloud: Clouds) -> None:
        self._cloud = cloud
        self._waiting: dict[str, asyncio.Future[Volume | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, volume_id: str) -> Volume | None:
        """As CloudStack shows it from now on; None: it does not list it. Raises `CloudStackError`."""
        waiter = self._waiting.get(volume_id)
        if waiter is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[volume_id] = waiter
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="volume reader")
        return await asyncio.shield(waiter)

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for waiter in self._waiting.values():
            waiter.cancel()
        self._waiting.clear()

    async def _serve(self) -> None:
        await asyncio.sleep(GATHER_S)
        while self._waiting:
            taken = dict(list(self._waiting.items())[:IDS_PER_CALL])
            for volume_id in taken:
                del self._waiting[volume_id]
            try:
                listed = await self._cloud().list_volumes(ids=list(taken))
            except Exception as error:  # noqa: BLE001  it is told to those who wait for this look, of whatever kind
                _fail(list(taken.values()), error)
                continue
            except BaseException:
                for waiter in taken.values():
                    waiter.cancel()
                raise
            found = {volume.id: volume for volume in listed}
            for volume_id, waiter in taken.items():
                if not waiter.done():
                    waiter.set_result(found.get(volume_id))


def _fail(waiters: Sequence[asyncio.Future[Volume | None]], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
            waiter.exception()  # seen: a waiter may have gone away


def pending_job(volume: Volume) -> str | None:
    """The job that CloudStack shows at work on the volume (`jobstatus` 0, or not told)."""
    return volume.job_id if volume.job_status in {None, 0} else None


async def submit(cloud: CloudStack, entry: Entry) -> tuple[str | None, str | None]:
    """Sends the operation's call; returns the job's id (None: done already) and a created volume's id.

    Raises `CloudStackError`.
    """
    request_id = entry.request_id
    expires_at = entry.expires_at
    match entry.type:
        case OperationType.ATTACH:
            volume_id, vm_id = entry.volume_id or "", entry.vm_id or ""
            with ATTACH:
                job_id = await cloud.attach_volume(
                    volume_id, vm_id, device_id=entry.device_id, job_id=request_id, expires_at=expires_at
                )
            return job_id, None
        case OperationType.DETACH:
            with DETACH:
                job_id = await cloud.detach_volume(entry.volume_id or "", job_id=request_id, expires_at=expires_at)
            return job_id, None
        case OperationType.DELETE:
            with DELETE:
                await cloud.delete_volume(entry.volume_id or "", expires_at=expires_at)
            return None, None
        case OperationType.CREATE:
            return await _create(cloud, entry, request_id, expires_at)
        case _:
            raise ValueError(entry.type)


async def _create(
    cloud: CloudStack, entry: Entry, request_id: str | None, expires_at: datetime | None
) -> tuple[str, str]:
    size_bytes = int(entry.request["size"])
    with CREATE:
        return await cloud.create_volume(
            str(entry.request["name"]),
            disk_offering_id=str(entry.request["disk_offering_id"]),
            zone_id=str(entry.request["zone_id"]),
            size_gib=-(-size_bytes // GIB),
            job_id=request_id,
            expires_at=expires_at,
        )


async def probe_custom_job_id(cloud: CloudStack) -> bool:
    """Whether the endpoint knows jobs by our ids; asked once, by a job of nothing. Raises `CloudStackError`.

    A role that may not touch tags is refused the question. Then it is not known, and not relied on.
    """
    try:
        with PROBE:
            return await cloud.honours_custom_job_id()
    except CloudStackError as error:
        if error.kind in DEFINITE:
            return False
        raise


async def spend_id(cloud: CloudStack, request_id: str) -> bool:
    """Gives a call's id up by a job of nothing, so that what is on its way under it is turned away (6-safety 6).

    True: the id is used up, by this or by the call itself, which had arrived. False: it can't be, as where the role may
    not touch tags or the endpoint gives jobs ids of its own. Raises `CloudStackError` where it cannot be told.
    """
    try:
        with SPEND:
            return await cloud.spend_job_id(request_id, None) is not Spent.NOT_AT_ALL
    except CloudStackError as error:
        if error.kind in DEFINITE:
            return False
        raise


def submit_error(error: CloudStackError, kind: FaultKind) -> OperationError:
    """An operation's error from a call that went wrong; CloudStack's own code and words where it spoke."""
    silent = error.kind in {ErrorKind.NO_ANSWER, ErrorKind.NOT_SENT}
    spoke = error.errorcode is not None
    return OperationError(
        code="cloudstack_timeout" if silent else "cloudstack_error",
        kind=kind,
        text=f"CloudStack {error.errorcode}: {error.text}" if spoke else f"CloudStack: {error.text}",
        errorcode=error.errorcode,
        cserrorcode=error.cserrorcode,
        errortext=error.text if spoke else None,
    )
