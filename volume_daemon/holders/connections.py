"""Who is connected to an NBD server: its sockets among its open files, looked up in its network namespace's tables."""

from __future__ import annotations

import ipaddress
import stat
import sys
from pathlib import Path
from typing import Final

from volume_daemon.holders.places import Unread, list_names, look_at, read_bytes

ESTABLISHED: Final = b"01"


def list_clients(proc_root: Path, pid: int, unread: Unread) -> list[str]:
    """The far ends of the process's TCP connections, `address:port`. nbd-server serves each client in a child."""
    base = f"{proc_root}/{pid}"
    clients: list[str] = []
    with unread.reading(f"process {pid}: its connections"):
        sockets = _list_sockets(f"{base}/fd")
        if sockets:
            for table in ("tcp", "tcp6"):
                clients += _list_peers(f"{base}/net/{table}", sockets, unread)
    return clients


def _list_sockets(folder: str) -> set[int]:
    found = set()
    for name in list_names(folder):
        try:
            one = look_at(f"{folder}/{name}")
        except OSError:
            continue
        if stat.S_ISSOCK(one.st_mode):
            found.add(one.st_ino)
    return found


def _list_peers(path: str, sockets: set[int], unread: Unread) -> list[str]:
    """Fields: number, local, remote, state, queues, timer, retransmits, uid, timeout, inode (proc(5))."""
    text = b""
    with unread.reading(path):
        text = read_bytes(path)
    lines = (line.split() for line in text.splitlines()[1:])
    return [
        _address(line[2])
        for line in lines
        if len(line) > 9 and line[3] == ESTABLISHED and int(line[9]) in sockets  # noqa: PLR2004
    ]


def _address(text: bytes) -> str:
    """Words of the machine's own byte order, then the port."""
    digits, _, port = text.decode().partition(":")
    words = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    shown = str(mapped or address)
    return f"[{shown}]:{int(port, 16)}" if ":" in shown else f"{shown}:{int(port, 16)}"
