"""Rounds of chaos over real processes: `python -m benchmarks.chaos [--rounds 200] [--first-seed 1] [--worlds 2]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.chaos.place import Kind, running_place
from tests.chaos.rounds import Round, play_round
from tests.chaos.shocks import BY_NAME, Shock
from tests.mariadb import is_installed

ROUNDS: Final = 200
WORLDS: Final = 2
ENOUGH: Final = 100
"""Rounds from which on every shock that was chosen has to have struck."""
PER_PLACE: Final = 25
"""Rounds in one world before its processes are started anew."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=WORLDS, help="how many at the same time")
    parser.add_argument("--kind", choices=[kind.value for kind in Kind], help="one kind of world only")
    parser.add_argument("--shock", choices=sorted(BY_NAME), action="append", help="these shocks in place of the dice")
    parser.add_argument("--verbose", action="store_true", help="each round in full")
    given = parser.parse_args(arguments)
    kinds = [Kind(given.kind)] if given.kind else [kind for kind in Kind if not kind.on_mariadb or is_installed()]
    seeds = range(given.first_seed, given.first_seed + given.rounds)
    shocks = [BY_NAME[name] for name in given.shock] if given.shock else None
    began = time.monotonic()
    rounds = asyncio.run(_play(kinds, seeds, given.worlds, shocks, verbose=given.verbose))
    _print(rounds, time.monotonic() - began)
    return 1 if any(one.violations for one in rounds) or _list_missing(rounds) else 0


def _list_missing(rounds: Sequence[Round]) -> list[str]:
    """Shocks that so many rounds chose, and that never struck anything."""
    missing = {shock for one in rounds for shock in one.shocks} - {shock for one in rounds for shock in one.struck}
    return sorted(missing) if len(rounds) >= ENOUGH else []


async def _play(
    kinds: Sequence[Kind], seeds: Sequence[int], worlds: int, shocks: Sequence[Shock] | None, *, verbose: bool
) -> list[Round]:
    """The kinds in turn; each batch of seeds has processes of its own."""
    batches = [(kinds[at % len(kinds)], seeds[first : first + PER_PLACE]) for at, first in enumerate(_firsts(seeds))]
    free, rounds = asyncio.Semaphore(worlds), list[Round]()

    async def play(kind: Kind, batch: Sequence[int]) -> None:
        async with free, running_place(kind) as place:
            for seed in batch:
                rounds.append(await play_round(place, seed, shocks))
                _tell(rounds[-1], verbose=verbose)

    await asyncio.gather(*(play(kind, batch) for kind, batch in batches))
    return sorted(rounds, key=lambda one: one.seed)


def _firsts(seeds: Sequence[int]) -> range:
    return range(0, len(seeds), PER_PLACE)


def _tell(one: Round, *, verbose: bool) -> None:
    """A round that broke anything is told in full, with the command that plays its dice again."""
    if verbose or one.violations:
        print(f"seed {one.seed} ({one.kind}): {one.vms} VMs, {one.disks} disks, {dict(one.ended)}, {one.seconds:.1f} s")
        print(*(f"  {sentence}" for sentence in one.told), sep="\n")
        print(*(f"  VIOLATION {sentence}" for sentence in one.violations), sep="\n")
        print(f"  again: python -m benchmarks.chaos --rounds 1 --first-seed {one.seed} --kind {one.kind}", flush=True)


def _print(rounds: Sequence[Round], wall_s: float) -> None:
    table = Table(title="Process chaos", title_justify="left")
    for name in (
        "shock",
        "rounds",
        "VMs",
        "disks",
        "completed",
        "went back",
        "parked",
        "words",
        "reruns",
        "violations",
    ):
        table.add_column(name, justify="left" if name == "shock" else "right")
    struck = Counter(shock for one in rounds for shock in one.struck)
    for shock in sorted(struck):
        table.add_row(shock, *_cells([one for one in rounds if shock in one.struck]))
    table.add_section()
    for kind in sorted({one.kind for one in rounds}):
        table.add_row(kind, *_cells([one for one in rounds if one.kind == kind]))
    Console(width=150).print(table)
    for name in _list_missing(rounds):
        print(f"GAP: {name} never struck")
    broken = sum(bool(one.violations) for one in rounds)
    each_s = sum(one.seconds for one in rounds) / max(1, len(rounds))
    print(
        f"{len(rounds)} rounds in {wall_s:.0f} s ({each_s:.1f} s each), {struck.total()} shocks struck, {broken} broken"
    )


def _cells(rounds: Sequence[Round]) -> list[str]:
    ended = sum((one.ended for one in rounds), Counter[str]())
    back = ended["failed"] + ended["cancelled"] + ended["refused"]
    figures = (
        len(rounds),
        sum(one.vms for one in rounds),
        sum(one.disks for one in rounds),
        ended["completed"],
        back,
        ended["parked"],
        sum(one.resolved for one in rounds),
        sum(one.reruns for one in rounds),
        sum(len(one.violations) for one in rounds),
    )
    return [str(figure) for figure in figures]


if __name__ == "__main__":
    sys.exit(main())
