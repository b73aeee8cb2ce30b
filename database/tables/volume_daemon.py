"""The tables that the Volume Daemon writes.

Four of them exist in MigrateKit installations, whose generations differ: `device_mappings` has `volume_id` or
`volume_id_numeric`, `nbd_exports.id` is a number or a UUID, and some have neither `vm_disk_id` nor `vm_context_id`.
The daemon therefore looks which columns there are (`volume_daemon.server.shape`) and writes no others. Its own journal
stands beside them in `volume_daemon_*`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String

from database.tables.columns import Choice, Json, LongText, RowId, legacy_table, own_table
from database.tables.legacy import SNAPSHOT_STATUSES
from database.times import CurrentTime, LegacyTime, UtcTime

OPERATION_TYPES = ("create", "attach", "detach", "delete", "cleanup")
OPERATION_STATUSES = ("pending", "executing", "completed", "failed", "cancelled")

volume_operations = legacy_table(
    "volume_operations",
    Column("id", String(64), primary_key=True),
    Column("type", Choice(*OPERATION_TYPES), nullable=False),
    Column("status", Choice(*OPERATION_STATUSES), nullable=False, server_default="pending"),
    # Not nullable in existing installations: the empty string where there is none yet, as for a volume to be created.
    Column("volume_id", String(64), nullable=False, server_default=""),
    Column("vm_id", String(64)),
    Column("request", Json),
    Column("response", Json),
    Column("error", LongText),
    Column("created_at", LegacyTime(), nullable=False, server_default=CurrentTime()),
    Column("updated_at", LegacyTime(), nullable=False, server_default=CurrentTime()),
    Column("completed_at", LegacyTime()),
    Index("ix_volume_operations_status", "status", "created_at"),
    Index("ix_volume_operations_volume", "volume_id", "created_at"),
    Index("ix_volume_operations_vm", "vm_id", "created_at"),
    Index("ix_volume_operations_created", "created_at", "id"),
)

device_mappings = legacy_table(
    "device_mappings",
    Column("id", String(64), primary_key=True),
    Column("volume_uuid", String(64), nullable=False, unique=True),
    Column("volume_id", String(64)),
    Column("vm_id", String(64)),
    Column("vm_context_id", String(64)),
    Column("operation_mode", Choice("oma", "failover"), nullable=False, server_default="oma"),
    Column("device_path", String(255), nullable=False, unique=True),
    Column("cloudstack_device_id", Integer),
    Column("cloudstack_state", String(32)),
    Column("linux_state", String(32)),
    Column("size", BigInteger),
    Column("ossea_snapshot_id", String(191)),
    Column("snapshot_created_at", LegacyTime()),
    Column("snapshot_status", Choice(*SNAPSHOT_STATUSES), server_default="none"),
    Column("last_sync", LegacyTime()),
    Column("created_at", LegacyTime(), nullable=False, server_default=CurrentTime()),
    Column("updated_at", LegacyTime(), nullable=False, server_default=CurrentTime()),
    Index("ix_device_mappings_vm", "vm_id"),
    Index("ix_device_mappings_context", "vm_context_id"),
)

nbd_exports = legacy_table(
    "nbd_exports",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("vm_context_id", String(64)),
    Column("job_id", String(191)),
    Column("volume_id", String(64), nullable=False, server_default=""),
    Column("vm_disk_id", BigInteger),
    Column("device_mapping_uuid", String(64), ForeignKey("device_mappings.volume_uuid", ondelete="CASCADE")),
    Column("export_name", String(191), nullable=False, unique=True),
    Column("device_path", String(255)),
    Column("port", Integer, nullable=False, server_default="10809"),
    Column("config_path", String(512)),
    Column("status", String(32), nullable=False, server_default="active"),
    Column("created_at", LegacyTime(), nullable=False, server_default=CurrentTime()),
    Column("updated_at", LegacyTime(), nullable=False, server_default=CurrentTime()),
    Index("ix_nbd_exports_volume", "volume_id"),
    Index("ix_nbd_exports_mapping", "device_mapping_uuid"),
)

volume_operation_history = legacy_table(
    "volume_operation_history",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("operation_id", String(64), nullable=False),
    Column("previous_status", String(32)),
    Column("new_status", String(32)),
    Column("details", Json),
    Column("changed_at", LegacyTime(), nullable=False, server_default=CurrentTime()),
    Index("ix_volume_operation_history_operation", "operation_id", "id"),
)

OPERATION_STAGES = ("accepted", "sent", "ended")

volume_daemon_operations = own_table(
    "volume_daemon_operations",
    # The order in which operations were accepted; a restart goes on in it.
    Column("seq", RowId, primary_key=True, autoincrement=True),
    Column("operation_id", String(64), nullable=False, unique=True),
    Column("volume_id", String(64), nullable=False, server_default=""),
    # accepted: CloudStack has not been asked · sent: it may have been · ended
    Column("stage", Choice(*OPERATION_STAGES), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("fence", BigInteger),
    # Written by older daemons only, which would have sent a call under a second id.
    Column("attempt", Integer, nullable=False, server_default="0"),
    # The call as it was sent: CloudStack's `customjobid`, and the job's id where the endpoint chose another.
    Column("request_id", String(64)),
    Column("remote_job_id", String(64)),
    # The VM in whose queue the call stands.
    Column("queue_vm_id", String(64)),
    Column("accepted_at", UtcTime, nullable=False),
    Column("sent_at", UtcTime),
    Column("expires_at", UtcTime),
    Column("ended_at", UtcTime),
    # What a detach took away and a later attach puts back: NBD exports with their files, snapshot tracking.
    Column("exports", Json),
    Column("tracking", Json),
    Column("error", Json),
    Index("ix_volume_daemon_operations_volume", "volume_id", "seq"),
    Index("ix_volume_daemon_operations_stage", "stage", "seq"),
)

volume_daemon_fences = own_table(
    "volume_daemon_fences",
    Column("volume_id", String(64), primary_key=True),
    # The highest lease number that a change of this volume carried.
    Column("fence", BigInteger, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)

volume_daemon_holder_ends = own_table(
    "volume_daemon_holder_ends",
    Column("seq", RowId, primary_key=True, autoincrement=True),
    # The caller's Idempotency-Key, else fresh.
    Column("request_id", String(64), nullable=False, unique=True),
    Column("volume_id", String(64), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("reason", LongText, nullable=False),
    # The process trees that are about to be ended, committed before the first signal.
    Column("trees", Json, nullable=False),
    # What became of them; NULL: not known, the next request looks again.
    Column("outcome", Json),
    Column("asked_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Index("ix_volume_daemon_holder_ends_volume", "volume_id", "seq"),
)
