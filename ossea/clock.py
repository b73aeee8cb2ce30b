"""The server's clock, as its `Date` headers tell it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

EXPIRES_FORMAT: Final = "%Y-%m-%dT%H:%M:%S+0000"

Now = Callable[[], datetime]
Monotonic = Callable[[], float]


def utc_now() -> datetime:
    return datetime.now(UTC)


class ServerClock:
    """Where the server's clock stands, kept on the monotonic clock, so that a step of our own clock changes nothing.

    A `Date` header has whole seconds: an estimate is right to about half a second and half a round trip.
    """

    def __init__(self, now: Now = utc_now, monotonic: Monotonic = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._server_at_sample: datetime | None = None
        self._sampled_at = 0.0

    @property
    def age_s(self) -> float | None:
        """Seconds since the server last told its time; None if it never did."""
        return None if self._server_at_sample is None else self._monotonic() - self._sampled_at

    @property
    def server_now(self) -> datetime | None:
        if self._server_at_sample is None:
            return None
        return self._server_at_sample + timedelta(seconds=self._monotonic() - self._sampled_at)

    @property
    def offset(self) -> timedelta | None:
        """The server's time minus ours."""
        server_now = self.server_now
        return None if server_now is None else server_now - self._now()

    def sample(self, date_header: str | None, round_trip_s: float, received: float | None = None) -> None:
        """Takes the `Date` of an answer; no header, or one that is no date, is ignored.

        `received`: when it came in, on the monotonic clock; just now by default.
        """
        if not date_header:
            return
        try:
            date = parsedate_to_datetime(date_header)
        except ValueError:
            return
        if date.tzinfo is None:
            return
        # The header is cut to whole seconds and was written somewhere within the round trip.
        self._server_at_sample = date.astimezone(UTC) + timedelta(seconds=0.5 + round_trip_s / 2)
        self._sampled_at = self._monotonic() if received is None else received

    def expires_in(self, seconds: float) -> datetime:
        """The moment so many seconds ahead in the server's time; in ours where the server's is not known."""
        return (self.server_now or self._now()) + timedelta(seconds=seconds)

    def is_past(self, moment: datetime) -> bool:
        """Whether a moment of the server's time has passed; judged by our clock where the server's is not known."""
        return moment <= (self.server_now or self._now())
