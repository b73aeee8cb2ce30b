"""Follows one job to its end over the event stream, across lost connections and restarts of the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from oma.cli.client import ApiProblem, Client, Unreachable, in_path
from oma.cli.reading import JobView, read_job
from oma.cli.stream import ServerEvent
from oma.domain.events import ENDING_EVENTS

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
PATIENCE_S: Final = 180.0
"""How long a daemon may be away, for a restart say, before we stop looking; its jobs go on without us."""
PASSING_CODES: Final = frozenset({"shutting_down", "database_unavailable", "internal_error"})
ENDING: Final = frozenset(kind.value for kind in ENDING_EVENTS)


@dataclass(frozen=True, slots=True)
class Pace:
    """The clock and the pause, so that a test need not wait."""

    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    patience_s: float = PATIENCE_S


def follow_job(
    client: Client,
    job_id: str,
    on_event: Callable[[ServerEvent], None],
    on_note: Callable[[str], None],
    pace: Pace | None = None,
) -> JobView:
    """Tells every event once and in order; returns the ended job.

    Raises `ApiProblem` (no such job) and `Unreachable` when the daemon stays away.
    """
    pace = pace or Pace()
    last, lost_at, pause_s = "0", None, FIRST_PAUSE_S
    while True:
        try:
            for event in client.stream(f"/jobs/{in_path(job_id)}/events", last):
                if lost_at is not None:
                    on_note("The connection is back.")
                last, lost_at, pause_s = event.id or last, None, FIRST_PAUSE_S
                on_event(event)
                if event.type in ENDING:
                    break
            view = get_job(client, job_id)
            if view.ended:
                return view
        except (Unreachable, ApiProblem) as error:
            if isinstance(error, ApiProblem) and error.document.get("code") not in PASSING_CODES:
                raise
            now = pace.monotonic()
            if lost_at is None:
                lost_at = now
                on_note(f"{error} The run does not depend on it; trying again.")
            elif now - lost_at > pace.patience_s:
                raise
        pace.pause(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def get_job(client: Client, job_id: str) -> JobView:
    return read_job(client.get(f"/jobs/{in_path(job_id)}"))
