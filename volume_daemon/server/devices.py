"""The OMA's devices: links that appear and go, waited for by inotify, found by the volume's serial.

A guest sees a volume under the first 20 characters of its UUID without hyphens (CloudStack,
`LibvirtComputingResource.diskUuidToSerial`), which udev makes a link: `<device_root>/virtio-<serial>`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from asyncinotify import Event, Inotify, Mask
from structlog import get_logger

from volume_daemon.models import DeviceLink, Devices

log = get_logger(__name__)

PREFIX = "virtio-"
PARTITION = re.compile(r"-part\d+$")
LINK_EVENTS = Mask.CREATE | Mask.MOVED_TO | Mask.DELETE | Mask.MOVED_FROM | Mask.ATTRIB | Mask.CLOSE_WRITE
ROOT_EVENTS = LINK_EVENTS | Mask.DELETE_SELF | Mask.MOVE_SELF
ANCESTOR_EVENTS = Mask.CREATE | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF
ROUNDING_BYTES = 64 * 1024 * 1024
"""Storage rounds volumes up to its extents; a device may be that much larger than CloudStack says, never smaller."""


class Sight(StrEnum):
    """What waiting for a device found."""

    PRESENT = "present"
    ABSENT = "absent"
    WRONG_SIZE = "wrong_size"
    """There is a link, which leads to a device of another size, or (without a size) nowhere."""
    UNKNOWN = "unknown"
    """It could not be told; `problem` says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    sight: Sight
    link: Path
    size_bytes: int | None = None
    problem: str | None = None


class DevicesUnknown(Exception):
    """The devices could not be looked at; the text says why."""


def serial_of(volume_id: str) -> str:
    return volume_id.replace("-", "")[:20]


def serial_in(link_name: str) -> str:
    """The serial that a link's name carries, its disk's for a partition; empty for other kinds of links."""
    if not link_name.startswith(PREFIX):
        return ""
    return PARTITION.sub("", link_name.removeprefix(PREFIX))


def size_fits(device_bytes: int, cloud_bytes: int) -> bool:
    """Whether a device can be the volume that CloudStack describes (0: it does not tell)."""
    return cloud_bytes == 0 or cloud_bytes <= device_bytes <= cloud_bytes + ROUNDING_BYTES


def look(link: Path, cloud_bytes: int) -> Seen:
    """Blocking: whether the link leads to a device of the right size.

    Absent is told only of a link that is not in a directory that can be read: every other failure to see it, such as
    a wrong `device_root`, proves nothing.
    """
    try:
        link.lstat()
    except FileNotFoundError:
        problem = root_problem(link.parent)
        return Seen(Sight.ABSENT, link) if problem is None else Seen(Sight.UNKNOWN, link, problem=problem)
    except OSError as error:
        return Seen(Sight.UNKNOWN, link, problem=f"{link} cannot be looked at: {error.strerror}")
    size = _size_of(link)
    if size is not None:
        return Seen(Sight.PRESENT if size_fits(size, cloud_bytes) else Sight.WRONG_SIZE, link, size)
    try:
        link.stat()
    except FileNotFoundError:
        return Seen(Sight.WRONG_SIZE, link)
    except OSError as error:
        return Seen(Sight.UNKNOWN, link, problem=f"{link} cannot be followed: {error.strerror}")
    # Not readable for us: present is all that can be said.
    return Seen(Sight.PRESENT, link)


def root_problem(device_root: Path) -> str | None:
    """Blocking: why the directory says nothing about the OMA's devices; None where it does."""
    try:
        with os.scandir(device_root):
            return None
    except OSError as error:
        return f"{device_root} cannot be read ({error.strerror}), so that no device is known to be there or not"


def scan(device_root: Path) -> tuple[DeviceLink, ...]:
    """Blocking: every link. Raises `DevicesUnknown`."""
    try:
        paths = sorted(device_root.iterdir())
    except OSError:
        raise DevicesUnknown(root_problem(device_root) or f"{device_root} came while it was looked for") from None
    return tuple(DeviceLink(str(path), serial_in(path.name), _size_of(path), os.path.realpath(path)) for path in paths)


