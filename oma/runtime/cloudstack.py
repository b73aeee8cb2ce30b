"""The CloudStack endpoint as the daemon holds it: found at the start, and looked for again all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from sqlalchemy import select
from sqlalchemy.engine import Connection

from appliance.settings import CloudstackSettings
from database.door import Door
from database.errors import DatabaseUnavailable
from database.tables import ossea_configs
from oma.adapters.cloudstack import CloudStackCloud
from oma.domain.actions import Upstream
from oma.domain.errors import OmaError
from oma.ports import Cloud, Fault, UpstreamError
from oma.runtime.late import Late
from ossea.client import CloudStack
from ossea.credentials import CredentialsError, Endpoint, read_cs_endpoint

NOT_LOOKED = "The endpoint has not been looked for yet."


class CloudConnection:
    """The `Cloud` port over whatever endpoint is configured now.

    Settings win over the active row of `ossea_configs`, which wins over what the `cs` tool reads. Without credentials
    every call raises `UpstreamError` (not sent), which the guards judge as state unknown.

    A client that was replaced is closed only at the end: runs that follow a job on it must not lose its answer.
    """

    def __init__(
        self,
        settings: CloudstackSettings,
        env: Mapping[str, str],
        door: Callable[[], Door],
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
        key, secret = self._settings.api_key, self._settings.secret_key
        if self._settings.url and key and secret:
            return Endpoint(
                url=self._settings.url,
                key=key.get_secret_value(),
                secret=secret.get_secret_value(),
                method=self._settings.method,
            )
        found = await self._find_in_row()
        if found is None:
            found = await asyncio.to_thread(read_cs_endpoint, self._settings.profile, self._env)
        return replace(
            found,
            url=self._settings.url or found.url,
            key=key.get_secret_value() if key else found.key,
            secret=secret.get_secret_value() if secret else found.secret,
            method="post" if self._settings.method == "post" else found.method,
        )

    async def _find_in_row(self) -> Endpoint | None:
        """From the single active row; None where there is none, or the database is away."""
        try:
            return await self._door().read(read_active_endpoint)
        except (OmaError, DatabaseUnavailable):
            return None

    def _get(self) -> CloudStackCloud:
        if self._cloud is None:
            text = self.reason or NOT_LOOKED
            raise UpstreamError(Fault.NOT_SENT, Upstream("CloudStack", "no_credentials", text))
        return self._cloud


def read_active_endpoint(connection: Connection) -> Endpoint | None:
    """The endpoint of the active row of `ossea_configs` that has credentials; several: which one can't be told.

    Raises `CredentialsError`.
    """
    columns = ossea_configs.c
    query = select(columns.api_url, columns.api_key, columns.secret_key).where(columns.is_active)
    rows = {
        (row.api_url, row.api_key, row.secret_key)
        for row in connection.execute(query)
        if row.api_key and row.secret_key
    }
    if len(rows) > 1:
        raise CredentialsError("several rows of ossea_configs are active; leave one active")
    if not rows:
        return None
    ((url, key, secret),) = rows
    return Endpoint(url=url or "", key=key, secret=secret)
