"""What only a person can change in the world: a destroyed VM that holds a volume, somebody else's marker on one.

A run that is refused for one opens its issue; a later one that no longer finds it closes it. A dry run writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.issues import DESTROYED_VM_HOLDS_VOLUME, FOREIGN_MARKED, Issue, Severity, due_time
from oma.domain.states import IssueState
from oma.domain.verdict import shell_word
from oma.domain.world import MARK_KEY, CloudVm, CloudVolume, Marked, Unanswered
from oma.ports import Clock, Ids
from oma.service.deps import Deps
from oma.workflow.guards.volumes import due_words, expunge_due, held_by_destroyed

MOOT_SENTENCE = "No destroyed VM holds a volume of this VM any more, and none carries somebody else's marker."


async def settle_world_issues(
    deps: Deps, evidence: Evidence, refusals: Sequence[Refusal], *, dry_run: bool
) -> tuple[str, ...]:
    """Opens what the refusals found, closes what is moot; returns the ids of the open ones.

    Nothing is moot while CloudStack does not list one of the volumes: it may have gone with the VM that held it.
    """
    if dry_run:
        return evidence.records.world_issue_ids
    found = [
        *build_world_issues(evidence, refusals, deps.clock, deps.ids),
        *build_marker_issues(evidence, refusals, deps.clock, deps.ids),
    ]
    opened = await deps.journal.open_world_issues(found, deps.clock.now()) if found else ()
    all_listed = all(isinstance(facts.cloud, CloudVolume) for facts in evidence.volumes)
    told = not evidence.unanswered and not isinstance(evidence.marks, Unanswered)
    if evidence.records.world_issue_ids and told and all_listed:
        await deps.journal.close_world_issues(
            evidence.records.context.context_id,
            [issue.cause for issue in found],
            MOOT_SENTENCE,
            {"volumes": {facts.volume_id: _holder(facts.cloud) for facts in evidence.volumes}},
            deps.clock.now(),
        )
    return tuple(opened)


def build_world_issues(evidence: Evidence, refusals: Iterable[Refusal], clock: Clock, ids: Ids) -> list[Issue]:
    """One critical issue per destroyed VM that the guards refused for."""
    wanted = {one.evidence["vm_id"] for one in refusals if one.evidence.get("kind") == DESTROYED_VM_HOLDS_VOLUME}
    held: dict[str, tuple[CloudVm, list[CloudVolume]]] = {}
    for vm, volume in held_by_destroyed(evidence):
        if vm.id in wanted:
            held.setdefault(vm.id, (vm, []))[1].append(volume)
    return [_build(evidence, vm, volumes, clock, ids.new_id()) for vm, volumes in held.values()]


def build_marker_issues(evidence: Evidence, refusals: Iterable[Refusal], clock: Clock, ids: Ids) -> list[Issue]:
    """One per marker that is not ours, whatever it is on."""
    marked: dict[str, list[Refusal]] = {}
    for one in refusals:
        if one.code is Code.FOREIGN_MARKER:
            marked.setdefault(str(one.evidence["value"]), []).append(one)
    context, now = evidence.records.context, clock.now()
    return [
        Issue(
            id=(issue_id := ids.new_id()),
            cause=f"{context.context_id}/{value}/marker"[:255],
            job_id=None,
            action_id=None,
            context_id=context.context_id,
            vm_name=context.vm_name,
            kind=FOREIGN_MARKED,
            code=Code.FOREIGN_MARKER.value,
            severity=Severity.STANDARD,
            state=IssueState.OPEN,
            title=f"{' and '.join(str(one.evidence['volume_name']) for one in found)} of {context.vm_name} carry the "
            f"marker {value or '(empty)'}, which is not ours.",
            target=_marked_target(found),
            evidence={"value": value, "installation": evidence.limits.installation},
            error=None,
            guidance=_marker_guidance(found, value, context.vm_name, issue_id),
            opened_at=now,
            due_at=due_time(Severity.STANDARD, now),
        )
        for value, found in marked.items()
    ]


def _marked_target(found: Sequence[Refusal]) -> dict[str, list[str]]:
    return {key: ids for key in ("volume_ids", "snapshot_ids") if (ids := _marked_ids(found, key))}


def _marked_ids(found: Sequence[Refusal], key: str) -> list[str]:
    return [str(one.evidence[key.removesuffix("s")]) for one in found if key.removesuffix("s") in one.evidence]


def _marker_guidance(found: Sequence[Refusal], value: str, vm_name: str, issue_id: str) -> tuple[str, ...]:
    calls = [
        f"cs deleteTags resourcetype={what} resourceids={','.join(ids)} tags[0].key={MARK_KEY}"
        for what, key in ((Marked.VOLUME, "volume_ids"), (Marked.SNAPSHOT, "snapshot_ids"))
        if (ids := _marked_ids(found, key))
    ]
    return (
        f"1. See on the installation that the marker {value or '(empty)'} names whether its run still works on them.",
        f"2. Only when it does not, take it off: {'; '.join(calls)}",
        f'3. Say that it is off: oma audit fix -c {issue_id} --resolution APPLIED --notes "…"',
        f"4. Then clean up: oma cleanup {shell_word(vm_name)}",
    )


def _build(evidence: Evidence, vm: CloudVm, volumes: list[CloudVolume], clock: Clock, issue_id: str) -> Issue:
    context = evidence.records.context
    now = clock.now()
    due = expunge_due(evidence, vm)
    names = " and ".join(volume.name for volume in volumes)
    refusal = f"{names} of {context.vm_name} hang{'s' if len(volumes) == 1 else ''} on {vm.name}, which is {vm.state}"
    return Issue(
        id=issue_id,
        cause=f"{context.context_id}/{vm.id}/destroyed",
        job_id=None,
        action_id=None,
        context_id=context.context_id,
        vm_name=context.vm_name,
        kind=DESTROYED_VM_HOLDS_VOLUME,
        code="state_unknown",
        severity=Severity.CRITICAL,
        state=IssueState.OPEN,
        title=f"{refusal}; its expunge falls due {due_words(due)}.",
        target={"vm_id": vm.id, "volume_ids": [volume.id for volume in volumes]},
        evidence={
            "vm_state": vm.state,
            "expunge_due": due.isoformat() if due else None,
            "volumes": [{"id": one.id, "name": one.name, "type": one.type, "state": one.state} for one in volumes],
        },
        error=None,
        guidance=_guidance(vm, context.vm_name, due_words(due)),
        opened_at=now,
        due_at=min(due, due_time(Severity.CRITICAL, now)) if due else due_time(Severity.CRITICAL, now),
    )


def _guidance(vm: CloudVm, vm_name: str, due: str) -> tuple[str, ...]:
    return (
        f"Recover the VM before its expunge {due}: cs recoverVirtualMachine id={vm.id}",
        f"See that it is Stopped, and don't start it: cs listVirtualMachines id={vm.id} listall=true",
        f"See what hangs on it: cs listVolumes virtualmachineid={vm.id} listall=true",
        f"Then clean up; this issue closes itself: oma cleanup {shell_word(vm_name)}",
    )


def _holder(volume: object) -> str | None:
    return volume.vm_id if isinstance(volume, CloudVolume) else None
