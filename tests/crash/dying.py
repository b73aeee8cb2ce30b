"""What happens to a process at a crash point: it dies, by an exception or as processes do, or suffers something else."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

EXITED = 70
"""The exit status of a process that left by `os._exit`."""


class Way(StrEnum):
    RAISE = "raise"
    """The process is taken for dead from then on: every later point raises too, so that it changes nothing more."""
    EXIT = "os._exit"
    KILL = "SIGKILL"
    STOP = "SIGSTOP"
    """It stands still until somebody else has gone on with its work, and then goes on itself."""
    FAULT = "a fault of its own"
    """An exception that nobody foresaw; the process lives on."""


class Fault(Exception):
    """What `Way.FAULT` raises."""


class Died(BaseException):
    """No `except Exception` of the program may hold it up."""


@dataclass
class Death:
    """A listener for `appliance.crashpoints.listening` that lets the process die at the n-th time it reaches a point.

    `tell` is called once right before: a process that is to be killed or stopped asks for that by it.
    """

    point: str
    way: Way = Way.RAISE
    time: int = 1
    tell: Callable[[], None] = lambda: None
    reached: Counter[str] = field(default_factory=Counter)
    died: bool = False

    def __call__(self, name: str) -> None:
        self.reached[name] += 1
        if self.died:
            raise Died(name)
        if name != self.point or self.reached[name] != self.time:
            return
        self.tell()
        match self.way:
            case Way.EXIT:
                os._exit(EXITED)
            case Way.STOP:
                os.kill(os.getpid(), signal.SIGSTOP)
            case Way.FAULT:
                raise Fault(name)
            case _:
                self.died = True
                while self.way is Way.KILL:
                    signal.pause()
                raise Died(name)


_present: ContextVar[Death | None] = ContextVar("death", default=None)


def reach_in_context(name: str) -> None:
    """A listener for several cases beside each other in one loop: each dies by the death of its own context."""
    death = _present.get()
    if death is not None:
        death(name)


@contextmanager
def awaiting(death: Death) -> Iterator[None]:
    """What is begun inside of the block dies by this death, where `reach_in_context` listens."""
    token = _present.set(death)
    try:
        yield
    finally:
        _present.reset(token)
