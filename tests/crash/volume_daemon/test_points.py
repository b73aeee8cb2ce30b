"""The Volume Daemon dies at each of its crash points, comes back, and everything agrees (6-safety 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from _pytest.mark import ParameterSet

from appliance.crashpoints import list_points
from tests.crash.volume_daemon.flows import FLOWS, Flow
from tests.crash.volume_daemon.lives import die_and_come_back
from tests.integration.volume_daemon.conftest import World

PROGRAM = "volume_daemon."


def list_first_places() -> dict[str, tuple[str, ...]]:
    """By flow: the places whose point no flow before has."""
    seen: set[str] = set()
    first: dict[str, tuple[str, ...]] = {}
    for flow in FLOWS.values():
        first[flow.name] = tuple(place for place in flow.dies_at if "#" not in place and place not in seen)
        seen |= set(first[flow.name])
    return {name: places for name, places in first.items() if places}


FIRST_PLACES = list_first_places()
AT_ONCE = 5
"""Places of one test: on a busy machine each takes some seconds."""


def in_turns(places: Mapping[str, Sequence[str]]) -> list[ParameterSet]:
    """A few places of one flow at a time."""
    return [
        pytest.param(name, of_flow[first : first + AT_ONCE], id=f"{name}-{first // AT_ONCE + 1}")
        for name, of_flow in places.items()
        for first in range(0, len(of_flow), AT_ONCE)
    ]


async def find_faults_at(world: World, flow: Flow, places: Sequence[str]) -> dict[str, list[str]]:
    faults = {}
    for place in places:
        point, _, time = place.partition("#")
        found = await die_and_come_back(world, flow, f"{PROGRAM}{point}", int(time or 1))
        if found:
            faults[place] = found
    return faults


@pytest.mark.rule("9-invariants")
@pytest.mark.parametrize(("name", "places"), in_turns({flow.name: flow.dies_at for flow in FLOWS.values()}))
async def test_it_dies_at_each_point_comes_back_and_everything_agrees(
    world: World, name: str, places: Sequence[str]
) -> None:
    assert await find_faults_at(world, FLOWS[name], places) == {}


@pytest.mark.rule("9-invariants")
@pytest.mark.parametrize(("name", "places"), in_turns(FIRST_PLACES))
@pytest.mark.usefixtures("_on_mariadb")
async def test_it_does_so_on_mariadb_at_every_point_once(world: World, name: str, places: Sequence[str]) -> None:
    assert await find_faults_at(world, FLOWS[name], places) == {}


def test_every_point_is_died_at_on_both() -> None:
    died_at = {f"{PROGRAM}{place}" for places in FIRST_PLACES.values() for place in places}
    assert set(list_points(PROGRAM)) == died_at
