"""Who is dead is known for certain, or not said."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from oma.runtime.presence import OWNER_LENGTH, Presence, end_leases_of_the_dead

LIVES = """
import sys
from oma.runtime.presence import Presence
presence = Presence("oma-1:4711:abc")
presence.hold()
print(presence.owner, flush=True)
sys.stdin.read()
"""


@contextmanager
def other_daemon() -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-c", LIVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@dataclass
class FakePeers:
    owners: dict[str, int]
    ended: list[str] = field(default_factory=list)

    async def list_owners(self) -> Sequence[str]:
        return list(self.owners)

    async def end_leases(self, owner: str) -> int:
        self.ended.append(owner)
        return self.owners[owner]


@pytest.fixture
def presence() -> Iterator[Presence]:
    presence = Presence("oma-1:1:own")
    presence.hold()
    yield presence
    presence.close()


def test_a_process_is_dead_after_its_kill_and_not_before(presence: Presence) -> None:
    with other_daemon() as (process, owner):
        assert owner.startswith("oma-1:4711:abc.")
        assert not presence.is_dead(owner)
        process.kill()
        process.wait()
        assert presence.is_dead(owner)


def test_a_paused_process_lives(presence: Presence) -> None:
    with other_daemon() as (process, owner):
        process.send_signal(19)  # SIGSTOP
        assert not presence.is_dead(owner)


def test_nobody_else_can_be_judged(presence: Presence) -> None:
    assert not presence.is_dead(presence.owner), "it is oneself"
    assert not presence.is_dead("other-host:4711:abc"), "it has told no place"
    assert not presence.is_dead("other-host:4711:abc.000000"), "it is in another place"


def test_a_name_is_held_once_and_fits_its_column() -> None:
    one, other = Presence("h" * 80), Presence("h" * 80)
    assert len(one.owner) == OWNER_LENGTH
    one.hold()
    with pytest.raises(OSError, match="in use"):
        other.hold()
    one.close()
    other.hold()
    other.close()


@pytest.fixture
def dead() -> str:
    """An owner that nobody is behind."""
    return Presence("oma-1:2:dead").owner


@pytest.fixture
def living() -> Iterator[str]:
    living = Presence("oma-1:3:living")
    living.hold()
    yield living.owner
    living.close()


async def test_only_leases_of_the_dead_are_ended(presence: Presence, dead: str, living: str) -> None:
    wake = asyncio.Event()
    peers = FakePeers({living: 4, "far-away:9:x": 2, presence.owner: 1})
    assert await end_leases_of_the_dead(peers, presence, wake) is None
    assert not wake.is_set()
    peers.owners[dead] = 3
    assert await end_leases_of_the_dead(peers, presence, wake) == (
        f"{dead} ended without giving back its jobs; 3 are free again."
    )
    assert wake.is_set()
    assert peers.ended == [dead]
