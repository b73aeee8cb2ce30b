"""`oma jobs`: the JobLog's clean-up jobs."""

from __future__ import annotations

from itertools import islice

import click

from oma.cli.cleanup import show_results
from oma.cli.client import Client, in_path
from oma.cli.exits import Exit
from oma.cli.follow import Pace, follow_job, get_job
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import Output, visible
from oma.cli.reading import JobView
from oma.cli.render import print_job, print_jobs, print_log_line
from oma.cli.runs import ACCEPTED, Result, ask_for_run, result_of_answer, result_of_job
from oma.cli.spoken import read_options


@click.group()
def jobs() -> None:
    """Look at clean-up jobs, stop one, and go on with a parked one."""


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
    view = follow_with_notes(invocation.client(), output, job_id)
    result = result_of_job(view, view.vm_name)
    show_results(output, [result])
    return result.exit


@jobs.command()
@click.argument("job_id")
@click.option("--force", is_flag=True, help="Leave behind what won't go, as a tracked leak; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the audit.")
@click.option("--no-wait", is_flag=True, help="Let it go on and don't follow it.")
@takes_invocation
def resume(invocation: Invocation, job_id: str, *, force: bool, reason: str | None, no_wait: bool) -> int:
    """Go on with a parked job and follow it; the same as `oma cleanup VM --resume`."""
    words = read_options({"resume": True, "force": force, "reason": reason}, (), given={})
    body = {"force": True, "reason": words.reason} if words.force else {}
    client, output = invocation.client(), invocation.output()
    path = f"/jobs/{in_path(job_id)}/resume"
    status, answer = ask_for_run(client, path, body, lambda note: output.note(visible(note)), Pace())
    vm_name = str(answer.get("vm_name") or job_id)
    if status != ACCEPTED:
        result = result_of_answer(answer, vm_name)
    elif no_wait:
        result = Result(vm_name, "accepted", Exit.DONE, job_id, answer)
    else:
        result = result_of_job(follow_with_notes(client, output, job_id), vm_name)
    show_results(output, [result])
    return result.exit


@jobs.command()
@click.argument("job_id")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the audit.")
@click.option("--no-wait", is_flag=True, help="Ask for it and don't follow the job to where it stops.")
@takes_invocation
def cancel(invocation: Invocation, job_id: str, *, reason: str | None, no_wait: bool) -> int:
    """Stop a job between two actions: before the first revert every volume goes home, after it the job parks.

    Exits 0 when the job has stopped as asked, also parked.
    """
    client, output = invocation.client(), invocation.output()
    client.post(f"/jobs/{in_path(job_id)}/cancel", {"reason": reason} if reason else {})
    view = get_job(client, job_id) if no_wait else follow_with_notes(client, output, job_id)
    if output.as_json:
        output.print_json(view.document)
    else:
        print_job(output, view)
    return int(Exit.DONE if no_wait or view.state in ("cancelled", "parked") else Exit.FAILED)


def follow_with_notes(client: Client, output: Output, job_id: str) -> JobView:
    """To its end, each event and each note of the connection on stderr."""
    return follow_job(
        client,
        job_id,
        lambda event: output.note(visible(event.sentence)) if event.sentence else None,
        lambda note: output.note(visible(note)),
    )
