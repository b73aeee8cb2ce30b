"""The `volume-daemon` command."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from appliance.logs import configure_logs
from appliance.settings import SettingsError, load_settings
from volume_daemon.server.runtime import StartFailed, run


@click.group()
def main() -> None:
    """Attaches and detaches CloudStack volumes, and keeps account of their devices and NBD exports."""


@main.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file; default: $OMA_CONFIG, then /etc/oma/oma.toml where it exists.",
)
def serve(config: Path | None) -> None:
    """Serve until SIGTERM; prints one line of JSON with the address when it listens."""
    try:
        settings = load_settings(config, os.environ)
    except SettingsError as error:
        click.echo(f"volume-daemon: {error}", err=True)
        sys.exit(1)
    configure_logs(settings.log.level, settings.log.format)
    try:
        asyncio.run(run(settings, os.environ))
    except StartFailed as error:
        click.echo(f"volume-daemon: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
