"""`oma jobs`: the JobLog's clean-up jobs."""

from __future__ import annotations

from itertools import islice

import click

from oma.cli.cleanup import show_results
from oma.cli.client import in_path
from oma.cli.follow import follow_job, get_job
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import visible
from oma.cli.render import print_job, print_jobs, print_log_line
from oma.cli.runs import result_of_job


@click.group()
def jobs() -> None:
    """Look at clean-up jobs."""


@jobs.command(name="list")
@click.option("--vm", metavar="NAME", help="Only this VM's.")
@click.option("--status", metavar="STATUS", help="queued, running, parked, completed, failed or cancelled.")
@click.option("--since", metavar="TIME", help="Created at or after, RFC 3339.")
@click.option("--until", metavar="TIME", help="Created before, RFC 3339.")
@click.option("--correlation-id", metavar="ID", help="Only what one request caused.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@takes_invocation
def list_jobs(
    invocation: Invocation,
    *,
    vm: str | None,
    status: str | None,
    since: str | None,
    until: str | None,
    correlation_id: str | None,
    limit: int,
) -> int:
    """List jobs, newest first."""
    query = {"vm": vm, "status": status, "since": since, "until": until, "correlation_id": correlation_id}
    page = {"limit": str(min(limit, 500))}
    found = list(islice(invocation.client().list_all("/jobs", {**query, **page}), limit))
    output = invocation.output()
    if output.as_json:
        output.print_json({"items": found})
    elif found:
        print_jobs(output, found)
    else:
        output.note("No job fits.")
    return 0


@jobs.command()
@click.argument("job_id")
@takes_invocation
def show(invocation: Invocation, job_id: str) -> int:
    """Show a job: its phases, actions, result, and what to do."""
    view = get_job(invocation.client(), job_id)
    output = invocation.output()
    if output.as_json:
        output.print_json(view.document)
    else:
        print_job(output, view)
    return 0


@jobs.command()
@click.argument("job_id")
@takes_invocation
def log(invocation: Invocation, job_id: str) -> int:
    """Print a job's log, oldest line first; with --json one object per line."""
    output = invocation.output()
    for line in invocation.client().list_all(f"/jobs/{in_path(job_id)}/log", {}):
        if output.as_json:
            output.print_json_line(line)
        else:
            print_log_line(output, line)
    return 0


@jobs.command()
@click.argument("job_id")
@takes_invocation
def follow(invocation: Invocation, job_id: str) -> int:
    """Follow a job to its end, from its first event; exits as `oma cleanup` would."""
    output = invocation.output()
    client = invocation.client()
    view = follow_job(
        client,
        job_id,
        lambda event: output.note(visible(event.sentence)) if event.sentence else None,
        lambda note: output.note(visible(note)),
    )
    result = result_of_job(view, view.vm_name)
    show_results(output, [result])
    return result.exit
