"""The world in one process and the daemon in another: the ports of the world over a Unix socket.

So a daemon that is killed takes nothing of CloudStack and the Volume Daemon with it, and what it has sent goes on.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from oma.domain.actions import Upstream
from oma.ports import Fault, UpstreamError

_HEADER = struct.Struct(">I")


@asynccontextmanager
async def served(path: Path, objects: Mapping[str, Any]) -> AsyncIterator[None]:
    """Whoever connects may call every method of these objects, by name."""
    asked: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (call := await _receive(reader)) is not None:
            task = asyncio.ensure_future(_answer(writer, objects, *call))
            asked.add(task)
            task.add_done_callback(asked.discard)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        for task in asked:
            task.cancel()


async def _answer(writer: asyncio.StreamWriter, objects: Mapping[str, Any], number: int, *call: Any) -> None:
    subject, method, args, kwargs = call
    try:
        answer: tuple[Any, ...] = ("done", await getattr(objects[subject], method)(*args, **kwargs))
    except UpstreamError as error:
        answer = ("upstream", error.fault, error.upstream)
    if not writer.is_closing():
        _send(writer, (number, answer))


class Connection:
    """The daemon's end. A call that the other end never answers is never answered here either."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def open(cls, path: str) -> Connection:
        return cls(*await asyncio.open_unix_connection(path))

    async def call(self, subject: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._number += 1
        answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        _send(self._writer, (self._number, subject, method, args, kwargs))
        match await answer:
            case ("done", result):
                return result
            case ("upstream", Fault() as fault, Upstream() as upstream):
                raise UpstreamError(fault, upstream)
            case other:
                raise AssertionError(other)

    def tell(self, subject: str, method: str, *args: Any) -> None:
        """The same without waiting: it has left when this returns, whatever becomes of this process."""
        self._number += 1
        self._waiting[self._number] = asyncio.get_running_loop().create_future()
        _send(self._writer, (self._number, subject, method, args, {}))

    async def _listen(self) -> None:
        while (answer := await _receive(self._reader)) is not None:
            number, told = answer
            waiting = self._waiting.pop(number)
            if not waiting.done():
                waiting.set_result(told)

    async def close(self) -> None:
        self._listening.cancel()
        self._writer.close()


class Remote:
    """An object of the other process, every method of it a coroutine."""

    def __init__(self, connection: Connection, subject: str, **local: Any) -> None:
        self._connection, self._subject = connection, subject
        vars(self).update(local)

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._connection.call(self._subject, name, args, kwargs)

        return call


async def _receive(reader: asyncio.StreamReader) -> Any:
    try:
        (length,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None


def _send(writer: asyncio.StreamWriter, what: object) -> None:
    data = pickle.dumps(what)
    writer.write(_HEADER.pack(len(data)) + data)
