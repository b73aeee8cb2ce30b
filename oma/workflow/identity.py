"""Whether the configured OMA is the appliance that the Volume Daemon runs on: pure, from the collected evidence."""

from __future__ import annotations

from uuid import UUID

from oma.domain.evidence import Evidence
from oma.domain.world import CloudVolume, Unanswered

TRUST = "trust"
DMI = "dmi"
ADVICE = "If this is the OMA, set oma.identity = trust; else correct ossea_configs.oma_vm_id."


def oma_problem(evidence: Evidence) -> str | None:
    """Why the OMA's identity is not proven; None when it is."""
    config = evidence.config
    if config is None:
        return (
            "Which OMA the volumes belong to can't be told: their rows name several configurations, or none is active."
        )
    vm = evidence.find_vm(config.oma_vm_id)
    if vm is None:
        return f"CloudStack does not list the OMA {config.oma_vm_id} of the configuration {config.name}."
    if vm.state != "Running":
        return f"CloudStack shows the OMA {vm.name} as {vm.state}, not Running."
    if evidence.limits.oma_identity == TRUST:
        return None
    devices = evidence.devices
    if isinstance(devices, Unanswered):
        return f"The OMA's own devices could not be read: {devices.reason}."
    if evidence.limits.oma_identity == DMI and devices.product_uuid:
        if config.oma_vm_id.lower() in uuid_forms(devices.product_uuid):
            return None
        return f"This appliance is {devices.product_uuid}, but the configuration names {config.oma_vm_id} as the OMA."
    return _problem_by_volumes(evidence)


def needs_volume_comparison(identity: str, product_uuid: str | None) -> bool:
    """Whether the volumes on the OMA have to be asked for to prove its identity."""
    return identity != TRUST and not (identity == DMI and product_uuid)


def uuid_forms(text: str) -> frozenset[str]:
    """The UUID in both byte orders: SMBIOS 2.6 stores the first three fields little-endian, older firmware did not."""
    try:
        value = UUID(text.strip())
    except ValueError:
        return frozenset()
    return frozenset({str(value), str(UUID(bytes=value.bytes_le))})


def _problem_by_volumes(evidence: Evidence) -> str | None:
    on_oma, devices = evidence.volumes_on_oma, evidence.devices
    if isinstance(on_oma, Unanswered):
        return f"What hangs on the OMA could not be read: {on_oma.reason}."
    if isinstance(devices, Unanswered):
        return f"The OMA's own devices could not be read: {devices.reason}."
    elsewhere = [
        facts.cloud.name
        for facts in evidence.volumes
        if isinstance(facts.cloud, CloudVolume)
        and devices.shows(facts.volume_id)
        and facts.cloud.vm_id is not None
        and facts.volume_id not in on_oma
    ]
    if elsewhere:
        return f"This appliance shows {', '.join(elsewhere)}, which CloudStack shows on another VM."
    if not any(devices.shows(volume_id) for volume_id in on_oma):
        return f"No volume that CloudStack shows on the OMA is visible on this appliance. {ADVICE}"
    return None
