"""All tables, as SQLAlchemy Core knows them; `metadata` holds them together."""

from __future__ import annotations

from database.tables.columns import metadata
from database.tables.legacy import (
    cbt_history,
    failover_jobs,
    job_steps,
    job_tracking,
    log_events,
    ossea_configs,
    ossea_volumes,
    replication_jobs,
    vm_disks,
    vm_replication_contexts,
)
from database.tables.oma import (
    oma_actions,
    oma_audit,
    oma_controls,
    oma_epochs,
    oma_events,
    oma_issues,
    oma_jobs,
    oma_leaks,
    oma_sequences,
    oma_volume_claims,
)
from database.tables.volume_daemon import (
    device_mappings,
    nbd_exports,
    volume_daemon_fences,
    volume_daemon_holder_ends,
    volume_daemon_operations,
    volume_operation_history,
    volume_operations,
)

__all__ = [
    "cbt_history",
    "device_mappings",
    "failover_jobs",
    "job_steps",
    "job_tracking",
    "log_events",
    "metadata",
    "nbd_exports",
    "oma_actions",
    "oma_audit",
    "oma_controls",
    "oma_epochs",
    "oma_events",
    "oma_issues",
    "oma_jobs",
    "oma_leaks",
    "oma_sequences",
    "oma_volume_claims",
    "ossea_configs",
    "ossea_volumes",
    "replication_jobs",
    "vm_disks",
    "vm_replication_contexts",
    "volume_daemon_fences",
    "volume_daemon_holder_ends",
    "volume_daemon_operations",
    "volume_operation_history",
    "volume_operations",
]
