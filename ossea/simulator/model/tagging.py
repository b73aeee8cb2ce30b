"""What becomes of tags when the thing that carries them goes."""

from __future__ import annotations

from ossea.simulator.model.world import World


def drop_tags_of(world: World, resource_id: str) -> None:
    """They go with it (`SnapshotDaoImpl.remove` in CloudStack)."""
    for tag in world.tags_of(resource_id):
        world.drop_tag(tag)
