"""The tests' own network does what it is told, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.proxy import LOOPBACK, Loss, Proxy, running_proxy

pytestmark = pytest.mark.timeout(20)


@dataclass
class Server:
    """Answers each line with `got <line>`, and keeps what arrived."""

    arrived: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.arrived.append(line.strip())
            writer.write(b"got " + line)
            await writer.drain()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, LOOPBACK, 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with running_proxy(server.port) as proxy:
        yield proxy


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, words: bytes) -> None:
        self.writer.write(words + b"\n")
        await self.writer.drain()

    async def ask(self, words: bytes) -> bytes:
        await self.say(words)
        return (await self.reader.readline()).strip()

    async def is_cut(self) -> bool:
        """The connection ends without another word."""
        try:
            return await self.reader.readline() == b""
        except ConnectionResetError:
            return True

    def die(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def client_of(proxy: Proxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - sockets tell nobody when the other side has read
            await asyncio.sleep(0)


async def test_passes_everything_and_counts_it(server: Server, proxy: Proxy) -> None:
    async with client_of(proxy) as client:
        assert await client.ask(b"detach 1") == b"got detach 1"
        assert await client.ask(b"attach 1") == b"got attach 1"
    assert server.arrived == [b"detach 1", b"attach 1"]
    assert (proxy.counts.connections, proxy.counts.pieces, proxy.asked(b"detach")) == (1, 2, 1)


async def test_a_held_piece_waits_and_others_pass(server: Server, proxy: Proxy) -> None:
    held = proxy.hold(b"detach")
    async with client_of(proxy) as one, client_of(proxy) as other:
        await one.say(b"detach 1")
        assert await held.arrived() == b"detach 1\n"
        assert await other.ask(b"detach 2") == b"got detach 2"
        assert server.arrived == [b"detach 2"]
        held.release()
        assert (await one.reader.readline()).strip() == b"got detach 1"


async def test_a_held_piece_is_delivered_after_the_death_of_its_sender(server: Server, proxy: Proxy) -> None:
    held = proxy.hold(b"detach")
    async with client_of(proxy) as client:
        await client.say(b"detach 1")
        await held.arrived()
        client.die()
    held.release()
    await held.delivered()
    await until(lambda: server.arrived)
    assert server.arrived == [b"detach 1"]


async def test_a_held_piece_survives_a_cut_and_may_be_dropped(server: Server, proxy: Proxy) -> None:
    kept, dropped = proxy.hold(b"keep"), proxy.hold(b"drop")
    async with client_of(proxy) as one, client_of(proxy) as other:
        await one.say(b"keep")
        await other.say(b"drop")
        await asyncio.gather(kept.arrived(), dropped.arrived())
        assert proxy.cut() == 2
        dropped.drop()
        kept.release()
        await kept.delivered()
    assert server.arrived == [b"keep"]


@pytest.mark.parametrize(("loss", "arrives"), [(Loss.REQUEST, []), (Loss.ANSWER, [b"detach 1"])])
async def test_a_lost_piece_ends_its_connection(server: Server, proxy: Proxy, loss: Loss, arrives: list[bytes]) -> None:
    proxy.lose(loss, b"detach")
    async with client_of(proxy) as client:
        await client.say(b"detach 1")
        assert await client.is_cut()
    async with client_of(proxy) as client:
        assert await client.ask(b"detach 2") == b"got detach 2"
    assert server.arrived == [*arrives, b"detach 2"]
    assert proxy.counts.lost == 1


async def test_silence_and_pauses_tell_nobody(server: Server, proxy: Proxy) -> None:
    proxy.lose(Loss.SILENCE, b"lost", times=None)
    async with client_of(proxy) as client:
        await client.say(b"lost")
        await until(lambda: proxy.counts.lost)
        assert await client.ask(b"here") == b"got here"
        proxy.pause()
        await client.say(b"later")
        await until(lambda: proxy.counts.pieces == 3)
        assert server.arrived == [b"here"]
        proxy.resume()
        assert (await client.reader.readline()).strip() == b"got later"


async def test_refuses_cuts_and_slows(server: Server, proxy: Proxy) -> None:
    async with client_of(proxy) as client:
        assert await client.ask(b"one") == b"got one"
        proxy.cut()
        assert await client.is_cut()
    proxy.refuses = True
    async with client_of(proxy) as client:
        assert await client.is_cut()
    proxy.refuses, proxy.delay_s = False, 0.02
    async with client_of(proxy) as client:
        began = asyncio.get_running_loop().time()
        assert await client.ask(b"two") == b"got two"
        assert asyncio.get_running_loop().time() - began >= 0.03
    assert (proxy.counts.cut, proxy.counts.refused, server.arrived) == (1, 1, [b"one", b"two"])


async def test_nobody_behind_it_is_an_ended_connection(server: Server) -> None:
    async with running_proxy(1) as proxy, client_of(proxy) as client:
        assert await client.is_cut()
