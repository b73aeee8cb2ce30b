"""Whether a VM's records describe it whole: what no clean-up can begin without, told from the records alone."""

from __future__ import annotations

from collections.abc import Iterator

from oma.domain.records import VmRecords


def record_problems(records: VmRecords) -> Iterator[str]:
    """A sentence per fault: every disk has one volume row and the reverse, and no other VM claims a volume."""
    if not records.disks:
        yield f"{records.context.vm_name} has no row in vm_disks; a VM has at least one disk."
    rows = {volume.id for volume in records.volumes}
    referred = [disk.ossea_volume_id for disk in records.disks]
    for disk in records.disks:
        if disk.ossea_volume_id not in rows:
            yield f"Disk {disk.disk_id} has no volume row."
    for volume in records.volumes:
        if referred.count(volume.id) != 1:
            yield f"Volume {volume.volume_name} ({volume.volume_id}) belongs to {referred.count(volume.id)} disks."
    volume_ids = [volume.volume_id for volume in records.volumes]
    yield from (f"Volume {one} has two rows." for one in sorted(set(volume_ids)) if volume_ids.count(one) > 1)
    disk_ids = [disk.disk_id for disk in records.disks]
    yield from (f"Disk id {one} stands twice." for one in sorted(set(disk_ids)) if disk_ids.count(one) > 1)
    yield from (f"Volume {one} is claimed by another VM's records too." for one in records.shared_volume_ids)
