"""Where a scan looks, what it looks for, and how it notes what it could not read. Everything here blocks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

GONE: Final = frozenset({errno.ENOENT, errno.ESRCH})
"""A process, file or device that ended between being listed and being read."""
CHUNK: Final = 1 << 16
MOST_SENTENCES: Final = 20

Scope = Literal["everything", "readable"]
FileKey = tuple[int, int]
"""A file by its file system and inode."""


@dataclass(frozen=True, slots=True)
class Places:
    """Roots of what the kernel shows; others than the defaults are prepared trees."""

    proc_root: Path = Path("/proc")
    sys_root: Path = Path("/sys")
    dev_root: Path | None = None
    """Where device nodes that fit `sys_root` are; None for a prepared tree, whose devices are not this machine's."""

    @classmethod
    def of(cls, proc_root: Path, sys_root: Path) -> Places:
        return cls(proc_root, sys_root, Path("/dev") if sys_root == Path("/sys") else None)

    @property
    def is_machine(self) -> bool:
        """Whether the processes shown are this machine's."""
        return self.proc_root == Path("/proc")


@dataclass(frozen=True, slots=True)
class Target:
    """A volume's device: a block device by its number, or a file that stands for one."""

    serial: str
    link: str
    path: str
    number: int | None = None
    file: FileKey | None = None


class TargetUnclear(Exception):
    """There is something in the volume's place, but it cannot be told what; the text is a sentence."""


@dataclass(slots=True)
class Unread:
    """What could not be read; each of it turns `none` into `unknown`."""

    sentences: list[str] = field(default_factory=list)

    def note(self, what: str, error: OSError | str) -> None:
        why = error if isinstance(error, str) else (error.strerror or str(error))
        self.sentences.append(f"{what}: {why}")

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Notes what fails inside; what is gone counts as read, for it holds nothing any more."""
        try:
            yield
        except OSError as error:
            if error.errno not in GONE:
                self.note(what, error)

    def shown(self) -> tuple[str, ...]:
        more = len(self.sentences) - MOST_SENTENCES
        tail = (f"and {more} more",) if more > 0 else ()
        return (*self.sentences[:MOST_SENTENCES], *tail)


def list_names(place: str | Path | int) -> list[str]:
    """Plain names of what is in a folder: a scan lists thousands. Raises `OSError`."""
    return os.listdir(place)  # noqa: PTH208 - also of an open folder


def look_at(path: str | Path) -> os.stat_result:
    """What the path leads to, links followed. Raises `OSError`."""
    return os.stat(path)  # noqa: PTH116 - a path object for each of thousands costs more than the call


def read_bytes(path: str) -> bytes:
    """The whole file. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(handle, CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(handle)


def read_text(path: Path) -> str:
    """One value as sysfs shows it, without the line's end. Raises `OSError`."""
    return read_bytes(str(path)).decode(errors="surrogateescape").rstrip("\n")


def read_number(path: Path) -> int:
    """A device number from sysfs' `major:minor`. Raises `OSError`."""
    major, _, minor = read_text(path).partition(":")
    return os.makedev(int(major), int(minor))


def find_target(serial: str, link: Path, places: Places) -> Target | None:
    """The device that the link leads to, else the disk that says the serial itself; None: it is not on this machine.

    Raises `TargetUnclear`.
    """
    try:
        found = link.stat()
    except FileNotFoundError:
        if os.path.lexists(link):
            raise TargetUnclear(f"{link} leads nowhere") from None
        return _by_serial(serial, link, places)
    except OSError as error:
        raise TargetUnclear(f"{link} cannot be followed: {error.strerror}") from None
    path = os.path.realpath(link)
    if stat.S_ISBLK(found.st_mode):
        return Target(serial, str(link), path, number=found.st_rdev)
    if stat.S_ISREG(found.st_mode):
        return Target(serial, str(link), path, file=(found.st_dev, found.st_ino))
    raise TargetUnclear(f"{link} leads to {path}, which is neither a block device nor a file")


def _by_serial(serial: str, link: Path, places: Places) -> Target | None:
    """virtio-blk shows the serial in sysfs also where udev has made no link."""
    block = places.sys_root / "block"
    try:
        names = sorted(list_names(block))
    except OSError as error:
        raise TargetUnclear(f"{block} cannot be read: {error.strerror}") from None
    for name in names:
        try:
            if read_text(block / name / "serial").strip() == serial:
                return Target(serial, str(link), f"/dev/{name}", number=read_number(block / name / "dev"))
        except OSError as error:
            if error.errno not in GONE | {errno.EIO, errno.ENODEV}:
                raise TargetUnclear(f"{block / name}/serial cannot be read: {error.strerror}") from None
    return None
