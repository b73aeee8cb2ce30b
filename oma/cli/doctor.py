"""`oma doctor`: everything this appliance needs, a line each, with what to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from rich.text import Text

from appliance.settings import SettingsError
from oma.cli.exits import Exit
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import Output, visible
from oma.cli.words import state_text

if TYPE_CHECKING:
    from oma.cli.checks import Finding


@click.command()
@takes_invocation
def doctor(invocation: Invocation) -> int:
    """Check settings, database, CloudStack, Volume Daemon, devices, the daemon and versions; changes nothing."""
    from oma.cli.checks import check_daemon  # noqa: PLC0415  brings in the clients

    output = invocation.output()
    findings = [*_look_here(invocation), *check_daemon(invocation.client())]
    if output.as_json:
        output.print_json({"findings": [one.as_json() for one in findings]})
    else:
        for one in findings:
            _print_finding(output, one)
    return Exit.DONE if all(one.ok for one in findings) else Exit.FAILED


def _look_here(invocation: Invocation) -> list[Finding]:
    """What the settings name; without settings there is nothing to look at."""
    from oma.cli.checks import Finding, check_connections, check_device_root  # noqa: PLC0415

    try:
        settings = invocation.settings()
    except SettingsError as error:
        sentence = f"{len(error.faults)} fault(s), the first: {error.faults[0]}"
        return [Finding("settings", ok=False, sentence=sentence, advice="All of them: oma config verify")]
    return [
        Finding("settings", ok=True, sentence="They can be read and are all allowed."),
        *check_connections(settings, os.environ),
        check_device_root(settings),
    ]


def _print_finding(output: Output, one: Finding) -> None:
    state = state_text("ok" if one.ok else "fault")
    state.pad_right(7 - len(state))
    line = Text.assemble(state, f"{one.name:<15}", visible(one.sentence))
    if not one.ok and one.advice:
        line.append(f"  next: {visible(one.advice)}", "bold")
    output.print(line)
