"""What the settings make of the targets: policies, circuits, and who is told."""

from __future__ import annotations

import asyncio

import pytest

from appliance.settings import Settings
from oma.domain.actions import Upstream
from oma.domain.circuit import CLOUDSTACK, VOLUME_DAEMON, Outage
from oma.ports import Fault, UpstreamError
from oma.runtime.targets import build_circuit_loop, build_retries, build_targets, names_of
from oma.workflow.retry import RetryPolicy
from tests.fakes.cloud import FakeCloud
from tests.fakes.time_and_ids import FastClock
from tests.fakes.volumes import FakeVolumes
from tests.fakes.world import FakeWorld

SETTINGS = Settings.model_validate(
    {
        "cloudstack": {"retry_attempts": 3, "retry_total_s": 7, "retry_pause_s": 0.1, "circuit_silences": 1},
        "volume_daemon": {"retry_attempts": 4, "circuit_silences": 2},
    }
)


def test_each_target_has_the_policy_of_its_section() -> None:
    policies = build_retries(SETTINGS)
    assert policies.cloudstack == RetryPolicy(3, 7.0, 0.1, 0.1)
    assert policies.volume_daemon == RetryPolicy(attempts=4)
    assert build_retries(Settings()).cloudstack == RetryPolicy(), "the defaults of both are the same"
    silent = UpstreamError(Fault.NO_ANSWER, Upstream(CLOUDSTACK, "x", "y"))
    assert policies.of(silent) is policies.cloudstack


async def test_a_target_that_goes_away_is_told_and_its_trials_are_woken() -> None:
    clock = FastClock()
    world = FakeWorld(clock)
    cloud, volumes = FakeCloud(world), FakeVolumes(world)
    targets = build_targets(SETTINGS, cloud, volumes, clock)
    told: list[dict[str, bool]] = []
    wake = asyncio.Event()
    loop = build_circuit_loop(targets, clock, lambda outages: told.append(names_of(outages)), wake)
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop))
    await loop.first_turn.wait()
    cloud.weather.silent = True
    with pytest.raises(UpstreamError):
        await targets.cloud.list_vms(["a"])
    await asyncio.wait_for(wake.wait(), 10)
    assert told == [{"cloudstack": True, "volume_daemon": False}]
    wake.clear()
    cloud.weather.silent = False
    await asyncio.wait_for(wake.wait(), 10)
    assert told[1] == {"cloudstack": False, "volume_daemon": False}
    assert await targets.volumes.scan_devices()
    stop.set()
    loop.wake.set()
    await running
    await targets.breakers.aclose()
    await volumes.close()


def test_names_are_those_of_metrics_and_health() -> None:
    outage = Outage(VOLUME_DAEMON, FastClock().now(), "gone")
    assert names_of([outage]) == {"cloudstack": False, "volume_daemon": True}
    assert names_of([]) == {"cloudstack": False, "volume_daemon": False}
