"""What processes are and what they have open, as `/proc` shows it.

Facts of the kernel: following `/proc/<pid>/fd/<n>` reaches the very file that is open, whatever the process's mount
namespace calls it, so `stat` gives its device number or inode. `/proc/<pid>/maps` names a mapped device by the inode of
its *node* only; `/proc/<pid>/map_files` leads to the file itself, `/proc/<pid>/root` to what the process
finds at the path.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from volume_daemon.holders.places import GONE, FileKey, Unread, list_names, look_at, read_bytes
from volume_daemon.holders.report import ProcessId

KERNEL_THREAD: Final = 0x00200000
"""`PF_KTHREAD` of linux/sched.h; such a thread holds devices through what sysfs and mounts show."""
GIVEN_UP: Final = frozenset({errno.ESTALE, errno.ENOTCONN})
"""A file on a network or FUSE file system that is away; it is no block device of this machine."""
MAPPED: Final = re.compile(rb"^[^ ]+ .{4} [^ ]+ ([^ ]+ [1-9].*)$", re.MULTILINE)
"""The rest of a line of `maps` after address, rights and offset, where it has an inode."""
LONGEST_COMMAND: Final = 4096


@dataclass(frozen=True, slots=True)
class Process:
    """One line of `/proc/<pid>/stat`."""

    pid: int
    name: str
    state: str
    parent: int
    flags: int
    threads: int
    start_ticks: int

    @property
    def id(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks)

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & KERNEL_THREAD)

    @property
    def is_dead(self) -> bool:
        """Ended and not yet reaped; its first thread alone may have ended, which `threads` tells."""
        return self.state in "ZXx"


def parse_stat(text: bytes) -> Process:
    """The name stands in brackets and may hold anything, brackets too. Raises `ValueError`, `IndexError`."""
    head, _, tail = text.rpartition(b") ")
    number, _, name = head.partition(b" (")
    fields = tail.split()
    return Process(
        pid=int(number),
        name=name.decode(errors="replace"),
        state=fields[0].decode(),
        parent=int(fields[1]),
        flags=int(fields[6]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
    )


def find_process(proc_root: Path, pid: int) -> Process | None:
    """None: there is no such process. Raises `OSError` where it cannot be read."""
    try:
        return parse_stat(read_bytes(f"{proc_root}/{pid}/stat"))
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    except (ValueError, IndexError):
        raise OSError(errno.EBADMSG, "it cannot be understood") from None


def list_pids(proc_root: Path) -> list[int]:
    """Raises `OSError`."""
    return [int(name) for name in list_names(proc_root) if name.isdigit()]


def read_table(proc_root: Path) -> dict[int, Process]:
    """All processes that can be read. Raises `OSError` where not even their numbers can."""
    table: dict[int, Process] = {}
    for pid in list_pids(proc_root):
        with suppress(OSError):
            process = find_process(proc_root, pid)
            if process is not None:
                table[pid] = process
    return table


def read_command(proc_root: Path, pid: int) -> tuple[str, ...]:
    """The arguments as started; none for what has ended or is the kernel's. Raises `OSError`."""
    try:
        text = read_bytes(f"{proc_root}/{pid}/cmdline")
    except OSError as error:
        if error.errno in GONE:
            return ()
        raise
    return tuple(part.decode(errors="replace") for part in text[:LONGEST_COMMAND].rstrip(b"\0").split(b"\0") if text)


@dataclass(slots=True)
class Wanted:
    """What is looked for: device numbers and files, each with the volumes that it leads to."""

    numbers: dict[int, list[tuple[str, str | None]]] = field(default_factory=dict)
    """Number → (serial, through)."""
    files: dict[FileKey, list[tuple[str, str | None]]] = field(default_factory=dict)

    def match(self, found: os.stat_result) -> list[tuple[str, str | None]] | None:
        if stat.S_ISBLK(found.st_mode):
            return self.numbers.get(found.st_rdev)
        return self.files.get((found.st_dev, found.st_ino))


Hits = dict[tuple[str, str | None], list[str]]
"""(serial, through) → how it is held."""


