"""Which CloudStack, and who we are there: settings, else the active configuration row, else what `cs` reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from sqlalchemy import select
from sqlalchemy.engine import Connection
from structlog import get_logger

from appliance.settings import CloudstackSettings
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from database.tables import ossea_configs
from ossea.client import CloudStack
from ossea.credentials import CredentialsError, Endpoint, Given, read_cs_endpoint, resolve_endpoint

log = get_logger(__name__)
REREAD_S = 15.0


async def find_endpoint(settings: CloudstackSettings, door: Door, env: Mapping[str, str]) -> Endpoint:
    """By the rule of both daemons. Raises `CredentialsError`, and the database's errors where it decides."""
    given = Given(
        url=settings.url,
        key=settings.api_key.get_secret_value() if settings.api_key else None,
        secret=settings.secret_key.get_secret_value() if settings.secret_key else None,
        method=settings.method,
    )
    rows = () if given.is_complete else await door.read(read_active_rows)
    read_cs = partial(read_cs_endpoint, settings.profile, env)
    # In a thread: it may read files.
    return await asyncio.to_thread(resolve_endpoint, given, rows, read_cs)


def read_active_rows(connection: Connection) -> tuple[Given, ...]:
    columns = ossea_configs.c
    query = select(columns.api_url, columns.api_key, columns.secret_key).where(columns.is_active)
    return tuple(Given(row.api_url, row.api_key, row.secret_key) for row in connection.execute(query))


async def follow_endpoint(
    cloud: CloudStack, find: Callable[[], Awaitable[Endpoint]], interval_s: float = REREAD_S
) -> None:
    """Looks for the endpoint again and again and has `cloud` use a changed one; the held one stays where in doubt.

    Runs until it is cancelled.
    """
    said: str | None = None
    while True:
        await asyncio.sleep(interval_s)
        try:
            found = await find()
            if found != cloud.endpoint:
                await cloud.use(found)
                log.info("CloudStack is asked at another endpoint or as another account.", url=found.url)
            doubt = None
        except (CredentialsError, DatabaseUnavailable, SchemaOutdated, OSError) as error:
            doubt = f"CloudStack is asked as before; its endpoint can't be looked for: {error}"
        if doubt is not None and doubt != said:
            log.warning(doubt)
        said = doubt
