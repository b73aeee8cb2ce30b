"""Ten rounds of chaos over real processes; `python -m benchmarks.chaos` plays two hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from oma.demo.judging import find_violations
from oma.demo.ledger import last_call
from tests.chaos.place import Kind, running_place
from tests.chaos.rounds import play_round
from tests.chaos.shocks import SHOCKS
from tests.mariadb import is_installed
from tests.parts import require_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEEDS = {
    # In this order they bring a full disk, a late delivery, and a management server that restarts in the middle;
    Kind.SQLITE: (1, 11, 40),
    # one of two daemons killed while the other sleeps past its lease;
    Kind.SQLITE_PAIR: (9, 29),
    # a database that dies while answers are lost, everything paused and cut;
    Kind.MARIADB: (11, 23),
    # and all of it with two daemons on one server.
    Kind.MARIADB_PAIR: (5, 19, 20),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.mariadb if kind.on_mariadb else ()) for kind in Kind]
)
async def test_nothing_is_lost_whatever_is_done_to_the_processes(kind: Kind) -> None:
    if kind.on_mariadb:
        require_part("MariaDB", is_installed())
    async with running_place(kind) as place:
        rounds = [await play_round(place, seed) for seed in SEEDS[kind]]
    assert [(one.seed, one.told, one.violations) for one in rounds if one.violations] == []
    assert sum(one.vms for one in rounds) >= len(rounds)


async def test_a_byte_that_is_wrong_afterwards_is_seen() -> None:
    async with running_place(Kind.SQLITE) as place:
        before = await last_call(place.stack)
        calm = await play_round(place, 1, shocks=())
        assert calm.violations == []
        assert calm.ended["completed"] == calm.vms
        vm = calm.seeded[0]
        await place.stack.admin.write(vm.volume_ids[0], offset=0, hex_bytes="ff")
        found = await find_violations(place.world, [vm], after_call=before)
    assert [one.invariant for one in found] == ["completed-is-whole"]


def test_every_shock_is_explained() -> None:
    text = Path("docs/explanation/proof.md").read_text(encoding="utf-8")
    assert [shock.name for shock in SHOCKS if f"`{shock.name}`" not in text] == []
