"""What is built on a device: partitions, device-mapper, md and others by `holders`, loop devices, file systems, swap.

Facts of the kernel: `/sys/block/<disk>/holders` and `/sys/block/<disk>/<partition>/holders` name the block devices that
have claimed it (`bd_link_disk_holder`); a loop device stands in no `holders`, it names its file in `loop/backing_file`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from volume_daemon.holders.places import (
    FileKey,
    Places,
    Target,
    Unread,
    list_names,
    look_at,
    read_bytes,
    read_number,
    read_text,
)
from volume_daemon.holders.report import Holder, HolderKind

LOOP_GET_STATUS64: Final = 0x4C05
LOOP_INFO64: Final = struct.Struct("QQQ208x")
"""`struct loop_info64` of linux/loop.h: the backing file's file system, inode and, for a device, its number."""


@dataclass(frozen=True, slots=True)
class Block:
    """A disk or partition as sysfs shows it."""

    name: str
    number: int
    holders: tuple[str, ...]
    partitions: tuple[str, ...] = ()
    backing_number: int | None = None
    backing_file: FileKey | None = None
    label: str | None = None
    """Device-mapper's name for it, or the file behind a loop device."""


@dataclass(slots=True)
class Blocks:
    """All of them, and which block devices file systems of several devices have open."""

    by_name: dict[str, Block] = field(default_factory=dict)
    file_systems: list[tuple[str, str]] = field(default_factory=list)
    """(device's name, what has it open)."""

    def named(self, number: int) -> Block | None:
        return next((block for block in self.by_name.values() if block.number == number), None)

    def loops_on(self, number: int | None, file: FileKey | None) -> list[Block]:
        return [
            block
            for block in self.by_name.values()
            if (number is not None and block.backing_number == number)
            or (file is not None and block.backing_file == file)
        ]


@dataclass(slots=True)
class Covered:
    """Everything through which a volume can be reached, with what the kernel built on it."""

    numbers: dict[int, str | None] = field(default_factory=dict)
    """Device number → through which device; None: the volume's own."""
    file: FileKey | None = None
    holders: list[Holder] = field(default_factory=list)


def read_blocks(places: Places, unread: Unread) -> Blocks:
    """Blocking: one look at sysfs."""
    blocks = Blocks()
    root = places.sys_root / "block"
    try:
        names = sorted(list_names(root))
    except OSError as error:
        unread.note(str(root), error)
        return blocks
    for name in names:
        for block in _read_disk(root / name, places, unread):
            blocks.by_name[block.name] = block
    blocks.file_systems = list(_read_file_systems(places, unread))
    return blocks


def _read_disk(folder: Path, places: Places, unread: Unread) -> Iterator[Block]:
    try:
        entries = list_names(folder)
        if "dev" not in entries:
            return  # a path of a multipath disk: it cannot be opened
        parts = [name for name in entries if name.startswith(folder.name) and (folder / name / "partition").exists()]
        for part in parts:
            holders = tuple(list_names(folder / part / "holders"))
            yield Block(part, read_number(folder / part / "dev"), holders)
        number, holders = read_number(folder / "dev"), tuple(list_names(folder / "holders"))
        backing: tuple[int | None, FileKey | None] = (None, None)
        label = None
        if "loop" in entries:
            label = read_text(folder / "loop" / "backing_file")
            backing = _identify_backing(folder.name, number, label, places)
        elif "dm" in entries:
            label = read_text(folder / "dm" / "name")
        yield Block(folder.name, number, holders, tuple(parts), backing[0], backing[1], label)
    except FileNotFoundError as error:
        # A device that is gone holds nothing; one that is there must show what holds it.
        if (folder / "dev").exists() and not _is_free_loop(folder):
            unread.note(f"{error.filename or folder}", error)
    except (OSError, ValueError) as error:
        unread.note(str(folder), error if isinstance(error, OSError) else "it cannot be understood")


def _is_free_loop(folder: Path) -> bool:
    return folder.name.startswith("loop") and not (folder / "loop").exists() and (folder / "holders").exists()


def _identify_backing(name: str, number: int, label: str, places: Places) -> tuple[int | None, FileKey | None]:
    """The file or device behind a loop device: by its own word, else by the path. Raises `OSError`."""
    if places.dev_root is not None:
        node = places.dev_root / name
        try:
            if node.stat().st_rdev == number:
                return _ask_loop(str(node))
        except FileNotFoundError:
            pass  # no node here: the path has to do
    found = look_at(label.removesuffix(" (deleted)"))
    if stat.S_ISBLK(found.st_mode):
        return found.st_rdev, None
    return None, (found.st_dev, found.st_ino)


