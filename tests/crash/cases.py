"""One case of the matrix: the daemon dies at a point of a story, another one starts, and everything comes to rest."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from database.door import Door
from oma.domain.errors import OmaError
from oma.domain.jobs import Job
from oma.domain.states import JobState
from oma.service.cleanup import submit_cleanup
from oma.service.pausing import list_pauses
from ossea.simulator.model.entities import JobStatus
from tests.crash.dying import Death, Died, Fault, awaiting
from tests.crash.life import SPEED, Life, find_newest_job, open_life
from tests.crash.stories import KEY, Story, lift_all
from tests.fakes.cloud import FakeCloud
from tests.fakes.invariants import violations
from tests.fakes.scenario import BrokenVm, put_into_rows, put_into_world
from tests.fakes.stage import build_stage
from tests.fakes.time_and_ids import FastClock
from tests.fakes.volumes import FakeVolumes
from tests.fakes.world import FakeWorld

ROUNDS = 12
"""Times that a person comes back to a run that has not ended."""
DEADLINE_S = 60.0
ENDED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
NEVER = "no point has this name"


class Unsettled(AssertionError):
    """The run did not come to rest as it should."""


@dataclass
class Scene:
    """What outlives the daemon: CloudStack, the Volume Daemon, the database, and the VM that is cleaned up."""

    story: Story
    url: str
    cloud: FakeCloud
    volumes: FakeVolumes
    vm: BrokenVm
    state_dir: Path
    lives: int = 0
    mended: bool = False

    @asynccontextmanager
    async def live(self) -> AsyncIterator[Life]:
        self.lives += 1
        vms = {self.vm.context_id: self.vm}
        figures = self.story.figures
        async with open_life(
            self.url, self.cloud, self.volumes, self.state_dir, number=self.lives, vms=vms, figures=figures
        ) as life:
            life.mend, life.tolerated = self.mend, self.story.tolerated
            yield life

    async def hear(self, seq: int, sentence: str) -> None:
        """What a listener of a daemon in another process was told."""
        self.cloud.world.told.append((seq, sentence))

    async def mend(self) -> None:
        if not self.mended:
            self.mended = True
            stage = build_stage(None, self.cloud, self.volumes)  # type: ignore[arg-type]  # only its world is touched
            self.story.mend(stage, self.vm)


@asynccontextmanager
async def open_scene(story: Story, url: str) -> AsyncIterator[Scene]:
    """`url`: a database that has its tables and nothing in them."""
    world = FakeWorld(FastClock(SPEED))
    cloud, volumes = FakeCloud(world), FakeVolumes(world)
    with tempfile.TemporaryDirectory(prefix="oma-crash-") as state_dir:
        scene = Scene(story, url, cloud, volumes, story.vm(), Path(state_dir))
        await _put_on(scene)
        world.start()
        try:
            yield scene
        finally:
            await volumes.close()
            await world.close()
            await asyncio.sleep(0)


async def _put_on(scene: Scene) -> None:
    """World and rows are of one moment: opening the database takes minutes of the fast clock."""
    world = scene.cloud.world
    now = world.clock.now()
    put_into_world(scene.vm, world, scene.volumes)
    door = await Door.open(scene.url)
    try:
        await door.write(lambda connection: put_into_rows(connection, scene.vm, now))
        scene.story.prepare(build_stage(door, scene.cloud, scene.volumes), scene.vm)
    finally:
        await door.close()


async def live_through(life: Life, story: Story, vm: BrokenVm, rest: Callable[[Job], Awaitable[None]]) -> Job:
    """From the call to the end, as the caller and an operator do it who ask again after every death.

    `rest` is told each time that the run parks or ends. Raises `Died`, and `Unsettled`.
    """
    await life.start()
    if life.first and story.before is not None:
        await story.before(life, vm)
    elif not life.first and await list_pauses(life.stage.deps):
        await lift_all(life)
    job = await _submit(life, story, vm)
    if life.first:
        await story.meddle(life, job)
    for _ in range(ROUNDS):
        await life.work()
        if not life.keeper.is_open:
            await life.start()
        job = await life.stage.job(job.id)
        if job.state in ENDED:
            await rest(job)
            return job
        if job.state is JobState.PARKED:
            await rest(job)
            await story.settle(life, job)
    raise Unsettled(f"after {ROUNDS} rounds the run is {job.state.value}: {job.error}")


async def _submit(life: Life, story: Story, vm: BrokenVm) -> Job:
    try:
        return await submit_cleanup(life.stage.deps, story.request(vm), KEY)
    except OmaError as error:
        known = await find_newest_job(life.stage, vm)
        if known is None:
            raise Unsettled(f"the call was refused: {error.code.value}: {error.sentence}") from error
        return known


async def run_case(scene: Scene, *deaths: Death) -> list[str]:
    """Lives the story up to the point, dies there, starts again and comes to rest; what was wrong is returned.

    Each life dies by the death of its own; the one after the last comes to rest. `reach_in_context` must be listening.
    A point that is not reached kills nobody: a census, told by `Death.reached`.
    """
    found: list[str] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            for death in deaths:
                if await _live_until(death, scene, found):
                    return found
            await converge(scene, found)
    except TimeoutError:
        found.append(f"it did not come to rest within {DEADLINE_S:g} s")
    except Unsettled as unsettled:
        found.append(str(unsettled))
    return found


async def _live_until(death: Death, scene: Scene, found: list[str]) -> bool:
    """Whether that life came to the end of the story."""
    if scene.lives:
        await scene.mend()
    try:
        async with scene.live() as life:
            with awaiting(death):
                await _live_once(life, scene, found)
    except (Died, Fault):
        return False
    return True


async def _live_once(life: Life, scene: Scene, found: list[str]) -> None:
    try:
        job = await live_through(life, scene.story, scene.vm, _checked(life, found))
    finally:
        await life.end()
    if job.state not in scene.story.ends:
        found.append(f"the run ended {job.state.value}: {job.error}")


async def converge(scene: Scene, found: list[str]) -> None:
    """A second daemon starts where the first one died. Raises `Unsettled`."""
    await scene.mend()
    async with scene.live() as life:
        await _live_once(life, scene, found)


async def look_again(scene: Scene, found: list[str]) -> None:
    """Nothing is worse than it was: the invariants hold of the run as it stands."""
    async with scene.live() as life:
        job = await find_newest_job(life.stage, scene.vm)
        if job is None or job.state not in scene.story.ends:
            found.append(f"afterwards the run is {job.state.value if job else 'gone'}")
        else:
            await _checked(life, found)(job)


async def until_quiet(world: FakeWorld) -> None:
    """Whatever was sent and is not waited for by anybody has come to its end."""
    while any(job.status == JobStatus.PENDING for job in world.model.world.jobs.rows.values()):
        await world.changed.wait()


def _checked(life: Life, found: list[str]) -> Callable[[Job], Awaitable[None]]:
    async def check(job: Job) -> None:
        await until_quiet(life.stage.world)
        found.extend(one for one in await violations(life.stage, job) if not life.tolerates(one))

    return check
