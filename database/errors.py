"""What the door to the database says when it cannot do its work."""

from __future__ import annotations


class DatabaseUnavailable(Exception):
    """The database did not do what it was asked: away, full, locked, or set up in a way that would lose data.

    `reason` is one sentence for an operator and holds no secret. `disk_full`: the database has no room left.
    `outcome_unknown`: a COMMIT was sent and its answer was lost, so that the write may or may not have happened; in
    every other case nothing was written.
    """

    def __init__(self, reason: str, *, disk_full: bool = False, outcome_unknown: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.disk_full = disk_full
        self.outcome_unknown = outcome_unknown

    def at(self, place: str) -> DatabaseUnavailable:
        """The same, with the database's place in front."""
        reason = self.reason if self.reason.startswith(place) else f"{place}: {self.reason}"
        return DatabaseUnavailable(reason, disk_full=self.disk_full, outcome_unknown=self.outcome_unknown)


class SchemaOutdated(Exception):
    """The tables do not fit this program: too old, newer than it, somebody else's, or of another shape."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
