"""Processes that hold a device, as an operator is told of them: who, since when, of which tree, may it be ended."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from volume_daemon.holders.connections import list_clients
from volume_daemon.holders.injections import find_root, is_export_server, is_nbd_server
from volume_daemon.holders.places import Unread, read_bytes
from volume_daemon.holders.processes import Clock, Hits, Process, list_descendants, read_command
from volume_daemon.holders.report import Holder, HolderKind, Role

HitsByPid = Mapping[int, Hits]


class People:
    """Describes what a scan found. `hits` are of all volumes, for a tree may hold more than one."""

    def __init__(self, proc_root: Path, table: Mapping[int, Process], hits: HitsByPid, unread: Unread) -> None:
        self._proc_root = proc_root
        self._table = table
        self._hits = hits
        self._unread = unread
        self._clock = Clock(proc_root)
        self._command = cache(self._read_command)

    def describe(self, pid: int) -> Iterator[tuple[str, Holder]]:
        """(serial, holder) for each volume that the process holds, with the clients that it serves."""
        process = self._table[pid]
        command = self._command(pid)
        root = find_root(pid, self._table, self._command)
        started_at = self._time(process)
        serves = is_nbd_server(process.name, command)
        role = Role.INJECTION if root is not None else (Role.NBD_SERVER if serves else Role.UNKNOWN)
        clients = list_clients(self._proc_root, pid, self._unread) if serves else []
        for (serial, through), access in self._hits[pid].items():
            why_not = self._why_not(serial, role, root)
            yield (
                serial,
                Holder(
                    kind=HolderKind.PROCESS,
                    name=process.name,
                    through=through,
                    since=started_at,
                    process=process.id,
                    started_at=started_at,
                    command=" ".join(command) or None,
                    user=self._user_of(pid),
                    access=tuple(dict.fromkeys(access)),
                    role=role,
                    tree=self._table[root].id if root is not None else None,
                    tree_command=" ".join(self._command(root)) if root is not None else None,
                    endable=why_not is None,
                    why_not=why_not,
                ),
            )
            for client in clients:
                detail = f"connected to {process.name} (process {pid})"
                yield serial, Holder(HolderKind.NBD_CLIENT, client, through, process=process.id, detail=detail)

    def _why_not(self, serial: str, role: Role, root: int | None) -> str | None:
        """Only an injection is ended, and only where its tree has exactly this device."""
        if role is Role.NBD_SERVER:
            return "it serves NBD; an NBD server is never ended here"
        if root is None:
            return "it belongs to no driver injection that is known here"
        members = list_descendants(self._table, {root})
        for pid in sorted(members):
            if pid == os.getpid():
                return "the Volume Daemon itself belongs to its process tree"
            if is_export_server(self._table[pid].name, self._command(pid)):
                return f"its process tree holds the NBD server {pid}, which is never ended here"
        others = {other for pid in members for other, _ in self._hits.get(pid, {}) if other != serial}
        if others:
            return f"its process tree also holds {', '.join(f'virtio-{other}' for other in sorted(others))}"
        return None

    def _read_command(self, pid: int) -> tuple[str, ...]:
        try:
            return read_command(self._proc_root, pid)
        except OSError as error:
            self._unread.note(f"process {pid}: its command", error)
            return ()

    def _time(self, process: Process) -> datetime | None:
        seconds = self._clock.seconds(process.start_ticks)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def _user_of(self, pid: int) -> str | None:
        """The real user; its number where it has no name here."""
        try:
            lines = read_bytes(f"{self._proc_root}/{pid}/status").splitlines()
        except OSError:
            return None
        uid = next((int(line.split()[1]) for line in lines if line.startswith(b"Uid:")), None)
        if uid is None:
            return None
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)
