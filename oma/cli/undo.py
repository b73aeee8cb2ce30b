"""`oma undo`: before the first revert, every volume back on the OMA."""

from __future__ import annotations

import click

from oma.cli.client import in_path
from oma.cli.exits import CommandFailed, Exit
from oma.cli.follow import get_job
from oma.cli.jobs import follow_with_notes
from oma.cli.options import Invocation, takes_invocation
from oma.cli.render import print_job


@click.command()
@click.argument("job_id")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the audit.")
@takes_invocation
def undo(invocation: Invocation, job_id: str, *, reason: str | None) -> int:
    """Undo a job before its first revert: every volume it detached goes back on the OMA, and the job ends cancelled.

    After the first revert the way is forward only, and nothing is asked of the job. Should that revert begin just
    now, the job parks instead and can be resumed.
    """
    client, output = invocation.client(), invocation.output()
    if get_job(client, job_id).document.get("reverted"):
        raise CommandFailed(
            f"Job {job_id} has begun to revert volumes; from then on nothing is undone.",
            f"See where it stands and go on: oma jobs show {job_id}",
        )
    client.post(f"/jobs/{in_path(job_id)}/cancel", {"reason": reason} if reason else {})
    view = follow_with_notes(client, output, job_id)
    if output.as_json:
        output.print_json(view.document)
    else:
        print_job(output, view)
    if view.state == "cancelled":
        return int(Exit.DONE)
    return int(Exit.NEEDS_RESOLUTION if view.state == "parked" else Exit.FAILED)
