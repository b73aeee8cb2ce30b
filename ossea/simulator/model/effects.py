"""What a change in the model means for bytes and devices; the driver carries it out, a virtual-time fake only reads it.

An effect with a `job_id` belongs to a job that has not ended yet. In a driven model (`Model(driven=True)`) each of them
holds its job until the driver has called `Model.release(job_id, now)`: the job ends no earlier than its due time and
the last release. A fake that works at no cost leaves `driven` off and releases nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effect:
    """Base of all effects; `at` is the model's time in Unix seconds."""

    at: float
    job_id: str | None


@dataclass(frozen=True, slots=True)
class VolumeCreated(Effect):
    """A volume of `size_bytes` came to be: from a snapshot's content, from the text `fill`, or blank."""

    volume_id: str
    size_bytes: int
    from_snapshot_id: str | None = None
    fill: str | None = None


@dataclass(frozen=True, slots=True)
class VolumeErased(Effect):
    """The volume's bytes are gone for good."""

    volume_id: str


@dataclass(frozen=True, slots=True)
class CopyStarted(Effect):
    """A snapshot keeps the content that the volume has at this moment."""

    snapshot_id: str
    volume_id: str


@dataclass(frozen=True, slots=True)
class SnapshotErased(Effect):
    """The snapshot's bytes are gone for good."""

    snapshot_id: str


@dataclass(frozen=True, slots=True)
class RevertStarted(Effect):
    """The hypervisor begins to overwrite the volume and is through at `ends_at`, after `fraction` of it.

    `fraction` is 1.0 unless a fault makes the revert break off half-way. With `replaces` a new file takes the volume's
    place at this moment: whoever holds the old one writes into a deleted file from now on. Else it is the same file, in
    which a holder's late write lands.
    """

    snapshot_id: str
    volume_id: str
    ends_at: float
    fraction: float = 1.0
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class ContentReverted(Effect):
    """From now on the volume's first `fraction` is the snapshot's content, and its size is `size_bytes`."""

    snapshot_id: str
    volume_id: str
    size_bytes: int
    fraction: float = 1.0
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class DeviceAppeared(Effect):
    """The guest of `vm_id` sees the volume as `virtio-<serial>`."""

    volume_id: str
    vm_id: str
    serial: str


@dataclass(frozen=True, slots=True)
class DeviceGone(Effect):
    """The guest of `vm_id` no longer sees the volume."""

    volume_id: str
    vm_id: str
    serial: str


def serial_of(volume_id: str) -> str:
    """The serial a guest sees: 20 characters of the UUID without hyphens (CloudStack, `diskUuidToSerial`)."""
    return volume_id.replace("-", "")[:20]
