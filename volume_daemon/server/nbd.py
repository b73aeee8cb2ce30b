"""NBD exports as nbd-server reads them: one file per export in its configuration directory.

The order of writing is what makes an export survive a crash:
- At a detach the row, name, port and file are committed in the operation first, then the file goes, then CloudStack is
  asked: nobody can open a device under a name whose device is about to change. The row goes with its mapping when the
  detach is proven; where it fails, the file is put back before the failure is committed.
- At a homecoming the file is written first, durably, and then committed together with mapping and outcome. A crash in
  between leaves a file for a device that is attached, and an open operation that writes both again. The other order
  would leave a finished operation without a file, and nobody to miss it.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from structlog import get_logger

from appliance.crashpoints import Change, CrashPoint
from volume_daemon.server.records import RecordedExport, VolumeRecords

log = get_logger(__name__)

EXPORT_PATH = re.compile(r"^(\s*exportname\s*=\s*).*$", re.MULTILINE)
RELOAD_TIMEOUT_S = 10.0
READABLE = 0o644
DRAFT = re.compile(r"^\..+\.[0-9a-f]{8}$|^\.probe-[0-9a-f]{16}$")

REMOVE = Change("volume_daemon.nbd.remove")
WRITE = Change("volume_daemon.nbd.write")
RELOAD = Change("volume_daemon.nbd.reload")
DRAFTED = CrashPoint("volume_daemon.nbd.write.within")
"""The new file is whole and on disk, under a name that nbd-server does not read."""
PROBED = CrashPoint("volume_daemon.nbd.probe.within")


class NbdUnwritable(Exception):
    """The configuration directory cannot be written; the text says why."""


class ReloadFailed(Exception):
    """nbd-server did not take the new configuration; the text says why."""


def default_name(volume_id: str) -> str:
    return f"migration-vol-{volume_id}"


def build_text(name: str, device_path: str) -> str:
    """An export as existing daemons write it."""
    return f"[{name}]\nexportname = {device_path}\nreadonly = false\nmultifile = false\ncopyonwrite = false\n"


def with_device(text: str, device_path: str) -> str:
    """The same export on the path that the device has now."""
    return EXPORT_PATH.sub(lambda found: f"{found[1]}{device_path}", text)


def plan_exports(
    records: VolumeRecords, device_path: str, config_dir: Path, port: int, context_id: str | None
) -> tuple[RecordedExport, ...]:
    """The exports of a volume that came home: those it has, else the recorded ones, else the default one."""
    kept = records.exports or records.recorded
    if not kept:
        kept = (
            RecordedExport(
                name=default_name(records.volume_id),
                port=port,
                device_path=device_path,
                config_path=None,
                status="active",
                text=None,
                vm_context_id=context_id,
                vm_disk_id=records.vm_disk_id,
            ),
        )
    return tuple(_at(export, device_path, config_dir) for export in kept)


def _at(export: RecordedExport, device_path: str, config_dir: Path) -> RecordedExport:
    text = with_device(export.text, device_path) if export.text else build_text(export.name, device_path)
    path = file_of(export, config_dir)
    return replace(export, device_path=device_path, text=text, config_path=str(path), status="active")


def file_of(export: RecordedExport, config_dir: Path) -> Path:
    """The export's own file: the recorded one where it lies in the directory, never a file that others share."""
    recorded = Path(export.config_path) if export.config_path else None
    if recorded is not None and recorded.parent == config_dir and recorded.name:
        return recorded
    return config_dir / f"{export.name.replace('/', '_')}.conf"


