"""Sparse files: where their data is, copying them, putting content back in place."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

_FICLONE = 0x40049409
_BLOCK = 256 * 1024
_EXTENT = 16 * 1024
_MOST_EXTENTS = 64


def data_ranges(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches of [start, end) that hold data, as (offset, end)."""
    position = start
    while position < end:
        try:
            first = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if first >= end:
            return
        hole = min(os.lseek(fd, first, os.SEEK_HOLE), end)
        yield first, hole
        position = hole


def clone(source: Path, target: Path) -> None:
    """`target` becomes an independent copy: by reflink where the file system can, else data by data.

    It appears under its name only when it is whole.
    """
    part = target.with_suffix(".part")
    with source.open("rb") as old, part.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            size = os.fstat(old.fileno()).st_size
            os.ftruncate(new.fileno(), size)
            for first, end in data_ranges(old.fileno(), 0, size):
                _copy(old.fileno(), new.fileno(), first, end)
    part.replace(target)


def overwrite(source: int, target: int, start: int, end: int) -> None:
    """Make [start, end) of the file `target` what it is in `source`, in place; what is a hole there becomes zeros."""
    position = start
    for first, last in data_ranges(source, start, end):
        _zero(target, position, first)
        _copy(source, target, first, last)
        position = last
    _zero(target, position, end)


def _copy(source: int, target: int, first: int, end: int) -> None:
    position = first
    while position < end:
        block = os.pread(source, min(_BLOCK, end - position), position)
        if not block:
            return
        write_all(target, block, position)
        position += len(block)


def _zero(target: int, start: int, end: int) -> None:
    for first, last in [*data_ranges(target, start, end)]:
        position = first
        while position < last:
            length = min(_BLOCK, last - position)
            write_all(target, bytes(length), position)
            position += length


def write_all(fd: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest = rest[written:]
        offset += written


def fill(fd: int, text: str, offset: int, end: int) -> None:
    """Pseudo-random extents that `text` seeds, spread over [offset, end), the first and the last bytes among them."""
    if end <= offset:
        return
    source = random.Random(text)  # noqa: S311  content that must repeat, not a secret
    step = max(_EXTENT * 4, (end - offset) // _MOST_EXTENTS)
    for position in range(offset, end, step):
        write_all(fd, source.randbytes(min(_EXTENT, end - position)), position)
    tail = max(offset, end - 512)
    write_all(fd, source.randbytes(end - tail), tail)


def sha256(path: Path) -> tuple[str, int]:
    """The hash of the whole content and its length in bytes."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
