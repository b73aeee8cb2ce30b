"""Guards about the OMA's own devices: what they show and who holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.states import VolumePlace
from oma.workflow.guards.failovers import failover_evidence
from oma.workflow.guards.places import places

INJECTION_STEP: Final = "virtio-driver-injection"


def device_agrees(evidence: Evidence) -> Iterator[Refusal]:
    """Detached means detached everywhere: CloudStack and the OMA must tell the same story."""
    for volume, facts, place in places(evidence):
        if place in (VolumePlace.DETACHED, VolumePlace.ON_TEST_VM) and facts.on_oma is True:
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"CloudStack shows {volume.volume_name} as {place.value}, but the OMA still shows its device.",
                "Something may still hold it open. Look at the device on the OMA before anything is reverted.",
                {"volume_id": volume.volume_id},
            )


def injection_is_over(evidence: Evidence) -> Iterator[Refusal]:
    """Whether an injection still holds the disk is not judged yet, so one that was left running stops everything."""
    for failover in evidence.records.failovers:
        log = evidence.records.joblog_of(failover)
        if not failover.is_open or log is None or INJECTION_STEP not in log.running_step_names:
            continue
        if any(place is VolumePlace.ON_OMA for _, _, place in places(evidence)):
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"The driver injection of failover {failover.job_id} never reported its end; whether it still holds a "
                "disk on the OMA can't be told.",
                "Look for inject-virtio-drivers.sh and virt-v2v on the OMA, end them, and end the job_steps row.",
                failover_evidence(evidence, failover),
            )
