"""Ports of the demo's programs: the wanted ones, or others where they are taken."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

HOST: Final = "127.0.0.1"
OPEN_PORTS: Final = (20_000, 32_000)
"""Below the range from which systems take ports for outgoing connections."""


@dataclass(frozen=True, slots=True)
class Ports:
    """0 takes any free port."""

    oma: int = 8082
    volume_daemon: int = 8090
    simulator: int = 8080
    admin: int = 8079


USUAL_PORTS: Final = Ports()
ANY_PORTS: Final = Ports(0, 0, 0, 0)


class PortClaims:
    """Ports that this stack means to listen on, claimed so that no other stack begins to use one of them too.

    Between the look at a port and the program that binds it another demo may look. A claim is a socket with an abstract
    name (unix(7)): the kernel lets one process have it, and takes it back when that process ends, however it ends.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []

    def claim(self, port: int) -> bool:
        """False where somebody listens there, or another stack is about to."""
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0oma-demo-port-{port}")
        except OSError:
            claim.close()
            return False
        if not is_free(port):
            claim.close()
            return False
        self._claims.append(claim)
        return True

    def claim_any(self) -> int:
        low, high = OPEN_PORTS
        while not self.claim(port := low + secrets.randbelow(high - low)):
            pass
        return port

    def close(self) -> None:
        for claim in self._claims:
            claim.close()
        self._claims.clear()


def choose_ports(wanted: Ports, say: Callable[[str], None], claims: PortClaims) -> Ports:
    """The wanted ports; where one is taken another, and that is said."""
    chosen = wanted
    for name, what in (
        ("oma", "the OMA daemon"),
        ("volume_daemon", "the Volume Daemon"),
        ("simulator", "the CloudStack simulator"),
        ("admin", "the simulator's admin API"),
    ):
        port = getattr(wanted, name)
        if port and claims.claim(port):
            continue
        other = claims.claim_any()
        if port:
            say(f"Port {port} is taken; {what} listens on {other} instead.")
        chosen = replace(chosen, **{name: other})
    return chosen


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def find_port() -> int:
    """One that is free now."""
    low, high = OPEN_PORTS
    while not is_free(port := low + secrets.randbelow(high - low)):
        pass
    return port
