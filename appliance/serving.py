"""Listening on loopback, with answers that are problem documents even to what isn't HTTP."""

from __future__ import annotations

import json
import socket
import sys
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from appliance.problem_documents import correlation_id_of, internal_problem, problem, unreadable_problem
from appliance.settings import check_loopback

LONGEST_LINE = 256 * 1024
"""Bytes of a request line: a name of 10,000 characters, percent-encoded, still gets a proper answer."""
SOCKET_BACKLOG = 512

log = structlog.get_logger(__name__)


class _Protocol(web.RequestHandler):
    """aiohttp's connection, whose answer to what isn't HTTP at all is a problem document too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  aiohttp's own words, which we don't pass on
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun; it can't become another one.")
        answer = _protocol_problem(request, status, exc)
        answer.force_close()
        return answer


def _protocol_problem(request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
    if isinstance(error, LineTooLong):
        return problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid_request",
            "The request is not valid",
            f"The request line or a header is too long; {LONGEST_LINE} bytes are allowed in the path.",
            correlation_id_of(request),
            field="path",
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("A request failed in a way nobody foresaw.", exc_info=error)
        return internal_problem(request)
    return unreadable_problem(request)


class _Server(web.Server):
    def __init__(self, inner: web.Server, **handler_args: Any) -> None:
        super().__init__(inner.request_handler, request_factory=inner.request_factory)
        self._handler_args = handler_args

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._handler_args)


class _Runner(web.AppRunner):
    """An AppRunner whose connections answer with problem documents."""

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), **self._kwargs)


def bind_site(host: str, port: int) -> socket.socket:
    """Takes a loopback address before anything is begun; nothing is answered as yet: for `serve_site`.

    Raises `ValueError` for any other address, `OSError` where somebody listens there.
    """
    check_loopback(host)
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind(address)
        # Linux lets two sockets bind with SO_REUSEADDR as long as none listens. Who connects waits in the backlog.
        bound.listen(SOCKET_BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


async def serve_site(
    app: web.Application, host: str, port: int, *, shutdown_timeout_s: float = 5.0, bound: socket.socket | None = None
) -> tuple[web.AppRunner, str]:
    """Listens on a loopback address; port 0 takes a free one. `await runner.cleanup()` stops it.

    `bound`: the address was taken before. Raises `ValueError` for any other address, `OSError` where the port is taken.
    """
    check_loopback(host)
    runner = _Runner(app, access_log=None, max_line_size=LONGEST_LINE, shutdown_timeout=shutdown_timeout_s)
    await runner.setup()
    try:
        if bound is not None:
            await web.SockSite(runner, bound, backlog=SOCKET_BACKLOG).start()
        else:
            await web.TCPSite(runner, host, port, backlog=SOCKET_BACKLOG).start()
    except BaseException:
        await runner.cleanup()
        raise
    address = runner.addresses[0]
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    return runner, f"http://{shown}:{address[1]}"


def print_listening(program: str, url: str, **more: str) -> None:
    """The one line on stdout by which whoever started us learns the address."""
    sys.stdout.write(json.dumps({"event": "listening", "program": program, "url": url, **more}) + "\n")
    sys.stdout.flush()
