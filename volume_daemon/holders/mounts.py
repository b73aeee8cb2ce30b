"""Which mount namespaces show a device mounted: `/proc/<pid>/mountinfo`, read once per namespace (proc(5))."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from volume_daemon.holders.places import GONE, Unread, look_at, read_bytes
from volume_daemon.holders.processes import Process, Wanted
from volume_daemon.holders.report import Holder, HolderKind

MOUNT_POINT: Final = 4
ESCAPES: Final = ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\"))


class Mounts:
    """Looks at each namespace once per scan, through the first of its processes that lives long enough."""

    def __init__(self, proc_root: Path, wanted: Wanted, unread: Unread) -> None:
        self._base = str(proc_root)
        self._wanted = wanted
        self._unread = unread
        self._seen: set[str] = set()
        self._sources: dict[bytes, int | None] = {}

    def look(self, process: Process) -> Iterator[tuple[str, Holder]]:
        """(serial, holder) for each mount in the process's namespace, where that was not looked at before."""
        base = f"{self._base}/{process.pid}"
        try:
            namespace = os.readlink(f"{base}/ns/mnt")  # noqa: PTH115 - plain text, once per process
            if namespace in self._seen:
                return
            text = read_bytes(f"{base}/mountinfo")
        except OSError as error:
            if error.errno not in GONE:
                self._unread.note(f"process {process.pid} ({process.name}): its mount namespace", error)
            return
        if not text and not Path(base).exists():
            return
        self._seen.add(namespace)
        for line in text.splitlines():
            yield from self._judge(line, base, namespace)

    def _judge(self, line: bytes, base: str, namespace: str) -> Iterator[tuple[str, Holder]]:
        """Fields: id, parent, major:minor, root, mount point, options, …, "-", type, source, options."""
        before, _, after = line.partition(b" - ")
        fields, ends = before.split(b" "), after.split(b" ")
        major, _, minor = fields[2].partition(b":") if len(fields) > MOUNT_POINT else (b"", b"", b"")
        if len(ends) < len(("type", "source")) or not (major.isdigit() and minor.isdigit()):
            self._unread.note(f"{base}/mountinfo", "a line that cannot be understood")
            return
        matched = self._wanted.numbers.get(os.makedev(int(major), int(minor)))
        if matched is None:
            number = self._number_of(ends[1], base)
            matched = self._wanted.numbers.get(number) if number is not None else None
        point, source = _plain(fields[MOUNT_POINT]), _plain(ends[1])
        for serial, through in matched or ():
            yield (
                serial,
                Holder(
                    HolderKind.MOUNT,
                    point,
                    through,
                    namespace=_inode(namespace),
                    detail=f"{ends[0].decode(errors='replace')} from {source}, as {base.rpartition('/')[2]} sees it",
                ),
            )

    def _number_of(self, source: bytes, base: str) -> int | None:
        """Some file systems (btrfs) show a number of their own; their source still names the device."""
        if not source.startswith(b"/dev/"):
            return None
        if source not in self._sources:
            self._sources[source] = None
            for path in (f"{base}/root{_plain(source)}", _plain(source)):
                try:
                    found = look_at(path)
                except OSError:
                    continue
                if stat.S_ISBLK(found.st_mode):
                    self._sources[source] = found.st_rdev
                    break
        return self._sources[source]


def _plain(text: bytes) -> str:
    for escaped, plain in ESCAPES:
        text = text.replace(escaped, plain)
    return text.decode(errors="replace")


def _inode(namespace: str) -> int | None:
    """Of `mnt:[4026531841]`."""
    digits = namespace.rpartition("[")[2].rstrip("]")
    return int(digits) if digits.isdigit() else None
