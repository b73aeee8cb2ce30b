"""`oma serve` that stands still once, as by SIGSTOP, between its last check and a call that changes something.

    python -m tests.acceptance.standing_still CONFIG CALL MARKER DATABASE

CALL is a method of the adapters; the process stops itself right before it makes that call while the file MARKER is there,
and takes the file away. It does so while it writes nothing to DATABASE, a SQLite file: whoever stands still with the
file's lock holds up everybody, which is another story.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from oma.adapters.cloudstack import CloudStackCloud
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.cli.main import main


def stand_before(call: str, marker: Path, database: Path) -> None:
    owner = CloudStackCloud if hasattr(CloudStackCloud, call) else VolumeDaemonVolumes
    original = getattr(owner, call)

    async def standing(*args: Any, **more: Any) -> Any:
        _stand_once(marker, database)
        return await original(*args, **more)

    setattr(owner, call, standing)


def _stand_once(marker: Path, database: Path) -> None:
    if marker.exists():
        marker.unlink()
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    config, call, marker, database = sys.argv[1:]
    stand_before(call, Path(marker), Path(database))
    sys.argv = ["oma", "serve", "--config", config]
    main()
