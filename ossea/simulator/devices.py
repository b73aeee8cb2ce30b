"""The OMA's devices: `virtio-<serial>` links to loop devices, or to the volumes' files where root is missing."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

_LOOP_CONTROL = Path("/dev/loop-control")
_LOOP_MAJOR = 7
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_SET_FD = 0x4C00
_LOOP_CLR_FD = 0x4C01
_TRIES = 50
_SYS_BLOCK = Path("/sys/block")
_DELETED = " (deleted)"


class NoLoopDevices(Exception):
    """Loop devices were asked for and cannot be had; the text says why."""


class Devices:
    """What appears and goes under `root`; `mode` is auto, loop or file.

    Links and loop devices that an earlier process left behind go at `open`, all go at `close`.
    """

    def __init__(self, root: Path, volumes_dir: Path, mode: str) -> None:
        self._root = root
        self._volumes_dir = volumes_dir
        self._mode = mode
        self._loops: dict[str, Path] = {}
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Raises `NoLoopDevices` in mode loop where there are none."""
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        await asyncio.to_thread(self._remove_all)

    async def clear(self) -> None:
        await asyncio.to_thread(self._remove_all)

    async def appear(self, serial: str, file: Path) -> None:
        await asyncio.to_thread(self._appear, serial, file)

    async def go(self, serial: str) -> None:
        await asyncio.to_thread(self._go, serial)

    async def flush(self, serial: str) -> None:
        """What was written to the device is in the volume's file afterwards."""
        loop = self._loops.get(serial)
        if loop is not None:
            await asyncio.to_thread(_sync, loop)

    async def loop_of(self, serial: str) -> Path | None:
        """The loop device on the volume's file; None where there is none, or where that file was replaced."""
        return await asyncio.to_thread(self._current_loop, serial)

    @property
    def mode(self) -> str:
        """Loop or file, once `open` has decided."""
        return self._mode

    # In threads

    def _open(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        self._remove_all()
        if self._mode == "auto":
            self._mode = "loop" if self._loop_works() is None else "file"
        elif self._mode == "loop":
            reason = self._loop_works()
            if reason is not None:
                raise NoLoopDevices(reason)

    def _loop_works(self) -> str | None:
        """None, or why not: one is set up on a file of its own and taken down."""
        probe = self._volumes_dir / "probe.part"
        try:
            probe.write_bytes(bytes(4096))
            _clear(_set_up(probe))
        except OSError as error:
            return f"no loop devices: {error.strerror or error}"
        finally:
            probe.unlink(missing_ok=True)
        return None

    def _remove_all(self) -> None:
        for link in self._root.glob("virtio-*"):
            if link.is_symlink():
                link.unlink()
        with self._lock:
            self._loops.clear()
        for loop in _loops_on(self._volumes_dir):
            _clear(loop)

    def _appear(self, serial: str, file: Path) -> None:
        target = file.resolve()
        if self._mode == "loop":
            with self._lock:
                target = self._loops[serial] = self._current_loop(serial) or self._renew(serial, file)
        link = self._root / f"virtio-{serial}"
        fresh = self._root / f".{link.name}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)

    def _current_loop(self, serial: str) -> Path | None:
        loop = self._loops.get(serial)
        return None if loop is None or _backing_file(loop).endswith(_DELETED) else loop

    def _renew(self, serial: str, file: Path) -> Path:
        """A loop device on the file as it is now; one on a file that was replaced stays with who holds it."""
        old = self._loops.get(serial)
        if old is not None:
            _clear(old)
        return _set_up(file)

    def _go(self, serial: str) -> None:
        (self._root / f"virtio-{serial}").unlink(missing_ok=True)
        with self._lock:
            loop = self._loops.pop(serial, None)
        if loop is not None:
            _clear(loop)


def _backing_file(loop: Path) -> str:
    """Its name, which ends with " (deleted)" once another file has taken its place; empty where it cannot be read."""
    try:
        return (_SYS_BLOCK / loop.name / "loop" / "backing_file").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _set_up(file: Path) -> Path:
    """A free loop device on `file`; another process may be faster, then the next one."""
    control = os.open(_LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = Path(f"/dev/loop{number}")
            if not device.exists():
                os.mknod(device, 0o660 | stat.S_IFBLK, os.makedev(_LOOP_MAJOR, number))
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _LOOP_SET_FD, backing)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    continue
                raise
            finally:
                os.close(fd)
            return device
        raise OSError(errno.EBUSY, "every loop device was taken by somebody else")
    finally:
        os.close(backing)
        os.close(control)


def _clear(device: Path) -> None:
    """Take it down; where somebody still holds it open, the kernel does so when the last one closes."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno not in {errno.ENXIO, errno.EBUSY}:
            raise
    finally:
        os.close(fd)


def _sync(device: Path) -> None:
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _loops_on(folder: Path) -> list[Path]:
    """Loop devices whose file is, or was, in `folder`."""
    found = []
    prefix = f"{folder.resolve()}/"
    for backing in _SYS_BLOCK.glob("loop*/loop/backing_file"):
        loop = Path("/dev") / backing.parent.parent.name
        if _backing_file(loop).startswith(prefix):
            found.append(loop)
    return found
