"""`oma config`: the settings as they are read, and whether what they name answers."""

from __future__ import annotations

import os

import click
from rich.text import Text

from appliance.settings import Settings, SettingsError
from oma.cli.exits import Exit
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import Output, new_table, print_table, visible
from oma.cli.problems import complain_about
from oma.cli.words import state_text


@click.group()
def config() -> None:
    """The settings."""


@config.command()
@takes_invocation
def show(invocation: Invocation) -> int:
    """Print every setting with its value; secrets are not shown."""
    shown = invocation.settings().as_shown()
    output = invocation.output()
    if output.as_json:
        output.print_json(shown)
        return Exit.DONE
    for section, values in shown.items():
        output.print(Text(f"[{section}]", "bold"))
        for key, value in values.items():
            output.print(Text.assemble(f"{key} = ", (_as_toml(value), "" if value is not None else "dim")))
    return Exit.DONE


@config.command()
@takes_invocation
def verify(invocation: Invocation) -> int:
    """Name every bad or unknown setting and test each connection; exits 1 on any fault."""
    output = invocation.output()
    try:
        settings = invocation.settings()
    except SettingsError as error:
        return _tell_faults(output, error)
    from oma.cli.checks import check_connections  # noqa: PLC0415  brings in the clients; bad settings need none

    findings = check_connections(settings, os.environ)
    if output.as_json:
        output.print_json({"faults": [], "connections": [one.as_json() for one in findings]})
    else:
        table = new_table("WHAT", "STATE", "")
        table.add_row("settings", state_text("ok"), _described(settings))
        for one in findings:
            table.add_row(one.name, state_text("ok" if one.ok else "fault"), visible(one.sentence))
        print_table(output, table)
    for one in findings:
        if not one.ok:
            complain_about(output, {"detail": f"{one.name}: {one.sentence}", "next": one.advice})
    return Exit.DONE if all(one.ok for one in findings) else Exit.FAILED


def _tell_faults(output: Output, error: SettingsError) -> Exit:
    if output.as_json:
        faults = [
            {"place": one.place, "key": one.key, "problem": one.problem, "allowed": one.allowed} for one in error.faults
        ]
        output.print_json({"faults": faults, "connections": []})
    for one in error.faults:
        complain_about(output, {"detail": str(one)})
    complain_about(output, {"detail": f"{len(error.faults)} fault(s) in the settings; no connection was tested."})
    return Exit.FAILED


def _described(settings: Settings) -> str:
    return f"{len(settings.as_shown())} sections are in order."


def _as_toml(value: object) -> str:
    if value is None:
        return "(not set)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{visible(value)}"'
    return visible(value)
