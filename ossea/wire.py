"""The session that `cs.AIOCloudStack` sends through: aiohttp, with what that client leaves open closed.

`AIOCloudStack` takes any object as `session` and asks of it `get` or `post`, and of the answer `status`, `headers`,
`json` and `text`. That is the door by which this module adds, without touching the client's inside:

- a change is sent once: aiohttp sends a GET again by itself when a connection breaks, and CloudStack changes by GET;
- one bound on the whole exchange, connecting and reading included;
- no redirects: they would carry a signed request to another place;
- the `Date` header, for the server's clock, of CloudStack's own answers only: what stands before it has another clock;
- a check that the envelope belongs to the command: `{}` of a foreign envelope must not be read as an empty list.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from ossea.clock import Monotonic, ServerClock
from ossea.credentials import Endpoint

HTTP_OK: Final = 200
CONNECTIONS: Final = 32
"""Calls under way at once; the poller's come on top, so that a busy client still notices ended jobs."""
POLLER_CONNECTIONS: Final = 8
KEEPALIVE_S: Final = 5.0
"""Shorter than any server's or proxy's usual idle timeout, so that a connection is not reused while it is closed."""


class Reply:
    """An answer that has been read whole, as `AIOCloudStack` wants to see one."""

    def __init__(
        self,
        command: str,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        recognised: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = command
        self.status = status
        self.headers = headers
        self._body = body
        self._recognised = recognised
        """Called once it has shown itself as CloudStack's answer to this command."""

    async def json(self, *, content_type: str | None = None) -> Any:
        """Raises `ValueError` for anything that is not this command's envelope."""
        del content_type  # a wrong content type with a right envelope is harmless, the reverse is not
        data = json.loads(self._body)
        if not isinstance(data, dict) or len(data) != 1:
            raise ValueError("not an envelope")
        (key, value) = next(iter(data.items()))
        is_error = key.lower() == "errorresponse" and self.status != HTTP_OK
        if not is_error and key.lower() != f"{self._command.lower()}response":
            raise ValueError("another command's envelope")
        if not isinstance(value, dict):
            raise ValueError("an envelope without an object")  # noqa: TRY004 - what `cs` takes for "not JSON"
        self._recognised()
        return data

    async def text(self) -> str:
        return self._body.decode("utf-8", "replace")


class Wire:
    """Sends requests; raises aiohttp's errors and `TimeoutError`."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, clock: ServerClock, monotonic: Monotonic) -> None:
        self._endpoint = endpoint
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._clock = clock
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        tls = await asyncio.to_thread(_build_tls, self._endpoint)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=tls, limit=CONNECTIONS + POLLER_CONNECTIONS, keepalive_timeout=KEEPALIVE_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, url: str, *, headers: Mapping[str, str], params: Mapping[str, str]) -> Reply:
        return await self._exchange("GET", url, headers, params, params=params)

    async def post(self, url: str, *, headers: Mapping[str, str], data: Mapping[str, str]) -> Reply:
        return await self._exchange("POST", url, headers, data, data=data)

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], sent: Mapping[str, str], **payload: Any
    ) -> Reply:
        if self._session is None:
            raise RuntimeError("the client is not open; use `async with`")
        command = sent["command"]
        began = self._monotonic()
        async with self._session.request(
            method,
            url,
            headers=headers,
            allow_redirects=False,
            middlewares=() if reads_only(command) else (SendOnce(),),
            **payload,
        ) as response:
            date, round_trip_s = response.headers.get("Date"), self._monotonic() - began
            received = self._monotonic()
            body = await response.read()
            return Reply(
                command,
                response.status,
                response.headers,
                body,
                lambda: self._clock.sample(date, round_trip_s, received),
            )


def reads_only(command: str) -> bool:
    """Whether the command changes nothing, so that sending it twice is harmless."""
    return command.startswith(("list", "query"))


class SendOnce:
    """A middleware for one request, against the second sending that aiohttp attempts on a broken connection.

    The first error stands.
    """

    def __init__(self) -> None:
        self._first_error: aiohttp.ClientError | OSError | None = None

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if self._first_error is not None:
            raise self._first_error
        try:
            return await handler(request)
        except (aiohttp.ClientError, OSError) as error:
            self._first_error = error
            raise


def _build_tls(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """As `cs` builds it from the same settings; reads files."""
    if not endpoint.url.startswith("https://"):
        return True
    if endpoint.verify is False:
        return False
    context = ssl.create_default_context(cafile=endpoint.verify if isinstance(endpoint.verify, str) else None)
    if endpoint.cert:
        context.load_cert_chain(endpoint.cert, endpoint.cert_key)
    return context
