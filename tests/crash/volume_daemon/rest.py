"""What has to hold when nothing is under way any more, whatever died meanwhile: CloudStack, OMA, rows and files agree."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ossea.client import CloudStack
from ossea.credentials import Endpoint
from tests.integration.volume_daemon.conftest import KEY, OMA_ID, SECRET, World


async def find_disagreements(world: World, volume_ids: list[str]) -> list[str]:
    """One sentence each; empty where everything agrees."""
    found = [fault for volume_id in volume_ids for fault in await _disagreements_about(world, volume_id)]
    left = [path.name for path in world.nbd_dir.iterdir() if path.name.startswith(".")]
    found += [f"{name} is left in the NBD configuration" for name in left]
    for row in world.query("SELECT operation_id, stage FROM volume_daemon_operations WHERE stage <> 'ended'"):
        found.append(f"operation {row['operation_id']} is {row['stage']}, and nobody is at it")
    ended = "'completed', 'failed', 'cancelled'"
    found += [
        f"operation {row['id']} stands as {row['status']}"
        for row in world.query(f"SELECT id, status FROM volume_operations WHERE status NOT IN ({ended})")
    ]
    return found + await _strange_calls(world)


async def _disagreements_about(world: World, volume_id: str) -> list[str]:
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud:
        listed = await cloud.list_volumes(ids=[volume_id])
    vm_id = listed[0].vm_id if listed else None
    link = world.device_root / f"virtio-{volume_id.replace('-', '')[:20]}"
    mappings = world.query("SELECT * FROM device_mappings WHERE volume_uuid = :v", v=volume_id)
    exports = world.query("SELECT * FROM nbd_exports WHERE volume_id = :v", v=volume_id)
    files = {path.name: path.read_text() for path in world.nbd_dir.iterdir() if str(link) in path.read_text()}
    found = []
    if link.is_symlink() != (vm_id == OMA_ID):
        found.append(f"CloudStack shows {volume_id} on {vm_id}, and the OMA's device says otherwise")
    if [row["vm_id"] for row in mappings] != ([vm_id] if vm_id else []):
        found.append(f"CloudStack shows {volume_id} on {vm_id}, its mappings are {[dict(row) for row in mappings]}")
    if vm_id == OMA_ID:
        found += _faults_at_home(mappings, str(link))
    if {row["config_path"].rpartition("/")[2] for row in exports} != set(files):
        found.append(f"{volume_id} has the rows {[row['export_name'] for row in exports]} and the files {list(files)}")
    if exports and vm_id != OMA_ID:
        found.append(f"{volume_id} is exported and is not on the OMA")
    return found


def _faults_at_home(mappings: list[Any], link: str) -> list[str]:
    shown = [(row["operation_mode"], row["device_path"], row["linux_state"]) for row in mappings]
    return [] if shown == [("oma", link, "detected")] else [f"a volume on the OMA is mapped as {shown}"]


async def _strange_calls(world: World) -> list[str]:
    """What CloudStack was asked for that the journal does not know, or that it did twice."""
    ids = {row["operation_id"] for row in world.query("SELECT operation_id FROM volume_daemon_operations")}
    calls = [call for call in await world.changes() if call["command"].endswith("Volume")]
    asked = [(call["command"], call["params"].get("customjobid"), call["jobid"]) for call in calls]
    strange = [f"{command} was sent under {id_}" for command, id_, _ in asked if id_ is not None and id_ not in ids]
    jobs = Counter(id_ for _, id_, job_id in asked if job_id is not None and id_ is not None)
    return strange + [f"{id_} became {number} jobs" for id_, number in jobs.items() if number > 1]
