"""The Volume Daemon as a process of its own that stands still at a crash point, says so, and waits to be killed.

python -m tests.crash.volume_daemon.dying_daemon POINT --config FILE
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from appliance import crashpoints
from appliance.logs import configure_logs
from appliance.settings import load_settings
from tests.crash.dying import Death, Way
from volume_daemon.server.runtime import run

STANDS = b"stands\n"


def main(point: str, config: str) -> None:
    settings = load_settings(Path(config), os.environ)
    configure_logs(settings.log.level, settings.log.format)
    death = Death(point, Way.KILL, tell=lambda: _say(STANDS))
    with crashpoints.listening(death):
        asyncio.run(run(settings, os.environ))


def _say(line: bytes) -> None:
    os.write(sys.stdout.fileno(), line)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3])
