"""What a command says when it could not be done: one sentence, what to do, and the exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

from oma.cli.client import ApiProblem, Unreachable
from oma.cli.exits import CommandFailed, Exit, exit_of_problem
from oma.cli.output import Output, visible
from oma.cli.problems import complain_about

DEBUG_VARIABLE: Final = "OMA_DEBUG"
DAEMON_ADVICE: Final = "See whether it runs (systemctl status oma), or name another with --server or OMA_SERVER."


def tell_fault(error: Exception, *, no_color: bool = False) -> Exit:
    """Tells the error on stderr; `OMA_DEBUG=1` adds the traceback of one that nobody foresaw."""
    output = Output(no_color=no_color)
    if isinstance(error, ApiProblem):
        complain_about(output, error.document)
        return exit_of_problem(error.document)
    if isinstance(error, Unreachable):
        complain_about(output, {"detail": str(error), "next": DAEMON_ADVICE})
        return Exit.UNREACHABLE
    if isinstance(error, CommandFailed):
        complain_about(output, {"detail": str(error), "next": error.next_step})
        return Exit.FAILED
    faults = getattr(error, "faults", None)
    if type(error).__name__ == "SettingsError" and faults:
        for fault in faults:
            complain_about(output, {"detail": str(fault)})
        complain_about(output, {"detail": "The settings can't be used.", "next": "Correct them: oma config verify"})
        return Exit.FAILED
    if isinstance(error, OSError):
        complain_about(output, {"detail": f"{visible(error)}."})
        return Exit.FAILED
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error, file=sys.stderr)
    complain_about(
        output,
        {
            "detail": f"Something unexpected happened: {type(error).__name__}: {error}",
            "next": f"Run it again with {DEBUG_VARIABLE}=1 to see where, and report it.",
        },
    )
    return Exit.FAILED
