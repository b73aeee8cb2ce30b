"""`oma serve`: the daemon itself."""

from __future__ import annotations

import asyncio

import click

from oma.cli.options import Invocation, takes_invocation


@click.command()
@takes_invocation
def serve(invocation: Invocation) -> int:
    """Run the daemon until SIGTERM; it then drains to a safe point.

    Settings come from --config, else OMA_CONFIG, else /etc/oma/oma.toml, each key overridable by OMA_SECTION__KEY.
    """
    settings = invocation.settings()
    from oma.runtime import daemon  # noqa: PLC0415  brings in the whole daemon; bad settings need none of it

    return asyncio.run(daemon.serve(settings))
