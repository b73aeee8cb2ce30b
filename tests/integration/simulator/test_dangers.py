"""Real bytes, real holders: a device that stays, a file that is replaced under who holds it, a late write."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ossea.simulator.admin_client import AdminClient, AdminError
from ossea.simulator.model.catalog import HOST_ID
from tests.integration.simulator.process import LINK, OMA, S1, SCENE, V1, V2, VM, Sim
from tests.integration.simulator.test_bytes import has_loop_devices, loops_below
from tests.integration.simulator.wire import body, finish, follow, get
from tests.parts import require_part


class Writer:
    """A process of the OMA that holds a device open, as a hung injection does."""

    def __init__(self, device: Path) -> None:
        self._fd = os.open(device, os.O_RDWR | os.O_SYNC)

    def write(self, content: bytes) -> None:
        os.pwrite(self._fd, content, 0)
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture(params=["file", pytest.param("loop", marks=pytest.mark.root)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Sim, AdminClient]]:
    """A simulator whose devices are links or loop devices, with the scene and the first volume on the OMA."""
    if request.param == "loop":
        require_part("root with loop devices", has_loop_devices())
    sim = Sim(tmp_path, devices=request.param)
    await asyncio.to_thread(sim.start)
    try:
        async with AdminClient(sim.admin) as admin:
            await admin.put_settings(time_scale=0.1)
            await admin.seed(**SCENE)
            await finish(sim.api, "attachVolume", id=V1, virtualmachineid=OMA)
            yield sim, admin
    finally:
        await asyncio.to_thread(sim.kill)
        await asyncio.to_thread(sim.start)
        await asyncio.to_thread(sim.stop)
        assert loops_below(tmp_path) == []


async def test_a_kept_device_stays_with_its_writer_until_it_is_released(place: tuple[Sim, AdminClient]) -> None:
    sim, admin = place
    link = sim.device_root / LINK
    await admin.patch_volume(V1, keeps_device=True)
    writer = await asyncio.to_thread(Writer, link)
    try:
        assert (await finish(sim.api, "detachVolume", id=V1))["jobstatus"] == 1
        assert "virtualmachineid" not in (await body(sim.api, "listVolumes", id=V1))["volume"][0]
        assert link.is_symlink()
        await asyncio.to_thread(writer.write, b"late")
        assert await admin.read(V1, 0, 4) == b"late"
        await finish(sim.api, "attachVolume", id=V1, virtualmachineid=VM)
        assert link.is_symlink(), "the OMA's link has nothing to do with where the volume went"
    finally:
        await asyncio.to_thread(writer.close)
    await admin.release_device(V1)
    assert not link.is_symlink()
    assert loops_below(sim.folder) == []
    assert (await body(sim.api, "listVolumes", id=V1))["volume"][0]["virtualmachineid"] == VM


@pytest.mark.parametrize("mode", ["in_place", "replace"])
async def test_a_late_write_of_a_holder(place: tuple[Sim, AdminClient], mode: str) -> None:
    """In place it lands in the reverted volume; where the file was replaced it goes into the deleted one."""
    sim, admin = place
    await admin.put_settings(revert_mode=mode)
    await admin.patch_volume(V1, keeps_device=True)
    wanted = await admin.snapshot_hash(S1)
    before = sim.volume_file(V1).stat().st_ino
    writer = await asyncio.to_thread(Writer, sim.device_root / LINK)
    try:
        await asyncio.to_thread(writer.write, b"injected")
        await finish(sim.api, "detachVolume", id=V1)
        assert (await finish(sim.api, "revertSnapshot", id=S1))["jobstatus"] == 1
        assert await admin.volume_hash(V1) == wanted
        assert (sim.volume_file(V1).stat().st_ino == before) is (mode == "in_place")
        await asyncio.to_thread(writer.write, b"woken up")
        assert (await admin.read(V1, 0, 8) == b"woken up") is (mode == "in_place")
        assert (await admin.volume_hash(V1) == wanted) is (mode == "replace")
    finally:
        await asyncio.to_thread(writer.close)


async def test_who_opens_it_after_a_replacing_revert_has_the_new_file(place: tuple[Sim, AdminClient]) -> None:
    sim, admin = place
    await admin.put_settings(revert_mode="replace")
    await admin.patch_volume(V1, keeps_device=True)
    writer = await asyncio.to_thread(Writer, sim.device_root / LINK)
    try:
        await finish(sim.api, "detachVolume", id=V1)
        await finish(sim.api, "revertSnapshot", id=S1)
        await finish(sim.api, "attachVolume", id=V1, virtualmachineid=OMA)
        await asyncio.to_thread(writer.write, b"to nowhere")
        again = await asyncio.to_thread(Writer, sim.device_root / LINK)
        await asyncio.to_thread(again.write, b"lands")
        await asyncio.to_thread(again.close)
        assert await admin.read(V1, 0, 5) == b"lands"
        await admin.write(V1, offset=5, hex_bytes="00ff")
        assert await admin.read(V1, 0, 7) == b"lands\x00\xff"
    finally:
        await asyncio.to_thread(writer.close)


async def test_a_broken_replacing_revert_is_made_right_by_the_next(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.put_settings(revert_mode="replace")
    await admin.write(V1, fill="injected")
    await admin.add_fault("revertSnapshot", "job_fail")
    assert (await finish(shared_sim.api, "revertSnapshot", id=S1))["jobstatus"] == 2
    assert await admin.volume_hash(V1) != await admin.snapshot_hash(S1)
    assert (await finish(shared_sim.api, "revertSnapshot", id=S1))["jobstatus"] == 1
    assert await admin.volume_hash(V1) == await admin.snapshot_hash(S1)


async def test_kill_9_in_a_replacing_revert_and_a_kept_device_after_it(sim: Sim) -> None:
    async with AdminClient(sim.admin) as admin:
        await admin.put_settings(time_scale=0.2, revert_mode="replace")
        await admin.seed(**SCENE)
        await finish(sim.api, "attachVolume", id=V2, virtualmachineid=OMA)
        await admin.patch_volume(V2, keeps_device=True, vm_id=None)
        await admin.patch_host(HOST_ID, state="Down")
        await admin.write(V1, fill="injected")
        job = (await body(sim.api, "revertSnapshot", id=S1))["jobid"]
    await asyncio.to_thread(sim.kill)
    await asyncio.to_thread(sim.start)
    assert (await follow(sim.api, job))["jobstatus"] == 1
    async with AdminClient(sim.admin) as admin:
        assert await admin.volume_hash(V1) == await admin.snapshot_hash(S1)
        assert [link.name for link in sim.device_root.iterdir()] == [f"virtio-{V2.replace('-', '')[:20]}"]
        assert (await body(sim.api, "listHosts"))["host"][0]["state"] == "Down"
        await admin.release_device(V2)
        assert list(sim.device_root.iterdir()) == []


async def test_hosts_projects_and_history_by_the_admin_api(admin: AdminClient, shared_sim: Sim) -> None:
    ids = await admin.seed(
        hosts=[{"name": "kvm-host-2", "state": "Disconnected"}],
        projects=[{"name": "migrations"}],
        vms=[{"name": "never-started", "state": "Stopped", "created": "2026-01-02T03:04:05+00:00"}],
    )
    vm_id = ids["vms"][0]
    await admin.patch_host(ids["hosts"][0], state="Up")
    assert {host["state"] for host in (await body(shared_sim.api, "listHosts"))["host"]} == {"Up"}
    await admin.patch_vm(vm_id, project_id=ids["projects"][0])
    assert await body(shared_sim.api, "listVirtualMachines", id=vm_id, listall="true") == {}
    assert (await body(shared_sim.api, "listVirtualMachines", id=vm_id, projectid="-1"))["count"] == 1
    await admin.patch_vm(vm_id, project_id=None)
    await admin.add_event(vm_id, "VM.START", created="2026-01-02T04:00:00+00:00")
    words = {"resourceid": vm_id, "resourcetype": "VirtualMachine"}
    told = (await body(shared_sim.api, "listEvents", **words))["event"]
    assert [event["type"] for event in told] == ["VM.START", "VM.CREATE", "VM.CREATE"]
    assert await admin.purge_events(vm_id) == 3
    assert await body(shared_sim.api, "listEvents", **words) == {}


async def test_432_and_531_on_the_wire(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.put_settings(denied_commands=["listHosts"])
    status, answer = await get(shared_sim.api, "listHosts")
    assert (status, answer["errorresponse"]["errorcode"]) == (432, 432)
    await admin.patch_volume(V1, account="somebody")
    status, answer = await get(shared_sim.api, "detachVolume", id=V1)
    assert (status, answer["detachvolumeresponse"]["cserrorcode"]) == (531, 4365)


async def test_a_generation_is_set_at_once(admin: AdminClient) -> None:
    settings = await admin.put_settings(generation="4.5", max_data_disks=9)
    assert (settings["custom_job_id"], settings["event_resource"], settings["max_data_disks"]) == (False, False, 9)
    assert "generation" not in settings
    with pytest.raises(AdminError, match="generation must be one of"):
        await admin.put_settings(generation="3")
