"""A network that loses what a test wants lost, between a client and a MariaDB server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

COMMIT = b"\x03COMMIT"
"""COM_QUERY and its text, as PyMySQL sends it in one piece."""


class Loss(Enum):
    ANSWER = auto()
    """COMMIT arrives, its answer does not."""
    QUESTION = auto()
    """COMMIT does not arrive; the server sees the connection end."""
    LINK = auto()
    """COMMIT does not arrive and the server notices nothing: its session stays, with all its locks."""


class Proxy:
    """Loses the next COMMIT as `loss` says, once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.loss: Loss | None = None
        self.lost = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.listening_port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.listening_port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        answers = asyncio.create_task(self._pass_answers(there, writer))
        self._tasks.append(answers)
        while data := await reader.read(65536):
            if self.loss is not None and COMMIT in data:
                await self._lose(data, back, answers)
                writer.close()
                return
            back.write(data)
        back.close()

    async def _lose(self, data: bytes, back: asyncio.StreamWriter, answers: asyncio.Task[None]) -> None:
        loss, self.loss = self.loss, None
        self.lost += 1
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)
        if loss is Loss.ANSWER:
            back.write(data)
            await back.drain()
        if loss is not Loss.LINK:
            back.close()

    async def _pass_answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            writer.write(data)
        writer.close()
