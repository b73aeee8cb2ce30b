"""What a caller does with the Volume Daemon, each with ids of its own, so that it may ask for the same again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.simulator.model import catalog
from tests.integration.volume_daemon.conftest import FAST, KEY, OMA_ID, SECRET, SIZE, TEST_VM_ID, World
from tests.unit.volume_daemon.children import child, hung_injection, id_of
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import VolumeDaemonError
from volume_daemon.holders.report import ProcessId
from volume_daemon.models import Operation, OperationStatus

Play = Callable[["Scene", VolumeDaemonClient], Coroutine[Any, Any, None]]


@dataclass
class Scene:
    """One course of a flow: its volume, and the ids under which its caller asks, the same after every restart."""

    world: World
    volume_id: str
    ids: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """Further volumes that it does something to."""
    holder: ProcessId | None = None
    ended: dict[str, Operation] = field(default_factory=dict)
    """What came of each step, as the caller was told in the end."""

    def id_of(self, step: str) -> str:
        return self.ids.setdefault(step, str(uuid4()))

    async def through(
        self, client: VolumeDaemonClient, step: str, order: Callable[[str], Awaitable[Operation]]
    ) -> Operation:
        """Asks under the step's own id and follows it to the end, as the OMA does: a lost answer is asked for again."""
        operation = await order(self.id_of(step))
        while not operation.has_ended:
            found = await client.get_operation(operation.id, 20)
            assert found is not None, f"{step} was accepted and is not known any more"
            operation = found
        self.ended[step] = operation
        return operation


@dataclass(frozen=True)
class Flow:
    """`play` may be begun again from its start after every death; `expect` names each step's status in the end."""

    name: str
    play: Play
    expect: dict[str, str]
    prepare: Callable[[World, str], Awaitable[None]] | None = None
    dies_at: tuple[str, ...] = ()
    """Points, without the program's name; `#n`: the n-th time that it is reached."""
    settings: dict[str, Any] = field(default_factory=dict)
    at_home: bool = True
    """The volume hangs on the OMA with an export, else on no VM."""
    holds: bool = False
    """A driver injection holds the volume's device when it begins."""

    @asynccontextmanager
    async def staged(self, world: World) -> AsyncIterator[Scene]:
        volume_id = await world.add_volume(str(uuid4()), vm_id=OMA_ID if self.at_home else None)
        link = world.device_root / f"virtio-{volume_id.replace('-', '')[:20]}"
        async with contextlib.AsyncExitStack() as stack:
            scene = Scene(world, volume_id)
            if self.at_home:
                await _record_home(world, volume_id)
            if self.holds:
                process = child(hung_injection(world.path, ignores_term=True), link)
                scene.holder = id_of(await asyncio.to_thread(process.__enter__))
                stack.push_async_callback(asyncio.to_thread, process.__exit__, None, None, None)
            if self.prepare is not None:
                await self.prepare(world, volume_id)
            try:
                yield scene
            finally:
                await world.admin.clear_faults()
                await world.admin.put_settings(durations=FAST, custom_job_id=True)


async def _record_home(world: World, volume_id: str) -> None:
    """Its mapping and its export, as the daemon makes them."""
    link = world.device_root / f"virtio-{volume_id.replace('-', '')[:20]}"
    name = f"migration-vol-{volume_id}"
    config = world.nbd_dir / f"{name}.conf"
    world.execute(
        "INSERT INTO device_mappings (id, volume_uuid, volume_id, vm_id, operation_mode, device_path, cloudstack_state,"
        " linux_state, size) VALUES (:v, :v, :v, :vm, 'oma', :p, 'attached', 'detected', :s)",
        v=volume_id,
        vm=OMA_ID,
        p=str(link),
        s=SIZE,
    )
    world.execute(
        "INSERT INTO nbd_exports (volume_id, device_mapping_uuid, export_name, device_path, port, config_path, status)"
        " VALUES (:v, :v, :n, :p, 10809, :c, 'active')",
        v=volume_id,
        n=name,
        p=str(link),
        c=str(config),
    )
    config.write_text(f"[{name}]\nexportname = {link}\nreadonly = false\n")


