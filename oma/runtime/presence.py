"""Whether the daemon behind a lease still lives, where this kernel can tell: a dead one's jobs need not wait.

A daemon holds a socket with an abstract name, its owner's, as long as it lives; the kernel lets one process have a name
and takes it back when that process ends, however it ends (unix(7)). A paused process keeps it. Whoever can bind the
name of another owner of the same network namespace and boot knows that nobody is behind it any more. What such a daemon
sent before it died is adopted or burned like after any other take-over.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from pathlib import Path
from typing import Final

from oma.ports import Ids, Peers

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE: Final = Path("/proc/self/ns/net")
OWNER_LENGTH: Final = 64
"""Of `oma_jobs.lease_owner`."""


def build_owner(ids: Ids) -> str:
    """A name for this process's leases, at most `OWNER_LENGTH` long."""
    return f"{socket.gethostname()}:{os.getpid()}:{ids.new_id()[:8]}"[-OWNER_LENGTH:]


class Presence:
    """`owner` is the given name and, where the kernel can be asked, the place in which it can be looked for."""

    def __init__(self, owner: str) -> None:
        place = _read_place()
        self._ending = None if place is None else f".{place}"
        self.owner = owner if self._ending is None else owner[-(OWNER_LENGTH - len(self._ending)) :] + self._ending
        self._held: socket.socket | None = None

    def hold(self) -> None:
        """Before the first claim: from now on the others see that we live. Raises `OSError`."""
        if self._ending is not None and self._held is None:
            self._held = _bind(self.owner)

    def close(self) -> None:
        """After the last lease is given back, or at the process's end by itself."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def is_dead(self, owner: str) -> bool:
        """Only what is certain: false also of those that can't be looked for from here."""
        if self._ending is None or not owner.endswith(self._ending) or owner == self.owner:
            return False
        try:
            _bind(owner).close()
        except OSError:
            return False
        return True


async def end_leases_of_the_dead(peers: Peers, presence: Presence, wake: asyncio.Event) -> str | None:
    """Jobs whose daemon was killed are free at once, not only when its leases run out."""
    dead = [owner for owner in await peers.list_owners() if presence.is_dead(owner)]
    ended = sum([await peers.end_leases(owner) for owner in dead])
    if not ended:
        return None
    wake.set()
    return f"{', '.join(dead)} ended without giving back its jobs; {ended} are free again."


def _bind(owner: str) -> socket.socket:
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0oma-owner-{owner}")
    except OSError:
        held.close()
        raise
    return held


def _read_place() -> str | None:
    """Of this boot and this network namespace, within which abstract names are unique; None where it can't be told."""
    try:
        seen = f"{BOOT_ID.read_text(encoding='ascii').strip()}/{NAMESPACE.stat().st_ino}"
    except OSError:
        return None
    return hashlib.sha256(seen.encode()).hexdigest()[:12]
