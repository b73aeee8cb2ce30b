"""The CloudStack endpoint as the daemon holds it: found at the start, and looked for again all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from sqlalchemy import select
from sqlalchemy.engine import Connection

from appliance.settings import CloudstackSettings
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from database.tables import ossea_configs
from oma.adapters.cloudstack import CloudStackCloud
from oma.domain.actions import Upstream
from oma.domain.errors import OmaError
from oma.ports import Cloud, Fault, UpstreamError
from oma.runtime.late import Late
from ossea.client import CloudStack
from ossea.credentials import CredentialsError, Endpoint, Given, read_cs_endpoint, resolve_endpoint

NOT_LOOKED = "The endpoint has not been looked for yet."


class CloudConnection:
    """The `Cloud` port over whatever endpoint is configured now.

    Which endpoint that is: `ossea.credentials.resolve_endpoint`. The held one stays as long as no other can be told.
    Without credentials every call raises `UpstreamError` (not sent), which the guards judge as state unknown.

    `door` gives None where there is no database yet, and so no row; it raises where the database can't be asked.

    A client that was replaced is closed only at the end: runs that follow a job on it must not lose its answer.
    """

    def __init__(
        self,
        settings: CloudstackSettings,
        env: Mapping[str, str],
        door: Callable[[], Door | None],
        observe: Callable[[str, str, float], None],
    ) -> None:
        self._settings = settings
        self._env = env
        self._door = door
        self._observe = observe
        self._endpoint: Endpoint | None = None
        self._clients: list[CloudStack] = []
        self._cloud: CloudStackCloud | None = None
        self.reason: str | None = NOT_LOOKED
        self.cloud = cast("Cloud", Late(self._get))

    async def refresh(self) -> str | None:
        """Looks for the endpoint and takes a new one where it changed; a sentence where something is different."""
        try:
            endpoint = await self._find_endpoint()
        except CredentialsError as error:
            if self._cloud is None:
                self.reason = f"There are no usable CloudStack credentials: {error}"
            return self.reason
        if endpoint == self._endpoint:
            return None
        client = CloudStack(
            endpoint,
            timeout_s=self._settings.timeout_s,
            expires_s=self._settings.expires_s,
            poll_min_s=self._settings.poll_min_s,
            poll_max_s=self._settings.poll_max_s,
            throttled_s=self._settings.retry_total_s,
            observer=self._observe,
        )
        await client.__aenter__()
        self._clients.append(client)
        self._endpoint, self._cloud, self.reason = endpoint, CloudStackCloud(client), None
        return f"CloudStack is asked at {endpoint.url}."

    async def close(self) -> None:
        self._cloud, self.reason = None, "The daemon stops."
        clients, self._clients = self._clients, []
        await asyncio.gather(*(client.aclose() for client in clients))

    async def _find_endpoint(self) -> Endpoint:
        settings = self._settings
        given = Given(
            url=settings.url,
            key=settings.api_key.get_secret_value() if settings.api_key else None,
            secret=settings.secret_key.get_secret_value() if settings.secret_key else None,
            method=settings.method,
        )
        rows = None if given.is_complete else await self._read_rows()
        read_cs = partial(read_cs_endpoint, settings.profile, self._env)
        # In a thread: it may read files.
        return await asyncio.to_thread(resolve_endpoint, given, rows, read_cs)

    async def _read_rows(self) -> tuple[Given, ...] | None:
        """None where the database can't be asked."""
        try:
            door = self._door()
            return () if door is None else await door.read(read_active_rows)
        except (OmaError, DatabaseUnavailable, SchemaOutdated):
            return None

    def _get(self) -> CloudStackCloud:
        if self._cloud is None:
            text = self.reason or NOT_LOOKED
            raise UpstreamError(Fault.NOT_SENT, Upstream("CloudStack", "no_credentials", text))
        return self._cloud


def read_active_rows(connection: Connection) -> tuple[Given, ...]:
    columns = ossea_configs.c
    query = select(columns.api_url, columns.api_key, columns.secret_key).where(columns.is_active)
    return tuple(Given(row.api_url, row.api_key, row.secret_key) for row in connection.execute(query))
