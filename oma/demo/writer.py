"""A replication that is alive: a real NBD client that writes blocks through a real nbd-server to a disk on the OMA."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oma.demo.ports import HOST, find_port
from oma.demo.programs import clean_environment
from oma.demo.stack import Stack
from oma.demo.story import Disk
from oma.demo.threads import in_thread, wait_until

NBD_SERVER, NBD_CLIENT = "nbd-server", "nbdcopy"
BLOCK: Final = 4096
ENDING_S: Final = 5.0
LISTENING: Final = "0A"
"""State of a socket in /proc/net/tcp (proc(5))."""


@dataclass(slots=True)
class Writer:
    """A replication that is alive: `nbdcopy` connected to `nbd-server`, which has the disk's device open."""

    server: subprocess.Popen[bytes]
    client: subprocess.Popen[bytes]
    _device: Path
    _written: int = 0

    async def write_block(self) -> None:
        """The next block of the disk, until the device shows it."""
        await asyncio.to_thread(self.write_block_now)

    def write_block_now(self) -> None:
        """As `write_block`; blocks."""
        if self.client.stdin is None:
            raise RuntimeError("the NBD client has no input")
        block, offset = os.urandom(BLOCK), self._written
        self.client.stdin.write(block)
        self.client.stdin.flush()
        self._written += BLOCK
        wait_until(lambda: _read(self._device, offset, BLOCK) == block, "the device does not show the block")


@asynccontextmanager
async def running_writer(stack: Stack, disk: Disk) -> AsyncIterator[Writer]:
    """Server and client of one disk that is on the OMA; both are gone afterwards."""
    writer = await in_thread(_start_writer, stack, disk)
    try:
        yield writer
    finally:
        await in_thread(_stop, writer)


def missing_nbd_tools() -> str | None:
    """What a writer lacks on this machine."""
    missing = [name for name in (NBD_SERVER, NBD_CLIENT) if shutil.which(name) is None]
    return " and ".join(missing) or None


def _start_writer(stack: Stack, disk: Disk) -> Writer:
    """The server reads the export as the Volume Daemon wrote it, from a folder of its own."""
    device, folder, port = stack.device_root / disk.link, stack.directory / f"nbd-{disk.link}", find_port()
    folder.mkdir(exist_ok=True)
    export = disk.story.export
    if export is None:
        raise RuntimeError(f"{disk.name} has no export that could be written through")
    (folder / "export.conf").write_bytes((stack.nbd_dir / (export.file or f"{export.name}.conf")).read_bytes())
    config = folder / "config"
    config.write_text(f"[generic]\nlistenaddr = {HOST}\nport = {port}\nincludedir = {folder}\n", encoding="utf-8")
    # In the foreground it serves one client and ends with it.
    server = _launch(NBD_SERVER, "-C", str(config), "-p", str(folder / "pid"), "-d", folder=folder)
    wait_until(lambda: _listens(port), "nbd-server does not listen")
    uri = f"nbd://{HOST}:{port}/{export.name}"
    client = _launch(NBD_CLIENT, "--connections=1", f"--request-size={BLOCK}", "-", uri, folder=folder)
    writer = Writer(server, client, device)
    try:
        writer.write_block_now()
    except BaseException:
        _stop(writer)
        raise
    return writer


def _launch(*command: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{command[0]}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _listens(port: int) -> bool:
    """Seen in the kernel's table: a connection to try it would be the one client."""
    local = f"{port:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{local}") and fields[3] == LISTENING:
            return True
    return False


def _read(device: Path, offset: int, length: int) -> bytes:
    with device.open("rb", buffering=0) as handle:
        handle.seek(offset)
        return handle.read(length)


def _stop(writer: Writer) -> None:
    """The client first: the server ends when nobody is connected."""
    for process in (writer.client, writer.server):
        process.kill()
        if process.stdin is not None:
            process.stdin.close()
        process.wait(ENDING_S)
