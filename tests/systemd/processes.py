"""Our programs as systemd would run them: a notify socket of the test's own, a watchdog, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PATIENCE_S = 60
WATCHDOG_S = 2


class NotifySocket:
    """Receives what a program tells the service manager, in order."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self.path))
        self.heard: list[str] = []

    async def hear(self, line: str, *, times: int = 1) -> None:
        """Waits until the line was told so often; what was heard before counts."""
        async with asyncio.timeout(PATIENCE_S):
            while self.heard.count(line) < times:
                datagram = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
                self.heard += datagram.decode().splitlines()

    def drain(self) -> None:
        """Takes what has arrived by now."""
        while True:
            try:
                self.heard += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return

    def close(self) -> None:
        self._socket.close()


class Program:
    """One started process and the line by which it said where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, notify: NotifySocket, log: Path) -> None:
        self.process = process
        self.notify = notify
        self.log = log
        self.listening: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return str(self.listening["url"])

    async def read_listening(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await stdout.readline()
        assert line, f"it ended before it listened: {self.log.read_text(encoding='utf-8')}"
        self.listening = json.loads(line)

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def started(folder: Path, *command: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Starts a command of the virtual environment with its own notify socket; it is gone at the end."""
    name = command[0]
    log = folder / f"{name}.log"
    (folder / name).mkdir(exist_ok=True)
    notify = NotifySocket(folder / name)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "NOTIFY_SOCKET": str(notify.path),
        "WATCHDOG_USEC": str(WATCHDOG_S * 1_000_000),
        **(env or {}),
    }
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            str(BIN / name), *command[1:], env=variables, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=stderr
        )
    program = Program(process, notify, log)
    try:
        await program.read_listening()
        yield program
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        notify.close()
        notify.path.unlink()


async def run_to_end(folder: Path, *command: str) -> str:
    """Runs a command of the virtual environment and returns what it said; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        str(BIN / command[0]),
        *command[1:],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()
