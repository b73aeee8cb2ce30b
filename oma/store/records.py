"""Everything about a VM, or about a page of VMs, in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from oma.domain.errors import Code, OmaError
from oma.domain.records import VmContext, VmRecords
from oma.ports import ContextFilter, Page
from oma.store import (
    actions,
    change_ids,
    contexts,
    failovers,
    foreign_joblog,
    issues,
    jobs,
    leaks,
    replications,
    rivals,
    volumes,
)
from oma.store.batches import flatten, group
from oma.store.doubts import Doubts


def get_records(connection: Connection, context_id: str) -> VmRecords:
    context = contexts.find_context(connection, context_id)
    if context is None:
        raise OmaError(
            Code.VM_NOT_FOUND, f"No VM has the context {context_id!r}; `oma vms` lists them.", context_id=context_id
        )
    return read_records(connection, [context])[0]


def list_records_of(connection: Connection, context_ids: Sequence[str]) -> list[VmRecords]:
    """One whose earlier runs can't be read is left out: it is told when it is asked for by itself."""
    wanted = contexts.list_contexts_of(connection, context_ids)
    return _read_readable(connection, wanted, for_a_run=True)


def _read_readable(connection: Connection, wanted: Sequence[VmContext], *, for_a_run: bool) -> list[VmRecords]:
    try:
        return read_records(connection, wanted, for_a_run=for_a_run)
    except OmaError as error:
        if error.code is not Code.INTERNAL_ERROR:
            raise
    found: list[VmRecords] = []
    for context in wanted:
        try:
            found += read_records(connection, [context], for_a_run=for_a_run)
        except OmaError as error:
            if error.code is not Code.INTERNAL_ERROR:
                raise
    return found


def list_records(connection: Connection, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmRecords]:
    page = contexts.list_contexts(connection, where, limit, cursor)
    return Page(tuple(_read_readable(connection, page.items, for_a_run=False)), page.next_cursor)


def read_records(connection: Connection, wanted: Sequence[VmContext], *, for_a_run: bool = True) -> list[VmRecords]:
    """In the order of the contexts, all from one transaction. What only a run asks for is left out of lists."""
    ids = [context.context_id for context in wanted]
    if not ids:
        return []
    doubts = Doubts(connection)
    all_volumes = volumes.list_volumes(connection, ids)
    shared = volumes.find_claimed_twice(connection, all_volumes)
    all_failovers = failovers.list_failovers(connection, ids, doubts)
    mappings = group(
        volumes.list_mappings(connection, [volume.volume_id for volume in all_volumes]),
        lambda mapping: mapping.volume_uuid,
    )
    foreign = foreign_joblog.read_foreign_joblog(connection, all_failovers, ids, doubts)
    joblog = group(foreign.named, lambda row: row.job_id)
    running_of = group(foreign.running, lambda pair: pair[0])
    volumes_of = group(all_volumes, lambda volume: volume.context_id)
    disks_of = group(volumes.list_disks(connection, ids), lambda disk: disk.context_id)
    failovers_of = group(all_failovers, lambda failover: failover.context_id)
    ended_of = jobs.list_ended(connection, ids) if for_a_run else {}
    # What follows is about runs that have ended; most VMs have had none.
    had_runs = list(ended_of) if for_a_run else ids
    others = rivals.list_rivals(connection, all_failovers) if for_a_run else ()
    rivals_of = group(others, lambda pair: pair[0])
    all_replications = replications.list_replications(connection, ids, doubts)
    replications_of = group(all_replications, lambda pair: pair[0])
    context_of = {replication.id: context_id for context_id, replication in all_replications}
    change_ids_of = group(change_ids.list_change_ids(connection, context_of, doubts), lambda pair: pair[0])
    to_settle, of_world = issues.list_open_by_kind(connection, ids)
    issues_of = group(to_settle, lambda pair: pair[0])
    world_issues_of = group(of_world, lambda pair: pair[0])
    active_of = jobs.find_active(connection, ids)
    failed_last = jobs.list_failed_last(connection, ids)
    proven_of = actions.list_proven(connection, had_runs)
    undone_of = actions.list_undone(connection, had_runs)
    leaks_of = leaks.list_of_partial_runs(connection, had_runs)
    configs = replications.list_configs(connection)
    records = []
    for context in wanted:
        key = context.context_id
        own_volumes = tuple(volumes_of.get(key, ()))
        own_failovers = tuple(failovers_of.get(key, ()))
        volume_ids = list(dict.fromkeys(volume.volume_id for volume in own_volumes))
        active_job_id, holder = active_of.get(key, (None, None))
        records.append(
            VmRecords(
                context=context,
                volumes=own_volumes,
                disks=tuple(disks_of.get(key, ())),
                mappings=flatten(mappings, volume_ids),
                failovers=own_failovers,
                joblog=flatten(joblog, list(dict.fromkeys(failover.job_id for failover in own_failovers))),
                replications=tuple(replication for _context, replication in replications_of.get(key, ())),
                configs=configs,
                shared_volume_ids=tuple(volume_id for volume_id in volume_ids if volume_id in shared),
                open_issue_ids=tuple(issue_id for _context, issue_id in issues_of.get(key, ())),
                active_job_id=active_job_id,
                active_job_holder=holder,
                proven=tuple(proven_of.get(key, ())),
                undone=tuple(undone_of.get(key, ())),
                partial_leaks=tuple(leaks_of.get(key, ())),
                read_at=doubts.now,
                change_ids=tuple(change_id for _context, change_id in change_ids_of.get(key, ())),
                doubtful_times=doubts.of(key),
                last_run_failed=key in failed_last,
                running_jobs=tuple(job for _context, job in running_of.get(key, ())),
                world_issue_ids=tuple(issue_id for _context, issue_id in world_issues_of.get(key, ())),
                ended_job_ids=ended_of.get(key, frozenset()),
                rivals=tuple(rival for _context, rival in rivals_of.get(key, ())),
            )
        )
    return records
