"""The volumes' and snapshots' bytes: sparse files under the state directory, touched in threads only."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ossea.simulator import sparse

_MOST_STEPS = 8
_STEP_S = 0.1
_MARGIN_S = 0.02


class ContentMissing(Exception):
    """The snapshot or the volume has no bytes (any more)."""


class _RevertFiles:
    """The two open files of a revert; closing waits for a step that a thread is still at."""

    def __init__(self, source: int, target: int, lock: threading.Lock) -> None:
        self._source = source
        self._target = target
        self._lock = lock
        self._is_open = True
        self.size_bytes = os.fstat(source).st_size

    def overwrite(self, start: int, end: int) -> None:
        with self._lock:
            if self._is_open:
                sparse.overwrite(self._source, self._target, start, end)

    def set_size(self) -> None:
        with self._lock:
            if self._is_open:
                os.ftruncate(self._target, self.size_bytes)

    def close(self) -> None:
        with self._lock:
            self._is_open = False
            os.close(self._source)
            os.close(self._target)


class Storage:
    """Files by id; each method but the constructor may be awaited by many at once."""

    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._volumes = state_dir / "volumes"
        self._snapshots = state_dir / "snapshots"
        self._clock = clock
        self._locks: dict[str, threading.Lock] = {}

    def volume_path(self, volume_id: str) -> Path:
        return self._volumes / f"{volume_id}.img"

    def snapshot_path(self, snapshot_id: str) -> Path:
        return self._snapshots / f"{snapshot_id}.img"

    async def open(self, volumes: Mapping[str, int], snapshots: frozenset[str]) -> None:
        """Make the directories; files of what the model does not know go, blank ones come for volumes without."""
        await asyncio.to_thread(self._open, volumes, snapshots)

    async def create(self, volume_id: str, size_bytes: int, from_snapshot_id: str | None, text: str | None) -> None:
        await asyncio.to_thread(self._create, volume_id, size_bytes, from_snapshot_id, text)

    async def erase_volume(self, volume_id: str) -> None:
        await asyncio.to_thread(self.volume_path(volume_id).unlink, missing_ok=True)

    async def erase_snapshot(self, snapshot_id: str) -> None:
        await asyncio.to_thread(self.snapshot_path(snapshot_id).unlink, missing_ok=True)

    async def take_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        """Keep the volume's content of this moment; a snapshot that has its content keeps that."""
        await asyncio.to_thread(self._take_snapshot, volume_id, snapshot_id)

    async def revert(
        self, snapshot_id: str, volume_id: str, ends_at: float, fraction: float, *, replaces: bool = False
    ) -> None:
        """Put the snapshot's content back into the volume's own file, step by step, done just before `ends_at`.

        With `fraction` below 1.0 only that much of it, and the size stays. With `replaces` a blank file takes the
        volume's place first: who holds the old one goes on with a deleted file. Raises `ContentMissing`.
        """
        try:
            files = await asyncio.to_thread(self._open_pair, snapshot_id, volume_id, replaces=replaces)
        except FileNotFoundError as error:
            raise ContentMissing(f"no content: {Path(str(error.filename)).name}") from None
        try:
            began = self._clock()
            span = max(0.0, ends_at - _MARGIN_S - began)
            steps = max(1, min(_MOST_STEPS, int(span / _STEP_S)))
            end = int(files.size_bytes * fraction)
            for step in range(steps):
                await asyncio.sleep(max(0.0, began + span * step / steps - self._clock()))
                await asyncio.to_thread(files.overwrite, end * step // steps, end * (step + 1) // steps)
            if fraction >= 1.0:
                await asyncio.to_thread(files.set_size)
        finally:
            await asyncio.to_thread(files.close)

    async def volume_hash(self, volume_id: str) -> tuple[str, int]:
        return await asyncio.to_thread(self._hash, self.volume_path(volume_id))

    async def snapshot_hash(self, snapshot_id: str) -> tuple[str, int]:
        return await asyncio.to_thread(self._hash, self.snapshot_path(snapshot_id))

    async def read(self, volume_id: str, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(self._read, volume_id, offset, length)

    async def write(self, volume_id: str, offset: int, content: bytes | str, through: Path | None = None) -> None:
        """Write bytes, or content seeded by a text, up to the volume's end; `through` its device where it has one."""
        await asyncio.to_thread(self._write, volume_id, offset, content, through)

    # In threads

    def _open(self, volumes: Mapping[str, int], snapshots: frozenset[str]) -> None:
        for folder in (self._volumes, self._snapshots):
            folder.mkdir(parents=True, exist_ok=True)
        for path in self._volumes.iterdir():
            if path.suffix != ".img" or path.stem not in volumes:
                path.unlink()
        for path in self._snapshots.iterdir():
            if path.suffix != ".img" or path.stem not in snapshots:
                path.unlink()
        for volume_id, size_bytes in volumes.items():
            if not self.volume_path(volume_id).exists():
                self._create(volume_id, size_bytes, None, None)

    def _create(self, volume_id: str, size_bytes: int, from_snapshot_id: str | None, text: str | None) -> None:
        path = self.volume_path(volume_id)
        if from_snapshot_id is not None:
            try:
                sparse.clone(self.snapshot_path(from_snapshot_id), path)
            except FileNotFoundError:
                raise ContentMissing(f"snapshot {from_snapshot_id} has no content") from None
            os.truncate(path, size_bytes)
            return
        with path.open("wb") as file:
            os.ftruncate(file.fileno(), size_bytes)
            if text is not None:
                sparse.fill(file.fileno(), text, 0, size_bytes)

    def _take_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        with self._lock(volume_id):
            if self.snapshot_path(snapshot_id).exists():
                return
            try:
                sparse.clone(self.volume_path(volume_id), self.snapshot_path(snapshot_id))
            except FileNotFoundError:
                raise ContentMissing(f"volume {volume_id} has no content") from None

    def _open_pair(self, snapshot_id: str, volume_id: str, *, replaces: bool) -> _RevertFiles:
        source = os.open(self.snapshot_path(snapshot_id), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if replaces:
                self._replace(volume_id)
            target = os.open(self.volume_path(volume_id), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            os.close(source)
            raise
        return _RevertFiles(source, target, self._lock(volume_id))

    def _replace(self, volume_id: str) -> None:
        path = self.volume_path(volume_id)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            os.ftruncate(file.fileno(), path.stat().st_size)
        fresh.replace(path)

    def _hash(self, path: Path) -> tuple[str, int]:
        try:
            return sparse.sha256(path)
        except FileNotFoundError:
            raise ContentMissing(f"{path.stem} has no content") from None

    def _read(self, volume_id: str, offset: int, length: int) -> bytes:
        try:
            with self.volume_path(volume_id).open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:
            raise ContentMissing(f"{volume_id} has no content") from None

    def _write(self, volume_id: str, offset: int, content: bytes | str, through: Path | None) -> None:
        try:
            size = self.volume_path(volume_id).stat().st_size
            fd = os.open(through or self.volume_path(volume_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ContentMissing(f"{volume_id} has no content") from None
        try:
            with self._lock(volume_id):
                if isinstance(content, str):
                    sparse.fill(fd, content, offset, size)
                else:
                    sparse.write_all(fd, content, offset)
                if through is not None:
                    os.fsync(fd)
        finally:
            os.close(fd)

    def _lock(self, volume_id: str) -> threading.Lock:
        return self._locks.setdefault(volume_id, threading.Lock())
