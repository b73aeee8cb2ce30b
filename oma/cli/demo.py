"""`oma demo`: simulator, Volume Daemon and daemon on this machine, with broken VMs to put right."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from oma.cli.options import Invocation, takes_invocation

PROGRAM = "oma.demo.main"


@click.command()
@click.option("--once", is_flag=True, help="Clean all VMs up, print a summary, leave nothing running.")
@click.option("--port", type=click.IntRange(0, 65535), default=8082, show_default=True, help="The page's first choice.")
@click.option("--database", metavar="URL", help="Use this database instead of a new SQLite file.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep its files here.")
@takes_invocation
def demo(invocation: Invocation, *, once: bool, port: int, database: str | None, directory: Path | None) -> int:
    """See broken VMs put right through the public API, over real processes, with nothing of yours touched."""
    # By name: the demo brings its own parts along, and an appliance may be installed without it.
    try:
        program = importlib.import_module(PROGRAM)
    except ModuleNotFoundError as error:
        if error.name not in (PROGRAM, PROGRAM.rpartition(".")[0]):
            raise
        raise click.ClickException("The demo is not part of this installation.") from None
    return int(
        program.run(
            once=once,
            port=port,
            database_url=database,
            directory=directory,
            no_color=invocation.no_color,
            quiet=invocation.quiet,
        )
    )
