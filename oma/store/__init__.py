"""The store: the ports that read and write the database, over functions of one connection."""

from __future__ import annotations

from oma.store.inventory import SqlInventory
from oma.store.journal import SqlJournalStore
from oma.store.reader import SqlJobReader
from oma.store.supervision import SqlSupervision

__all__ = ["SqlInventory", "SqlJobReader", "SqlJournalStore", "SqlSupervision"]
