from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.volume_daemon.builders import VOLUME_ID
from volume_daemon.server.devices import DeviceWatch, Seen, Sight, serial_in, size_fits

SIZE = 8 * 1024 * 1024


@pytest.fixture
async def watch(tmp_path):
    """On a root that is not there yet, as `/dev/disk/by-id` is not before the first device."""
    uuid_path = tmp_path / "product_uuid"
    watching = DeviceWatch(tmp_path / "disk" / "by-id", uuid_path, lambda: datetime.now(UTC))
    await watching.start()
    yield watching
    await watching.stop()


def plug(watch: DeviceWatch, tmp_path: Path, size: int = SIZE) -> Path:
    disk = tmp_path / f"disk-{os.urandom(4).hex()}"
    disk.write_bytes(b"")
    os.truncate(disk, size)
    link = watch.link_of(VOLUME_ID)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(disk)
    return link


async def waiting(watch: DeviceWatch, coroutine) -> asyncio.Task[Seen]:
    """A task that is certainly waiting for an event by now."""
    task = asyncio.create_task(coroutine)
    while not watch._waiters:
        await asyncio.to_thread(lambda: None)
    for _ in range(50):
        await asyncio.to_thread(lambda: None)
    return task


async def test_the_link_is_found_by_the_first_twenty_characters(watch):
    assert watch.link_of(VOLUME_ID).name == "virtio-b3bb93101b594f6297e8"


async def test_a_device_that_appears_late_under_a_root_that_was_not_there_is_seen(watch, tmp_path):
    task = await waiting(watch, watch.wait_present(VOLUME_ID, SIZE, 30))
    plug(watch, tmp_path)
    seen = await task
    assert (seen.sight, seen.size_bytes) == (Sight.PRESENT, SIZE)


async def test_a_device_that_was_there_before_is_seen_at_once(watch, tmp_path):
    plug(watch, tmp_path)
    assert (await watch.wait_present(VOLUME_ID, SIZE, 0.01)).sight is Sight.PRESENT


async def test_a_device_of_the_wrong_size_is_waited_out_and_told(watch, tmp_path):
    link = plug(watch, tmp_path, SIZE - 512)
    assert (await watch.wait_present(VOLUME_ID, SIZE, 0.01)).sight is Sight.WRONG_SIZE
    task = await waiting(watch, watch.wait_present(VOLUME_ID, SIZE, 30))
    link.unlink()
    plug(watch, tmp_path)
    assert (await task).sight is Sight.PRESENT


async def test_gone_is_told_when_the_link_goes_and_not_before(watch, tmp_path):
    link = plug(watch, tmp_path)
    assert (await watch.wait_absent(VOLUME_ID, 0.01)).sight is Sight.PRESENT
    task = await waiting(watch, watch.wait_absent(VOLUME_ID, 30))
    assert not task.done()
    link.unlink()
    assert (await task).sight is Sight.ABSENT


async def test_a_link_that_leads_nowhere_is_neither_there_nor_gone(watch, tmp_path):
    link = plug(watch, tmp_path)
    link.resolve().unlink()
    assert (await watch.wait_present(VOLUME_ID, SIZE, 0.01)).sight is Sight.WRONG_SIZE
    assert (await watch.wait_absent(VOLUME_ID, 0.01)).sight is Sight.WRONG_SIZE


async def test_the_root_may_go_and_come_again(watch, tmp_path):
    plug(watch, tmp_path).unlink()
    watch.device_root.rmdir()
    task = await waiting(watch, watch.wait_present(VOLUME_ID, SIZE, 30))
    plug(watch, tmp_path)
    assert (await task).sight is Sight.PRESENT


async def test_a_scan_shows_links_with_serial_size_and_target(watch, tmp_path):
    link = plug(watch, tmp_path)
    (link.parent / f"{link.name}-part1").symlink_to("nowhere")
    (link.parent / "scsi-0QEMU").symlink_to("nowhere")
    scan = await watch.scan()
    assert scan.product_uuid is None
    assert "product_uuid" in (scan.product_uuid_error or "")
    found = {Path(one.link).name: (one.serial, one.size_bytes) for one in scan.links}
    serial = "b3bb93101b594f6297e8"
    assert found == {
        link.name: (serial, SIZE),
        f"{link.name}-part1": (serial, None),
        "scsi-0QEMU": ("", None),
    }
    assert next(one.target for one in scan.links if one.link == str(link)) == str(link.resolve())


async def test_the_machines_own_uuid_is_told(watch, tmp_path):
    (tmp_path / "product_uuid").write_text("ABCD-1\n")
    assert (await watch.scan()).product_uuid == "abcd-1"


@pytest.mark.parametrize(
    ("device", "cloud", "fits"),
    [(100, 100, True), (99, 100, False), (100 + 4 * 1024**2, 100, True), (2 * 1024**3, 1024**3, False), (5, 0, True)],
)
def test_a_device_may_be_rounded_up_but_never_be_smaller(device, cloud, fits):
    assert size_fits(device, cloud) is fits


def test_other_links_carry_no_serial_that_we_know():
    assert serial_in("dm-name-vg-root") == ""
