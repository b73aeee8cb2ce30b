"""What all tests share: no blocking call of ours in an event loop, and the time that each group of tests took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

import appliance
import database
import oma
import ossea
import volume_daemon
from tests.parts import require_part

__all__ = ["require_part"]

OURS = [appliance, database, oma, ossea, volume_daemon]


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Code of ours that blocks a running event loop (files, sockets, sleep, SQLite) raises `BlockingError`."""
    with blockbuster_ctx(OURS):
        yield


class GroupTimes:
    """Adds up what the tests of each folder below tests/ took, setup and teardown included."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.tests: defaultdict[str, int] = defaultdict(int)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        parts = Path(report.nodeid.split("::", 1)[0]).parts
        group = parts[1] if len(parts) > 2 else "tests"
        self.seconds[group] += report.duration
        self.tests[group] += report.when == "call"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.seconds:
            return
        terminalreporter.section("time per group, added over the workers")
        for group, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            terminalreporter.write_line(f"{seconds:8.1f} s  {self.tests[group]:5d} tests  {group}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that collects the workers' reports
        config.pluginmanager.register(GroupTimes(), "group-times")
