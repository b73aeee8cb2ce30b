from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest
from asyncinotify import Event, Inotify

from tests.unit.volume_daemon.builders import VOLUME_ID
from volume_daemon.server import devices
from volume_daemon.server.devices import DevicesUnknown, DeviceWatch, Seen, Sight, serial_in, size_fits

SIZE = 8 * 1024 * 1024


@pytest.fixture
async def watch_of(tmp_path):
    """On a root that is not there yet, as `/dev/disk/by-id` is not before the first device."""
    started = []

    async def start(**figures: float) -> DeviceWatch:
        root, uuid_path = tmp_path / "disk" / "by-id", tmp_path / "product_uuid"
        watching = DeviceWatch(root, uuid_path, lambda: datetime.now(UTC), **figures)
        started.append(watching)
        await watching.start()
        return watching

    yield start
    for watching in started:
        await watching.stop()


@pytest.fixture
async def watch(watch_of):
    return await watch_of()


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
    watch.device_root.mkdir(parents=True)
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


async def test_absent_is_told_only_of_a_root_that_can_be_read(watch):
    """A wrong setting or a missing permission must not prove that devices are gone."""
    assert (await watch.look(VOLUME_ID)).sight is Sight.UNKNOWN
    assert (await watch.wait_absent(VOLUME_ID, 0.01)).sight is Sight.UNKNOWN
    with pytest.raises(DevicesUnknown, match="by-id"):
        await watch.scan()
    watch.device_root.parent.mkdir()
    watch.device_root.write_text("a file")
    seen = await watch.look(VOLUME_ID)
    assert (seen.sight, str(watch.device_root) in (seen.problem or "")) == (Sight.UNKNOWN, True)
    watch.device_root.unlink()
    watch.device_root.mkdir()
    assert (await watch.look(VOLUME_ID)).sight is Sight.ABSENT
    assert (await watch.scan()).links == ()


class FailingInotify(Inotify):
    """Reads nothing once it is told to fail."""

    failing: ClassVar[bool] = False

    async def get(self) -> Event:
        if type(self).failing:
            raise OSError("the kernel gives no events")
        event = await super().get()
        if type(self).failing:
            raise OSError("the kernel gives no events")
        return event


async def test_a_watch_that_dies_is_told_looked_past_and_set_again(watch_of, tmp_path, monkeypatch):
    monkeypatch.setattr(FailingInotify, "failing", False)
    monkeypatch.setattr(devices, "Inotify", FailingInotify)
    watch = await watch_of(rescan_s=0.01)
    watch.device_root.mkdir(parents=True)
    FailingInotify.failing = True
    (watch.device_root / "any").touch()
    async with asyncio.timeout(30):
        while watch.problem is None:
            await asyncio.to_thread(lambda: None)
        assert "no events" in watch.problem
        plug(watch, tmp_path)
        assert (await watch.wait_present(VOLUME_ID, SIZE, 30)).sight is Sight.PRESENT
        FailingInotify.failing = False
        while watch.problem is not None:
            await asyncio.to_thread(lambda: None)
        task = await waiting(watch, watch.wait_absent(VOLUME_ID, 30))
        watch.link_of(VOLUME_ID).unlink()
        assert (await task).sight is Sight.ABSENT
    assert watch.is_alive


async def test_a_kernel_without_watches_is_no_reason_not_to_start(watch_of, tmp_path, monkeypatch):
    def refuse() -> Inotify:
        raise OSError("too many watches")

    monkeypatch.setattr(devices, "Inotify", refuse)
    watch = await watch_of(rescan_s=0.01)
    assert "too many watches" in (watch.problem or "")
    task = await waiting(watch, watch.wait_present(VOLUME_ID, SIZE, 30))
    plug(watch, tmp_path)
    async with asyncio.timeout(20):
        assert (await task).sight is Sight.PRESENT
