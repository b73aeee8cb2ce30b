"""Creates the tables that are missing. What is there is never touched: no ALTER, no DROP."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKeyConstraint, Table, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateTable

from database.tables import metadata
from database.times import is_own_table


def create_missing_tables(connection: Connection) -> Sequence[str]:
    """Names of the tables that were created.

    A foreign key from a new table to one that was there already is left out: that one may have another collation,
    to which none can be laid, and it would stop the programs that own it from deleting their rows.

    MariaDB commits each table on its own. A run that died half-way is completed by the next: tables that stand are
    adopted, and those of ours get the indexes that they still lack.
    """
    present = set(inspect(connection).get_table_names())
    created: list[str] = []
    for table in metadata.sorted_tables:
        if table.name in present:
            continue
        keys = [key for key in table.foreign_key_constraints if _refers_to_new(key, table, created)]
        connection.execute(CreateTable(table, include_foreign_key_constraints=keys))
        created.append(table.name)
    for table in metadata.sorted_tables:
        if table.name in created or is_own_table(table.name):
            _create_missing_indexes(connection, table)
    return created


def _refers_to_new(key: ForeignKeyConstraint, table: Table, created: Sequence[str]) -> bool:
    # Among our own tables keys are laid also to those that an interrupted run has left.
    target = key.referred_table.name
    return target in created or target == table.name or (is_own_table(target) and is_own_table(table.name))


def _create_missing_indexes(connection: Connection, table: Table) -> None:
    present = {index["name"] for index in inspect(connection).get_indexes(table.name)}
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        if index.name not in present:
            connection.execute(CreateIndex(index))
