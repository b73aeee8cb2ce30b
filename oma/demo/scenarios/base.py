"""A scenario: seeded, acted out over the public API, and judged by what there is afterwards."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from oma.demo.operator import Answer
from oma.demo.story import SeededVm, VmStory
from oma.demo.world import World


@dataclass(frozen=True, slots=True)
class Result:
    """How it ended. `faults` is empty where everything is as it has to be."""

    got: str
    replica: str
    faults: tuple[str, ...]

    @property
    def good(self) -> bool:
        return not self.faults


class Scenario(Protocol):
    """`alone`: it stops a program, so nothing else may run beside it."""

    @property
    def title(self) -> str: ...

    @property
    def vm_name(self) -> str: ...

    @property
    def expected(self) -> str: ...

    @property
    def alone(self) -> bool: ...

    def missing(self) -> str | None:
        """What this machine lacks for it; then it is skipped."""

    async def seed(self, world: World) -> SeededVm: ...

    def company(self, world: World, vm: SeededVm) -> AbstractAsyncContextManager[object]:
        """Who is at the VM's disks inside of the block, for a look at the demo by hand; `play` sees to its own."""

    async def play(self, world: World, vm: SeededVm) -> Result:
        """Acts over HTTP and judges; the VM is the one that `seed` gave."""


class Anywhere:
    """A scenario that any machine can show, and in which nobody is at the VM's disks."""

    __slots__ = ()

    def missing(self) -> str | None:
        return None

    def company(self, world: World, vm: SeededVm) -> AbstractAsyncContextManager[object]:  # noqa: ARG002  as the protocol has it
        return nullcontext()


class OfOneStory:
    """A scenario about one VM, seeded as its story tells."""

    __slots__ = ()
    story: VmStory

    @property
    def vm_name(self) -> str:
        return self.story.name

    async def seed(self, world: World) -> SeededVm:
        return await world.seed(self.story)


def result(answers: list[Answer], expected: str, faults: list[str]) -> Result:
    """What was answered, one word per answer, and the faults; another answer than the expected one is the first."""
    got = ", then ".join(answer.word for answer in answers)
    replicas = [str(answer.body["replica"]) for answer in answers if "replica" in answer.body]
    wrong = [f"answered {got}: {answers[-1].body.get('detail', '')}"] if got != expected else []
    return Result(got, replicas[-1] if replicas else "untouched", (*wrong, *faults))
