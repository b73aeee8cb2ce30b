"""Which CloudStack, and who we are there: settings, else the active configuration row, else what `cs` reads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.engine import Connection

from appliance.settings import CloudstackSettings
from database.tables import ossea_configs
from ossea.credentials import CredentialsError, Endpoint, read_cs_endpoint


def from_settings(settings: CloudstackSettings) -> Endpoint | None:
    """None where the settings name no endpoint. Raises `CredentialsError` for half of one."""
    if settings.url is None:
        return None
    return Endpoint(
        url=settings.url,
        key=settings.api_key.get_secret_value() if settings.api_key else "",
        secret=settings.secret_key.get_secret_value() if settings.secret_key else "",
        method=settings.method,
    )


def from_rows(connection: Connection, settings: CloudstackSettings) -> Endpoint | None:
    """The active row's; several rows of one endpoint are one. Raises `CredentialsError` where they differ."""
    columns = ossea_configs.c
    rows = connection.execute(
        select(columns.api_url, columns.api_key, columns.secret_key).where(columns.is_active.is_(True))
    )
    found = {(row.api_url, row.api_key, row.secret_key) for row in rows if row.api_url and row.api_key}
    if len(found) > 1:
        raise CredentialsError("several active rows of ossea_configs name different CloudStack endpoints or accounts")
    return next((Endpoint(url, key, secret or "", settings.method) for url, key, secret in found), None)


async def from_cs(settings: CloudstackSettings, env: Mapping[str, str]) -> Endpoint:
    """Raises `CredentialsError`."""
    return await asyncio.to_thread(read_cs_endpoint, settings.profile, env)
