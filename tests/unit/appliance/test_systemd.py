from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.systemd import Notifier, watchdog_interval_s


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_states_arrive_as_datagrams(manager: socket.socket):
    notifier = Notifier(manager.getsockname())
    notifier.ready("Listening on\nhttp://127.0.0.1:8082")
    notifier.watchdog()
    notifier.status("3 jobs run")
    notifier.stopping()
    assert [manager.recv(1024) for _ in range(4)] == [
        b"READY=1\nSTATUS=Listening on http://127.0.0.1:8082",
        b"WATCHDOG=1",
        b"STATUS=3 jobs run",
        b"STOPPING=1",
    ]


def test_an_abstract_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0oma-test-notify")
        sock.settimeout(5)
        Notifier.from_env({"NOTIFY_SOCKET": "@oma-test-notify"}).watchdog()
        assert sock.recv(64) == b"WATCHDOG=1"


def test_without_a_manager_nothing_happens(tmp_path: Path):
    Notifier.from_env({}).ready("x")
    Notifier(str(tmp_path / "gone")).ready("x")


@pytest.mark.parametrize(
    ("env", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_told_twice_in_its_time(env: dict[str, str], interval_s: float | None):
    assert watchdog_interval_s(env, pid=77) == interval_s
