"""A person accepts a restored database: written straight into it, whether the daemon runs or not."""

from __future__ import annotations

import asyncio

from appliance.settings import Settings
from database import schema
from database.door import Door
from database.errors import SchemaOutdated
from oma.runtime.clock import RandomIds, SystemClock
from oma.service.epochs import build_restored_issue
from oma.store.epoch_store import SqlEpochs


def accept(settings: Settings, reason: str, actor: str) -> tuple[int, int]:
    """The epoch, and how many runs stay parked.

    Raises `OmaError` `invalid_request` where there is nothing to accept, `SchemaOutdated`, `DatabaseUnavailable`.
    """
    return asyncio.run(_accept(settings, reason, actor))


async def _accept(settings: Settings, reason: str, actor: str) -> tuple[int, int]:
    database, clock, ids = settings.database, SystemClock(), RandomIds()
    faults = await asyncio.to_thread(schema.check, database.url, accept_weak_durability=True)
    if faults:
        raise SchemaOutdated(" ".join(faults))
    door = await Door.open(
        database.url,
        legacy_time_zone=database.legacy_time_zone,
        accept_weak_durability=database.accept_weak_durability,
        readers=1,
    )
    try:
        return await SqlEpochs(door).accept(
            reason, actor, lambda job: build_restored_issue(job, ids, clock), clock.now()
        )
    finally:
        await door.close()
