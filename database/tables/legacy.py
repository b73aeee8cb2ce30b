"""The tables that existing MigrateKit installations have, as the contract's "The database" names them.

Only what those installations have stands here; nothing is added to them. The columns are lenient (nullable, with
defaults) because rows are written by other programs. Foreign keys are those that the contract names and the two
that the rows cannot do without.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Text, UniqueConstraint

from database.tables.columns import Choice, Json, LongText, RowId, legacy_table
from database.times import CurrentTime, LegacyTime

CONTEXT_STATUSES = (
    "discovered",
    "replicating",
    "ready_for_failover",
    "failed_over_test",
    "failed_over_live",
    "completed",
    "failed",
    "cleanup_required",
)
VOLUME_STATUSES = ("creating", "available", "attached", "detached", "error")
SNAPSHOT_STATUSES = ("none", "creating", "ready", "failed", "rollback_complete")
FAILOVER_STATUSES = (
    "pending",
    "validating",
    "snapshotting",
    "creating_vm",
    "switching_volume",
    "powering_on",
    "completed",
    "failed",
    "cleanup",
    "reverting",
)
JOBLOG_STATUSES = ("pending", "running", "completed", "failed", "cancelled")
JOBLOG_CATEGORIES = ("system", "failover", "replication", "scheduler", "discovery", "bulk")
STEP_STATUSES = ("running", "completed", "failed", "skipped")
LOG_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")


def _written(name: str) -> Column[Any]:
    """A time that the database fills in where a writer leaves it out."""
    return Column(name, LegacyTime(), nullable=False, server_default=CurrentTime())


def _time(name: str) -> Column[Any]:
    return Column(name, LegacyTime())


vm_replication_contexts = legacy_table(
    "vm_replication_contexts",
    Column("context_id", String(64), primary_key=True),
    Column("vm_name", String(255), nullable=False),
    Column("vmware_vm_id", String(255)),
    Column("vm_path", String(512)),
    Column("vcenter_host", String(255), nullable=False, server_default=""),
    Column("datacenter", String(255)),
    Column("current_status", Choice(*CONTEXT_STATUSES), nullable=False, server_default="discovered"),
    Column("current_job_id", String(64), ForeignKey("replication_jobs.id", ondelete="SET NULL")),
    Column("total_jobs_run", Integer, nullable=False, server_default="0"),
    Column("successful_jobs", Integer, nullable=False, server_default="0"),
    Column("failed_jobs", Integer, nullable=False, server_default="0"),
    Column("last_successful_job_id", String(64)),
    Column("cpu_count", Integer),
    Column("memory_mb", Integer),
    Column("os_type", String(255)),
    Column("power_state", String(32)),
    Column("vm_tools_version", String(64)),
    _written("created_at"),
    _written("updated_at"),
    _time("first_job_at"),
    _time("last_job_at"),
    _time("last_status_change"),
    Column("credential_id", Integer),
    Column("ossea_config_id", Integer),
    Column("last_operation_summary", Json),
    UniqueConstraint("vm_name", "vcenter_host", name="uq_vm_replication_contexts_name_vcenter"),
    # Lists are by name; the id breaks ties between equal names.
    Index("ix_vm_replication_contexts_name", "vm_name", "context_id"),
    Index("ix_vm_replication_contexts_status_name", "current_status", "vm_name", "context_id"),
)

ossea_volumes = legacy_table(
    "ossea_volumes",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("vm_context_id", String(64)),
    Column("volume_id", String(64), nullable=False),
    Column("volume_name", String(255)),
    Column("size_gb", Integer),
    Column("ossea_config_id", Integer),
    Column("volume_type", String(32)),
    Column("device_path", String(255)),
    Column("mount_point", String(255)),
    Column("status", Choice(*VOLUME_STATUSES), nullable=False, server_default="creating"),
    Column("snapshot_id", String(191)),
    _time("snapshot_created_at"),
    Column("snapshot_status", Choice(*SNAPSHOT_STATUSES), server_default="none"),
    _written("created_at"),
    _written("updated_at"),
    Index("ix_ossea_volumes_context", "vm_context_id", "id"),
    Index("ix_ossea_volumes_volume", "volume_id"),
)

failover_jobs = legacy_table(
    "failover_jobs",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("vm_context_id", String(64)),
    Column("job_id", String(191), nullable=False, unique=True),
    Column("vm_id", String(191)),
    Column("replication_job_id", String(191)),
    Column("job_type", Choice("live", "test"), nullable=False),
    Column("status", Choice(*FAILOVER_STATUSES), server_default="pending"),
    Column("source_vm_name", String(255)),
    Column("source_vm_spec", Text),
    Column("destination_vm_id", String(191)),
    Column("ossea_snapshot_id", String(191)),
    Column("network_mappings", Text),
    Column("error_message", Text),
    _written("created_at"),
    _written("updated_at"),
    _time("started_at"),
    _time("completed_at"),
    Index("ix_failover_jobs_context", "vm_context_id", "created_at", "id"),
)

replication_jobs = legacy_table(
    "replication_jobs",
    Column("id", String(64), primary_key=True),
    Column("vm_context_id", String(64)),
    Column("status", String(64), nullable=False, server_default="pending"),
    Column("change_id", String(191)),
    Column("previous_change_id", String(191)),
    Column("nbd_export_name", String(191)),
    _time("started_at"),
    _time("completed_at"),
    _written("updated_at"),
    _time("vma_last_poll_at"),
    Index("ix_replication_jobs_context", "vm_context_id", "updated_at"),
)

vm_disks = legacy_table(
    "vm_disks",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("vm_context_id", String(64)),
    Column("job_id", String(64)),
    Column("disk_id", String(64), nullable=False),
    Column("size_gb", Integer),
    Column("unit_number", Integer),
    Column("capacity_bytes", BigInteger),
    Column("ossea_volume_id", RowId, ForeignKey("ossea_volumes.id", ondelete="SET NULL")),
    Column("disk_change_id", String(255)),
    Column("sync_status", String(32)),
    Column("bytes_synced", BigInteger),
    _written("created_at"),
    _written("updated_at"),
    UniqueConstraint("vm_context_id", "disk_id", name="uq_vm_disks_context_disk"),
    Index("ix_vm_disks_volume", "ossea_volume_id"),
)

cbt_history = legacy_table(
    "cbt_history",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job_id", String(64), ForeignKey("replication_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("disk_id", String(64)),
    Column("change_id", String(255)),
    Column("previous_change_id", String(255)),
    Column("sync_type", String(32)),
    Column("sync_success", Boolean),
    _written("created_at"),
    Index("ix_cbt_history_job", "job_id"),
)

ossea_configs = legacy_table(
    "ossea_configs",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("api_url", String(512)),
    Column("api_key", String(255)),
    Column("secret_key", String(255)),
    Column("domain", String(255)),
    Column("zone", String(255)),
    Column("template_id", String(191)),
    Column("network_id", String(191)),
    Column("service_offering_id", String(191)),
    Column("disk_offering_id", String(191)),
    Column("oma_vm_id", String(191)),
    Column("is_active", Boolean, nullable=False, server_default="1"),
    _written("created_at"),
    _written("updated_at"),
)

job_tracking = legacy_table(
    "job_tracking",
    Column("id", String(64), primary_key=True),
    Column("parent_job_id", String(64)),
    Column("job_type", String(64), nullable=False),
    Column("operation", String(128), nullable=False),
    Column("status", Choice(*JOBLOG_STATUSES), nullable=False, server_default="pending"),
    Column("cloudstack_job_id", String(64)),
    Column("external_job_id", String(64)),
    Column("metadata", Json),
    Column("error_message", LongText),
    Column("percent_complete", Integer),
    Column("owner", String(255)),
    Column("context_id", String(64)),
    Column("job_category", Choice(*JOBLOG_CATEGORIES), server_default="system"),
    _time("started_at"),
    _time("completed_at"),
    _time("canceled_at"),
    _written("created_at"),
    _written("updated_at"),
    Index("ix_job_tracking_context", "context_id", "created_at"),
    Index("ix_job_tracking_status", "status", "created_at"),
    Index("ix_job_tracking_parent", "parent_job_id"),
    Index("ix_job_tracking_external", "external_job_id"),
)

job_steps = legacy_table(
    "job_steps",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job_id", String(64), ForeignKey("job_tracking.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("status", Choice(*STEP_STATUSES), nullable=False, server_default="running"),
    _time("started_at"),
    _time("completed_at"),
    Column("error_message", LongText),
    Column("metadata", Json),
    UniqueConstraint("job_id", "seq", name="uq_job_steps_job_seq"),
)

log_events = legacy_table(
    "log_events",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job_id", String(64)),
    Column("step_id", RowId),
    Column("level", Choice(*LOG_LEVELS), nullable=False, server_default="INFO"),
    Column("message", LongText),
    Column("attrs", Json),
    _written("ts"),
    Column("external_job_id", String(64)),
    # The lines of a job in order, and the youngest of them without reading the others.
    Index("ix_log_events_job", "job_id", "id"),
    Index("ix_log_events_job_ts", "job_id", "ts"),
)
