"""What the state directory remembers of the epochs: one small file, replaced as a whole."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from appliance.settings import Settings
from oma.domain.epochs import BEYOND_NUMBERS, Epoch, Witness

FILE_NAME: Final = "epoch.json"
DEFAULT_DIR: Final = Path("/var/lib/oma")
LONGEST: Final = 1024
"""Bytes of it that are looked at; it has less than 100."""


def find_state_dir(settings: Settings, env: Mapping[str, str]) -> Path:
    """As it is set; else beside a SQLite file, where systemd says (`STATE_DIRECTORY`), or its usual place."""
    if settings.oma.state_dir is not None:
        return settings.oma.state_dir
    parts = urlsplit(settings.database.url)
    if parts.scheme.startswith("sqlite") and len(parts.path) > 1:
        return Path(parts.path[1:]).parent
    given = env.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else DEFAULT_DIR


class FileEpochNote:
    """Implements `oma.ports.EpochNote`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    async def read(self) -> Witness | None:
        return await asyncio.to_thread(self._read)

    async def write(self, text: str, written: int) -> None:
        await asyncio.to_thread(self._write, text, written)

    def _read(self) -> Witness | None:
        """A file that can't be understood is a witness too, of something that nobody knows."""
        place = f"the state directory ({self._path})"
        try:
            with self._path.open("rb") as file:
                content = file.read(LONGEST).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None
        try:
            noted = json.loads(content)
            written = int(noted["written"])
            text = str(noted["epoch"])
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            return Witness(place, content.strip()[:64])
        return Witness(place, text, written) if 0 <= written < BEYOND_NUMBERS else Witness(place, content.strip()[:64])

    def _write(self, text: str, written: int) -> None:
        """A crash leaves the old file or the new one; of two daemons that share it the one that knows more is kept."""
        directory = self._path.parent
        directory.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text, written = _newer(self._read(), text, written)
            beside = self._path.with_suffix(".new")
            with beside.open("w", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": text, "written": written}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            _sync(directory)


def _newer(noted: Witness | None, text: str, written: int) -> tuple[str, int]:
    """What stands there goes, but for the higher numbers of the same installation."""
    before, now = Epoch.parse(noted.text) if noted else None, Epoch.parse(text)
    if noted is None or before is None or now is None or before.installation != now.installation:
        return text, written
    return max(before, now, key=lambda one: one.number).text, max(noted.written, written)


def _sync(directory: Path) -> None:
    """So that a power cut does not take the name of the new file back."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
