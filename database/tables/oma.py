"""The OMA daemon's own tables. They refer to each other by foreign keys and to the existing tables by id only:

an existing installation may keep its ids in another collation, to which no foreign key can be laid.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String

from database.tables.columns import Choice, Json, LongText, own_table
from database.times import UtcTime

JOB_STATES = ("queued", "running", "parked", "completed", "failed", "cancelled")
ACTION_STATES = (
    "PLANNED",
    "STARTED",
    "EXECUTED",
    "EXECUTION_FAILED",
    "ROLLED_BACK",
    "ROLLBACK_FAILED",
    "SKIPPED",
    "MANUAL_MARKED_AS_EXECUTED",
    "MANUAL_MARKED_AS_ROLLED_BACK",
)
ISSUE_STATES = ("open", "resolved")
LEAK_STATES = ("open", "gone")


def _time(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, UtcTime, nullable=nullable)


oma_jobs = own_table(
    "oma_jobs",
    Column("id", String(64), primary_key=True),
    Column("context_id", String(64), nullable=False),
    # The context while the job is active (queued, running, parked), else NULL: one active job per VM.
    Column("active_context_id", String(64), unique=True),
    Column("vm_name", String(255), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("state", Choice(*JOB_STATES), nullable=False),
    Column("phase", String(64)),
    Column("request", Json, nullable=False),
    Column("request_hash", String(64)),
    Column("idempotency_key", String(255), unique=True),
    Column("plan", Json, nullable=False),
    Column("plan_digest", String(64), nullable=False),
    Column("correlation_id", String(255), nullable=False),
    Column("requested_by", String(255), nullable=False),
    Column("reverted", Boolean, nullable=False, server_default="0"),
    # A run that ended well without reaching the last phase.
    Column("partial", Boolean, nullable=False, server_default="0"),
    Column("result", Json),
    Column("error", Json),
    Column("lease_owner", String(255)),
    _time("lease_until"),
    Column("lease_fence", BigInteger, nullable=False, server_default="0"),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("ended_at"),
    _time("updated_at", nullable=False),
    Index("ix_oma_jobs_state", "state", "created_at", "id"),
    Index("ix_oma_jobs_created", "created_at", "id"),
    Index("ix_oma_jobs_context", "context_id", "created_at", "id"),
    Index("ix_oma_jobs_vm", "vm_name", "created_at", "id"),
    Index("ix_oma_jobs_correlation", "correlation_id"),
    Index("ix_oma_jobs_lease", "lease_owner"),
)

oma_volume_claims = own_table(
    "oma_volume_claims",
    # One active job per volume; the row goes when the job ends.
    Column("volume_id", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("oma_jobs.id"), nullable=False),
    Column("context_id", String(64), nullable=False),
    _time("claimed_at", nullable=False),
    Index("ix_oma_volume_claims_job", "job_id"),
)

oma_actions = own_table(
    "oma_actions",
    Column("id", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("oma_jobs.id"), nullable=False),
    Column("phase", String(64), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("target", Json, nullable=False),
    Column("state", Choice(*ACTION_STATES), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("remote_id", String(255)),
    _time("intent_at"),
    _time("expires_at"),
    _time("sent_at"),
    _time("ended_at"),
    Column("evidence", Json),
    Column("error", Json),
    Column("sentence", LongText, nullable=False),
    _time("updated_at", nullable=False),
    Index("ix_oma_actions_job", "job_id", "seq"),
    Index("ix_oma_actions_state", "state"),
)

oma_events = own_table(
    "oma_events",
    # Given by `oma_sequences` under a lock that lasts to the commit, so that the order of the numbers is the order of
    # the commits; a counter of the database's own may show 8 to a reader before 7.
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _time("at", nullable=False),
    Column("job_id", String(64)),
    Column("context_id", String(64)),
    Column("type", String(64), nullable=False),
    Column("sentence", LongText, nullable=False),
    Column("data", Json, nullable=False),
    Index("ix_oma_events_job", "job_id", "seq"),
    Index("ix_oma_events_context", "context_id", "seq"),
)

oma_issues = own_table(
    "oma_issues",
    Column("id", String(64), primary_key=True),
    Column("cause", String(255), nullable=False),
    # The cause while the issue is open, else NULL: one open issue per cause.
    Column("open_cause", String(255), unique=True),
    Column("job_id", String(64)),
    Column("action_id", String(64)),
    Column("context_id", String(64)),
    Column("vm_name", String(255), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("code", String(64), nullable=False),
    Column("severity", String(32), nullable=False),
    Column("state", Choice(*ISSUE_STATES), nullable=False),
    Column("title", LongText, nullable=False),
    Column("target", Json, nullable=False),
    Column("evidence", Json, nullable=False),
    Column("error", Json),
    Column("guidance", Json, nullable=False),
    _time("opened_at", nullable=False),
    _time("due_at", nullable=False),
    Column("owner", String(255)),
    _time("resolved_at"),
    Column("resolution", String(64)),
    Column("notes", LongText),
    Column("actor", String(255)),
    _time("updated_at", nullable=False),
    Index("ix_oma_issues_state", "state", "opened_at", "id"),
    Index("ix_oma_issues_context", "context_id", "state"),
    Index("ix_oma_issues_job", "job_id", "state"),
)

oma_leaks = own_table(
    "oma_leaks",
    # What `force` passed and left behind, until somebody has taken care of it.
    Column("id", String(64), primary_key=True),
    Column("context_id", String(64), nullable=False),
    Column("vm_name", String(255), nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("target", Json, nullable=False),
    Column("sentence", LongText, nullable=False),
    Column("reason", LongText, nullable=False),
    _time("since", nullable=False),
    Column("state", Choice(*LEAK_STATES), nullable=False),
    _time("updated_at", nullable=False),
    Index("ix_oma_leaks_state", "state", "since", "id"),
    Index("ix_oma_leaks_context", "context_id", "state"),
    Index("ix_oma_leaks_job", "job_id"),
)

oma_audit = own_table(
    "oma_audit",
    # Append-only. Numbered by `oma_sequences` without a gap, each row hashed over its predecessor's hash.
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _time("at", nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("decision", String(64), nullable=False),
    Column("context_id", String(64)),
    Column("vm_name", String(255), nullable=False),
    Column("job_id", String(64)),
    Column("words", Json, nullable=False),
    Column("reason", LongText),
    Column("detail", Json, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Index("ix_oma_audit_context", "context_id", "seq"),
    Index("ix_oma_audit_job", "job_id", "seq"),
)

oma_controls = own_table(
    "oma_controls",
    # What a person has paused: everything, an operation, or a VM (by its context). A row with `lifted_at` is the last
    # pause of its subject; the whole history stands in `oma_audit`.
    Column("scope", String(16), primary_key=True),
    Column("subject", String(64), primary_key=True),
    Column("vm_name", String(255)),
    Column("reason", LongText, nullable=False),
    Column("actor", String(255), nullable=False),
    _time("since", nullable=False),
    _time("lifted_at"),
    _time("updated_at", nullable=False),
)

oma_epochs = own_table(
    "oma_epochs",
    # One row, `oma`. Each start of a daemon raises the epoch; a witness outside of the database that is ahead of it
    # shows that an older copy was restored (`older_since`, until a person accepts it).
    Column("name", String(16), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("installation", String(64), nullable=False),
    Column("raised_by", String(255)),
    _time("raised_at"),
    _time("older_since"),
    Column("evidence", Json),
    _time("updated_at", nullable=False),
)

oma_sequences = own_table(
    "oma_sequences",
    # `events` numbers what happened; `fence` numbers leases over all jobs, because the Volume Daemon compares the
    # fences of different jobs on one volume; `audit` numbers the entries of the audit.
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
