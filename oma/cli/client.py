"""A thin synchronous client of our own API, on the standard library's HTTP.

Importing it costs a fifth of what aiohttp costs, and a command asks a handful of questions; several VMs at once are
a thread each.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from oma.cli.stream import ServerEvent, parse_events

API: Final = "/api/v1"
ASK_TIMEOUT_S: Final = 30.0
SUBMIT_TIMEOUT_S: Final = 180.0
"""A clean-up is queued only after every system was asked, each within the daemon's own limit."""
STREAM_TIMEOUT_S: Final = 60.0
"""Longest silence on a stream; the daemon sends a comment more often than that."""
PAGE: Final = 500
FIRST_ERROR: Final = 400
LONGEST_EXCERPT: Final = 200


class Unreachable(Exception):
    """Nobody answered in the protocol. `maybe_sent`: the request may have arrived nevertheless."""

    def __init__(self, server: str, reason: str, *, maybe_sent: bool) -> None:
        super().__init__(f"The daemon at {server} does not answer: {reason}.")
        self.maybe_sent = maybe_sent


class ApiProblem(Exception):
    """The daemon said no; `document` is its problem document."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or "The daemon refused."))
        self.document = document


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


class BadServer(Exception):
    """The server's address cannot be one."""


class Client:
    """One daemon. Safe to use from several threads: every call has its own connection."""

    def __init__(self, server: str) -> None:
        """Raises `BadServer` for what is no http(s) address."""
        parts = urlsplit(server)
        try:
            port = parts.port
        except ValueError:
            raise BadServer(server) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadServer(server)
        self.server = server.rstrip("/")
        self._host, self._port, self._secure = parts.hostname, port, parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")

    def get(self, path: str, query: Mapping[str, str | None] | None = None) -> Any:
        """The JSON under a path of the API; raises `ApiProblem` and `Unreachable`."""
        return self._ask("GET", API + path + as_query(query)).body

    def get_root(self, path: str) -> Answer:
        """A path outside of the API, such as /health, whatever its status."""
        with self._exchange("GET", path, None, {}, ASK_TIMEOUT_S) as response:
            return Answer(response.status, self._read_json(response))

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
        return self._ask("POST", API + path, body, headers, SUBMIT_TIMEOUT_S)

    def list_all(self, path: str, query: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
        """Every item of a paged list."""
        cursor: str | None = None
        while True:
            page = self.get(path, {**query, "limit": query.get("limit") or str(PAGE), "cursor": cursor})
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def stream(self, path: str, last_event_id: str) -> Iterator[ServerEvent]:
        """Server-Sent Events until the connection ends; raises `Unreachable` when it breaks."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id}
        with self._exchange("GET", API + path, None, headers, STREAM_TIMEOUT_S) as response:
            if response.status >= FIRST_ERROR:
                raise ApiProblem(self._as_problem(response))
            yield from parse_events(response)

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ASK_TIMEOUT_S,
    ) -> Answer:
        with self._exchange(method, path, body, headers or {}, timeout_s) as response:
            if response.status >= FIRST_ERROR:
                raise ApiProblem(self._as_problem(response))
            return Answer(response.status, self._read_json(response))

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str], timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(timeout_s)
        sent = False
        try:
            connection.connect()
            sent = True
            data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
            kind = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, self._prefix + path, data, {"Accept": "application/json", **kind, **headers})
            yield connection.getresponse()
        except TimeoutError as error:
            raise Unreachable(self.server, f"no answer within {timeout_s:g} s", maybe_sent=sent) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self.server, _reason(error), maybe_sent=sent) from error
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def _read_json(self, response: http.client.HTTPResponse) -> Any:
        text = response.read().decode("utf-8", "replace")
        try:
            return json.loads(text)
        except ValueError:
            excerpt = text[:LONGEST_EXCERPT] or "nothing"
            raise Unreachable(
                self.server, f"something else listens there; it said {excerpt!r}", maybe_sent=True
            ) from None

    def _as_problem(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        document = self._read_json(response)
        if not isinstance(document, dict):
            raise Unreachable(self.server, "its error is no problem document", maybe_sent=True)
        return {"status": response.status, **document}


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def in_path(name: str) -> str:
    """A name as one segment of a path; `.` and `..` too, which servers would resolve."""
    encoded = quote(name, safe="")
    return encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded


def as_query(query: Mapping[str, str | None] | None) -> str:
    pairs = {key: value for key, value in (query or {}).items() if value is not None}
    return f"?{urlencode(pairs)}" if pairs else ""
