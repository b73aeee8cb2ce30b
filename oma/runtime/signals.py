"""Signals: the first begins the stop, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT)
EXIT_BASE = 128


class StopSignals:
    """`asked` is set by the first signal. `exit_now` gets the exit status of the second."""

    def __init__(self, exit_now: Callable[[int], None] = os._exit) -> None:
        self.asked = asyncio.Event()
        self._exit_now = exit_now

    @contextmanager
    def installed(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self.receive, number)
        try:
            yield
        finally:
            for number in STOPPING:
                loop.remove_signal_handler(number)

    def receive(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            self._exit_now(EXIT_BASE + number)
            return
        log.info(
            "Stopping: running jobs go to their next safe point. A second signal ends at once.", signal=number.name
        )
        self.asked.set()