def _ask_loop(node: str) -> tuple[int | None, FileKey | None]:
    handle = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(handle, LOOP_GET_STATUS64, bytes(LOOP_INFO64.size))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None, None  # let go meanwhile
        raise
    finally:
        os.close(handle)
    device, inode, number = LOOP_INFO64.unpack(answer)
    return (number, None) if number else (None, (device, inode))


def _read_file_systems(places: Places, unread: Unread) -> Iterator[tuple[str, str]]:
    """Btrfs shows every device of a mounted file system; a mount names only one of them."""
    root = places.sys_root / "fs" / "btrfs"
    with unread.reading(str(root)):
        for name in list_names(root):
            devices = root / name / "devices"
            if devices.is_dir():
                for device in list_names(devices):
                    yield device, f"btrfs {name}"


def cover(target: Target, blocks: Blocks, unread: Unread) -> Covered:
    """All that leads to the target's bytes, found from the device upwards."""
    covered = Covered(file=target.file)
    open_ends: list[tuple[int | None, FileKey | None, str | None]] = [(target.number, target.file, None)]
    while open_ends:
        number, file, through = open_ends.pop()
        if number is not None:
            if number in covered.numbers:
                continue
            covered.numbers[number] = through
            block = blocks.named(number)
            if block is None:
                shown = f"{os.major(number)}:{os.minor(number)}"
                unread.note(f"the device {target.path} ({shown})", "/sys/block does not show it")
                continue
            open_ends += _built_on(block, blocks, covered, through, unread)
        for loop in blocks.loops_on(number, file):
            covered.holders.append(
                Holder(HolderKind.LOOP, loop.name, through, detail=f"it stands on {loop.label or target.path}")
            )
            open_ends.append((loop.number, None, loop.name))
    return covered


def _built_on(
    block: Block, blocks: Blocks, covered: Covered, through: str | None, unread: Unread
) -> Iterator[tuple[int, None, str]]:
    for part in block.partitions:
        yield blocks.by_name[part].number, None, part
    for name in block.holders:
        above = blocks.by_name.get(name)
        label = f"device-mapper calls it {above.label}" if above is not None and above.label else None
        covered.holders.append(Holder(_kind_of(name), name, block.name if through else None, detail=label))
        if above is None:
            unread.note(f"{name}, which is built on {block.name}", "/sys/block does not show it")
        else:
            yield above.number, None, name
    covered.holders.extend(
        Holder(HolderKind.FILESYSTEM, what, through, detail="a file system of several devices has it open")
        for device, what in blocks.file_systems
        if device == block.name
    )


def _kind_of(name: str) -> HolderKind:
    if name.startswith("dm-"):
        return HolderKind.DEVICE_MAPPER
    return HolderKind.MD if name.startswith("md") else HolderKind.BLOCK


def find_swaps(places: Places, covered: Sequence[Covered], unread: Unread) -> Iterator[tuple[int, Holder]]:
    """Swap areas on any of them: (index into `covered`, holder)."""
    text = b""
    with unread.reading(f"{places.proc_root}/swaps"):
        text = read_bytes(f"{places.proc_root}/swaps")
    for line in text.splitlines()[1:]:
        path = line.split()[0].decode("unicode_escape")
        try:
            found = look_at(path)
        except OSError as error:
            unread.note(f"the swap area {path}", error)
            continue
        for index, one in enumerate(covered):
            is_block = stat.S_ISBLK(found.st_mode)
            if is_block and found.st_rdev in one.numbers:
                yield index, Holder(HolderKind.SWAP, path, one.numbers[found.st_rdev])
            elif not is_block and (found.st_dev, found.st_ino) == one.file:
                yield index, Holder(HolderKind.SWAP, path)


def is_claimed(path: str, number: int) -> bool | None:
    """Whether the kernel has the device claimed, for whatever reason; None: it could not be asked.

    An exclusive open fails while a file system, device-mapper, md or swap holds the device or a partition of it, also
    one that is mounted where no process is, or was unmounted lazily. The own claim lasts microseconds; it is made only
    where no holder was found.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return True if error.errno == errno.EBUSY else None
    try:
        return False if os.fstat(handle).st_rdev == number else None
    finally:
        os.close(handle)
