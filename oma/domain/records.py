"""What the existing MigrateKit records say about a VM, as values.

Times are aware and in UTC. None of these rows proves anything alone (section "Facts of the field" of the safety rules).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from oma.domain.actions import Action
from oma.domain.leaks import Leak

NEVER = datetime.min.replace(tzinfo=UTC)
"""The earliest meaning of a time that lies in the future: it may have been any."""
CLEANUP_REQUIRED = "cleanup_required"
READY_FOR_FAILOVER = "ready_for_failover"
REPLICATING = "replicating"
FAILED = "failed"
"""The status of a VM whose disks have to be copied whole before they are good for anything."""
FAILED_OVER = frozenset({"failed_over_test", "failed_over_live"})
"""Statuses under which somebody uses the VM's replica."""
SYSTEM_DISK_ID = "disk-2000"


@dataclass(frozen=True, slots=True)
class VmContext:
    """A row of `vm_replication_contexts`."""

    context_id: str
    vm_name: str
    vcenter_host: str
    current_status: str
    current_job_id: str | None
    ossea_config_id: int | None
    vmware_vm_id: str = ""
    power_state: str | None = None
    os_type: str | None = None
    cpu_count: int | None = None
    memory_mb: int | None = None
    last_status_change: datetime | None = None
    updated_at: datetime | None = None
    last_operation_summary: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A row of `ossea_volumes`; `volume_id` is CloudStack's UUID."""

    id: int
    context_id: str | None
    volume_id: str
    volume_name: str
    size_gb: int
    ossea_config_id: int | None
    status: str
    device_path: str | None = None
    snapshot_id: str | None = None
    snapshot_status: str | None = None
    snapshot_created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DiskRecord:
    """A row of `vm_disks`; `ossea_volume_id` refers to `ossea_volumes.id`."""

    id: int
    context_id: str
    disk_id: str
    ossea_volume_id: int | None
    unit_number: int | None = None
    size_gb: int | None = None
    capacity_bytes: int | None = None
    disk_change_id: str | None = None
    updated_at: datetime | None = None

    @property
    def is_system_disk(self) -> bool:
        return self.disk_id == SYSTEM_DISK_ID


@dataclass(frozen=True, slots=True)
class MappingRecord:
    """A row of `device_mappings`, written by the Volume Daemon."""

    volume_uuid: str
    vm_id: str | None
    operation_mode: str
    device_path: str
    ossea_snapshot_id: str | None = None
    snapshot_status: str | None = None


@dataclass(frozen=True, slots=True)
class FailoverRecord:
    """A row of `failover_jobs`."""

    id: int
    context_id: str | None
    job_id: str
    job_type: str
    status: str
    destination_vm_id: str | None = None
    ossea_snapshot_id: str | None = None
    source_vm_name: str | None = None
    error_message: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Open at any status but `completed` and `failed`, the empty one and unknown ones included."""
        return self.status not in ("completed", "failed")


@dataclass(frozen=True, slots=True)
class JobLogRecord:
    """A failover's own row of `job_tracking` with the names of its steps and its last sign of life."""

    job_id: str
    status: str
    job_type: str
    operation: str
    step_names: tuple[str, ...] = ()
    running_step_names: tuple[str, ...] = ()
    """Those of its steps whose own status is still `running`."""
    failed_step_names: tuple[str, ...] = ()
    last_activity_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReplicationRecord:
    """A row of `replication_jobs`."""

    id: str
    status: str
    change_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    updated_at: datetime | None = None
    vma_last_poll_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.status not in ("completed", "failed", "cancelled")

    @property
    def last_touched_at(self) -> datetime | None:
        times = [t for t in (self.started_at, self.completed_at, self.updated_at, self.vma_last_poll_at) if t]
        return max(times, default=None)


@dataclass(frozen=True, slots=True)
class ChangeIdRecord:
    """A row of `cbt_history`: a change id that a replication stored for a disk."""

    disk_id: str
    change_id: str | None
    sync_type: str
    stored_at: datetime | None
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class RivalFailover:
    """A failover of another VM at about the same time; its test VM may carry the same name."""

    vm_name: str
    destination_vm_id: str | None


@dataclass(frozen=True, slots=True)
class DoubtfulTime:
    """A recorded time with more than one meaning, or in the future; the rows hold the more dangerous one, the later.

    `earliest` is the other meaning; `why` is a sentence for the plan.
    """

    table: str
    row_id: str
    column: str
    earliest: datetime
    latest: datetime
    why: str


@dataclass(frozen=True, slots=True)
class OmaConfig:
    """A row of `ossea_configs` without its secrets."""

    id: int
    name: str
    oma_vm_id: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class VmRecords:
    """Everything the database knows about one VM, read in one transaction."""

    context: VmContext
    volumes: tuple[VolumeRecord, ...]
    disks: tuple[DiskRecord, ...]
    mappings: tuple[MappingRecord, ...]
    failovers: tuple[FailoverRecord, ...]
    """Newest first."""
    joblog: tuple[JobLogRecord, ...]
    """The `job_tracking` rows that `failovers` name, with their steps."""
    replications: tuple[ReplicationRecord, ...]
    configs: tuple[OmaConfig, ...]
    shared_volume_ids: tuple[str, ...] = ()
    """Volumes of this VM that another context claims too."""
    open_issue_ids: tuple[str, ...] = ()
    active_job_id: str | None = None
    active_job_holder: str | None = None
    proven: tuple[Action, ...] = ()
    """EXECUTED actions of this VM's partial runs (`result.partial`) since its last complete one, oldest first."""
    undone: tuple[Action, ...] = ()
    """Detaches and stops of this VM's failed and cancelled runs since its last complete one, oldest first: those
    volumes came home with their content as it was, and those VMs stayed stopped."""
    read_at: datetime | None = None
    """The database's own clock."""
    change_ids: tuple[ChangeIdRecord, ...] = ()
    """Of `replications`, newest first."""
    doubtful_times: tuple[DoubtfulTime, ...] = ()
    partial_leaks: tuple[Leak, ...] = ()
    """What the partial runs since the last complete one left behind by force, and nobody has taken care of."""
    last_run_failed: bool = False
    """The newest ended or parked run of ours on this VM did not come to a good end."""
    running_jobs: tuple[JobLogRecord, ...] = ()
    """Running `job_tracking` rows of this VM that are neither ours nor an open failover's own: a rollback, a clean-up
    of somebody else, a job that a closed failover left running."""
    world_issue_ids: tuple[str, ...] = ()
    """Open issues about the world alone: a guard refuses while they hold, so they don't ask for a resolution."""

    ended_job_ids: frozenset[str] = frozenset()
    """Runs of ours on this VM that have ended; read only for a run."""
    rivals: tuple[RivalFailover, ...] = ()
    """Failovers of other VMs around the newest one; read only where its test VM is known by its name alone."""

    def joblog_of(self, failover: FailoverRecord) -> JobLogRecord | None:
        return next((row for row in self.joblog if row.job_id == failover.job_id), None)

    @property
    def newest_failover(self) -> FailoverRecord | None:
        return self.failovers[0] if self.failovers else None