async def _away_and_home(scene: Scene, client: VolumeDaemonClient) -> None:
    """The clean-up's own way, with the test VM between."""
    volume_id = scene.volume_id
    await scene.through(client, "off", lambda id_: client.detach(volume_id, request_id=id_, fence=3))
    await scene.through(
        client, "test VM", lambda id_: client.attach_root(volume_id, TEST_VM_ID, request_id=id_, fence=3)
    )
    await scene.through(client, "off again", lambda id_: client.detach(volume_id, request_id=id_, fence=3))
    await scene.through(client, "home", lambda id_: client.attach(volume_id, OMA_ID, request_id=id_, fence=3))


async def _off(scene: Scene, client: VolumeDaemonClient) -> None:
    await scene.through(client, "off", lambda id_: client.detach(scene.volume_id, request_id=id_, fence=3))


async def _home(scene: Scene, client: VolumeDaemonClient) -> None:
    await scene.through(client, "home", lambda id_: client.attach(scene.volume_id, OMA_ID, request_id=id_, fence=3))


async def _to_test_vm(scene: Scene, client: VolumeDaemonClient) -> None:
    volume_id = scene.volume_id
    await scene.through(client, "on", lambda id_: client.attach(volume_id, TEST_VM_ID, request_id=id_, fence=3))


async def _off_and_home(scene: Scene, client: VolumeDaemonClient) -> None:
    await _off(scene, client)
    await _home(scene, client)


async def _refuse_detach(world: World, volume_id: str) -> None:
    await world.admin.add_fault("detachVolume", "job_fail", errorcode=431, errortext="no", match={"id": volume_id})


async def _free_it(world: World, volume_id: str) -> None:
    """Somebody else detaches it: CloudStack and the device say so, the rows and the export stand."""
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud:
        await cloud.wait_job(await cloud.detach_volume(volume_id))


async def _lose_request(world: World, volume_id: str) -> None:
    await world.admin.add_fault("detachVolume", "lost_request", times=1, match={"id": volume_id})
    await world.admin.add_fault("attachVolume", "lost_request", times=1, match={"id": volume_id})


async def _give_jobs_other_ids(world: World, volume_id: str) -> None:
    del volume_id
    await world.admin.put_settings(custom_job_id=False)


async def _cancelled(scene: Scene, client: VolumeDaemonClient) -> None:
    """One call is out, the next waits for its turn and is taken back, one more never comes in."""
    other = scene.id_of("other volume")
    if other not in (await scene.world.admin.state())["volumes"]:
        await scene.world.add_volume(other)
        scene.others.append(other)
    await scene.world.admin.put_settings(durations=FAST | {"detachVolume": 0.4})
    first = await client.detach(scene.volume_id, request_id=scene.id_of("first"), fence=3)
    waiting = await client.attach(other, OMA_ID, request_id=scene.id_of("second"), fence=3)
    if waiting.status is OperationStatus.PENDING:
        with contextlib.suppress(VolumeDaemonError):
            await client.cancel(waiting.id)
    await client.revoke(scene.id_of("third"), "attach", other, fence=3)
    for step, operation in (("first", first), ("second", waiting)):
        await scene.through(client, step, lambda _, one=operation: _again(client, one))  # type: ignore[misc]


async def _again(client: VolumeDaemonClient, operation: Operation) -> Operation:
    found = await client.get_operation(operation.id)
    assert found is not None
    return found


async def _created_and_deleted(scene: Scene, client: VolumeDaemonClient) -> None:
    made = await scene.through(
        client,
        "made",
        lambda id_: client.create("new", SIZE, catalog.DISK_OFFERING_ID, catalog.ZONE_ID, request_id=id_),
    )
    volume_id = str((made.response or {}).get("volume_id"))
    await scene.through(client, "gone", lambda id_: client.delete(volume_id, request_id=id_))


async def _ended_holder(scene: Scene, client: VolumeDaemonClient) -> None:
    """The hung injection is ended by who saw it, then the volume can go."""
    assert scene.holder is not None
    report = await client.end_holders(
        scene.volume_id, [scene.holder], "it hangs", request_id=scene.id_of("end"), fence=3
    )
    assert report.remaining.holders == (), report.remaining
    await _off(scene, client)


async def _senseless(world: World, volume_id: str) -> None:
    """A row that no daemon of ours wrote, older than everything that follows."""
    operation_id = str(uuid4())
    world.execute(
        "INSERT INTO volume_operations (id, type, status, volume_id, request) VALUES (:o, 'cleanup', 'pending', :v, '{}')",
        o=operation_id,
        v=volume_id,
    )
    world.execute(
        "INSERT INTO volume_daemon_operations (operation_id, volume_id, stage, content_hash, accepted_at)"
        " VALUES (:o, :v, 'accepted', '', '2026-01-01 00:00:00')",
        o=operation_id,
        v=volume_id,
    )


