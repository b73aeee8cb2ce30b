"""`oma audit fix`: a person says how what is uncertain ended, and the run goes on."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from oma.cli.client import in_path
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import print_item, visible
from oma.domain.resolving import SPOKEN


@click.group()
def audit() -> None:
    """Settle what only a person can settle."""


@audit.command()
@click.option("-c", "--id", "issue_id", required=True, metavar="ID", help="The issue, as `oma issue list` shows it.")
@click.option(
    "--resolution",
    required=True,
    type=click.Choice(list(SPOKEN), case_sensitive=False),
    help="APPLIED: it happened. ROLLED_BACK: it did not, and runs again. RESYNC: copy the disk whole.",
)
@click.option("--notes", required=True, metavar="TEXT", help="What you found and did; it stands in the audit.")
@click.option("--insist", is_flag=True, help="Against what the world shows; for an admin only, with --reason.")
@click.option("--reason", metavar="TEXT", help="Why, with --insist.")
@takes_invocation
def fix(invocation: Invocation, *, issue_id: str, resolution: str, notes: str, insist: bool, reason: str | None) -> int:
    """Say how an issue stands; after the VM's last open one its parked run goes on."""
    if insist and not reason:
        raise click.UsageError("--insist needs --reason.")
    if reason and not insist:
        raise click.UsageError("--reason is for --insist; what you found belongs into --notes.")
    body: dict[str, Any] = {"resolution": resolution, "notes": notes}
    if insist:
        body |= {"insist": True, "reason": reason}
    answer = invocation.client().post(f"/issues/{in_path(issue_id)}/resolve", body).body
    output = invocation.output()
    if output.as_json:
        output.print_json(answer)
        return 0
    settled = answer["issue"]
    output.print(
        Text(f"Issue {visible(settled['id'])} of {visible(settled['vm_name'])} is {visible(settled['state'])}.")
    )
    output.print(Text(f"  {visible(answer['message'])}"))
    print_item(output, "next:", visible(answer["next"]), indent=0, style="bold")
    return 0
