"""A table for tests of the door, and functions as callers of the door write them."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Column, Integer, MetaData, String, Table, select
from sqlalchemy.engine import Connection

rows = Table(
    "rows", MetaData(), Column("id", Integer, primary_key=True, autoincrement=False), Column("word", String(5000))
)


class Unwanted(Exception):
    """A caller's own exception."""


def create_rows(connection: Connection) -> None:
    rows.metadata.create_all(connection)


def add(number: int, word: str = "") -> Callable[[Connection], int]:
    """Returns the number."""

    def write(connection: Connection) -> int:
        connection.execute(rows.insert().values(id=number, word=word))
        return number

    return write


def add_and_raise(number: int) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        connection.execute(rows.insert().values(id=number))
        raise Unwanted

    return write


def has(number: int) -> Callable[[Connection], bool]:
    def read(connection: Connection) -> bool:
        return connection.execute(select(rows.c.id).where(rows.c.id == number)).first() is not None

    return read


def numbers(connection: Connection) -> list[int]:
    return list(connection.execute(select(rows.c.id).order_by(rows.c.id)).scalars())
