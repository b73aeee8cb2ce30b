"""What database, cloud and OMA say about one VM, read for comparison: before and after, or against what ought to be."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, or_, select
from sqlalchemy.engine import Connection

from database.tables import (
    cbt_history,
    device_mappings,
    failover_jobs,
    job_steps,
    job_tracking,
    log_events,
    nbd_exports,
    oma_actions,
    oma_issues,
    oma_jobs,
    ossea_volumes,
    replication_jobs,
    vm_disks,
    vm_replication_contexts,
)
from oma.demo.stack import Stack
from oma.demo.story import SeededVm
from oma.domain.actions import ActionKind
from oma.domain.states import ActionState

Rows = list[dict[str, Any]]
UNMARKED_S: Final = 10.0
UNMARKED_PAUSE_S: Final = 0.05
GONE: Final = frozenset({"Destroyed", "Destroy", "Expunging", "Expunged"})


@dataclass(frozen=True, slots=True)
class Ledger:
    """All rows about one VM, by table; ours among them."""

    rows: Mapping[str, Rows]

    def of(self, table: Table) -> Rows:
        return self.rows[table.name]

    @property
    def context(self) -> dict[str, Any]:
        return self.rows[vm_replication_contexts.name][0]


async def read_ledger(stack: Stack, vm: SeededVm) -> Ledger:
    return await stack.door.read(lambda connection: _read(connection, vm))


def _read(connection: Connection, vm: SeededVm) -> Ledger:
    jobs = [row["id"] for row in _rows(connection, oma_jobs, oma_jobs.c.context_id == vm.context_id)]
    logged = [vm.failover_id, *jobs]
    replications = replication_jobs.c.vm_context_id == vm.context_id
    where: dict[Table, ColumnElement[bool]] = {
        vm_replication_contexts: vm_replication_contexts.c.context_id == vm.context_id,
        ossea_volumes: ossea_volumes.c.vm_context_id == vm.context_id,
        vm_disks: vm_disks.c.vm_context_id == vm.context_id,
        failover_jobs: failover_jobs.c.vm_context_id == vm.context_id,
        replication_jobs: replications,
        cbt_history: cbt_history.c.job_id.in_(select(replication_jobs.c.id).where(replications)),
        device_mappings: device_mappings.c.volume_uuid.in_(vm.volume_ids),
        nbd_exports: or_(
            nbd_exports.c.volume_id.in_(vm.volume_ids), nbd_exports.c.device_mapping_uuid.in_(vm.volume_ids)
        ),
        job_tracking: or_(job_tracking.c.context_id == vm.context_id, job_tracking.c.id.in_(logged)),
        job_steps: job_steps.c.job_id.in_(logged),
        log_events: log_events.c.job_id.in_(logged),
        oma_jobs: oma_jobs.c.context_id == vm.context_id,
        oma_actions: oma_actions.c.job_id.in_(jobs),
        oma_issues: oma_issues.c.context_id == vm.context_id,
    }
    return Ledger({table.name: _rows(connection, table, clause) for table, clause in where.items()})


def _rows(connection: Connection, table: Table, where: ColumnElement[bool]) -> Rows:
    query = select(table).where(where).order_by(*table.primary_key.columns)
    return [dict(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True, slots=True)
class Cloud:
    """The simulator's own state: what there really is, not what its API answers."""

    state: Mapping[str, Any]

    def volume(self, volume_id: str) -> dict[str, Any]:
        return dict(self.state["volumes"][volume_id])

    def vm_state(self, vm_id: str) -> str | None:
        vm = self.state["vms"].get(vm_id)
        return None if vm is None else str(vm["state"])

    def has_snapshot(self, snapshot_id: str) -> bool:
        snapshot = self.state["snapshots"].get(snapshot_id)
        return snapshot is not None and snapshot["removed"] is None and snapshot["state"] not in GONE


async def read_cloud(stack: Stack) -> Cloud:
    return Cloud(await stack.admin.state())


async def list_changes(stack: Stack, vm: SeededVm, after: int) -> list[dict[str, Any]]:
    """Changing calls to CloudStack since `after` that name anything of this VM, oldest first."""
    calls = await stack.admin.calls(after, changes_only=True)
    return [call for call in calls if _names(call["params"], vm.ids)]


async def until_unmarked(stack: Stack, vm: SeededVm) -> None:
    """A run that has ended takes its markers off beside everything else; what it can't take off is seen afterwards."""
    with suppress(TimeoutError):
        async with asyncio.timeout(UNMARKED_S):
            while any(  # noqa: ASYNC110  another process tells nobody
                row["kind"] == ActionKind.CLEAR_MARKER.value and row["state"] == ActionState.STARTED.value
                for row in (await read_ledger(stack, vm)).of(oma_actions)
            ):
                await asyncio.sleep(UNMARKED_PAUSE_S)


async def last_call(stack: Stack) -> int:
    """The number of the last changing call to CloudStack, of any VM."""
    calls = await stack.admin.calls(0, changes_only=True)
    return int(calls[-1]["seq"]) if calls else 0


def _names(params: Mapping[str, Any], ids: frozenset[str]) -> bool:
    words = {word.strip().lower() for value in params.values() for word in str(value).split(",")}
    return not words.isdisjoint(ids)


async def hash_device(stack: Stack, link: str) -> str | None:
    """SHA-256 of what the OMA reads from the device; None where it shows none."""
    return await asyncio.to_thread(_hash, stack.device_root / link)


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb", buffering=0) as device:
            return hashlib.file_digest(device, "sha256").hexdigest()
    except FileNotFoundError:
        return None


async def read_text(path: Path) -> str | None:
    try:
        return await asyncio.to_thread(path.read_text, encoding="utf-8")
    except FileNotFoundError:
        return None


def differences(before: Ledger, after: Ledger, *, but: frozenset[str] = frozenset()) -> list[str]:
    """One sentence per table that is not as it was; the tables named in `but` are not looked at."""
    found: list[str] = []
    for name, rows in before.rows.items():
        if name not in but and rows != after.rows[name]:
            found.append(f"rows of {name} changed: {_changed(rows, after.rows[name])}")
    return found


def _changed(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str:
    if len(before) != len(after):
        return f"{len(before)} rows became {len(after)}"
    pairs = [
        f"{column} {old[column]!r} became {new[column]!r}"
        for old, new in zip(before, after, strict=True)
        for column in old
        if old[column] != new[column]
    ]
    return "; ".join(pairs[:5])
