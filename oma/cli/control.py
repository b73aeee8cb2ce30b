"""`oma pause` and `oma resume`: the emergency stop, for everything, an operation or a VM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import Output, print_item, visible

C = TypeVar("C", bound=Callable[..., Any])


def what_is_meant(command: C) -> C:
    """The options that say what is paused or lifted; none of them means everything."""
    for option in (
        click.option("--context-id", metavar="ID", help="Which VM, where several carry the name."),
        click.option("--vm", metavar="NAME", help="Only this VM: a hold."),
        click.option("--operation", metavar="NAME", help="Only this operation, such as failed-execution-cleanup."),
    ):
        command = option(command)
    return command


@click.command()
@what_is_meant
@click.option("--reason", metavar="TEXT", help="Why; it stands in the audit and in every refusal.")
@click.option("--list", "only_list", is_flag=True, help="Only show what is paused now.")
@takes_invocation
def pause(
    invocation: Invocation,
    *,
    operation: str | None,
    vm: str | None,
    context_id: str | None,
    reason: str | None,
    only_list: bool,
) -> int:
    """Stop everything, an operation or a VM at the next safe point, and begin nothing more of it.

    It outlives restarts; `oma resume` with the same options lifts it, and what it stopped goes on.
    """
    output = invocation.output()
    if only_list:
        if reason or operation or vm or context_id:
            raise click.UsageError("--list goes alone.")
        _show(output, invocation.client().get("/control"))
        return 0
    if reason is None:
        raise click.UsageError("A pause needs a --reason, which stands in the audit and in every refusal.")
    body = _body(operation, vm, context_id, reason)
    _show(output, invocation.client().post("/control/pause", body).body)
    return 0


@click.command()
@what_is_meant
@click.option("--reason", metavar="TEXT", help="Why it may go on; it stands in the audit.")
@takes_invocation
def resume(
    invocation: Invocation,
    *,
    operation: str | None,
    vm: str | None,
    context_id: str | None,
    reason: str | None,
) -> int:
    """Lift a pause: what it stopped goes on. Without options, the pause of everything.

    A parked job is another matter: `oma jobs resume`.
    """
    body = _body(operation, vm, context_id, reason)
    _show(invocation.output(), invocation.client().post("/control/resume", body).body)
    return 0


def _body(operation: str | None, vm: str | None, context_id: str | None, reason: str | None) -> dict[str, str]:
    if operation is not None and vm is not None:
        raise click.UsageError("--operation and --vm are two pauses; say one after the other.")
    if context_id is not None and vm is None:
        raise click.UsageError("--context-id says which VM of a name is meant; add --vm.")
    scope = "vm" if vm is not None else "operation" if operation is not None else "all"
    given = {"scope": scope, "operation": operation, "vm_name": vm, "context_id": context_id, "reason": reason}
    return {name: value for name, value in given.items() if value is not None}


def _show(output: Output, answer: Mapping[str, Any]) -> None:
    if output.as_json:
        output.print_json(answer)
        return
    if "message" in answer:
        output.print(visible(answer["message"]))
        return
    for one in answer["pauses"]:
        output.print(f"{visible(one['sentence'])} (since {visible(one['since'])})")
        print_item(output, "lift:", visible(one["lift"]))
    if not answer["pauses"]:
        output.note("Nothing is paused.")
