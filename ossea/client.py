"""The typed client of one CloudStack endpoint: lists, submissions, jobs.

Built on `cs.AIOCloudStack` (signing, envelopes); see `transport`. Every method raises `CloudStackError`, and
`ValueError` for an argument that no CloudStack would take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from ossea import calls
from ossea.calls import Call
from ossea.credentials import Endpoint
from ossea.jobs import JobPoller
from ossea.models import (
    DiskOffering,
    Event,
    Host,
    JobResult,
    Snapshot,
    Tag,
    VirtualMachine,
    VmSnapshot,
    Volume,
    Zone,
)
from ossea.reading import Reader
from ossea.submitting import Spent, Submitter, new_uuid
from ossea.throttle import ThrottlePolicy
from ossea.transport import Observer, Transport


class CloudStack:
    """One endpoint, one shared session, one poller for all waited jobs. Use it as an async context manager.

    `timeout_s` bounds one request, `expires_s` how long the server may accept one, `poll_min_s` and `poll_max_s` the
    time between two looks at a pending job. An `expires_at` is in the server's time. `observer` is told command, result
    (`ok` or an `ErrorKind`) and seconds of every request.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float = 10,
        expires_s: float = 60,
        poll_min_s: float = 0.05,
        poll_max_s: float = 2.0,
        throttled_s: float = 30.0,
        observer: Observer | None = None,
    ) -> None:
        throttle = ThrottlePolicy(total_s=throttled_s)
        self._transport = Transport(
            endpoint, timeout_s=timeout_s, expires_s=expires_s, observer=observer, throttle=throttle
        )
        self._reader = Reader(self._transport)
        self._jobs = JobPoller(self._reader, poll_min_s=poll_min_s, poll_max_s=poll_max_s)
        self._submitter = Submitter(self._transport, self._reader, self._jobs)

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stops following jobs (their waiters get `NO_ANSWER`) and closes the session; twice is fine."""
        await self._jobs.aclose()
        await self._transport.aclose()

    @property
    def endpoint(self) -> Endpoint:
        return self._transport.endpoint

    async def use(self, endpoint: Endpoint) -> None:
        """From the next call on another address or account; calls under way end where they began.

        Jobs that are waited for are asked for there from now on: it has to be the same CloudStack.
        """
        await self._transport.use(endpoint)
        self._submitter.forget_probe()

    @property
    def server_offset(self) -> timedelta | None:
        """The server's clock minus ours, from its `Date` header; None until it answered."""
        return self._transport.clock.offset

    @property
    def last_poll_error(self) -> str | None:
        """Why pending jobs cannot be looked at right now; None while polling works."""
        return self._jobs.last_error

    async def list_volumes(self, *, ids: Sequence[str] | None = None, vm_id: str | None = None) -> list[Volume]:
        """All volumes, those of the ids that CloudStack knows, or all on one VM."""
        return await self._reader.list_volumes(ids, vm_id)

    async def list_snapshots(
        self, *, ids: Sequence[str] | None = None, volume_id: str | None = None, name: str | None = None
    ) -> list[Snapshot]:
        """`name` is matched as a part, whatever its case (CloudStack's LIKE)."""
        return await self._reader.list_snapshots(ids, volume_id, name)

    async def list_vms(self, *, ids: Sequence[str] | None = None, name: str | None = None) -> list[VirtualMachine]:
        """`name` is matched as a part, whatever its case (CloudStack's LIKE)."""
        return await self._reader.list_vms(ids, name)

    async def list_events(self, *, resource_id: str, resource_type: str = "VirtualMachine") -> list[Event]:
        """Lines of the event log. A server that does not know the parameter lists everybody's: see `resource_id`."""
        return await self._reader.list_events(resource_id, resource_type)

    async def list_vm_snapshots(self, *, vm_ids: Sequence[str]) -> list[VmSnapshot]:
        """VM snapshots of those VMs; a VM that CloudStack does not know has none."""
        return await self._reader.list_vm_snapshots(vm_ids)

    async def list_tags(
        self, *, resource_type: str | None = None, resource_id: str | None = None, key: str | None = None
    ) -> list[Tag]:
        return await self._reader.list_tags(resource_type, resource_id, key)

    async def list_hosts(self, *, host_id: str) -> list[Host]:
        """The host with this id; only roles that may see hosts are let in."""
        return await self._reader.list_hosts(host_id)

    async def list_zones(self) -> list[Zone]:
        return await self._reader.list_zones()

    async def list_disk_offerings(self) -> list[DiskOffering]:
        return await self._reader.list_disk_offerings()

    async def list_capabilities(self) -> Mapping[str, object]:
        """What the server says of itself, such as `cloudstackversion`."""
        return await self._reader.list_capabilities()

    async def attach_volume(
        self,
        volume_id: str,
        vm_id: str,
        *,
        device_id: int | None = None,
        job_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> str:
        """Returns the job's id. `device_id` 0 makes it the VM's root volume."""
        return await self._submit(calls.attach_volume(volume_id, vm_id, device_id), job_id, expires_at)

    async def detach_volume(
        self, volume_id: str, *, job_id: str | None = None, expires_at: datetime | None = None
    ) -> str:
        return await self._submit(calls.detach_volume(volume_id), job_id, expires_at)

    async def create_volume(
        self,
        name: str,
        *,
        disk_offering_id: str,
        zone_id: str,
        size_gib: int | None = None,
        job_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[str, str]:
        """Returns the ids of the job and of the volume, which exists as `Allocated` even where the job fails."""
        call = calls.create_volume(name, disk_offering_id, zone_id, size_gib)
        return await self._submitter.submit_create(call, job_id, expires_at)

    async def delete_volume(self, volume_id: str, *, expires_at: datetime | None = None) -> None:
        """Synchronous in CloudStack: the volume is deleted when this returns."""
        await self._submitter.run(calls.delete_volume(volume_id), expires_at)

    async def create_snapshot(
        self,
        volume_id: str,
        *,
        name: str | None = None,
        job_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[str, str]:
        """Returns the ids of the job and of the snapshot."""
        return await self._submitter.submit_create(calls.create_snapshot(volume_id, name), job_id, expires_at)

    async def revert_snapshot(
        self, snapshot_id: str, *, job_id: str | None = None, expires_at: datetime | None = None
    ) -> str:
        """Overwrites the snapshot's own volume, whichever that is; CloudStack does not check the snapshot's state."""
        return await self._submit(calls.revert_snapshot(snapshot_id), job_id, expires_at)

    async def delete_snapshot(
        self, snapshot_id: str, *, job_id: str | None = None, expires_at: datetime | None = None
    ) -> str:
        return await self._submit(calls.delete_snapshot(snapshot_id), job_id, expires_at)

    async def stop_vm(
        self, vm_id: str, *, forced: bool = False, job_id: str | None = None, expires_at: datetime | None = None
    ) -> str:
        return await self._submit(calls.stop_vm(vm_id, forced=forced), job_id, expires_at)

    async def start_vm(self, vm_id: str, *, job_id: str | None = None, expires_at: datetime | None = None) -> str:
        return await self._submit(calls.start_vm(vm_id), job_id, expires_at)

    async def destroy_vm(self, vm_id: str, *, job_id: str | None = None, expires_at: datetime | None = None) -> str:
        """Never expunges; its ROOT volume goes with the VM when CloudStack expunges it later."""
        return await self._submit(calls.destroy_vm(vm_id), job_id, expires_at)

    async def recover_vm(self, vm_id: str, *, expires_at: datetime | None = None) -> None:
        """Brings a destroyed VM back before it is expunged; synchronous in CloudStack."""
        await self._submitter.run(calls.recover_vm(vm_id), expires_at)

    async def create_tags(
        self,
        resource_ids: Sequence[str],
        resource_type: str,
        tags: Mapping[str, str],
        *,
        job_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> str:
        """Tags all of the resources in one transaction; an existing key fails the job (530), for all of them."""
        return await self._submit(calls.create_tags(resource_ids, resource_type, tags), job_id, expires_at)

    async def delete_tags(
        self,
        resource_ids: Sequence[str],
        resource_type: str,
        tags: Mapping[str, str | None],
        *,
        job_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> str:
        """A value of None deletes the key whatever its value; nothing to delete fails the job (530)."""
        return await self._submit(calls.delete_tags(resource_ids, resource_type, tags), job_id, expires_at)

    async def find_server_time(self) -> datetime:
        """The server's clock by its `Date` header, which is asked for where it is not known well enough.

        Raises `CloudStackError` (`NOT_SENT`) where it can't be told.
        """
        return await self._transport.find_server_time()

    async def spend_job_id(
        self, job_id: str, tagging: tuple[str, str, str] | None, *, expires_at: datetime | None = None
    ) -> Spent:
        """Gives a job id up, so that a call that may still be on its way under it never runs.

        `tagging`: VM, key and value of a tag that may stand there already; None for an id that was meant for a
        `createTags`, which is spent on the deletion of a tag of nothing.
        """
        if tagging is None:
            call = calls.delete_tags([new_uuid()], "UserVm", {"oma-probe": None})
        else:
            vm_id, key, value = tagging
            call = calls.create_tags([vm_id], "UserVm", {key: value})
        return await self._submitter.spend(call, job_id, expires_at)

    async def query_job(self, job_id: str) -> JobResult:
        return await self._reader.query_job(job_id)

    async def wait_job(self, job_id: str, deadline_s: float | None = None) -> JobResult:
        """Follows the job until it has ended; after `deadline_s` seconds returns it as `PENDING`.

        Survives bad polls of any kind. Cancel to stop following; the job itself cannot be cancelled.
        """
        return await self._jobs.wait(job_id, deadline_s)

    async def honours_custom_job_id(self) -> bool:
        """Whether the endpoint takes job ids of ours; asked once, with a job that does nothing."""
        return await self._submitter.honours_custom_job_id()

    async def _submit(self, call: Call, job_id: str | None, expires_at: datetime | None) -> str:
        return await self._submitter.submit(call, job_id, expires_at)
