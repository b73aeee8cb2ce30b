"""A network between two programs that holds, loses, slows and cuts what a test wants: a TCP proxy on loopback.

    async with running_proxy(simulator_port) as proxy:      # clients speak to proxy.port
        held = proxy.hold(b"command=detachVolume")           # the next piece with these words stays here
        await held.arrived()
        held.release()                                       # …and is delivered now, even if its sender is long dead

What goes through is looked at in pieces, as one read from the socket gives them. A client that sends a request at once
(aiohttp, cs, PyMySQL do) makes one piece of it, so that words of its first line, its headers or its statement can be
asked for. Everything happens on the event loop that made the proxy; nothing here blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

PIECE_BYTES: Final = 65536
LOOPBACK: Final = "127.0.0.1"


class Loss(Enum):
    REQUEST = auto()
    """The piece does not arrive, and the connection ends on both sides."""
    ANSWER = auto()
    """The piece arrives, nothing comes back, and the connection ends on both sides."""
    SILENCE = auto()
    """The piece does not arrive, and neither side notices anything."""


@dataclass(slots=True)
class Held:
    """One piece on its way from client to server that is kept back."""

    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _delivered: asyncio.Event = field(default_factory=asyncio.Event)
    piece: bytes = b""
    dropped: bool = False

    async def arrived(self, timeout_s: float = 30) -> bytes:
        """The piece, once it is here. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            await self._arrived.wait()
        return self.piece

    def release(self) -> None:
        """It goes on to the server, whether or not its client is still there."""
        self._ended.set()

    async def delivered(self, timeout_s: float = 30) -> None:
        """Returns once it was handed to the server's socket. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            await self._delivered.wait()

    def drop(self) -> None:
        """It never arrives; its connection ends."""
        self.dropped = True
        self._ended.set()

    async def keep(self, piece: bytes) -> bool:
        """For the proxy: true if it is to be delivered."""
        self.piece = piece
        self._arrived.set()
        await self._ended.wait()
        return not self.dropped

    def mark_delivered(self) -> None:
        self._delivered.set()


@dataclass(slots=True)
class Rule:
    """What happens to the next `times` pieces (None: to all) that hold `words`."""

    words: bytes
    times: int | None
    what: Loss | Held

    def takes(self, piece: bytes) -> bool:
        if self.times == 0 or self.words not in piece:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(slots=True)
class Counts:
    connections: int = 0
    refused: int = 0
    pieces: int = 0
    """From client to server."""
    answers: int = 0
    """Pieces from server to client."""
    held: int = 0
    lost: int = 0
    cut: int = 0
    """Connections that `cut` ended."""


class Proxy:
    """Passes on everything until it is told otherwise. Made by `running_proxy`."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_s: float = 0
        """Before each piece, in both directions."""
        self.refuses = False
        """New connections end at once, as when nobody listens."""
        self.counts = Counts()
        self._rules: list[Rule] = []
        self._seen: list[bytes] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, words: bytes = b"") -> Held:
        """Keeps back the next piece from a client that holds these words; what follows it waits behind it."""
        held = Held()
        self._rules.append(Rule(words, 1, held))
        return held

    def lose(self, loss: Loss, words: bytes = b"", *, times: int | None = 1) -> None:
        self._rules.append(Rule(words, times, loss))

    def forget_rules(self) -> None:
        """What is held stays held; nothing new is touched."""
        self._rules.clear()

    def pause(self) -> None:
        """Nothing passes in either direction, and nobody is told."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def cut(self) -> int:
        """Ends all open connections at once, with a reset; how many. A held piece of one of them is still deliverable."""
        number = len(self._tasks)
        for writer in self._writers:
            writer.transport.abort()
        self.counts.cut += number
        return number

    def asked(self, words: bytes) -> int:
        """How many pieces with these words came from clients, whatever became of them."""
        return sum(words in piece for piece in self._seen)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        if self.refuses:
            self.counts.refused += 1
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def list_pieces(self, after: int = 0) -> list[bytes]:
        """From clients, whatever became of them, without the first `after` of them."""
        return self._seen[after:]

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self._writers.add(writer)
        back: asyncio.StreamWriter | None = None
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self.target_port)
            self._writers.add(back)
            answers = asyncio.create_task(self._pass_answers(there, writer))
            try:
                await self._pass_requests(reader, back)
                await answers  # what the server still says to a client that has said all
            finally:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
        except OSError:
            pass  # either side is gone: so is the connection, for both
        finally:
            for one in (writer, back):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _pass_requests(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE_BYTES):
            self.counts.pieces += 1
            self._seen.append(piece)
            rule = next((rule for rule in self._rules if rule.takes(piece)), None)
            if rule is None:
                await self._pass_on(piece, back)
            elif isinstance(rule.what, Held):
                await self._keep(rule.what, piece, reader, back)
            else:
                await self._lose(rule.what, piece)
        with suppress(OSError):
            back.write_eof()

    async def _lose(self, loss: Loss, piece: bytes) -> None:
        self.counts.lost += 1
        if loss is Loss.ANSWER:
            await self._deliver(piece)
        if loss is not Loss.SILENCE:
            raise ConnectionResetError("lost, as was asked for")

    async def _keep(self, held: Held, piece: bytes, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.counts.held += 1
        if not await held.keep(piece):
            raise ConnectionResetError("dropped, as was asked for")
        gone = reader.at_eof() or reader.exception() is not None or back.transport.is_closing()
        # Beside a connection that ends at once a piece could be lost; so it travels on one of its own.
        await (self._deliver(piece) if gone else self._pass_on(piece, back))
        held.mark_delivered()

    async def _deliver(self, piece: bytes) -> None:
        """To the server, and waits for the first of its answer, which nobody gets."""
        there, back = await asyncio.open_connection(LOOPBACK, self.target_port)
        try:
            back.write(piece)
            await back.drain()
            await there.read(PIECE_BYTES)
        finally:
            back.transport.abort()

    async def _pass_answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await there.read(PIECE_BYTES):
                self.counts.answers += 1
                await self._pass_on(piece, writer)
        if not writer.transport.is_closing():
            writer.close()

    async def _pass_on(self, piece: bytes, to: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._flows.wait()
        to.write(piece)
        await to.drain()


@asynccontextmanager
async def running_proxy(target_port: int, *, port: int = 0) -> AsyncIterator[Proxy]:
    """In front of `target_port` on loopback until the end of the block; nobody has to listen there as yet."""
    proxy = Proxy(target_port)
    server = await asyncio.start_server(proxy.accept, LOOPBACK, port)
    proxy.port = int(server.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
