"""CloudStack behind the `Cloud` port, over the simulator's state machine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from oma.adapters.cloudstack import COMMANDS, TAG_COMMANDS, build_spent
from oma.domain.actions import ActionKind, Upstream
from oma.domain.world import EPOCH_KEY, MARK_KEY, CloudSnapshot, CloudVm, CloudVolume, Mark, Marked, VmEvent, VmHost
from oma.ports import Burn, Fault, RemoteOutcome, RemoteStatus, UpstreamError
from ossea.simulator.model import ApiError
from ossea.simulator.model.entities import Job, JobStatus
from ossea.simulator.model.world import Table
from tests.fakes.faults import Weather
from tests.fakes.world import FakeWorld

SYSTEM = "CloudStack"
REFUSED = 431


class FakeCloud:
    """Honours `request_id` as `customjobid`. `weather` says what gets lost."""

    def __init__(self, world: FakeWorld) -> None:
        self.world = world
        self.weather = Weather(SYSTEM)
        self.may_see_hosts = True
        self.honours_ids = True
        """Whether it takes `customjobid`; old servers ignore it and give jobs ids of their own."""
        self.may_burn = True
        """Whether our role may spend an id, by `createTags`."""
        self.event_resource = True
        """Whether its event log says of which volume a line is."""
        self.host_states: dict[str, str] = {}
        """Host id → a state other than the model's."""
        self.server_ahead = timedelta()

    async def list_volumes(self, volume_ids: Sequence[str]) -> Sequence[CloudVolume]:
        await self.weather.pass_by("list_volumes")
        return [_volume(row) for row in self._list_known("listVolumes", "volume", volume_ids)]

    async def list_volumes_of_vm(self, vm_id: str) -> Sequence[CloudVolume]:
        await self.weather.pass_by("list_volumes_of_vm")
        return [_volume(row) for row in self._list("listVolumes", "volume", virtualmachineid=vm_id)]

    async def list_snapshots(self, snapshot_ids: Sequence[str]) -> Sequence[CloudSnapshot]:
        await self.weather.pass_by("list_snapshots")
        return [_snapshot(row) for row in self._list_known("listSnapshots", "snapshot", snapshot_ids)]

    async def list_vms(self, vm_ids: Sequence[str]) -> Sequence[CloudVm]:
        await self.weather.pass_by("list_vms")
        return [_vm(row) for row in self._list_known("listVirtualMachines", "virtualmachine", vm_ids)]

    async def list_vm_snapshot_holders(self, vm_ids: Sequence[str]) -> Sequence[str]:
        await self.weather.pass_by("list_vm_snapshot_holders")
        rows = self.world.model.world
        return [vm_id for vm_id in dict.fromkeys(vm_ids) if rows.vm_snapshots_of(vm_id)]

    async def list_vms_named(self, part: str) -> Sequence[CloudVm]:
        await self.weather.pass_by("list_vms_named")
        return [_vm(row) for row in self._list("listVirtualMachines", "virtualmachine", name=part)]

    async def list_snapshots_named(self, part: str) -> Sequence[CloudSnapshot]:
        await self.weather.pass_by("list_snapshots_named")
        return [_snapshot(row) for row in self._list("listSnapshots", "snapshot", name=part)]

    async def list_vm_events(self, vm_id: str) -> Sequence[VmEvent]:
        await self.weather.pass_by("list_vm_events")
        rows = reversed(self._list("listEvents", "event", resourceid=vm_id, resourcetype="VirtualMachine"))
        return [VmEvent(row["type"], _moment(row["created"]), row["description"], row["state"]) for row in rows]

    async def list_volume_events(self, volume_id: str) -> Sequence[VmEvent]:
        await self.weather.pass_by("list_volume_events")
        if not self.event_resource:
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "unsupported", "the event log names no resource"))
        rows = reversed(self._list("listEvents", "event", resourceid=volume_id, resourcetype="Volume"))
        return [VmEvent(row["type"], _moment(row["created"]), row["description"], row["state"]) for row in rows]

    async def list_marks(self) -> Sequence[Mark]:
        await self.weather.pass_by("list_marks")
        return _marks(self._list("listTags", "tag"))

    async def list_marks_of(self, what: Marked, ids: Sequence[str]) -> Sequence[Mark]:
        await self.weather.pass_by("list_marks_of")
        rows = [row for one in ids for row in self._list("listTags", "tag", resourcetype=what.value, resourceid=one)]
        return _marks(rows)

    async def submit_set_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        return await self._submit("createTags", request_id, expires_at, **_marking(what, ids, value))

    async def submit_clear_marks(
        self, what: Marked, ids: Sequence[str], value: str, *, request_id: str, expires_at: datetime | None
    ) -> str:
        return await self._submit("deleteTags", request_id, expires_at, **_marking(what, ids, value))

    async def find_epoch(self, vm_id: str) -> str | None:
        await self.weather.pass_by("find_epoch")
        rows = self._list("listTags", "tag", resourcetype="UserVm", resourceid=vm_id)
        return next((str(row["value"]) for row in rows if row["key"] == EPOCH_KEY), None)

    async def put_epoch(self, vm_id: str, text: str, former: str | None) -> None:
        await self.weather.pass_by("put_epoch")
        words = {"resourceids": vm_id, "resourcetype": "UserVm", "tags[0].key": EPOCH_KEY}
        if former == text:
            return
        if former is not None:
            gone = self.world.ask("deleteTags", **words, **{"tags[0].value": former})
            await self.world.wait_until_ended(str(gone["jobid"]))
        made = str(self.world.ask("createTags", **words, **{"tags[0].value": text})["jobid"])
        outcome = outcome_of(await self.world.wait_until_ended(made))
        if outcome.status is not RemoteStatus.SUCCEEDED:
            raise UpstreamError(Fault.FAILED, outcome.upstream or Upstream(SYSTEM, "unknown", "no tag"))

    async def find_host(self, vm_id: str) -> VmHost | None:
        await self.weather.pass_by("find_host")
        rows = self._list_known("listVirtualMachines", "virtualmachine", [vm_id])
        host_id = rows[0].get("hostid") if rows and self.may_see_hosts else None
        return VmHost(host_id, rows[0].get("hostname", "")) if host_id else None

    async def find_host_state(self, host_id: str) -> str | None:
        await self.weather.pass_by("find_host_state")
        if not self.may_see_hosts:
            return None
        try:
            rows = self._list("listHosts", "host", id=host_id)
        except UpstreamError:
            return "Removed"
        return self.host_states.get(host_id, str(rows[0]["state"]))

    async def submit_stop_vm(self, vm_id: str, *, forced: bool, request_id: str, expires_at: datetime | None) -> str:
        words = {"id": vm_id, **({"forced": "true"} if forced else {})}
        return await self._submit("stopVirtualMachine", request_id, expires_at, **words)

    async def submit_destroy_vm(self, vm_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        return await self._submit("destroyVirtualMachine", request_id, expires_at, id=vm_id)

    async def submit_revert(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        return await self._submit("revertSnapshot", request_id, expires_at, id=snapshot_id)

    async def submit_delete_snapshot(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        return await self._submit("deleteSnapshot", request_id, expires_at, id=snapshot_id)

    async def burn(self, request_id: str, kind: ActionKind, oma_vm_id: str, installation: str) -> Burn:
        await self.weather.pass_by("burn")
        if not (self.honours_ids and self.may_burn):
            return Burn.UNPROVEN
        command = "deleteTags" if kind is ActionKind.SET_MARKER else "createTags"
        job = self.world.model.world.jobs.find(request_id)
        if job is None:
            words: dict[str, Any] = {"tags[0].key": EPOCH_KEY, "tags[0].value": f"{installation}:0"}
            self.world.order(command, request_id, resourceids=oma_vm_id, resourcetype="UserVm", **words)
        self.weather.answer("burn")
        return Burn.SPENT if job is None or job.command == command else Burn.ARRIVED

    async def find_server_time(self) -> datetime:
        await self.weather.pass_by("find_server_time")
        return self.world.clock.now() + self.server_ahead

    async def wait_job(self, job_id: str, kind: ActionKind | None = None) -> RemoteOutcome:
        await self.weather.pass_by("wait_job")
        if self.world.model.world.jobs.find(job_id) is None:
            return RemoteOutcome(RemoteStatus.ABSENT, Upstream(SYSTEM, "431", f"no job {job_id}"))
        return _unless_spent(await self.world.wait_until_ended(job_id), kind)

    async def query_job(self, job_id: str, kind: ActionKind | None = None) -> RemoteOutcome:
        await self.weather.pass_by("query_job")
        job = self.world.model.world.jobs.find(job_id)
        if job is None:
            status = RemoteStatus.ABSENT if self.honours_ids else RemoteStatus.UNTRACEABLE
            return RemoteOutcome(status, Upstream(SYSTEM, "431", f"no job {job_id}"))
        return _unless_spent(job, kind)

    async def check(self) -> str:
        await self.weather.pass_by("check")
        return "CloudStack answers."

    async def _submit(self, command: str, request_id: str, expires_at: datetime | None, **params: str) -> str:
        await self.weather.pass_by(command)
        if expires_at is not None and expires_at < self.world.clock.now():
            raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, "401", "unable to verify user credentials"))
        try:
            job_id = self.world.order(command, request_id, own_id=self.honours_ids, **params)
        except ApiError as error:
            job = self.world.model.world.jobs.find(request_id)
            if job is None:
                raise _upstream(error) from error
            if job.command != command:
                text = f"the job id {request_id} was spent on {job.command}; nothing was queued"
                raise UpstreamError(Fault.REFUSED, Upstream(SYSTEM, str(error.errorcode), text)) from error
            job_id = request_id
        self.weather.answer(command)
        return job_id

    def _list_known(self, command: str, key: str, wanted: Sequence[str]) -> list[dict[str, Any]]:
        """CloudStack refuses a list by ids of which it never knew one; whoever asks gets the others all the same."""
        rows = self.world.model.world
        tables: dict[str, Table[Any]] = {"volume": rows.volumes, "snapshot": rows.snapshots, "virtualmachine": rows.vms}
        known = [one for one in dict.fromkeys(wanted) if tables[key].find(one) is not None]
        return self._list(command, key, ids=",".join(known)) if known else []

    def _list(self, command: str, key: str, **params: str) -> list[dict[str, Any]]:
        self.world.advance()
        try:
            answer = self.world.ask(command, listall="true", **params)
        except ApiError as error:
            raise _upstream(error) from error
        rows: list[dict[str, Any]] = answer.get(key, [])
        return rows


def _unless_spent(job: Job, kind: ActionKind | None) -> RemoteOutcome:
    if kind is not None and job.command in TAG_COMMANDS and job.command != COMMANDS[kind]:
        return RemoteOutcome(RemoteStatus.REFUSED, build_spent(job.id, job.command))
    return outcome_of(job)


def outcome_of(job: Job) -> RemoteOutcome:
    if job.status == JobStatus.PENDING:
        return RemoteOutcome(RemoteStatus.PENDING)
    if job.status == JobStatus.SUCCEEDED:
        return RemoteOutcome(RemoteStatus.SUCCEEDED, detail=job.result)
    result = job.result or {}
    code = result.get("errorcode")
    status = RemoteStatus.REFUSED if code == REFUSED else RemoteStatus.FAILED
    return RemoteOutcome(status, Upstream(SYSTEM, str(code or "unknown"), str(result.get("errortext") or "")), result)


def _marks(rows: Sequence[dict[str, Any]]) -> list[Mark]:
    ours = {one.value for one in Marked}
    found = (row for row in rows if row["key"] == MARK_KEY and row["resourcetype"] in ours)
    return [Mark(row["resourceid"], row["value"], Marked(row["resourcetype"])) for row in found]


def _marking(what: Marked, ids: Sequence[str], value: str) -> dict[str, str]:
    return {
        "resourceids": ",".join(ids),
        "resourcetype": what.value,
        "tags[0].key": MARK_KEY,
        "tags[0].value": value,
    }


def _upstream(error: ApiError) -> UpstreamError:
    fault = Fault.REFUSED if error.errorcode == REFUSED else Fault.FAILED
    return UpstreamError(fault, Upstream(SYSTEM, str(error.errorcode), error.text))


def _volume(row: dict[str, Any]) -> CloudVolume:
    return CloudVolume(
        id=row["id"],
        name=row["name"],
        state=row["state"],
        size_bytes=row["size"],
        type=row["type"],
        vm_id=row.get("virtualmachineid"),
        vm_name=row.get("vmname"),
        vm_state=row.get("vmstate"),
        device_id=row.get("deviceid"),
        pending_job_id=row.get("jobid"),
        attached_at=_moment(row["attached"]) if row.get("attached") else None,
    )


def _snapshot(row: dict[str, Any]) -> CloudSnapshot:
    return CloudSnapshot(
        id=row["id"],
        volume_id=row["volumeid"],
        name=row["name"],
        state=row["state"],
        created=_moment(row["created"]),
        size_bytes=row["virtualsize"],
        revertable=row["revertable"],
        pending_job_id=row.get("jobid"),
    )


def _vm(row: dict[str, Any]) -> CloudVm:
    return CloudVm(
        id=row["id"],
        name=row["name"],
        state=row["state"],
        display_name=row["displayname"],
        created=_moment(row["created"]),
        pending_job_id=row.get("jobid"),
    )


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