def read_product_uuid(path: Path) -> tuple[str | None, str | None]:
    """Blocking: the machine's own UUID, or why there is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}"
    return (text, None) if text else (None, f"{path} is empty")


def _size_of(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.lseek(handle, 0, os.SEEK_END)
    except OSError:
        return None
    finally:
        os.close(handle)


class DeviceWatch:
    """Wakes whoever waits for a link under `device_root`; looks always begin after the watch is set.

    While the kernel gives no events, `problem` says why, and whoever waits is woken to look again every `rescan_s`.
    """

    def __init__(
        self, device_root: Path, product_uuid_path: Path, now: Callable[[], datetime], rescan_s: float = 1.0
    ) -> None:
        self.device_root = device_root
        self._product_uuid_path = product_uuid_path
        self._now = now
        self._rescan_s = rescan_s
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = "not started"

    async def start(self) -> None:
        """Returns when the watch is set, or could not be; then it is tried again beside."""
        tried = asyncio.Event()
        self._task = asyncio.create_task(self._run(tried), name="device watch")
        await tried.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    @property
    def is_alive(self) -> bool:
        """Whether somebody still sees to the watch, set or not."""
        return self._task is not None and not self._task.done()

    def link_of(self, volume_id: str) -> Path:
        return self.device_root / f"{PREFIX}{serial_of(volume_id)}"

    async def look(self, volume_id: str, cloud_bytes: int = 0) -> Seen:
        """A look that begins now."""
        return await asyncio.to_thread(look, self.link_of(volume_id), cloud_bytes)

    async def scan(self) -> Devices:
        """A scan that begins now."""
        scanned_at = self._now()
        links = await asyncio.to_thread(scan, self.device_root)
        product_uuid, reason = await asyncio.to_thread(read_product_uuid, self._product_uuid_path)
        return Devices(product_uuid, reason, scanned_at, links)

    async def wait_present(self, volume_id: str, cloud_bytes: int, timeout_s: float) -> Seen:
        """Until the device is there in its size; what was seen last after `timeout_s`."""
        return await self._wait(volume_id, cloud_bytes, timeout_s, Sight.PRESENT)

    async def wait_absent(self, volume_id: str, timeout_s: float) -> Seen:
        """Until the link is gone; what was seen last after `timeout_s`."""
        return await self._wait(volume_id, 0, timeout_s, Sight.ABSENT)

    async def _wait(self, volume_id: str, cloud_bytes: int, timeout_s: float, wanted: Sight) -> Seen:
        async with self._woken_by(self.link_of(volume_id).name) as woken:
            try:
                async with asyncio.timeout(timeout_s):
                    while True:
                        woken.clear()
                        seen = await self.look(volume_id, cloud_bytes)
                        if seen.sight is wanted:
                            return seen
                        await woken.wait()
            except TimeoutError:
                return await self.look(volume_id, cloud_bytes)

    @asynccontextmanager
    async def _woken_by(self, name: str) -> AsyncIterator[asyncio.Event]:
        woken = asyncio.Event()
        self._waiters.setdefault(name, set()).add(woken)
        try:
            yield woken
        finally:
            waiting = self._waiters[name]
            waiting.discard(woken)
            if not waiting:
                del self._waiters[name]

    async def _run(self, tried: asyncio.Event) -> None:
        """Until it is cancelled: sets the watch, hands events on, and begins anew where that broke."""
        while True:
            try:
                with Inotify() as inotify:
                    await self._arm(inotify)
                    self._wake_all()
                    tried.set()
                    await self._hand_on(inotify)
            except (OSError, ValueError) as error:
                problem = f"the kernel gives no events of {self.device_root}: {error}"
                said, self.problem = self.problem, problem
                # In place of the event that does not come.
                self._wake_all()
                tried.set()
                if problem != said:
                    log.exception("Devices are not watched; they are looked for again and again instead.")
            await asyncio.sleep(self._rescan_s)

    async def _hand_on(self, inotify: Inotify) -> None:
        while True:
            event = await inotify.get()
            if self._concerns_root(event):
                await self._arm(inotify)
                self._wake_all()
            elif event.name is not None:
                for woken in self._waiters.get(event.name.name, ()):
                    woken.set()

    def _concerns_root(self, event: Event) -> bool:
        """Anything but an ordinary event inside the root: it came, went, or events were lost."""
        if event.mask & (Mask.Q_OVERFLOW | Mask.IGNORED | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT):
            return True
        return event.watch is None or event.watch.path != self.device_root

    def _wake_all(self) -> None:
        for waiting in self._waiters.values():
            for woken in waiting:
                woken.set()

    async def _arm(self, inotify: Inotify) -> None:
        """Watches the root, or where it is not there, the nearest directory above it that is."""
        while True:
            place = await asyncio.to_thread(_nearest_directory, self.device_root)
            at_root = place == self.device_root
            try:
                inotify.add_watch(place, ROOT_EVENTS if at_root else ANCESTOR_EVENTS)
            except FileNotFoundError:
                continue
            self.problem = None
            if at_root or await asyncio.to_thread(_nearest_directory, self.device_root) == place:
                # Nothing came into being between the look and the watch.
                return


def _nearest_directory(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.is_dir()), Path("/"))
