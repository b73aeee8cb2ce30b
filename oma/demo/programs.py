"""One of our programs as a real process: started, waited for, stopped, paused, killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from oma.demo.threads import in_thread

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 40.0
KILL_TIMEOUT_S: Final = 10.0
LAST_LINES: Final = 12
OWN_VARIABLES: Final = ("OMA_", "CLOUDSTACK_")
SYSTEMD_VARIABLES: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"})


class ProgramFailed(Exception):
    """A program did not start, or did not stop as it should; the text holds its last words."""


class Program:
    """A process of ours on loopback. It is started again as often as needed, always on the same port.

    Waiting is done in threads, so that the same object serves any event loop.
    """

    def __init__(self, name: str, arguments: Sequence[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.listening: dict[str, Any] = {}
        self._arguments = tuple(arguments)
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return str(self.listening["url"])

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self, env: Mapping[str, str] | None = None) -> None:
        """Returns when it listens; `env` comes on top. Raises `ProgramFailed`."""
        process = await in_thread(self._launch, env or {})
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await asyncio.to_thread(self._read_line, process)
        except TimeoutError:
            await self.kill()
            raise ProgramFailed(f"{self.name} did not listen within {START_TIMEOUT_S:.0f} s: {self.tail()}") from None
        if not line:
            await asyncio.to_thread(process.wait)
            last = await asyncio.to_thread(self.tail)
            raise ProgramFailed(f"{self.name} ended with {process.returncode} before it listened: {last}")
        self.listening = json.loads(line)

    async def stop(self) -> int:
        """SIGTERM, and the exit code; after the time that a drain may take it is killed. 0 where it does not run."""
        process = self._process
        if process is None:
            return 0
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            await self.kill()
            raise ProgramFailed(f"{self.name} did not stop within {STOP_TIMEOUT_S:.0f} s and was killed") from None
        self._process = None
        return code

    async def restart(self, env: Mapping[str, str] | None = None) -> None:
        await self.stop()
        await self.start(env)

    async def kill(self) -> None:
        """SIGKILL: no drain, no last word."""
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait, KILL_TIMEOUT_S)
        self._process = None

    def terminate(self) -> None:
        """Asks it to stop without waiting; for whoever waits by other means."""
        self._signal(signal.SIGTERM)

    async def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Until it has ended by itself or by `terminate`; its exit code."""
        process = self._process
        if process is None:
            return 0
        code = await asyncio.to_thread(process.wait, timeout_s)
        self._process = None
        return code

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def tail(self) -> str:
        """The last lines of its log; blocks."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(lines[-LAST_LINES:]) or "it said nothing"
        return "it left no log"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _launch(self, env: Mapping[str, str]) -> subprocess.Popen[str]:
        if self.runs:
            raise ProgramFailed(f"{self.name} runs already")
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C on the terminal reaches the demo, which then stops its programs in order.
            self._process = subprocess.Popen(
                [find_command(self.name), *self._arguments],
                env={**clean_environment(), **env},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return self._process

    def _read_line(self, process: subprocess.Popen[str]) -> str:
        if process.stdout is None:
            return ""
        line = process.stdout.readline()
        threading.Thread(target=_drain, args=(process.stdout, self.log), daemon=True).start()
        return line


def _drain(stdout: IO[str], log: Path) -> None:
    """What it still prints goes to its log, so that a full pipe never holds it up."""
    with suppress(OSError), stdout, log.open("a", encoding="utf-8") as kept:
        shutil.copyfileobj(stdout, kept)


def clean_environment() -> dict[str, str]:
    """Our own environment without what would configure the programs: they read their settings file only."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OWN_VARIABLES) and name not in SYSTEMD_VARIABLES
    }


def find_command(name: str) -> str:
    """The console script beside this interpreter, else on the PATH. Raises `ProgramFailed`."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ProgramFailed(f"the command {name} is not installed beside {sys.executable}")
    return found
