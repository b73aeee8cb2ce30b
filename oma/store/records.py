"""Everything about a VM, or about a page of VMs, in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from database.times import read_clock
from oma.domain.errors import Code, OmaError
from oma.domain.records import VmContext, VmRecords
from oma.ports import ContextFilter, Page
from oma.store import actions, contexts, failovers, issues, jobs, replications, volumes
from oma.store.batches import flatten, group


def get_records(connection: Connection, context_id: str) -> VmRecords:
    context = contexts.find_context(connection, context_id)
    if context is None:
        raise OmaError(
            Code.VM_NOT_FOUND, f"No VM has the context {context_id!r}; `oma vms` lists them.", context_id=context_id
        )
    return read_records(connection, [context])[0]


def list_records(connection: Connection, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmRecords]:
    page = contexts.list_contexts(connection, where, limit, cursor)
    return Page(tuple(read_records(connection, page.items)), page.next_cursor)


def read_records(connection: Connection, wanted: Sequence[VmContext]) -> list[VmRecords]:
    """In the order of the contexts, all from one transaction."""
    ids = [context.context_id for context in wanted]
    if not ids:
        return []
    all_volumes = volumes.list_volumes(connection, ids)
    shared = volumes.find_claimed_twice(connection, all_volumes)
    all_failovers = failovers.list_failovers(connection, ids)
    mappings = group(
        volumes.list_mappings(connection, [volume.volume_id for volume in all_volumes]),
        lambda mapping: mapping.volume_uuid,
    )
    joblog = group(
        failovers.list_joblog(connection, [failover.job_id for failover in all_failovers]), lambda row: row.job_id
    )
    volumes_of = group(all_volumes, lambda volume: volume.context_id)
    disks_of = group(volumes.list_disks(connection, ids), lambda disk: disk.context_id)
    failovers_of = group(all_failovers, lambda failover: failover.context_id)
    replications_of = group(replications.list_replications(connection, ids), lambda pair: pair[0])
    issues_of = group(issues.list_open_ids(connection, ids), lambda found: found[0])
    active_of = jobs.find_active(connection, ids)
    proven_of = actions.list_proven(connection, ids)
    configs = replications.list_configs(connection)
    read_at = read_clock(connection)
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
                open_issue_ids=tuple(issue_id for _context, issue_id, _job in issues_of.get(key, ())),
                active_job_id=active_job_id,
                active_job_holder=holder,
                proven=tuple(proven_of.get(key, ())),
                read_at=read_at,
            )
        )
    return records
