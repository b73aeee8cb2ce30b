"""What keeps watch beside the runs: the epoch of the database, peers that died, markers that ended runs have left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from appliance.settings import Settings
from oma.runtime.database import Database
from oma.runtime.epoch_note import FileEpochNote, find_state_dir
from oma.runtime.loops import Loop
from oma.runtime.presence import Presence, end_leases_of_the_dead
from oma.service.deps import Deps
from oma.service.epochs import EpochKeeper, EpochPorts
from oma.workflow.unmarking import Unmarker, sweep_markers

EPOCHS_S: Final = 2.0
PEERS_S: Final = 1.0
MARKERS_S: Final = 60.0
"""Also the age from which a marker counts as left behind: its own run, in whatever process, is no longer at it."""
PATIENCE_S: Final = 600.0
"""CloudStack may be slow to answer, and it is asked for one marker after the other."""


def build_keeper(
    settings: Settings, env: Mapping[str, str], deps: Deps, database: Database, owner: str, *, opened: asyncio.Event
) -> EpochKeeper:
    """`opened` is set with the daemon's own wake, as soon as runs may be taken over."""
    note = FileEpochNote(find_state_dir(settings, env))
    ports = EpochPorts(database.epochs, deps.cloud, note, deps.clock, deps.ids)

    def tell() -> None:
        opened.set()
        deps.wake.set()

    return EpochKeeper(ports, installation=settings.oma.installation, owner=owner, opened=tell)


def build_epoch_loop(needed: tuple[Loop, ...], deps: Deps, database: Database, keeper: EpochKeeper) -> Loop:
    """Compares once the database and CloudStack's endpoint have been looked for; before that nothing is claimed."""

    async def compare() -> str | None:
        for loop in needed:
            await loop.first_turn.wait()
        return await keeper.run_once() if database.is_open else None

    return Loop("epochs", compare, deps.clock, interval_s=EPOCHS_S, patience_s=PATIENCE_S, wake=keeper.wanted)


def build_peer_loop(
    needed: Loop, deps: Deps, database: Database, presence: Presence, keeper: EpochKeeper, *, opened: asyncio.Event
) -> Loop:
    """Those that died on this machine are found at once; of all others the leases have to run out.

    `opened` is set when there is something to find them for.
    """

    async def look() -> str | None:
        await needed.first_turn.wait()
        if not database.is_open or not keeper.is_open:
            return None
        return await end_leases_of_the_dead(database.peers, presence, deps.wake)

    return Loop("peers", look, deps.clock, interval_s=PEERS_S, wake=opened)


def build_marker_loop(settings: Settings, deps: Deps, database: Database, keeper: EpochKeeper) -> Loop:
    unmarker = Unmarker(deps.cloud, deps.journal, deps.clock, settings.oma.installation)

    async def sweep() -> str | None:
        if not database.is_open or not keeper.is_open:
            return None
        return await sweep_markers(unmarker, older_s=MARKERS_S, expires_s=settings.cloudstack.expires_s)

    return Loop("markers", sweep, deps.clock, interval_s=MARKERS_S, patience_s=PATIENCE_S)
