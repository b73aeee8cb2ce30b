"""The doors to the outside, in domain words; adapters and the store implement them.

Workflow and service know only these. A method of `Cloud` or `Volumes` raises `UpstreamError` when the other side
refused, broke or did not answer; it never returns a guess. Store protocols raise `OmaError` with
`database_unavailable` when the database is away.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from oma.domain.actions import Action, Upstream
from oma.domain.audit import AuditDraft, AuditEntry
from oma.domain.changes import Change, JobQueued, JobResumed
from oma.domain.events import Event
from oma.domain.holders import DeviceHolders, ProcessId
from oma.domain.issues import Issue
from oma.domain.jobs import ClaimedJob, Job, Lease, LogLine, Step
from oma.domain.leaks import Leak
from oma.domain.records import VmContext, VmRecords
from oma.domain.world import CloudSnapshot, CloudVm, CloudVolume, DeviceScan, Mapping, Mark, VmEvent, VmHost

T_co = TypeVar("T_co", covariant=True)


class Fault(StrEnum):
    """How a call to another system went wrong; the retry class of the whole product rests on it."""

    REFUSED = "refused"
    """A definite no: nothing changed (CloudStack 431)."""
    FAILED = "failed"
    """An error answer that does not say whether anything changed."""
    NO_ANSWER = "no_answer"
    """Unreachable or too late; the call may have arrived."""
    NOT_SENT = "not_sent"
    """It certainly did not arrive."""
    BROKEN_ANSWER = "broken_answer"
    """Something answered, but not in the protocol."""


class UpstreamError(Exception):
    """Another system refused, broke or stayed silent; `upstream` holds its own code and words."""

    def __init__(self, fault: Fault, upstream: Upstream) -> None:
        super().__init__(f"{upstream.system}: {upstream.text}")
        self.fault = fault
        self.upstream = upstream


class RemoteStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """Failed, and the other side says that nothing was changed."""
    FAILED = "failed"
    """Failed; what was changed is unknown."""
    ABSENT = "absent"
    """The other side does not know this id: the call never arrived (while its memory reaches that far)."""


@dataclass(frozen=True, slots=True)
class RemoteOutcome:
    """Where an asynchronous call stands on the other side."""

    status: RemoteStatus
    upstream: Upstream | None = None
    detail: MappingType[str, Any] | None = None
    overdue: bool = False


class Cloud(Protocol):
    """CloudStack."""

    async def list_volumes(self, volume_ids: Sequence[str]) -> Sequence[CloudVolume]:
        """Those of the volumes that CloudStack lists; an absent one is missing."""

    async def list_volumes_of_vm(self, vm_id: str) -> Sequence[CloudVolume]:
        """All volumes on the VM, all pages."""

    async def list_snapshots(self, snapshot_ids: Sequence[str]) -> Sequence[CloudSnapshot]: ...

    async def list_vms(self, vm_ids: Sequence[str]) -> Sequence[CloudVm]: ...

    async def list_vm_snapshot_holders(self, vm_ids: Sequence[str]) -> Sequence[str]:
        """Ids of those VMs that carry a VM snapshot."""

    async def list_vms_named(self, part: str) -> Sequence[CloudVm]:
        """VMs whose name holds this part, whatever its case; the caller compares exactly."""

    async def list_snapshots_named(self, part: str) -> Sequence[CloudSnapshot]:
        """Snapshots of any volume whose name holds this part; the caller compares exactly."""

    async def list_vm_events(self, vm_id: str) -> Sequence[VmEvent]:
        """The event log's lines about exactly this VM, oldest first; raises where the server can't single them out."""

    async def list_marks(self) -> Sequence[Mark]:
        """The `oma-cleanup` tags on all volumes that we may see."""

    async def find_host(self, vm_id: str) -> VmHost | None:
        """The host that the VM runs on; None where CloudStack does not tell us (not running, or not allowed)."""

    async def find_host_state(self, host_id: str) -> str | None:
        """`Up`, `Down`, `Disconnected` …, `Removed` where it has no such host; None only where we may not ask."""

    async def submit_stop_vm(
        self, vm_id: str, *, forced: bool, request_id: str, expires_at: datetime | None
    ) -> str: ...

    async def submit_destroy_vm(self, vm_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        """Never expunges."""

    async def submit_revert(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str: ...

    async def submit_delete_snapshot(self, snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        """Returns the job's id, which is `request_id` where the endpoint honours it."""

    async def wait_job(self, job_id: str) -> RemoteOutcome:
        """Follows the job until it has ended, however long; cancel to stop following."""

    async def query_job(self, job_id: str) -> RemoteOutcome: ...

    async def check(self) -> str:
        """One sentence about the connection; raises `UpstreamError`."""