class Opened:
    """Looks through one process after another; what is known of mapped files is kept for one scan."""

    def __init__(self, proc_root: Path, wanted: Wanted, unread: Unread) -> None:
        self._base = str(proc_root)
        self._wanted = wanted
        self._unread = unread
        self._known: set[bytes] = set()
        self._mapped: dict[bytes, list[tuple[str, str | None]]] = {}

    def look(self, process: Process) -> Hits:
        hits: Hits = {}
        base = f"{self._base}/{process.pid}"
        shown = f"process {process.pid} ({process.name})"
        if process.is_dead:
            # The other threads go on with the files that the first one opened.
            with self._unread.reading(f"{shown}: its threads"):
                for thread in list_names(f"{base}/task") if process.threads > 1 else ():
                    self._look_at_files(f"{base}/task/{thread}/fd", shown, hits)
            return hits
        self._look_at_files(f"{base}/fd", shown, hits)
        self._look_at_memory(base, shown, hits)
        return hits

    def _look_at_files(self, folder: str, shown: str, hits: Hits) -> None:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in GONE:
                self._unread.note(f"{shown}: its open files", error)
            return
        try:
            for name in list_names(handle):
                try:
                    matched = self._wanted.match(os.stat(name, dir_fd=handle))
                except OSError as error:
                    if error.errno in GONE or error.errno in GIVEN_UP:
                        continue
                    self._unread.note(f"{shown}: its open files", error)
                    return
                for hit in matched or ():
                    hits.setdefault(hit, []).append(f"fd {name} {_access(handle, name)}")
        except OSError as error:
            if error.errno not in GONE:
                self._unread.note(f"{shown}: its open files", error)
        finally:
            os.close(handle)

    def _look_at_memory(self, base: str, shown: str, hits: Hits) -> None:
        try:
            text = read_bytes(f"{base}/maps")
        except OSError as error:
            if error.errno not in GONE:
                self._unread.note(f"{shown}: its memory", error)
            return
        # Processes share their libraries: all but a few of the thousands of lines have been seen in others.
        mapped = set(MAPPED.findall(text))
        for line in mapped - self._known:
            matched = self._identify(base, shown, line, text)
            if matched is None:
                continue
            self._known.add(line)
            if matched:
                self._mapped[line] = matched
        for line in mapped & self._mapped.keys():
            for hit in self._mapped[line]:
                hits.setdefault(hit, []).append("mapped")

    def _identify(self, base: str, shown: str, line: bytes, maps: bytes) -> list[tuple[str, str | None]] | None:
        """The volumes that a mapping leads to; None: it could not be told here, another process may tell."""
        device, inode, *rest = line.split(b" ", 2)
        name = rest[0].strip() if rest else b""
        major, _, minor = device.partition(b":")
        matched = self._wanted.files.get((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
        if matched is not None:
            return matched
        for path in (f"{base}/root{os.fsdecode(name)}", _map_file(base, line, maps)):
            try:
                found = look_at(path)
            except OSError:
                continue
            if found.st_ino == int(inode):
                return self._wanted.match(found) or []
        if name.startswith(b"/dev/") and not name.startswith((b"/dev/zero", b"/dev/shm/")) and self._wanted.numbers:
            self._unread.note(f"{shown}: the mapped device {os.fsdecode(name)}", "it cannot be followed")
            return None
        return []


def _map_file(base: str, mapped: bytes, maps: bytes) -> str:
    """The link to the mapping itself; following it takes CAP_CHECKPOINT_RESTORE."""
    line = next((one for one in maps.splitlines() if one.endswith(mapped)), b"")
    return f"{base}/map_files/{_plain(line.partition(b' ')[0])}"


def _plain(span: bytes) -> str:
    """`maps` pads addresses with zeros, `map_files` does not."""
    start, _, end = span.decode().partition("-")
    return f"{int(start, 16):x}-{int(end, 16):x}" if end else ""


def _access(handle: int, name: str) -> str:
    """The link's own mode says how the file was opened."""
    try:
        mode = os.lstat(name, dir_fd=handle).st_mode
    except OSError:
        return "open"
    reads, writes = bool(mode & stat.S_IRUSR), bool(mode & stat.S_IWUSR)
    return "read-write" if reads and writes else ("write" if writes else "read")


class Clock:
    """Turns start ticks into times: `btime` of `/proc/stat` is the boot's second."""

    def __init__(self, proc_root: Path) -> None:
        self._boot_s: int | None = None
        try:
            found = re.search(rb"^btime (\d+)$", read_bytes(f"{proc_root}/stat"), re.MULTILINE)
        except OSError:
            found = None
        if found:
            self._boot_s = int(found[1])
        self._hertz = os.sysconf("SC_CLK_TCK")

    def seconds(self, start_ticks: int) -> float | None:
        """Since the epoch; None where the boot's time is not shown."""
        return None if self._boot_s is None else self._boot_s + start_ticks / self._hertz


def list_descendants(table: Mapping[int, Process], roots: set[int]) -> set[int]:
    """The roots and all that came from them and still has a living parent among them."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, open_ends = set[int](), [pid for pid in roots if pid in table]
    while open_ends:
        pid = open_ends.pop()
        if pid not in found:
            found.add(pid)
            open_ends += children.get(pid, ())
    return found
