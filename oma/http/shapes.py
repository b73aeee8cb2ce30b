"""The shapes of all answers and of the one body, as JSON Schema (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any, Final

from oma.domain.actions import ActionKind
from oma.domain.errors import Code, RetryClass
from oma.domain.events import EventType
from oma.domain.issues import Severity
from oma.domain.states import ActionState, IssueState, JobState, Phase, Replica, StepStatus
from oma.http.control_shapes import CONTROL_SCHEMAS
from oma.http.issue_shapes import RESOLVE_FIELDS
from oma.http.word_shapes import WORDS

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
TIME_OR_NULL: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
SECONDS_OR_NULL: Final[Schema] = {"type": ["number", "null"], "minimum": 0}
WHOLE: Final[Schema] = {"type": "integer"}
WHOLE_OR_NULL: Final[Schema] = {"type": ["integer", "null"]}
FLAG: Final[Schema] = {"type": "boolean"}
OBJECT: Final[Schema] = {"type": "object"}
OBJECT_OR_NULL: Final[Schema] = {"type": ["object", "null"]}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def choice(values: type[Any]) -> Schema:
    return {"type": "string", "enum": [value.value for value in values]}


def closed(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def opened(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    """An object with at least these members."""
    return {**closed(properties, optional), "additionalProperties": True}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def page_of(name: str) -> Schema:
    return closed({"items": array(ref(name)), "next_cursor": TEXT_OR_NULL})


VERDICT: Final[Schema] = {
    "replica": {**choice(Replica), "description": "Whether the replica is good; of a dry run, what it will be."},
    "next": {**TEXT, "description": "What to do now, the source VM first where the failover powered it off."},
}
ACTION_SUMMARY: Final[Schema] = {
    "id": TEXT,
    "kind": choice(ActionKind),
    "state": choice(ActionState),
    "target": OBJECT,
    "attempt": WHOLE,
    "remote_id": TEXT_OR_NULL,
    "sentence": TEXT,
    "error": OBJECT_OR_NULL,
    "started_at": TIME_OR_NULL,
    "ended_at": TIME_OR_NULL,
}

JOB: Final[Schema] = {
    "id": TEXT,
    "vm_name": TEXT,
    "context_id": TEXT,
    "operation": TEXT,
    "status": choice(JobState),
    "phase": or_null(choice(Phase)),
    "reverted": FLAG,
    "correlation_id": TEXT,
    "requested_by": TEXT,
    "request": OBJECT,
    "plan_digest": TEXT,
    "created_at": TIME,
    "started_at": TIME_OR_NULL,
    "ended_at": TIME_OR_NULL,
    "duration_seconds": SECONDS_OR_NULL,
    "holder": TEXT_OR_NULL,
    "result": OBJECT_OR_NULL,
    "error": OBJECT_OR_NULL,
}

SCHEMAS: Final[dict[str, Schema]] = {
    **CONTROL_SCHEMAS,
    "CleanupRequest": closed(
        {
            "dry_run": {"type": ["boolean", "null"], "description": "Only observe, judge and plan."},
            "phases": {
                "type": ["array", "null"],
                "items": choice(Phase),
                "minItems": 1,
                "uniqueItems": True,
                "description": "Step names without gaps; analyze-volume-state always runs, named or not.",
            },
            "context_id": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": 64,
                "description": "Which VM, where several carry the name.",
            },
            "expect_plan": {
                "type": ["string", "null"],
                "pattern": "^[0-9a-f]{64}$",
                "description": "The plan_digest of a dry run: exactly that plan, or 409 plan_stale.",
            },
            **WORDS,
        },
        optional=("dry_run", "phases", "context_id", "expect_plan", *WORDS),
    ),
    "ResumeRequest": closed(
        {"force": WORDS["force"], "reason": WORDS["reason"]},
        optional=("force", "reason"),
    ),
    "CancelRequest": closed({"reason": WORDS["reason"]}, optional=("reason",)),
    "CleanupDone": closed(
        {
            "success": {"const": True},
            "partial": {"const": True},
            "message": TEXT,
            "vm_name": TEXT,
            "timestamp": TIME,
            "job_id": TEXT,
            "correlation_id": TEXT,
            "duration_seconds": SECONDS_OR_NULL,
            "phases": array(ref("PhaseDone")),
            "leaks": {**array(OBJECT), "description": "What force left behind; each is tracked until it is gone."},
            **VERDICT,
        },
        optional=("partial", "leaks"),
    ),
    "PhaseDone": closed(
        {
            "name": choice(Phase),
            "status": choice(StepStatus),
            "duration_seconds": SECONDS_OR_NULL,
            "actions": array(ref("ActionSummary")),
        }
    ),
    "ActionSummary": closed(ACTION_SUMMARY),
    "DryRun": closed(
        {
            "success": {"const": True},
            "dry_run": {"const": True},
            "partial": {"const": True},
            "message": TEXT,
            "vm_name": TEXT,
            "context_id": TEXT,
            "timestamp": TIME,
            "correlation_id": TEXT,
            "phases": array(choice(Phase)),
            "plan": ref("Plan"),
            "plan_digest": TEXT,
            **VERDICT,
        },
        optional=("partial",),
    ),
    "Plan": opened(
        {
            "vm_name": TEXT,
            "context_id": TEXT,
            "volumes": array(OBJECT),
            "actions": array(ref("PlannedAction")),
            "observed": TEXTS,
            "risks": TEXTS,
            "source_powered_off": FLAG,
            "words": {**TEXTS, "description": "What a person insists on; part of the digest, without the reason."},
            "estimate": ref("Estimate"),
        },
        optional=("estimate",),
    ),
    "Estimate": closed(
        {
            "seconds": SECONDS,
            "low": SECONDS,
            "high": SECONDS,
            "basis": {**TEXT, "description": "What the figures rest on."},
            "words": TEXT,
        }
    ),
    "PlannedAction": closed({"phase": choice(Phase), "kind": choice(ActionKind), "target": OBJECT, "sentence": TEXT}),
    "CleanupAccepted": closed(
        {
            "success": {"const": True},
            "message": TEXT,
            "vm_name": TEXT,
            "timestamp": TIME,
            "job_id": TEXT,
            "correlation_id": TEXT,
            "status": choice(JobState),
            "location": TEXT,
            **VERDICT,
        }
    ),
    "Vm": closed(
        {
            "context_id": TEXT,
            "vm_name": TEXT,
            "vcenter_host": TEXT,
            "status": TEXT,
            "current_job_id": TEXT_OR_NULL,
            "power_state": TEXT_OR_NULL,
            "os_type": TEXT_OR_NULL,
            "cpu_count": WHOLE_OR_NULL,
            "memory_mb": WHOLE_OR_NULL,
            "last_status_change": TIME_OR_NULL,
            "last_operation_summary": OBJECT_OR_NULL,
            "cleanup_recommended": FLAG,
            "cleanup_why": TEXT,
            "cleanup_reasons": TEXTS,
            "active_job_id": TEXT_OR_NULL,
            "open_issue_ids": TEXTS,
            "volumes": array(ref("Volume")),
            "failover_jobs": array(ref("FailoverJob")),
        }
    ),
    "Volume": closed(
        {
            "volume_id": TEXT,
            "name": TEXT,
            "size_gb": WHOLE_OR_NULL,
            "status": TEXT_OR_NULL,
            "disk_id": TEXT_OR_NULL,
            "is_system_disk": FLAG,
            "attachment": or_null(closed({"vm_id": TEXT_OR_NULL, "device_path": TEXT, "operation_mode": TEXT})),
            "snapshot": or_null(closed({"snapshot_id": TEXT, "status": TEXT_OR_NULL, "created_at": TIME_OR_NULL})),
        }
    ),
    "FailoverJob": closed(
        {
            "id": WHOLE,
            "job_id": TEXT,
            "type": TEXT,
            "status": TEXT,
            "open": FLAG,
            "destination_vm_id": TEXT_OR_NULL,
            "error_message": TEXT_OR_NULL,
            "created_at": TIME_OR_NULL,
            "started_at": TIME_OR_NULL,
            "updated_at": TIME_OR_NULL,
            "completed_at": TIME_OR_NULL,
        }
    ),
    "VmList": page_of("Vm"),
    "Job": closed(JOB),
    "JobDetail": closed(
        {
            **JOB,
            "plan": ref("Plan"),
            "steps": array(ref("Step")),
            "actions": array(ref("Action")),
            "issues": array(ref("Issue")),
        }
    ),
    "JobList": page_of("Job"),
    "Step": closed(
        {
            "name": choice(Phase),
            "seq": WHOLE,
            "status": choice(StepStatus),
            "started_at": TIME_OR_NULL,
            "completed_at": TIME_OR_NULL,
            "duration_seconds": SECONDS_OR_NULL,
            "error_message": TEXT_OR_NULL,
            "metadata": OBJECT,
        }
    ),
    "StepList": page_of("Step"),
    "Action": closed(
        {
            **ACTION_SUMMARY,
            "job_id": TEXT,
            "phase": choice(Phase),
            "seq": WHOLE,
            "sent_at": TIME_OR_NULL,
            "expires_at": TIME_OR_NULL,
            "evidence": OBJECT,
        }
    ),
    "ActionList": page_of("Action"),
    "LogLine": closed(
        {
            "id": {"type": ["integer", "string"]},
            "job_id": TEXT,
            "phase": or_null(choice(Phase)),
            "level": TEXT,
            "message": TEXT,
            "attrs": OBJECT,
            "at": TIME,
        }
    ),
    "LogList": page_of("LogLine"),
    "Event": closed(
        {
            "seq": WHOLE,
            "at": TIME,
            "job_id": TEXT_OR_NULL,
            "context_id": TEXT_OR_NULL,
            "type": choice(EventType),
            "sentence": TEXT,
            "data": OBJECT,
        }
    ),
    "Issue": closed(
        {
            "id": TEXT,
            "job_id": TEXT_OR_NULL,
            "action_id": TEXT_OR_NULL,
            "context_id": TEXT_OR_NULL,
            "vm_name": TEXT,
            "kind": TEXT,
            "code": TEXT,
            "severity": choice(Severity),
            "state": choice(IssueState),
            "title": TEXT,
            "target": OBJECT,
            "evidence": OBJECT,
            "error": OBJECT_OR_NULL,
            "guidance": TEXTS,
            "opened_at": TIME,
            "due_at": TIME,
            "owner": TEXT_OR_NULL,
            "resolved_at": TIME_OR_NULL,
            "resolution": TEXT_OR_NULL,
            "notes": TEXT_OR_NULL,
            "resolved_by": TEXT_OR_NULL,
        }
    ),
    "IssueList": page_of("Issue"),
    "ResolveRequest": closed(RESOLVE_FIELDS, optional=("insist", "reason")),
    "IssueResolved": closed(
        {
            "issue": ref("Issue"),
            "message": TEXT,
            "job_id": TEXT_OR_NULL,
            "job_status": or_null(choice(JobState)),
            "resumed": FLAG,
            "open_issue_ids": TEXTS,
            "waits": FLAG,
            "waits_until": TIME_OR_NULL,
            "next": TEXT,
        }
    ),
    "Health": closed(
        {
            "status": {"enum": ["healthy", "degraded", "unhealthy"]},
            "timestamp": TIME,
            "ready": FLAG,
            "reason": TEXT_OR_NULL,
            "dependencies": array(
                closed({"name": TEXT, "healthy": FLAG, "sentence": TEXT, "latency_seconds": {"type": "number"}})
            ),
        }
    ),
    "Liveness": closed({"status": {"const": "alive"}}),
    "Readiness": closed({"status": {"enum": ["ready", "not_ready"]}, "reason": TEXT_OR_NULL}),
    "Refusal": closed({"code": choice(Code), "detail": TEXT, "next": TEXT, "evidence": OBJECT}),
    "Problem": opened(
        {
            "type": TEXT,
            "title": TEXT,
            "status": WHOLE,
            "detail": TEXT,
            "code": TEXT,
            "correlation_id": TEXT,
            "retry": choice(RetryClass),
            "refusals": array(ref("Refusal")),
            "success": {"const": False},
            "error": TEXT,
            "vm_name": TEXT,
            **VERDICT,
            "source_powered_off": FLAG,
        },
        optional=("retry", "refusals", "success", "error", "vm_name", "replica", "next", "source_powered_off"),
    ),
}