class NbdFiles:
    """Reads, writes and removes export files, in threads; `reload_command` is run after changes.

    `require_hold` is awaited before each change: another daemon may be at work on the same files.
    """

    def __init__(
        self,
        config_dir: Path,
        reload_command: Sequence[str] | None,
        require_hold: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.config_dir = config_dir
        self._require_hold = require_hold
        self._reload = _Reload(reload_command) if reload_command else None

    async def tidy(self) -> None:
        """Removes what an earlier life left half done: drafts that nobody will finish. Before any operation runs."""
        await asyncio.to_thread(_remove_drafts, self.config_dir)

    async def check_writable(self) -> None:
        """Raises `NbdUnwritable`; proven by writing, for permissions alone do not tell (read-only mounts)."""
        await asyncio.to_thread(_try_writing, self.config_dir)

    async def record(
        self, exports: Sequence[RecordedExport], earlier: Sequence[RecordedExport]
    ) -> tuple[RecordedExport, ...]:
        """The exports with their files' text; where there is no file, with the text that was recorded `earlier`.

        The row of an export that was taken away stays until its detach is proven, so that a row without a file does
        not mean that the file said nothing. Raises `NbdUnwritable` where a file cannot be read.
        """
        texts = {export.name: export.text for export in earlier}
        found = [await asyncio.to_thread(self._with_text, export) for export in exports]
        return tuple(replace(one, text=texts.get(one.name)) if one.text is None else one for one in found)

    async def withdraw(self, exports: Sequence[RecordedExport]) -> None:
        """Removes the files and tells nbd-server; absent ones are fine. Raises `NbdUnwritable`, `ReloadFailed`."""
        if exports:
            await self._may_change()
            with REMOVE:
                await asyncio.to_thread(_remove, [file_of(export, self.config_dir) for export in exports])
            await self.reload()

    async def put(self, exports: Sequence[RecordedExport]) -> None:
        """Writes the files durably and tells nbd-server. Raises `NbdUnwritable`, `ReloadFailed`."""
        files = [(file_of(export, self.config_dir), export.text) for export in exports]
        wanted = [(path, text) for path, text in files if text is not None]
        if wanted:
            await self._may_change()
            with WRITE:
                await asyncio.to_thread(_write, wanted)
            await self.reload()

    async def _may_change(self) -> None:
        if self._require_hold is not None:
            await self._require_hold()

    async def reload(self) -> None:
        if self._reload is not None:
            with RELOAD:
                await self._reload.run()

    def _with_text(self, export: RecordedExport) -> RecordedExport:
        path = file_of(export, self.config_dir)
        try:
            return replace(export, text=path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return replace(export, text=None)
        except OSError as error:
            raise NbdUnwritable(f"{path} cannot be read: {error.strerror}") from None


class _Reload:
    """One run at a time; whoever comes during a run shares the next one, which sees everybody's files."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raises `ReloadFailed`. A caller that is cancelled does not stop the others' run."""
        if self._next is None:
            self._next = asyncio.create_task(self._serve(), name="nbd reload")
        await asyncio.shield(self._next)

    async def _serve(self) -> None:
        async with self._lock:
            self._next = None
            await self._execute()

    async def _execute(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise ReloadFailed(f"{self._command[0]} cannot be run: {error.strerror}") from None
        try:
            async with asyncio.timeout(RELOAD_TIMEOUT_S):
                _, errors = await process.communicate()
        except TimeoutError:
            raise ReloadFailed(f"{self._command[0]} did not end within {RELOAD_TIMEOUT_S:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            words = errors.decode(errors="replace").strip()[:500]
            raise ReloadFailed(f"{self._command[0]} ended with {process.returncode}: {words}")


def _remove_drafts(directory: Path) -> None:
    try:
        drafts = [path for path in directory.iterdir() if DRAFT.match(path.name)]
        for path in drafts:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("What an earlier life left in the NBD configuration stays.", reason=str(error))


def _try_writing(directory: Path) -> None:
    probe = directory / f".probe-{secrets.token_hex(8)}"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, READABLE))
        PROBED.reach()
        probe.unlink()
    except OSError as error:
        raise NbdUnwritable(f"{directory} cannot be written: {error.strerror}") from None


def _remove(paths: Sequence[Path]) -> None:
    try:
        for path in paths:
            path.unlink(missing_ok=True)
        _sync_directory(paths[0].parent)
    except OSError as error:
        raise NbdUnwritable(f"{error.filename or paths[0].parent} cannot be removed: {error.strerror}") from None


def _write(files: Sequence[tuple[Path, str]]) -> None:
    try:
        for path, text in files:
            _replace(path, text)
        _sync_directory(files[0][0].parent)
    except OSError as error:
        raise NbdUnwritable(f"{error.filename or files[0][0]} cannot be written: {error.strerror}") from None


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, and never with `.conf` at its end before it is whole."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, READABLE)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        DRAFTED.reach()
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
