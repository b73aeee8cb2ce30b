"""A prepared `/proc` and `/sys`: plain files and links in the places where the kernel shows its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from volume_daemon.holders.places import Places

HEAD = "Filename\tType\tSize\tUsed\tPriority\n"


@dataclass(frozen=True)
class ProcTree:
    """Everything that `Places` points to, under one folder."""

    path: Path

    @property
    def proc(self) -> Path:
        return self.path / "proc"

    @property
    def sys(self) -> Path:
        return self.path / "sys"

    @property
    def places(self) -> Places:
        return Places(self.proc, self.sys)

    def prepare(self) -> ProcTree:
        (self.sys / "block").mkdir(parents=True)
        self.proc.mkdir()
        (self.proc / "stat").write_text("cpu 1 2 3\nbtime 1767225600\n")
        (self.proc / "swaps").write_text(HEAD)
        return self

    def add_process(
        self,
        pid: int,
        name: str = "sleep",
        *,
        start_ticks: int = 100,
        parent: int = 1,
        command: Sequence[str] = ("sleep", "1"),
        files: Mapping[int, Path] | None = None,
        maps: str = "",
        namespace: int = 1,
        mountinfo: str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
        state: str = "S",
        threads: int = 1,
        kernel_thread: bool = False,
    ) -> Path:
        folder = self.proc / str(pid)
        for part in ("fd", "ns", "net"):
            (folder / part).mkdir(parents=True)
        flags = 0x00200000 if kernel_thread else 0
        numbers = f"{parent} 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 {start_ticks} 0 0"
        (folder / "stat").write_text(f"{pid} ({name}) {state} {numbers}\n")
        (folder / "status").write_text(f"Name:\t{name}\nUid:\t0\t0\t0\t0\n")
        (folder / "cmdline").write_bytes(b"".join(part.encode() + b"\0" for part in command))
        (folder / "maps").write_text(maps)
        (folder / "mountinfo").write_text(mountinfo)
        (folder / "ns" / "mnt").symlink_to(f"mnt:[{namespace}]")
        for number, path in (files or {}).items():
            (folder / "fd" / str(number)).symlink_to(path)
        return folder

    def add_disk(
        self, name: str, number: str, *, serial: str = "", holders: Sequence[str] = (), partitions: Sequence[str] = ()
    ) -> Path:
        """Partitions take the numbers that follow the disk's."""
        folder = self.sys / "block" / name
        major, _, minor = number.partition(":")
        for at, part in enumerate((name, *partitions)):
            place = folder if part == name else folder / part
            (place / "holders").mkdir(parents=True)
            (place / "dev").write_text(f"{major}:{int(minor) + at}\n")
            if part != name:
                (place / "partition").write_text(f"{at}\n")
        if serial:
            (folder / "serial").write_text(serial)
        for holder in holders:
            (folder / "holders" / holder).mkdir()
        return folder

    def make_node(self, name: str, number: str) -> Path:
        """A block device's node; only root may make one."""
        major, _, minor = number.partition(":")
        path = self.path / name
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
        return path

    def make_unreadable(self, path: Path) -> None:
        """Also for root: a link that leads to itself."""
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}-was"))
        else:
            path.unlink()
        path.symlink_to(path.name)
