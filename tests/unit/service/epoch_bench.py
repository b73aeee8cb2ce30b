"""A stage whose daemons keep epochs: a state directory, a CloudStack that may refuse, and a clock that can be moved on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from oma.domain.actions import Upstream
from oma.domain.epochs import Witness
from oma.ports import Fault, UpstreamError
from oma.service.epochs import EpochKeeper, EpochPorts, build_restored_issue
from oma.store.epoch_store import SqlEpochs
from tests.fakes.stage import Stage
from tests.fakes.time_and_ids import FastClock


@dataclass
class MemoryNote:
    """A state directory."""

    noted: Witness | None = None
    broken: bool = False
    written: list[str] = field(default_factory=list)

    async def read(self) -> Witness | None:
        if self.broken:
            raise PermissionError(13, "Permission denied")
        return self.noted

    async def write(self, text: str, written: int) -> None:
        if self.broken:
            raise PermissionError(13, "Permission denied")
        self.noted = Witness("the state directory", text, written)
        self.written.append(text)


@dataclass
class Refusing:
    """A CloudStack that answers the next question of a name with an error; everything else passes through."""

    cloud: Any
    answers: dict[str, tuple[Fault, str, str]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name in self.answers:
            fault, code, text = self.answers.pop(name)
            return lambda *_: fail(UpstreamError(fault, Upstream("CloudStack", code, text)))
        return getattr(self.cloud, name)


async def fail(error: UpstreamError) -> None:
    raise error


@dataclass
class MovedClock:
    """The stage's clock, some seconds later; what it measures stands still until it is moved."""

    clock: FastClock
    ahead_s: float = 0.0

    def now(self) -> datetime:
        return self.clock.now() + timedelta(seconds=self.ahead_s)

    def monotonic(self) -> float:
        return self.ahead_s

    def unix(self) -> float:
        return self.now().timestamp()

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)


@dataclass
class Bench:
    stage: Stage
    note: MemoryNote
    epochs: SqlEpochs
    clock: MovedClock
    answers: dict[str, tuple[Fault, str, str]] = field(default_factory=dict)
    """What CloudStack says the next time, by the question."""

    @classmethod
    def over(cls, stage: Stage) -> Bench:
        epochs = SqlEpochs(stage.door)
        stage.deps = replace(stage.deps, epochs=epochs)
        return cls(stage, MemoryNote(), epochs, MovedClock(stage.clock))

    def start(self, installation: str = "oma") -> EpochKeeper:
        """A daemon starts on the database as it is."""
        cloud: Any = Refusing(self.stage.cloud, self.answers)
        ports = EpochPorts(self.epochs, cloud, self.note, self.clock, self.stage.deps.ids)
        return EpochKeeper(ports, installation=installation, owner="test", opened=self.stage.deps.wake.set)

    async def restore(self, number: int) -> None:
        """What putting an old copy back does to the epoch."""
        await self.stage.sql(f"UPDATE oma_epochs SET epoch = {number}")

    async def accept(self) -> tuple[int, int]:
        ids, clock = self.stage.deps.ids, self.stage.clock
        return await self.epochs.accept(
            "the copy of Monday", "cli:tester", lambda job: build_restored_issue(job, ids, clock), clock.now()
        )

    async def tag(self) -> str | None:
        return await self.stage.cloud.find_epoch(self.stage.world.oma_vm_id)
