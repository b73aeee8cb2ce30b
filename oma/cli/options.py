"""The options that every command takes, before or after the command's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from appliance.settings import Settings
    from oma.cli.client import Client
    from oma.cli.output import Output

DEFAULT_SERVER: Final = "http://127.0.0.1:8082"
NAMES: Final = ("server", "config", "as_json", "no_color", "quiet")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Invocation:
    """How this call of the program is to behave."""

    server: str = DEFAULT_SERVER
    config: Path | None = None
    as_json: bool = False
    no_color: bool = False
    quiet: bool = False

    def client(self) -> Client:
        """Raises `click.UsageError` for a server that is no address."""
        from oma.cli.client import BadServer, Client  # noqa: PLC0415  only commands that ask the daemon pay for it

        try:
            return Client(self.server)
        except BadServer:
            raise click.UsageError(
                f"--server {self.server!r} is no address; give one like {DEFAULT_SERVER} (or set OMA_SERVER)."
            ) from None

    def output(self) -> Output:
        from oma.cli.output import Output  # noqa: PLC0415  keeps rich out of --help

        return Output(as_json=self.as_json, no_color=self.no_color, quiet=self.quiet)

    def settings(self) -> Settings:
        """Raises `SettingsError`."""
        from appliance.settings import load_settings  # noqa: PLC0415  only admin commands read settings

        return load_settings(self.config, os.environ)


def common_options(command: Callable[..., R]) -> Callable[..., R]:
    """Adds the options; what is not given stays None, so that the outer value holds."""
    for option in (
        click.option("-q", "--quiet", "quiet", is_flag=True, default=None, help="Only data and errors."),
        click.option("--no-color", "no_color", is_flag=True, default=None, help="No colours (also NO_COLOR)."),
        click.option("--json", "as_json", is_flag=True, default=None, help="Data as JSON."),
        click.option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Settings file of the admin commands (also OMA_CONFIG).",
        ),
        click.option("--server", metavar="URL", envvar="OMA_SERVER", help=f"The daemon; default {DEFAULT_SERVER}."),
    ):
        command = option(command)
    return command


def takes_invocation(
    command: Callable[Concatenate[Invocation, P], R],
) -> Callable[..., R]:
    """Gives the command an `Invocation` in place of the common options."""

    @common_options
    @click.pass_context
    @wraps(command)
    def call(context: click.Context, /, *args: Any, **values: Any) -> R:
        given = {name: values.pop(name) for name in NAMES}
        return command(merge(context, given), *args, **values)

    return call


def merge(context: click.Context, given: dict[str, Any]) -> Invocation:
    """An inner option beats an outer one; a variable from the environment does not beat an outer option."""
    outer = context.find_object(Invocation) or Invocation()
    values = {name: getattr(outer, name) for name in NAMES}
    for name, value in given.items():
        from_command = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if value is not None and (from_command or outer == Invocation()):
            values[name] = value
    return Invocation(**values)
