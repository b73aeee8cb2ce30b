"""The start: the database and CloudStack's endpoint are waited for, then the open operations are gone on with.

A machine comes up in any order, and a service manager gives up on a program that ends a few times in a row: nothing
that may yet come is a reason to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.exc import SQLAlchemyError
from structlog import get_logger

from appliance.logs import without_secrets
from database import schema
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from ossea.client import CloudStack
from ossea.credentials import CredentialsError, Endpoint
from volume_daemon.server.endpoint import follow_endpoint
from volume_daemon.server.holding import LOST, Holding, JournalInUse
from volume_daemon.server.link import CloudLink
from volume_daemon.server.pauses import Pauses
from volume_daemon.server.readiness import Readiness
from volume_daemon.server.store import Store

log = get_logger(__name__)
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """Settings of the database."""

    url: str = field(repr=False)
    legacy_time_zone: str | None
    accept_weak_durability: bool
    readers: int


class Opening:
    """Fills `store` and `link`. `go_on` is called when both are filled and the journal is ours; again where it raised.

    `find` looks for CloudStack's endpoint, which may stand in the database. Where the journal may have been another
    daemon's meanwhile, `let_go` is called, and everything begins anew with `go_on`.
    """

    def __init__(
        self,
        *,
        database: DatabaseFigures,
        find: Callable[[Door], Awaitable[Endpoint]],
        build_cloud: Callable[[Endpoint], CloudStack],
        store: Store,
        link: CloudLink,
        readiness: Readiness,
        go_on: Callable[[], Awaitable[None]],
        let_go: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._holding = Holding(database.url)
        self._find = find
        self._store = store
        self._link = link
        self._readiness = readiness
        self._build_cloud = build_cloud
        self._go_on = go_on
        self._let_go = let_go
        self._door: Door | None = None
        self._cloud: CloudStack | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="opening")

    async def stop(self) -> None:
        """Looks no more; what was opened stays open until `aclose`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def aclose(self) -> None:
        await self.stop()
        try:
            if self._cloud is not None:
                await self._cloud.aclose()
            if self._door is not None:
                await self._door.close()
        finally:
            await self._holding.release()

    @property
    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _run(self) -> None:
        """Until it is cancelled: from the journal to the loss of it, and over again; meanwhile follows the endpoint."""
        pauses = Pauses(RETRY_S, RETRY_S)
        while True:
            while (opened := await self._try_once()) is None:
                await pauses.pause()
            door, cloud = opened
            self._readiness.complete()
            following = asyncio.create_task(follow_endpoint(cloud, partial(self._find, door)), name="endpoint")
            try:
                await self._holding.keep()
            finally:
                following.cancel()
                await asyncio.wait({following})
            self._lack("journal_in_use", LOST)
            await self._let_go()

    async def _try_once(self) -> tuple[Door, CloudStack] | None:
        """None where something is missing; what it is has been told."""
        try:
            return await self._open()
        except CredentialsError as error:
            self._link.reason = f"There are no usable CloudStack credentials: {_tell(error)}"
            self._lack("no_credentials", self._link.reason)
        except JournalInUse as error:
            self._lack("journal_in_use", str(error))
        except (DatabaseUnavailable, SchemaOutdated, SQLAlchemyError, OSError) as error:
            self._store.reason = f"The database can't be used: {_tell(error)}"
            self._lack("database_unavailable", self._store.reason)
        except Exception as error:
            log.exception("The start failed in a way nobody foresaw; it is tried again.")
            self._lack("start_failed", f"The start failed in a way nobody foresaw: {type(error).__name__}.")
        return None

    def _lack(self, code: str, reason: str) -> None:
        """The same again is not logged again."""
        if reason != self._readiness.reason:
            log.warning("The daemon waits.", reason=reason)
        self._readiness.lack(code, reason)

    async def _open(self) -> tuple[Door, CloudStack]:
        if self._door is None:
            self._door = await self._open_door()
        await self._holding.take()
        if self._cloud is None:
            cloud = self._build_cloud(await self._find(self._door))
            self._cloud = await cloud.__aenter__()
            self._link.take(self._cloud)
        await self._go_on()
        return self._door, self._cloud

    async def _open_door(self) -> Door:
        settings = self._database
        await asyncio.to_thread(_require_schema, settings.url)
        door = await Door.open(
            settings.url,
            legacy_time_zone=settings.legacy_time_zone,
            accept_weak_durability=settings.accept_weak_durability,
            readers=settings.readers,
        )
        try:
            await self._store.open(door, self._holding)
        except BaseException:
            await door.close()
            raise
        return door


def _require_schema(url: str) -> None:
    """Raises `SchemaOutdated`, `DatabaseUnavailable`.

    Only looks: an SQLite file that is missing or empty stays so, for it is what `oma serve` creates the schema in.
    """
    faults = schema.check(url, accept_weak_durability=True)
    if faults:
        raise SchemaOutdated(" ".join(faults))


def _tell(error: Exception) -> str:
    return without_secrets((str(error).strip() or type(error).__name__).splitlines()[0])