class Volumes(Protocol):
    """The Volume Daemon."""

    async def find_mapping(self, volume_id: str) -> Mapping | None:
        """None only where it says "detached"; not knowing raises."""

    async def scan_devices(self) -> DeviceScan:
        """A scan that begins now."""

    async def list_holders(self, volume_id: str) -> DeviceHolders | None:
        """From a scan that begins now; None: the OMA shows no device. A daemon without such a scan raises."""

    async def end_holders(
        self, volume_id: str, holders: Sequence[ProcessId], reason: str, *, request_id: str, fence: int
    ) -> DeviceHolders:
        """Ends driver injections with their process trees, as they were seen, and says who holds the device then.

        A process is named by itself or by the root of its tree. One that may not be ended refuses all; one that is
        still there after KILL is told as `FAILED`. The same `request_id` may be sent again.
        """

    async def submit_attach(self, volume_id: str, vm_id: str, *, request_id: str, fence: int) -> str: ...

    async def submit_detach(self, volume_id: str, *, request_id: str, fence: int) -> str: ...

    async def wait_operation(self, operation_id: str, wait_s: float) -> RemoteOutcome:
        """A long poll: returns when the operation has ended, is overdue, or after `wait_s`."""

    async def check(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ContextFilter:
    """What `GET /vm-contexts` filters by; `needs_cleanup` is judged by the service."""

    status: str | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    vm: str | None = None
    context_id: str | None = None
    status: str | None = None
    operation: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """Some rows in order, and where the next ones begin."""

    items: tuple[T_co, ...]
    next_cursor: str | None


class Inventory(Protocol):
    """The existing records."""

    async def list_contexts_named(self, vm_name: str) -> tuple[Sequence[VmContext], Sequence[str]]:
        """Contexts whose name equals it code point by code point, and near matches' names (case, blanks)."""

    async def find_context(self, context_id: str) -> VmContext | None: ...

    async def get_records(self, context_id: str) -> VmRecords:
        """Everything about one VM, in one transaction; raises `OmaError` with `vm_not_found`."""

    async def list_records_of(self, context_ids: Sequence[str]) -> Sequence[VmRecords]:
        """The same for several VMs, in one transaction; those that exist."""

    async def list_known_volume_ids(self, volume_ids: Sequence[str]) -> Sequence[str]:
        """Those of the ids that any row of `ossea_volumes`, `device_mappings` or `vm_disks` knows, of any VM."""

    async def list_records(self, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmRecords]:
        """The same for a page of VMs, by name, without a query per VM. A bad cursor is `invalid_request`."""


class JournalStore(Protocol):
    """What the journal and the worker write."""

    async def queue_job(self, queued: JobQueued) -> Job:
        """Inserts the job; raises `OmaError` `cleanup_in_progress` (job, holder), `needs_resolution`,
        or `ConcurrentChange` when `current_status` is no longer the plan's.
        """

    async def resume_job(self, resumed: JobResumed) -> Job:
        """Puts a parked job back into the queue; one that this very request resumed before is returned as it is.

        Raises `OmaError` `job_not_found`, `needs_resolution` (open issues that are not passed), `cleanup_in_progress`
        (it is queued or running), `invalid_request` (it has ended).
        """

    async def append_audit(self, drafts: Sequence[AuditDraft]) -> None:
        """Entries about what changed nothing else (a refusal, a dry run), in a transaction of their own.

        What a run does is audited by `queue_job`, `resume_job` and `apply` themselves, in their transactions.
        """

    async def claim_job(self, owner: str, lease_s: float) -> ClaimedJob | None:
        """The oldest queued job, or a running one whose lease ran out; its fence is raised."""

    async def renew_leases(self, owner: str, lease_s: float) -> Sequence[str]:
        """Prolongs every lease of this owner; returns the job ids still held."""

    async def apply(self, lease: Lease, changes: Sequence[Change], at: datetime) -> Sequence[Event]:
        """All changes and their events in one transaction, in order; raises `LeaseLost` or `ConcurrentChange`."""

    async def open_world_issues(self, found: Sequence[Issue], at: datetime) -> Sequence[str]:
        """Opens issues about the world alone (`WORLD_KINDS`), one per cause; returns the ids of the open ones."""

    async def close_world_issues(
        self, context_id: str, kept: Sequence[str], sentence: str, evidence: MappingType[str, Any], at: datetime
    ) -> Sequence[str]:
        """Resolves those of this VM whose cause is not among `kept`, with what was observed; returns their ids."""


class JobReader(Protocol):
    """What queries read."""

    async def find_job(self, job_id: str) -> Job | None: ...

    async def find_job_by_key(self, idempotency_key: str) -> tuple[Job, str | None] | None:
        """The job that was queued under this key, letter by letter, with the hash of its request."""

    async def find_job_resumed_by(self, context_id: str, idempotency_key: str) -> Job | None:
        """The VM's newest run, where the call with this key resumed it last."""

    async def list_jobs(self, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
        """Newest first."""

    async def list_steps(self, job_id: str) -> Sequence[Step]: ...

    async def list_actions(self, job_id: str) -> Sequence[Action]: ...

    async def list_timed_actions(self) -> Sequence[Action]:
        """The proven actions of the newest completed runs, for how long each kind takes; a bounded number."""

    async def list_log(self, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
        """Oldest first."""

    async def list_events(self, after_seq: int, job_id: str | None, limit: int) -> Sequence[Event]:
        """Oldest first, `seq` greater than `after_seq`."""

    async def last_event_seq(self) -> int: ...

    async def list_issues(self, *, job_id: str | None = None, context_id: str | None = None) -> Sequence[Issue]:
        """Open ones, oldest first."""

    async def list_audit(self, limit: int, cursor: str | None) -> Page[AuditEntry]:
        """Newest first."""

    async def list_leaks(self, *, context_id: str | None = None, job_id: str | None = None) -> Sequence[Leak]:
        """Open ones, oldest first."""

    async def count_jobs(self) -> MappingType[str, int]:
        """Jobs by state, active ones only."""

    async def check(self) -> str:
        """One sentence about the database; raises `OmaError` `database_unavailable`."""


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC."""

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    def new_id(self) -> str:
        """A fresh UUID, lower-case 8-4-4-4-12 (the only form that CloudStack's `customjobid` takes)."""
