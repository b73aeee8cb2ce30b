"""The commands that answers and guidance give: pasted into a shell, they mean the VM that they were given for."""

from __future__ import annotations

import shlex

import click
import pytest

from oma.cli.cleanup import cleanup
from oma.domain.verdict import cleanup_command, forced_resume_command


@pytest.mark.parametrize(
    "name", ["pgtest1", "PhilB Test machine", "-rf", "--help", "it's", "$(reboot)", "a;b", "сервер"]
)
def test_a_command_survives_the_shell_and_the_options(name: str) -> None:
    for command in (cleanup_command(name, "--context-id", "ctx-1", "--dry-run"), forced_resume_command(name, "ctx-1")):
        program, verb, *arguments = shlex.split(command)
        assert (program, verb) == ("oma", "cleanup")
        with cleanup.make_context("cleanup", arguments) as context:
            assert isinstance(context, click.Context)
            assert context.params["names"] == (name,)
            assert context.params["context_id"] == "ctx-1"


def test_a_forced_resume_says_everything_that_it_needs() -> None:
    assert forced_resume_command("pgtest1", None) == 'oma cleanup pgtest1 --resume --force --reason "…"'
