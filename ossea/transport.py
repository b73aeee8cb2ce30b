"""One call to CloudStack: signed with the server's time, sent, its ending turned into one class of error.

Signing and envelopes are `cs.AIOCloudStack`'s, through its public surface. The only thing that is ever sent again here
is a request that CloudStack certainly did not execute: throttled (429), or expired by a clock that it has just
corrected (401).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from cs import AIOCloudStack, CloudStackApiException, CloudStackException

from ossea.calls import check_values
from ossea.clock import EXPIRES_FORMAT, Monotonic, Now, ServerClock, utc_now
from ossea.credentials import Endpoint
from ossea.errors import INTERNAL_ERROR, CloudStackError, ErrorKind, Expired, build_answer_error, build_foreign_error
from ossea.throttle import Throttle, ThrottlePolicy
from ossea.wire import CONNECTIONS, Reply, Wire

Observer = Callable[[str, str, float], None]
"""Told command, result (`ok` or an `ErrorKind`) and seconds of every request."""

CLOCK_GOOD_FOR_S: Final = 300.0

OK: Final = "ok"


class Transport:
    """Calls by name and parameters; the typed commands are above it."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float,
        expires_s: float,
        observer: Observer | None = None,
        throttle: ThrottlePolicy | None = None,
        now: Now = utc_now,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        self._now = now
        self._timeout_s = timeout_s
        self._expires_s = expires_s
        self._observer = observer
        self._throttle_policy = throttle or ThrottlePolicy()
        self._monotonic = monotonic
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._measuring: asyncio.Task[str] | None = None
        self._left: list[Wire] = []
        self._take(endpoint, *self._build_wire(endpoint))

    async def open(self) -> None:
        await self._wire.open()

    async def use(self, endpoint: Endpoint) -> None:
        """From the next call on; what is under way ends on the connection that it began on."""
        wire, clock = self._build_wire(endpoint)
        await wire.open()
        self._left.append(self._wire)
        self._take(endpoint, wire, clock)

    def _build_wire(self, endpoint: Endpoint) -> tuple[Wire, ServerClock]:
        clock = ServerClock(self._now, self._monotonic)
        return Wire(endpoint, self._timeout_s, clock, self._monotonic), clock

    def _take(self, endpoint: Endpoint, wire: Wire, clock: ServerClock) -> None:
        self.endpoint, self.clock, self._wire = endpoint, clock, wire
        self._throttle = Throttle(self._throttle_policy, self._monotonic)
        self._api = AIOCloudStack(
            endpoint.url,
            endpoint.key,
            endpoint.secret,
            method=endpoint.method,
            headers=dict(endpoint.headers),
            session=wire,
            retry=0,
            fetch_result=False,
        )

    async def aclose(self) -> None:
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait({self._measuring})
        await asyncio.gather(*(wire.aclose() for wire in (*self._left, self._wire)))

    async def read(self, command: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """A command that changes nothing; the content of its envelope."""
        return await self._call(command, params, None)

    async def look(self, command: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Like `read`, without waiting for others or for a throttle: for a poller, which comes back by itself."""
        return await self._send(command, params, None)

    async def change(
        self, command: str, params: Mapping[str, Any], expires_at: datetime | None = None
    ) -> dict[str, Any]:
        """A command that changes something: never sent after `expires_at` (the server's time), nor while the server's
        clock is unknown, nor a second time after it may have arrived.
        """
        await self._require_clock(command)
        return await self._call(command, params, expires_at)

    async def find_server_time(self) -> datetime:
        """Raises `CloudStackError` (`NOT_SENT`) where the server does not tell it."""
        await self._require_clock("listCapabilities")
        return self.clock.expires_in(0)

    async def _require_clock(self, command: str) -> None:
        if not self._clock_is_stale():
            return
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure_clock(), name="cloudstack clock")
        # All that need the clock wait for one measurement, and it outlives the one that began it.
        measuring = self._measuring
        await asyncio.wait({measuring})
        cause = "the client was closed" if measuring.cancelled() else measuring.result()
        if self._clock_is_stale():
            text = f"not sent: the server's clock could not be measured ({cause})"
            raise CloudStackError(ErrorKind.NOT_SENT, command, text)

    async def _measure_clock(self) -> str:
        """Any answer tells the time, a refusal too; returns why there is none."""
        try:
            await self._call("listCapabilities", {}, None)
        except CloudStackError as error:
            return error.text
        return "the server sends no usable Date header"

    def _clock_is_stale(self) -> bool:
        age_s = self.clock.age_s
        return age_s is None or age_s > CLOCK_GOOD_FOR_S

    async def _call(self, command: str, params: Mapping[str, Any], expires_at: datetime | None) -> dict[str, Any]:
        # A throttle is the account's: one that was told to wait makes all wait, each keeping its place, and no slot.
        return await self._throttle.let_through(lambda: self._send_in_slot(command, params, expires_at))

    async def _send_in_slot(
        self, command: str, params: Mapping[str, Any], expires_at: datetime | None
    ) -> dict[str, Any]:
        async with self._slots:
            return await self._send_signed(command, params, expires_at)

    async def _send_signed(
        self, command: str, params: Mapping[str, Any], expires_at: datetime | None
    ) -> dict[str, Any]:
        """Signed once more where a 401 shows by its own `Date` that the clock was wrong, and only then."""
        signed_at = self.clock.offset
        try:
            return await self._send(command, params, expires_at)
        except CloudStackError as error:
            if error.kind is not ErrorKind.UNAUTHORIZED or not self._clock_moved(signed_at):
                raise
        return await self._send(command, params, expires_at)

    def _clock_moved(self, before: timedelta | None) -> bool:
        """Whether the refusal's own `Date` shows that the request was signed with a wrong time."""
        now = self.clock.offset
        return now is not None and abs(now - (before or timedelta())) > timedelta(seconds=self._expires_s / 4)

    async def _send(self, command: str, params: Mapping[str, Any], expires_at: datetime | None) -> dict[str, Any]:
        check_values(command, params)
        if expires_at is not None and self.clock.is_past(expires_at):
            raise Expired(command, f"not sent: it expired at {expires_at.isoformat()}")
        expires = self.clock.expires_in(self._expires_s) if expires_at is None else expires_at
        signed = {**params, "signatureVersion": "3", "expires": expires.strftime(EXPIRES_FORMAT)}
        began = self._monotonic()
        result = ErrorKind.NO_ANSWER.value
        try:
            answer = await self._exchange(command, signed)
            result = OK
        except CloudStackError as error:
            result = error.kind.value
            raise
        finally:
            if self._observer is not None:
                self._observer(command, result, self._monotonic() - began)
        return answer

    async def _exchange(self, command: str, signed: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = await getattr(self._api, command)(**signed)
        except CloudStackApiException as error:
            raise self._build_answer_error(command, error.response.status, error.error) from None
        except CloudStackException as error:
            reply: Reply = error.response
            problem = _foreign_problem(reply)
            raise build_foreign_error(command, reply.status, reply.headers, problem) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._build_silence(command, error) from None
        if "errorcode" in answer:
            # Behind a proxy that hides the status an error must not be read as an empty list.
            raise self._build_answer_error(command, INTERNAL_ERROR, answer)
        return answer

    def _build_answer_error(self, command: str, status: int, envelope: Mapping[str, Any]) -> CloudStackError:
        text = self.endpoint.redact(str(envelope.get("errortext") or ""))
        return build_answer_error(command, status, {**envelope, "errortext": text})

    def _build_silence(self, command: str, error: Exception) -> CloudStackError:
        """No usable answer: whether the request left is told by where aiohttp was.

        The texts are ours: aiohttp's hold the whole signed address.
        """
        where = urlsplit(self.endpoint.url).netloc
        match error:
            case aiohttp.ClientSSLError():
                kind, text = ErrorKind.NOT_SENT, f"no secure connection to {where}: certificate or TLS not accepted"
            case aiohttp.ClientConnectorError():
                reason = error.os_error.strerror or type(error.os_error).__name__
                kind, text = ErrorKind.NOT_SENT, f"cannot connect to {where}: {reason}"
            case aiohttp.ConnectionTimeoutError():
                kind, text = ErrorKind.NOT_SENT, f"cannot connect to {where} in {self._timeout_s:g} s"
            case aiohttp.InvalidURL():
                kind, text = ErrorKind.NOT_SENT, "the endpoint's address is not valid"
            case aiohttp.ClientResponseError():
                kind, text = ErrorKind.BROKEN_ANSWER, f"{where} does not answer in HTTP"
            case TimeoutError():
                kind, text = ErrorKind.NO_ANSWER, f"no answer from {where} in {self._timeout_s:g} s"
            case _:
                kind, text = ErrorKind.NO_ANSWER, f"{where} closed the connection before it had answered"
        return CloudStackError(kind, command, text)


def _foreign_problem(reply: Reply) -> str:
    """Says what answered, without quoting it: a proxy's page may echo the signed request."""
    kind = reply.headers.get("Content-Type", "no content type").split(";")[0]
    if 300 <= reply.status < 400:  # noqa: PLR2004 - HTTP's redirections
        return "a redirection; the address must name the CloudStack API itself"
    return f"not a CloudStack answer ({kind}); check the address of the API"
