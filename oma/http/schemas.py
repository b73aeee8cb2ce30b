"""What the API shows, as JSON; `oma.http.shapes` describes the same.

Every list is `{"items": […], "next_cursor": …}`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oma.domain.actions import Action
from oma.domain.events import Event
from oma.domain.issues import Issue
from oma.domain.jobs import OPERATION, Job, LogLine, Step
from oma.domain.records import FailoverRecord, MappingRecord, VmRecords, VolumeRecord
from oma.service.answers import action_entry, as_rfc3339
from oma.service.issues import Outcome
from oma.service.queries import DependencyHealth, JobView, VmView


def as_list(items: Iterable[dict[str, Any]], next_cursor: str | None = None) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": next_cursor}


def vm_entry(view: VmView) -> dict[str, Any]:
    """A VM as list and detail show it: records, whether a clean-up is advised and why, what blocks it."""
    records = view.records
    context = records.context
    return {
        "context_id": context.context_id,
        "vm_name": context.vm_name,
        "vcenter_host": context.vcenter_host,
        "status": context.current_status,
        "current_job_id": context.current_job_id,
        "power_state": context.power_state,
        "os_type": context.os_type,
        "cpu_count": context.cpu_count,
        "memory_mb": context.memory_mb,
        "last_status_change": as_rfc3339(context.last_status_change),
        "last_operation_summary": context.last_operation_summary,
        "cleanup_recommended": view.need.recommended,
        "cleanup_why": view.need.why,
        "cleanup_reasons": list(view.need.reasons),
        "active_job_id": records.active_job_id,
        "open_issue_ids": list(records.open_issue_ids),
        "volumes": [volume_entry(records, volume) for volume in records.volumes],
        "failover_jobs": [failover_entry(failover) for failover in records.failovers],
    }


def volume_entry(records: VmRecords, volume: VolumeRecord) -> dict[str, Any]:
    """A volume with its place as the records have it, and its tracked snapshot."""
    disk = next((disk for disk in records.disks if disk.ossea_volume_id == volume.id), None)
    mapping = next((mapping for mapping in records.mappings if mapping.volume_uuid == volume.volume_id), None)
    return {
        "volume_id": volume.volume_id,
        "name": volume.volume_name,
        "size_gb": volume.size_gb,
        "status": volume.status,
        "disk_id": disk.disk_id if disk else None,
        "is_system_disk": disk.is_system_disk if disk else False,
        "attachment": attachment_entry(mapping) if mapping else None,
        "snapshot": snapshot_entry(volume, mapping),
    }


def attachment_entry(mapping: MappingRecord) -> dict[str, Any]:
    return {
        "vm_id": mapping.vm_id,
        "device_path": mapping.device_path,
        "operation_mode": mapping.operation_mode,
    }


def snapshot_entry(volume: VolumeRecord, mapping: MappingRecord | None) -> dict[str, Any] | None:
    """The tracked snapshot, wherever an installation tracks it; None where none is."""
    if volume.snapshot_id:
        return {
            "snapshot_id": volume.snapshot_id,
            "status": volume.snapshot_status,
            "created_at": as_rfc3339(volume.snapshot_created_at),
        }
    if mapping is not None and mapping.ossea_snapshot_id:
        return {"snapshot_id": mapping.ossea_snapshot_id, "status": mapping.snapshot_status, "created_at": None}
    return None


def failover_entry(failover: FailoverRecord) -> dict[str, Any]:
    return {
        "id": failover.id,
        "job_id": failover.job_id,
        "type": failover.job_type,
        "status": failover.status,
        "open": failover.is_open,
        "destination_vm_id": failover.destination_vm_id,
        "error_message": failover.error_message,
        "created_at": as_rfc3339(failover.created_at),
        "started_at": as_rfc3339(failover.started_at),
        "updated_at": as_rfc3339(failover.updated_at),
        "completed_at": as_rfc3339(failover.completed_at),
    }


def job_entry(job: Job) -> dict[str, Any]:
    """A job in a list; `GET /jobs/{id}` adds plan, steps, actions and issues."""
    ended_s = (job.ended_at - job.started_at).total_seconds() if job.started_at and job.ended_at else None
    return {
        "id": job.id,
        "vm_name": job.vm_name,
        "context_id": job.context_id,
        "operation": OPERATION,
        "status": job.state.value,
        "phase": job.phase.value if job.phase else None,
        "reverted": job.reverted,
        "correlation_id": job.correlation_id,
        "requested_by": job.requested_by,
        "request": job.request.as_json(),
        "plan_digest": job.plan_digest,
        "created_at": as_rfc3339(job.created_at),
        "started_at": as_rfc3339(job.started_at),
        "ended_at": as_rfc3339(job.ended_at),
        "duration_seconds": ended_s,
        "holder": job.lease_owner,
        "result": job.result,
        "error": job.error,
    }


def job_detail(view: JobView) -> dict[str, Any]:
    return {
        **job_entry(view.job),
        "plan": view.job.plan.as_json(),
        "steps": [step_entry(step) for step in view.steps],
        "actions": [action_detail(action) for action in view.actions],
        "issues": [issue_entry(issue) for issue in view.issues],
    }


def step_entry(step: Step) -> dict[str, Any]:
    return {
        "name": step.phase.value,
        "seq": step.seq,
        "status": step.status.value,
        "started_at": as_rfc3339(step.started_at),
        "completed_at": as_rfc3339(step.completed_at),
        "duration_seconds": step.duration_s,
        "error_message": step.error_message,
        "metadata": step.metadata,
    }


def action_detail(action: Action) -> dict[str, Any]:
    return {
        **action_entry(action),
        "job_id": action.job_id,
        "phase": action.phase.value,
        "seq": action.seq,
        "sent_at": as_rfc3339(action.sent_at),
        "expires_at": as_rfc3339(action.expires_at),
        "evidence": action.evidence,
    }


def log_entry(line: LogLine) -> dict[str, Any]:
    return {
        "id": line.id,
        "job_id": line.job_id,
        "phase": line.phase.value if line.phase else None,
        "level": line.level,
        "message": line.message,
        "attrs": line.attrs,
        "at": as_rfc3339(line.at),
    }


def event_entry(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "at": as_rfc3339(event.at),
        "job_id": event.job_id,
        "context_id": event.context_id,
        "type": event.type.value,
        "sentence": event.sentence,
        "data": event.data,
    }


def issue_entry(issue: Issue) -> dict[str, Any]:
    return {
        "id": issue.id,
        "job_id": issue.job_id,
        "action_id": issue.action_id,
        "context_id": issue.context_id,
        "vm_name": issue.vm_name,
        "kind": issue.kind,
        "code": issue.code,
        "severity": issue.severity.value,
        "state": issue.state.value,
        "title": issue.title,
        "target": issue.target,
        "evidence": issue.evidence,
        "error": issue.error,
        "guidance": list(issue.guidance),
        "opened_at": as_rfc3339(issue.opened_at),
        "due_at": as_rfc3339(issue.due_at),
        "owner": issue.owner,
        "resolved_at": as_rfc3339(issue.resolved_at),
        "resolution": issue.resolution,
        "notes": issue.notes,
        "resolved_by": issue.actor,
    }


def resolved_entry(outcome: Outcome) -> dict[str, Any]:
    """How an issue stands after a person's word, and what becomes of its run."""
    settled, waits_until = outcome.settled, outcome.waits_until
    issue = settled.issue
    if settled.resumed:
        then = f"The run goes on by itself; follow it: oma jobs follow {issue.job_id}"
    elif settled.open_issue_ids:
        then = f"Settle the next open issue of the VM: oma issue get -c {settled.open_issue_ids[0]}"
    else:
        then = "No issue of the VM is open any more."
    return {
        "issue": issue_entry(issue),
        "message": outcome.sentence,
        "job_id": issue.job_id,
        "job_status": settled.job_state.value if settled.job_state else None,
        "resumed": settled.resumed,
        "open_issue_ids": list(settled.open_issue_ids),
        "waits": outcome.waits,
        "waits_until": as_rfc3339(waits_until),
        "next": f"{_waiting(outcome)}{then}",
    }


def _waiting(outcome: Outcome) -> str:
    if not outcome.waits:
        return ""
    if outcome.waits_until is None:
        return "Nothing attaches the volume before its revert's own job has ended and the window after it is over. "
    return f"Nothing attaches or reverts the volume before {as_rfc3339(outcome.waits_until)}. "


def health_entry(found: DependencyHealth) -> dict[str, Any]:
    return {
        "name": found.name,
        "healthy": found.healthy,
        "sentence": found.sentence,
        "latency_seconds": round(found.latency_s, 6),
    }
