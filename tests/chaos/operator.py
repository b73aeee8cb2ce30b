"""The person of a round: asks for the clean-up until it is heard, and tells the truth about what only a person knows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import aiohttp
from sqlalchemy import RowMapping, select

from database.tables import oma_issues, oma_jobs
from oma.demo.operator import Answer, cleanup_path
from oma.demo.story import SeededVm
from oma.domain.actions import ActionKind
from oma.domain.issues import WATCHED_KINDS
from oma.domain.states import JobState
from tests.chaos.place import Place

CALL_S: Final = 5.0
HEARD_WITHIN_S: Final = 60.0
PAUSE_S: Final = 0.1
ACCEPTED: Final = (200, 202)
NOTES: Final = "Looked at it in CloudStack."
STUCK: Final = "RevertSnapshotting"
UNDER_WAY: Final = frozenset({JobState.QUEUED.value, JobState.RUNNING.value})

Row = RowMapping


@dataclass(frozen=True, slots=True)
class Person:
    place: Place
    dice: Random

    async def clean_up(self, vm: SeededVm, key: str) -> Answer:
        """Until a daemon has heard it; the key makes one run of all the calls."""
        headers = {"Prefer": "respond-async", "Idempotency-Key": key}
        return await self._ask("POST", cleanup_path(vm.name), None, headers)

    async def settle_issues(self, vm: SeededVm) -> int:
        """One word for each open issue; how many were taken."""
        taken = 0
        for issue in await self._open_issues(vm):
            await self._repair_cloud(vm, issue)
            for resolution in await self._words_for(vm, issue):
                body = {"resolution": resolution, "notes": NOTES}
                answer = await self._ask("POST", f"/api/v1/issues/{issue['id']}/resolve", body, {})
                if answer.status in ACCEPTED:
                    taken += 1
                    break
        return taken

    async def newest_job(self, vm: SeededVm) -> Row | None:
        query = select(oma_jobs).where(oma_jobs.c.context_id == vm.context_id).order_by(oma_jobs.c.created_at.desc())
        return await self.place.stack.door.read(lambda connection: connection.execute(query).mappings().first())

    async def is_at_rest(self, vm: SeededVm) -> bool:
        job = await self.newest_job(vm)
        return job is None or job["state"] not in UNDER_WAY

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Answer:
        """Raises `TimeoutError` where nobody hears it for a minute."""
        async with asyncio.timeout(HEARD_WITHIN_S):
            while True:
                try:
                    async with asyncio.timeout(CALL_S):
                        answer = await self.dice.choice(self.place.operators).ask(method, path, body, headers)
                    if answer.status < 500:
                        return answer  # a 5xx is the daemon's trouble, and it is asked again
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(PAUSE_S)

    async def _open_issues(self, vm: SeededVm) -> list[Row]:
        query = select(oma_issues).where(oma_issues.c.context_id == vm.context_id, oma_issues.c.state == "open")
        rows = await self.place.stack.door.read(lambda connection: connection.execute(query).mappings().all())
        return [row for row in rows if row["kind"] not in WATCHED_KINDS]

    async def _repair_cloud(self, vm: SeededVm, issue: Row) -> None:
        """What the guidance names as the administrator's part: the edit of CloudStack's database."""
        admin = self.place.stack.admin
        state = await admin.state()
        for volume_id in vm.volume_ids:
            if state["volumes"][volume_id]["state"] == STUCK:
                await admin.patch_volume(volume_id, state="Ready")

    async def _words_for(self, vm: SeededVm, issue: Row) -> tuple[str, ...]:
        """What is true comes first; what the daemon refuses by its own look is no word of ours."""
        if issue["kind"] != ActionKind.REVERT_SNAPSHOT.value:
            return ("ROLLED_BACK", "APPLIED")
        volume_id = issue["target"].get("volume_id")
        good = self.place.world.good.get(volume_id)
        done = good is not None and await self.place.stack.admin.volume_hash(volume_id) == good
        return ("ROLLED_BACK", "APPLIED" if done else "RESYNC")
