"""`Inventory` over the database."""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.records import VmContext, VmRecords
from oma.ports import ContextFilter, Page
from oma.store import contexts, records, volumes
from oma.store.transactions import DatabaseDoor, Transactions


class SqlInventory:
    """The existing records, read; implements `oma.ports.Inventory`."""

    def __init__(self, door: DatabaseDoor) -> None:
        self._transactions = Transactions(door)

    async def list_contexts_named(self, vm_name: str) -> tuple[Sequence[VmContext], Sequence[str]]:
        return await self._transactions.read(lambda connection: contexts.list_contexts_named(connection, vm_name))

    async def find_context(self, context_id: str) -> VmContext | None:
        return await self._transactions.read(lambda connection: contexts.find_context(connection, context_id))

    async def get_records(self, context_id: str) -> VmRecords:
        return await self._transactions.read(lambda connection: records.get_records(connection, context_id))

    async def list_records_of(self, context_ids: Sequence[str]) -> Sequence[VmRecords]:
        return await self._transactions.read(lambda connection: records.list_records_of(connection, context_ids))

    async def list_known_volume_ids(self, volume_ids: Sequence[str]) -> Sequence[str]:
        return await self._transactions.read(lambda connection: volumes.list_known_ids(connection, volume_ids))

    async def list_records(self, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmRecords]:
        return await self._transactions.read(lambda connection: records.list_records(connection, where, limit, cursor))
