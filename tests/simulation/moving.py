"""Somebody moves a volume: takes it from where it hangs, gives it to a VM of his own, and takes it off there later.

What our daemons sent for it is not meant for that VM, and must not be sent again.
"""

from __future__ import annotations

from typing import Final

from tests.simulation.network import Mishap, Planned
from tests.simulation.scene import Scene

NAME: Final = "a person moves the volume"
PRODUCTION: Final = "99999999-9999-4999-8999-999999999999"
KEEPS_S: Final = 600.0


def move_while_a_detach_is_lost(scene: Scene) -> None:
    """The request of a detach is lost; before anybody can send it again its VM's volumes hang elsewhere."""
    scene.world.seed(vms=[{"id": PRODUCTION, "name": "production", "state": "Running"}])
    scene.network.planned.append(Planned(Mishap.LOST_REQUEST, "detachVolume"))
    strike = scene.network.strike

    def struck(what: str) -> None:
        strike(what)
        if what == Mishap.LOST_REQUEST.value and not scene.calm:
            move(scene, scene.any_vm().volume_ids)

    scene.network.strike = struck


def move(scene: Scene, volume_ids: list[str]) -> None:
    moved = [volume_id for volume_id in volume_ids if scene.world.holder_of(volume_id) is not None]
    if not moved:
        return
    scene.strike(NAME)
    for volume_id in moved:
        scene.world.change_volume(volume_id, vm_id=PRODUCTION)
    scene.later(KEEPS_S, lambda: give_back(scene, moved))


def give_back(scene: Scene, volume_ids: list[str]) -> None:
    for volume_id in volume_ids:
        if scene.world.holder_of(volume_id) == PRODUCTION:
            scene.world.change_volume(volume_id, vm_id=None)
