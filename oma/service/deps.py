"""What the use cases need, handed in once by the composition root."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from oma.domain.evidence import GuardLimits
from oma.ports import Clock, Cloud, Ids, Inventory, JobReader, JournalStore, Volumes
from oma.service.shown import ShownPlans
from oma.workflow.bus import EventBus
from oma.workflow.waves import Waves


@dataclass(frozen=True, slots=True)
class Deps:
    """Ports and figures. `wake` tells the worker that a job was queued; `stopping` is set when the daemon drains."""

    inventory: Inventory
    journal: JournalStore
    jobs: JobReader
    cloud: Cloud
    volumes: Volumes
    clock: Clock
    ids: Ids
    bus: EventBus
    limits: GuardLimits
    observe_timeout_s: float = 20.0
    busy_wait_s: float = 600.0
    analyses: Waves = field(default_factory=Waves)
    shown: ShownPlans = field(default_factory=ShownPlans)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
