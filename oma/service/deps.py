"""What the use cases need, handed in once by the composition root."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from oma.domain.evidence import GuardLimits
from oma.ports import Clock, Cloud, Controls, Epochs, Ids, Inventory, JobReader, JournalStore, Volumes
from oma.service.shown import ShownPlans
from oma.workflow.brakes import Brakes
from oma.workflow.bus import EventBus
from oma.workflow.waves import Waves


@dataclass(frozen=True, slots=True)
class Deps:
    """Ports and figures. `wake` tells the worker that a job was queued; `stopping` is set when the daemon drains.

    `brakes` stop the runs that a person pauses.
    """

    inventory: Inventory
    journal: JournalStore
    jobs: JobReader
    controls: Controls
    cloud: Cloud
    volumes: Volumes
    clock: Clock
    ids: Ids
    bus: EventBus
    limits: GuardLimits
    observe_timeout_s: float = 20.0
    busy_wait_s: float = 600.0
    revert_window_s: float = 5400.0
    longest_call_s: float = 30.0
    """How long after a call was begun its `expires` is at most: never past the end of a lease."""
    late_s: float = 60.0
    """How long after its `expires` a call may still come in, where its id can't be spent."""
    epochs: Epochs | None = None
    analyses: Waves = field(default_factory=Waves)
    shown: ShownPlans = field(default_factory=ShownPlans)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    brakes: Brakes = field(default_factory=Brakes)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
