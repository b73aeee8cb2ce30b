"""Those who hold a disk in the demo are real: they hold it, they write when told to, and they leave nothing."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from oma.demo import main
from oma.demo.holders import Holder, hung_injection, loop_device, missing_right, mounted, process_elsewhere
from oma.demo.ledger import hash_device
from oma.demo.ports import ANY_PORTS
from oma.demo.scenarios import SCENARIOS
from oma.demo.scenarios.base import Anywhere, Result
from oma.demo.scenarios.held import Held
from oma.demo.stack import StackOptions, running_stack
from oma.demo.story import DiskStory, Export, Place, SeededVm, VmStory
from oma.demo.world import World
from oma.demo.writer import missing_nbd_tools, running_writer
from tests.parts import require_part

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.root]
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def on_the_oma(world: World, name: str) -> SeededVm:
    missing = await asyncio.to_thread(missing_right)
    require_part(f"{missing}, to hold a block device", missing is None)
    return await world.seed(VmStory(name, (DiskStory(Place.OMA, export=Export(f"{name}-system")),), test_vm=None))


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(happened):  # noqa: ASYNC110  another process tells nobody
            await asyncio.sleep(0.01)


def openers(device: Path) -> list[int]:
    """Processes beside the simulator's own that have the device open."""
    number = device.stat().st_rdev
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(entry.stat().st_rdev == number for entry in folder.iterdir()):
                found.append(int(folder.parent.name))
        except OSError:
            continue
    return found


@only_sqlite
async def test_a_woken_injection_writes_and_is_gone_with_its_children(world: World, vm_name: str) -> None:
    vm = await on_the_oma(world, vm_name)
    disk = vm.disks[0]
    device = world.stack.device_root / disk.link

    async with hung_injection(world.stack, disk) as injection:
        tree = await asyncio.to_thread(injection.list_tree)
        held_by = await asyncio.to_thread(openers, device)
        assert await hash_device(world.stack, disk.link) == world.found[disk.volume_id]
        assert injection.wake()
        await until(lambda: b"woke up" in device.read_bytes())

    assert len(tree) == 2
    assert set(tree) <= set(held_by)
    assert await asyncio.to_thread(injection.list_tree) == []
    assert not injection.wake()
    assert await asyncio.to_thread(openers, device) == []


@only_sqlite
async def test_an_injection_does_not_outlive_a_demo_that_was_killed(world: World, vm_name: str) -> None:
    vm = await on_the_oma(world, vm_name)

    async with hung_injection(world.stack, vm.disks[0]) as injection:
        assert injection.process.stdin is not None
        injection.process.stdin.close()

        await until(lambda: not injection.runs and not injection.list_tree())


@only_sqlite
async def test_a_replication_writes_blocks_until_its_end(world: World, vm_name: str) -> None:
    vm = await on_the_oma(world, vm_name)
    missing = await asyncio.to_thread(missing_nbd_tools)
    require_part(f"{missing}, to write over NBD", missing is None)
    disk = vm.disks[0]

    async with running_writer(world.stack, disk) as writer:
        first = await hash_device(world.stack, disk.link)
        await writer.write_block()
        second = await hash_device(world.stack, disk.link)

    assert len({world.found[disk.volume_id], first, second}) == 3
    assert await world.stack.admin.volume_hash(disk.volume_id) == second
    assert (writer.server.poll() is None, writer.client.poll() is None) == (False, False)
    assert await asyncio.to_thread(openers, world.stack.device_root / disk.link) == []


@only_sqlite
@pytest.mark.parametrize("holder", [process_elsewhere, mounted, loop_device])
async def test_what_held_a_device_lets_go_of_it(world: World, vm_name: str, holder: Holder) -> None:
    vm = await on_the_oma(world, vm_name)
    scenario = next(one for one in SCENARIOS if isinstance(one, Held) and one.holder is holder)
    missing = await asyncio.to_thread(scenario.missing)
    require_part(f"{missing}, to hold a block device", missing is None)
    disk = vm.disks[0]
    device = world.stack.device_root / disk.link
    await scenario.prepare(world, vm)

    async with holder(world.stack, disk) as name:
        assert name

    # The kernel lends it for one's own use alone only where nobody has it.
    handle = await asyncio.to_thread(os.open, device, os.O_RDONLY | os.O_EXCL)
    os.close(handle)
    assert await asyncio.to_thread(openers, device) == []


class Lacking(Anywhere):
    """A scenario that no machine can show."""

    title, vm_name, expected, alone = "one that takes a mainframe", "lacking", "200 ready", False

    def missing(self) -> str | None:
        return "a mainframe"

    async def seed(self, world: World) -> SeededVm:
        raise AssertionError("it is skipped")

    async def play(self, world: World, vm: SeededVm) -> Result:
        raise AssertionError("it is skipped")


async def test_what_a_machine_cannot_show_is_skipped_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oma.demo.once.SCENARIOS", (SCENARIOS[0], Lacking()))
    console = Console(width=150, file=io.StringIO())
    async with running_stack(
        StackOptions(directory=tmp_path, ports=ANY_PORTS, simulator={"time_scale": 0.02})
    ) as stack:
        code = await main.run_once(stack, console)

    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert code == main.DONE
    assert "Skipped: one that takes a mainframe; it takes a mainframe." in said
    assert "1 of 1 ended as they should" in said
