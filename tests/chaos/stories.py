"""The VMs of a round: as many disks and as many ways of being broken as the dice say, all of them cleanable."""

from __future__ import annotations

from random import Random

from oma.demo.story import CREATION, INJECTION, SNAPSHOT, DiskStory, Export, Place, VmStory

MOST_DISKS = 4
TORN = (SNAPSHOT, INJECTION, CREATION, ("volume-attachment", "failed"))
UNBORN = (SNAPSHOT, INJECTION, ("vm-creation", "failed"))


def make_story(name: str, dice: Random) -> VmStory:
    disks = dice.randint(1, MOST_DISKS)
    match dice.randrange(4):
        case 0:  # died during or after the boot of the test VM
            return VmStory(name, tuple(DiskStory(Place.TEST_VM) for _ in range(disks)))
        case 1:  # the test VM was stopped by somebody
            return VmStory(name, tuple(DiskStory(Place.TEST_VM) for _ in range(disks)), test_vm="Stopped")
        case 2:  # some volumes moved, some did not
            places = [dice.choice((Place.TEST_VM, Place.NOWHERE, Place.OMA)) for _ in range(disks)]
            return VmStory(name, tuple(map(DiskStory, places)), steps=TORN, test_vm="Stopped")
        case _:  # the injection ran, and no VM could be made
            on_oma = (DiskStory(Place.OMA, export=Export(f"{name}-{number}")) for number in range(disks))
            return VmStory(name, tuple(on_oma), steps=UNBORN, joblog_status="failed", test_vm=None)
