"""Telling the service manager how we are: `sd_notify` datagrams, and the watchdog.

Source: sd_notify(3), sd_watchdog_enabled(3). Without a socket every call does nothing.
"""

from __future__ import annotations

import os
import socket as sockets
from collections.abc import Mapping

from structlog import get_logger

log = get_logger(__name__)


class Notifier:
    """Sends state to `NOTIFY_SOCKET`; a name that begins with `@` is an abstract socket."""

    def __init__(self, socket: str | None) -> None:
        self._address = f"\0{socket[1:]}" if socket and socket.startswith("@") else socket

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Notifier:
        return cls(env.get("NOTIFY_SOCKET"))

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={_one_line(text)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        """A datagram that can't be delivered is logged, never raised: telling is not the work."""
        if not self._address:
            return
        try:
            with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.connect(self._address)
                sock.send("\n".join(lines).encode())
        except OSError as error:
            log.warning("The service manager could not be told.", lines=lines, reason=error.strerror)


def watchdog_interval_s(env: Mapping[str, str], pid: int | None = None) -> float | None:
    """Half of the time after which the service manager takes us for dead; None where no watchdog watches us."""
    text = env.get("WATCHDOG_USEC", "")
    watched = env.get("WATCHDOG_PID") or str(pid or os.getpid())
    if not text.isdigit() or int(text) == 0 or watched != str(pid or os.getpid()):
        return None
    return int(text) / 1_000_000 / 2


def _one_line(text: str) -> str:
    return " ".join(text.split())
