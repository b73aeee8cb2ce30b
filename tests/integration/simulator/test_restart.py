"""State that survives: a clean stop, `kill -9` in the middle of jobs, and what a restart does to them by setting."""

from __future__ import annotations

import asyncio

from ossea.simulator.admin_client import AdminClient
from tests.integration.simulator.process import LINK, OMA, S1, SCENE, V1, V2, VM, Sim
from tests.integration.simulator.wire import body, finish, follow, get

MINE = "c0ffee00-0000-4000-8000-000000000001"


async def prepare(sim: Sim, **settings: object) -> None:
    async with AdminClient(sim.admin) as admin:
        await admin.put_settings(time_scale=0.2, **settings)
        await admin.seed(**SCENE)


async def again(sim: Sim) -> None:
    await asyncio.to_thread(sim.kill)
    await asyncio.to_thread(sim.start)


async def test_a_clean_stop_keeps_all(sim: Sim) -> None:
    await prepare(sim, max_data_disks=9)
    async with AdminClient(sim.admin) as admin:
        await admin.add_fault("detachVolume", "job_fail", errortext="later")
        before = await admin.volume_hash(V1)
    await finish(sim.api, "attachVolume", id=V1, virtualmachineid=OMA, customjobid=MINE)
    assert await asyncio.to_thread(sim.stop) == 0
    assert not (sim.device_root / LINK).is_symlink()
    await asyncio.to_thread(sim.start)
    assert (sim.device_root / LINK).is_symlink()
    assert (await follow(sim.api, MINE))["jobstatus"] == 1
    async with AdminClient(sim.admin) as admin:
        assert (await admin.get_settings())["max_data_disks"] == 9
        assert await admin.volume_hash(V1) == before
        assert [fault["errortext"] for fault in await admin.faults()] == ["later"]
        calls = await admin.calls(changes_only=True)
    assert [call["command"] for call in calls] == ["attachVolume"]
    job = await finish(sim.api, "detachVolume", id=V1)
    assert job["jobresult"]["errortext"] == "later"


async def test_kill_9_in_the_middle_of_a_revert_and_a_queue(sim: Sim) -> None:
    await prepare(sim)
    async with AdminClient(sim.admin) as admin:
        await admin.write(V1, fill="injected")
    jobs = [
        (await body(sim.api, "revertSnapshot", id=S1))["jobid"],
        (await body(sim.api, "attachVolume", id=V2, virtualmachineid=VM))["jobid"],
        (await body(sim.api, "startVirtualMachine", id=VM))["jobid"],
    ]
    await again(sim)
    ends = [await follow(sim.api, job) for job in jobs]
    assert [end["jobstatus"] for end in ends] == [1, 1, 2]  # the VM has no ROOT volume
    async with AdminClient(sim.admin) as admin:
        assert await admin.volume_hash(V1) == await admin.snapshot_hash(S1)
    volumes = (await body(sim.api, "listVolumes", virtualmachineid=VM))["volume"]
    assert [volume["id"] for volume in volumes] == [V2]


async def test_what_was_answered_before_kill_9_is_known_after_it(sim: Sim) -> None:
    await prepare(sim)
    known = []
    for number in range(20):
        job_id = f"c0ffee00-0000-4000-8000-0000000001{number:02d}"
        await body(sim.api, "detachVolume", id=V1, customjobid=job_id)
        known.append(job_id)
    await again(sim)
    for job_id in known:
        status, _ = await get(sim.api, "queryAsyncJobResult", jobid=job_id)
        assert status == 200


async def test_by_setting_a_restart_fails_what_was_running(sim: Sim) -> None:
    await prepare(sim, restart="fail", durations={"revertSnapshot": 10})
    async with AdminClient(sim.admin) as admin:
        await admin.write(V1, fill="injected")
    job = (await body(sim.api, "revertSnapshot", id=S1))["jobid"]
    await again(sim)
    end = await follow(sim.api, job)
    assert end["jobstatus"] == 2
    assert "jobresult" not in end
    assert (await body(sim.api, "listVolumes", id=V1))["volume"][0]["state"] == "RevertSnapshotting"
    async with AdminClient(sim.admin) as admin:
        wanted = await admin.snapshot_hash(S1)
        while await admin.volume_hash(V1) != wanted:  # the hypervisor works on
            pass


async def test_kill_9_while_bytes_are_copied_leaves_a_whole_snapshot(sim: Sim) -> None:
    await prepare(sim)
    answer = await body(sim.api, "createSnapshot", volumeid=V1)
    await again(sim)
    assert (await follow(sim.api, answer["jobid"]))["jobstatus"] == 1
    async with AdminClient(sim.admin) as admin:
        assert await admin.snapshot_hash(answer["id"]) == await admin.volume_hash(V1)
