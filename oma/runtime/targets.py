"""CloudStack and the Volume Daemon as the runs reach them: swept, behind a circuit each, with one retry policy each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from appliance.settings import CloudstackSettings, Settings, VolumeDaemonSettings
from oma.domain.circuit import CLOUDSTACK, TARGETS, VOLUME_DAEMON, CircuitRules, Outage
from oma.ports import Clock, Cloud, Volumes
from oma.runtime.loops import Loop
from oma.workflow.circuits import Breaker, Breakers, Guarded
from oma.workflow.retry import RetryPolicies, RetryPolicy
from oma.workflow.sweep import SweptCloud, SweptVolumes

CIRCUITS_S: Final = 0.5
"""How often it is looked whether a trial is due."""
BESIDE_S: Final = 1.0
"""A trial ends a moment after its request would, so that the request's own words are told."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The guarded ports, their circuits, and what wakes the trials."""

    cloud: Cloud
    volumes: Volumes
    breakers: Breakers
    suspect: asyncio.Event


def build_targets(settings: Settings, cloud: Cloud, volumes: Volumes, clock: Clock) -> Targets:
    suspect = asyncio.Event()
    of_cloudstack = Breaker(
        CLOUDSTACK,
        cloud.check,
        clock,
        _rules(settings.cloudstack),
        trial_s=settings.cloudstack.timeout_s + BESIDE_S,
        suspect=suspect,
    )
    of_volume_daemon = Breaker(
        VOLUME_DAEMON,
        volumes.check,
        clock,
        _rules(settings.volume_daemon),
        trial_s=settings.volume_daemon.timeout_s + BESIDE_S,
        suspect=suspect,
    )
    return Targets(
        cloud=SweptCloud(cast("Cloud", Guarded(cloud, of_cloudstack))),
        volumes=SweptVolumes(cast("Volumes", Guarded(volumes, of_volume_daemon))),
        breakers=Breakers((of_cloudstack, of_volume_daemon)),
        suspect=suspect,
    )


def build_retries(settings: Settings) -> RetryPolicies:
    return RetryPolicies(_policy(settings.cloudstack), _policy(settings.volume_daemon))


def build_circuit_loop(
    targets: Targets, clock: Clock, tell: Callable[[Sequence[Outage]], None], wake: asyncio.Event
) -> Loop:
    """Makes the trials. `tell` hears which targets are away whenever that changes; `wake` wakes the worker then."""

    def on_change() -> None:
        tell(targets.breakers.outages)
        wake.set()

    targets.breakers.on_change(on_change)
    return Loop("circuits", targets.breakers.look, clock, interval_s=CIRCUITS_S, wake=targets.suspect)


def names_of(outages: Sequence[Outage]) -> dict[str, bool]:
    """Whether each target is away, by the name that metrics and health have for it."""
    away = {outage.target for outage in outages}
    return {name: target in away for target, name in TARGETS.items()}


def _rules(settings: CloudstackSettings | VolumeDaemonSettings) -> CircuitRules:
    return CircuitRules(
        silences=settings.circuit_silences,
        pause_min_s=min(settings.circuit_pause_s, CircuitRules().pause_min_s),
        pause_max_s=settings.circuit_pause_s,
    )


def _policy(settings: CloudstackSettings | VolumeDaemonSettings) -> RetryPolicy:
    return RetryPolicy(
        attempts=settings.retry_attempts,
        total_s=settings.retry_total_s,
        first_pause_s=min(RetryPolicy().first_pause_s, settings.retry_pause_s),
        longest_pause_s=settings.retry_pause_s,
    )
