"""The database of a chaos world, as something that can be filled up, killed and started again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from oma.demo.threads import in_thread
from tests.mariadb import MariaDb, pick_port, running_mariadb
from tests.proxy import Proxy, running_proxy

SMALL_DISK: Final = "24m"
"""What a SQLite file and its log may take before the file system is full."""
PIECE: Final = b"\0" * (64 << 10)


class ChaosDatabase(Protocol):
    """`url`: for the programs under test. `direct_url`: for whoever judges, past all disturbances."""

    @property
    def url(self) -> str: ...

    @property
    def direct_url(self) -> str: ...

    @property
    def proxy(self) -> Proxy | None: ...

    @property
    def can_be_full(self) -> bool: ...

    @property
    def can_die(self) -> bool: ...

    async def fill_disk(self) -> None: ...

    async def free_disk(self) -> None: ...

    async def kill(self) -> None: ...

    async def start(self) -> None: ...


class SqliteFile:
    """One file, where root may on a small file system of its own."""

    proxy: Proxy | None = None
    can_die = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.can_be_full = False
        self.url = self.direct_url = f"sqlite:///{directory / 'oma.db'}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SqliteFile]:
        await in_thread(self._mount)
        try:
            yield self
        finally:
            await in_thread(self._unmount)

    async def fill_disk(self) -> None:
        await in_thread(self._fill)

    async def free_disk(self) -> None:
        await in_thread(self._ballast.unlink, missing_ok=True)

    async def kill(self) -> None:
        raise NotImplementedError("a file has no process")

    async def start(self) -> None:
        """Nothing to start."""

    @property
    def _ballast(self) -> Path:
        return self._directory / "ballast"

    def _fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(PIECE)

    def _mount(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return
        command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "oma-chaos", str(self._directory)]
        self.can_be_full = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _unmount(self) -> None:
        if self.can_be_full:
            subprocess.run(["umount", "--lazy", str(self._directory)], capture_output=True, check=False)


class MariaDbServer:
    """A server of its own, reached through a proxy; after `kill` it starts over what it had written."""

    can_be_full = False
    can_die = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = pick_port()
        self._running = ExitStack()
        self._server: MariaDb | None = None
        self._proxy: Proxy | None = None
        self._name = ""

    @property
    def proxy(self) -> Proxy | None:
        return self._proxy

    @property
    def url(self) -> str:
        return self._url(self._proxy.port if self._proxy is not None else self._port)

    @property
    def direct_url(self) -> str:
        return self._url(self._port)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[MariaDbServer]:
        try:
            await self.start()
            server = self._running_server()
            self._name = await in_thread(server.create_database)
            async with running_proxy(self._port) as proxy:
                self._proxy = proxy
                yield self
        finally:
            await in_thread(self._running.close)
            await in_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def fill_disk(self) -> None:
        raise OSError(errno.ENOTSUP, "a server waits until there is room, in pauses of a minute")

    async def free_disk(self) -> None:
        """Nothing to free."""

    async def kill(self) -> None:
        os.kill(self._running_server().pid, signal.SIGKILL)
        self._server = None
        await in_thread(self._running.close)

    async def start(self) -> None:
        if self._server is None:
            self._server = await in_thread(
                self._running.enter_context, running_mariadb(self._directory, port=self._port)
            )

    def _running_server(self) -> MariaDb:
        if self._server is None:
            raise RuntimeError("the server does not run")
        return self._server

    def _url(self, port: int) -> str:
        return MariaDb(port, str(self._directory), 0).url(self._name)