async def _senseless_and_sent(world: World, volume_id: str) -> None:
    """The same of a call that may be on its way: its id is spent before anything is done to the volume."""
    await _senseless(world, volume_id)
    world.execute("UPDATE volume_operations SET status = 'executing'")
    world.execute("UPDATE volume_daemon_operations SET stage = 'sent', request_id = operation_id, expires_at = NULL")


DONE, REFUSED = "completed", "failed"
RELOADING = {"nbd_reload_command": ["/bin/true"]}


def around(*names: str) -> tuple[str, ...]:
    """Before and after each; a number goes with both."""
    return tuple(
        f"{name}.{when}{mark}{time}"
        for name, mark, time in (one.partition("#") for one in names)
        for when in ("before", "after")
    )


FLOWS = {
    flow.name: flow
    for flow in (
        Flow(
            "off",
            _off,
            {"off": DONE},
            dies_at=(
                *around("journal.accept", "journal.sent", "nbd.remove", "nbd.reload", "cloud.detach", "journal.finish"),
                *("nbd.probe.within", "call.ended", "device.gone", "journal.finish.within"),
            ),
            settings=RELOADING,
        ),
        Flow(
            "home",
            _home,
            {"home": DONE},
            dies_at=(
                *around("journal.sent", "cloud.attach", "nbd.write", "nbd.reload", "journal.finish"),
                *("call.ended", "device.seen", "nbd.write.within", "journal.finish.within"),
            ),
            settings=RELOADING,
            at_home=False,
        ),
        Flow(
            "to-test-vm",
            _to_test_vm,
            {"on": DONE},
            dies_at=("cloud.attach.after", "call.ended", "journal.finish.within"),
            at_home=False,
        ),
        Flow(
            "away-and-home",
            _away_and_home,
            {"off": DONE, "test VM": DONE, "off again": DONE, "home": DONE},
            dies_at=("journal.finish.after#2", "cloud.detach.after#2", "journal.accept.after#4", "nbd.write.within"),
            settings=RELOADING,
        ),
        Flow(
            "refused",
            _off,
            {"off": REFUSED},
            _refuse_detach,
            dies_at=("call.ended", *around("nbd.write", "journal.finish"), "nbd.write.within", "journal.finish.within"),
        ),
        Flow(
            "already-off",
            _off,
            {"off": DONE},
            _free_it,
            dies_at=(*around("journal.note", "nbd.remove", "journal.finish"), "device.gone"),
        ),
        Flow(
            "lost-on-the-way",
            _off_and_home,
            {"off": DONE, "home": DONE},
            _lose_request,
            dies_at=(
                *around("cloud.probe", "journal.sent#2", "nbd.remove#2"),
                *("cloud.detach.before#2", "cloud.detach.after", "cloud.attach.before#2", "cloud.attach.after"),
            ),
        ),
        Flow(
            "ids-of-its-own",
            _off_and_home,
            {"off": DONE, "home": DONE},
            _give_jobs_other_ids,
            dies_at=("cloud.detach.after", *around("journal.note", "journal.note#2"), "call.ended"),
        ),
        Flow(
            "taken-back",
            _cancelled,
            {"first": DONE},
            dies_at=around("journal.cancelled", "journal.revoke"),
            settings={"outstanding_per_vm": 1},
        ),
        Flow(
            "created-and-deleted",
            _created_and_deleted,
            {"made": DONE, "gone": DONE},
            dies_at=around("cloud.create", "journal.note", "journal.finish", "cloud.delete", "journal.finish#2"),
        ),
        Flow(
            "holder",
            _ended_holder,
            {"off": DONE},
            dies_at=around("holders.intent", "holders.term", "holders.kill", "holders.outcome"),
            settings={"holder_term_s": 0.05},
            holds=True,
        ),
        Flow(
            "senseless-row",
            _off,
            {"off": DONE},
            _senseless,
            dies_at=around("journal.unreadable"),
        ),
        Flow(
            "senseless-and-sent",
            _off,
            {"off": DONE},
            _senseless_and_sent,
            dies_at=around("journal.unreadable", "cloud.spend", "journal.condemned"),
        ),
    )
}
