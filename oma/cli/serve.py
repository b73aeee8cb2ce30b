"""`oma serve`: the daemon itself."""

from __future__ import annotations

import asyncio
import gc

import click

from oma.cli.options import Invocation, takes_invocation

YOUNG_OBJECTS = 20_000
"""So many may come before the collector looks at them: a thousand jobs that are taken up at once make millions."""


@click.command()
@takes_invocation
def serve(invocation: Invocation) -> int:
    """Run the daemon until SIGTERM; it then drains to a safe point.

    Settings come from --config, else OMA_CONFIG, else /etc/oma/oma.toml, each key overridable by OMA_SECTION__KEY.
    """
    settings = invocation.settings()
    # What comes in with the daemon stays to its end: the garbage collector need not look through it again and again.
    gc.disable()
    from oma.runtime import daemon  # noqa: PLC0415  brings in the whole daemon; bad settings need none of it

    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.enable()
    return asyncio.run(daemon.serve(settings))
