"""Bytes and devices: what snapshots keep, what reverts put back, what the OMA sees."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ossea.simulator.admin_client import AdminClient, AdminError
from tests.integration.simulator.process import LINK, MIB, OMA, S1, SCENE, V1, V2, VM, Sim
from tests.integration.simulator.wire import body, finish, follow
from tests.parts import require_part


async def test_revert_puts_the_content_back_into_the_same_file(admin: AdminClient, shared_sim: Sim) -> None:
    before = await admin.volume_hash(V1)
    assert before == await admin.snapshot_hash(S1)
    inode = shared_sim.volume_file(V1).stat().st_ino
    await admin.write(V1, fill="injected drivers")
    await admin.write(V1, offset=3 * MIB + 17, hex_bytes="deadbeef")
    assert await admin.read(V1, 3 * MIB + 17, 4) == bytes.fromhex("deadbeef")
    assert await admin.volume_hash(V1) != before
    assert (await finish(shared_sim.api, "revertSnapshot", id=S1))["jobstatus"] == 1
    assert await admin.volume_hash(V1) == before
    assert shared_sim.volume_file(V1).stat().st_ino == inode


async def test_what_was_a_hole_is_zero_again_after_a_revert(admin: AdminClient, shared_sim: Sim) -> None:
    ids = await admin.seed(volumes=[{"name": "blank", "size_bytes": MIB}])
    blank = ids["volumes"][0]
    snapshot = (await finish(shared_sim.api, "createSnapshot", volumeid=blank))["jobresult"]["snapshot"]["id"]
    await admin.write(blank, fill="dirt")
    await finish(shared_sim.api, "revertSnapshot", id=snapshot)
    assert await admin.read(blank, 0, MIB) == bytes(MIB)


async def test_a_snapshot_keeps_the_content_of_the_moment_it_was_taken(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.put_settings(durations={"createSnapshot": 20})
    before = await admin.volume_hash(V2)
    answer = await body(shared_sim.api, "createSnapshot", volumeid=V2)
    await admin.write(V2, fill="later")
    await follow(shared_sim.api, answer["jobid"])
    assert await admin.snapshot_hash(answer["id"]) == before
    assert await admin.volume_hash(V2) != before


async def test_a_revert_goes_on_over_its_time(admin: AdminClient, shared_sim: Sim) -> None:
    """While it runs the volume is neither the old content nor the new."""
    await admin.put_settings(durations={"revertSnapshot": 30})
    await admin.write(V1, fill="injected")
    dirty = await admin.volume_hash(V1)
    wanted = await admin.snapshot_hash(S1)
    job = (await body(shared_sim.api, "revertSnapshot", id=S1))["jobid"]
    seen = set()
    while (await body(shared_sim.api, "queryAsyncJobResult", jobid=job))["jobstatus"] == 0:
        seen.add(await admin.volume_hash(V1))
    assert seen - {dirty, wanted}
    assert await admin.volume_hash(V1) == wanted


async def test_a_failed_revert_leaves_a_mixture(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.write(V1, fill="injected")
    dirty = await admin.volume_hash(V1)
    await admin.add_fault("revertSnapshot", "job_fail", errortext="qemu-img: error while writing")
    job = await finish(shared_sim.api, "revertSnapshot", id=S1)
    assert job["jobresult"] == {"errorcode": 530, "errortext": "qemu-img: error while writing"}
    assert await admin.volume_hash(V1) not in {dirty, await admin.snapshot_hash(S1)}
    assert (await finish(shared_sim.api, "revertSnapshot", id=S1))["jobstatus"] == 1
    assert await admin.volume_hash(V1) == await admin.snapshot_hash(S1)


async def test_a_revert_sets_the_size(admin: AdminClient, shared_sim: Sim) -> None:
    os.truncate(shared_sim.volume_file(V1), 6 * MIB)
    await admin.patch_volume(V1, size_bytes=6 * MIB)
    await finish(shared_sim.api, "revertSnapshot", id=S1)
    assert shared_sim.volume_file(V1).stat().st_size == 4 * MIB
    assert (await body(shared_sim.api, "listVolumes", id=V1))["volume"][0]["size"] == 4 * MIB


async def test_a_destroyed_vm_takes_its_root_and_the_bytes(admin: AdminClient, shared_sim: Sim) -> None:
    await finish(shared_sim.api, "attachVolume", id=V1, virtualmachineid=VM, deviceid="0")
    await finish(shared_sim.api, "destroyVirtualMachine", id=VM)
    with pytest.raises(AdminError) as refused:
        await admin.volume_hash(V1)
    assert refused.value.status == 404
    assert not shared_sim.volume_file(V1).exists()


async def test_devices_of_the_oma_appear_and_go(admin: AdminClient, shared_sim: Sim) -> None:
    link = shared_sim.device_root / LINK
    await finish(shared_sim.api, "attachVolume", id=V1, virtualmachineid=OMA)
    assert link.resolve() == shared_sim.volume_file(V1)
    await finish(shared_sim.api, "detachVolume", id=V1)
    assert not link.is_symlink()
    await finish(shared_sim.api, "attachVolume", id=V1, virtualmachineid=VM)
    assert not link.is_symlink()
    await admin.patch_volume(V1, vm_id=OMA)
    assert link.is_symlink()


def loops_below(folder: Path) -> list[str]:
    files = [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [file for file in files if file.startswith(f"{folder}/")]


def has_loop_devices() -> bool:
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


@pytest.mark.root
async def test_loop_devices_come_and_never_stay(tmp_path: Path) -> None:
    require_part("root with loop devices", has_loop_devices())
    sim = Sim(tmp_path, devices="loop")
    await asyncio.to_thread(sim.start)
    try:
        async with AdminClient(sim.admin) as admin:
            await admin.put_settings(time_scale=0.1)
            await admin.seed(**SCENE)
            await finish(sim.api, "attachVolume", id=V1, virtualmachineid=OMA)
            device = (sim.device_root / LINK).resolve()
            assert device.is_block_device()
            clean = await admin.volume_hash(V1)
            await asyncio.to_thread(_write_device, device)
            assert await admin.read(V1, 0, 8) == b"injected"
            await admin.write(V1, offset=8, hex_bytes="00ff")
            assert (await asyncio.to_thread(device.read_bytes))[:10] == b"injected\x00\xff"
            await finish(sim.api, "detachVolume", id=V1)
            assert loops_below(tmp_path) == []
            await finish(sim.api, "revertSnapshot", id=S1)
            assert await admin.volume_hash(V1) == clean
            await finish(sim.api, "attachVolume", id=V1, virtualmachineid=OMA)
        assert len(loops_below(tmp_path)) == 1
        await asyncio.to_thread(sim.kill)
        assert len(loops_below(tmp_path)) == 1
        await asyncio.to_thread(sim.start)
        assert len(loops_below(tmp_path)) == 1
        assert (sim.device_root / LINK).resolve().is_block_device()
        assert await asyncio.to_thread(sim.stop) == 0
        assert loops_below(tmp_path) == []
        assert list(sim.device_root.iterdir()) == []
    finally:
        await asyncio.to_thread(sim.stop)


def _write_device(device: Path) -> None:
    with device.open("r+b") as file:
        file.write(b"injected")
