"""`oma`: the operator's command line. Commands are imported when they are called, so that `--help` stays quick."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from oma.cli.exits import Exit
from oma.cli.options import common_options, merge

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("oma.cli.serve:serve", "Run the daemon: API, page and workflow."),
    "vms": ("oma.cli.vms:vms", "List the VMs and which of them need a clean-up."),
    "cleanup": ("oma.cli.cleanup:cleanup", "Clean up VMs after a failed failover or rollback."),
    "jobs": ("oma.cli.jobs:jobs", "Clean-up jobs: list, show, log, follow, resume, cancel."),
    "undo": ("oma.cli.undo:undo", "Before the first revert: put every volume of a job back on the OMA."),
    "pause": ("oma.cli.control:pause", "Stop everything, an operation or a VM; show what is paused."),
    "resume": ("oma.cli.control:resume", "Lift a pause."),
    "issue": ("oma.cli.issue:issue", "What only a person can settle: list, get."),
    "audit": ("oma.cli.audit:audit", "Settle an issue: fix."),
    "db": ("oma.cli.db:db", "The database: upgrade, current, check, accept-restore."),
    "config": ("oma.cli.config:config", "The settings: verify, show."),
    "doctor": ("oma.cli.doctor:doctor", "Check everything this appliance needs."),
    "demo": ("oma.cli.demo:demo", "See broken VMs put right, all on this machine."),
}
EPILOG: Final = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused by a guard, 5 needs resolution, "
    "6 cannot reach the daemon, 7 not allowed."
)


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported only when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oma-cleanup", prog_name="oma")
@common_options
@click.pass_context
def cli(context: click.Context, /, **given: Any) -> None:
    """Puts a VM right after a failed failover, and says what is uncertain and what to do."""
    context.obj = merge(context, given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits with a code of the contract; no exception ends in a traceback."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one call."""
    try:
        outcome = cli.main(arguments, prog_name="oma", standalone_mode=False)
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("Interrupted.\n")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001  the outermost edge: a sentence and a code, whatever it was
        from oma.cli.faults import tell_fault  # noqa: PLC0415  only when something went wrong

        given = sys.argv[1:] if arguments is None else arguments
        return tell_fault(error, no_color="--no-color" in given)
    return int(outcome) if isinstance(outcome, int) else Exit.DONE
