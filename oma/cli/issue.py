"""`oma issue`: what only a person can settle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import click
from rich.text import Text

from oma.cli.client import ApiProblem, in_path
from oma.cli.exits import Exit
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import Output, new_table, print_item, print_table, visible
from oma.cli.words import guidance_lines, short_time, state_text, upstream_text

FILTERS: Final[Mapping[str, str]] = {
    "error": "q",
    "vm": "vm",
    "context": "context_id",
    "job": "job_id",
    "severity": "severity",
    "kind": "kind",
    "state": "state",
}
"""What `--filter NAME:TEXT` may name, and the API's own name for it."""


@click.group()
def issue() -> None:
    """Look at what only a person can settle; `oma audit fix` settles it."""


@issue.command(name="list")
@click.option("--filter", "filters", multiple=True, metavar="NAME:TEXT", help=f"By {', '.join(FILTERS)}; repeatable.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "count", "id"]),
    default="table",
    show_default=True,
    help="How to print them.",
)
@click.option("--limit", type=click.IntRange(1), default=500, show_default=True, help="At most so many, newest first.")
@takes_invocation
def list_issues(invocation: Invocation, *, filters: tuple[str, ...], form: str, limit: int) -> int:
    """List open issues, newest first; `--filter state:all` lists resolved ones too."""
    query = {**read_filters(filters), "limit": str(min(limit, 500))}
    found = list(islice(invocation.client().list_all("/issues", query), limit))
    output = invocation.output()
    if output.as_json or form == "json":
        output.print_json({"items": found})
    elif form == "count":
        output.print(Text(str(len(found))))
    elif form == "id":
        for one in found:
            output.print(Text(visible(one["id"])))
    elif found:
        print_issues(output, found)
    else:
        output.note("No issue fits.")
    return 0


@issue.command()
@click.option("-c", "--id", "issue_id", metavar="ID", help="Which one; without it the next by priority.")
@click.option("--guidance", is_flag=True, help="Only the numbered steps.")
@click.option("--exists", is_flag=True, help="Print nothing; exit 0 where there is one, else 3.")
@click.option("--format", "form", type=click.Choice(["text", "json", "id"]), default="text", show_default=True)
@takes_invocation
def get(invocation: Invocation, *, issue_id: str | None, guidance: bool, exists: bool, form: str) -> int:
    """Show one issue with its evidence and what to do."""
    client, output = invocation.client(), invocation.output()
    try:
        found = client.get("/issues/next" if issue_id is None else f"/issues/{in_path(issue_id)}")
    except ApiProblem as problem:
        if exists and problem.document.get("code") == "issue_not_found":
            return Exit.NOT_FOUND
        raise
    if exists:
        return Exit.DONE
    if output.as_json or form == "json":
        output.print_json(found)
    elif form == "id":
        output.print(Text(visible(found["id"])))
    elif guidance:
        _print_guidance(output, found)
    else:
        print_issue(output, found)
    return 0


def read_filters(filters: Iterable[str]) -> dict[str, str | None]:
    """Raises `click.UsageError` for what is no filter, or the same one twice."""
    query: dict[str, str | None] = {}
    for text in filters:
        name, colon, value = text.partition(":")
        if not colon or name not in FILTERS or not value:
            raise click.UsageError(f"--filter {text!r} is none; give one like error:TEXT ({', '.join(FILTERS)}).")
        if FILTERS[name] in query:
            raise click.UsageError(f"--filter {name}: is given twice; give it once.")
        query[FILTERS[name]] = value
    return query


def print_issues(output: Output, issues: Sequence[Mapping[str, Any]]) -> None:
    table = new_table("ISSUE", "VM", "SEVERITY", "STATE", "DUE", "WHAT")
    for one in issues:
        table.add_row(
            visible(one["id"]),
            visible(one["vm_name"]),
            visible(one["severity"]),
            state_text(one["state"]),
            short_time(one.get("due_at")),
            visible(one["title"]),
        )
    print_table(output, table)


def print_issue(output: Output, found: Mapping[str, Any]) -> None:
    output.print(Text.assemble(("issue ", "bold yellow"), visible(found["id"]), "  ", state_text(found["state"])))
    output.print(Text(f"  {visible(found['title'])}"))
    for name, value in _facts(found):
        if value:
            output.print(Text.assemble((f"  {name}: ", "dim"), value))
    for key, value in (found.get("evidence") or {}).items():
        told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        output.print(Text.assemble((f"  seen, {visible(key)}: ", "dim"), visible(told)))
    _print_guidance(output, found)


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("VM", visible(found["vm_name"])),
        ("kind", visible(found["kind"])),
        ("severity", visible(found["severity"])),
        ("job", visible(found.get("job_id") or "")),
        ("action", visible(found.get("action_id") or "")),
        ("open since", short_time(found.get("opened_at"))),
        ("due", short_time(found.get("due_at"))),
        ("owner", visible(found.get("owner") or "")),
        ("upstream", upstream_text(found.get("error"))),
        ("resolved", short_time(found.get("resolved_at"))),
        ("resolution", visible(found.get("resolution") or "")),
        ("by", visible(found.get("resolved_by") or "")),
        ("notes", visible(found.get("notes") or "")),
    ]


def _print_guidance(output: Output, found: Mapping[str, Any]) -> None:
    for number, step in enumerate(guidance_lines(found.get("guidance")), 1):
        print_item(output, f"{number}.", step)
