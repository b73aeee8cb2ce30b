"""`oma vms`: the estate."""

from __future__ import annotations

import click

from oma.cli.options import Invocation, takes_invocation
from oma.cli.render import print_vms


@click.command()
@click.option("--needs-cleanup", is_flag=True, help="Only those that need a clean-up.")
@click.option("--status", metavar="STATUS", help="Only those with this status, such as cleanup_required.")
@click.option("--search", metavar="TEXT", help="Only those whose name or vCenter holds this text.")
@takes_invocation
def vms(invocation: Invocation, *, needs_cleanup: bool, status: str | None, search: str | None) -> int:
    """List the VMs, why a clean-up is recommended, and which vCenter and context they belong to."""
    query = {"needs_cleanup": "true" if needs_cleanup else None, "status": status, "q": search}
    found = list(invocation.client().list_all("/vm-contexts", query))
    output = invocation.output()
    if output.as_json:
        output.print_json({"items": found})
    elif found:
        print_vms(output, found)
    else:
        output.note("No VM needs a clean-up." if needs_cleanup else "No VM fits.")
    return 0
