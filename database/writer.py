"""The one thread that writes: takes what is waiting, commits it together, and hands the answers back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from database.commits import GroupCommit, Member
from database.errors import DatabaseUnavailable

BATCH_LIMIT = 200
"""Members per transaction: bounds how long others wait for its locks, far above what comes together in practice."""


class Writer:
    """Takes members in the order of their arrival. `deliver` is called in the writer's thread with settled members."""

    def __init__(self, commits: GroupCommit, deliver: Callable[[Sequence[Member]], None]) -> None:
        self._commits = commits
        self._deliver = deliver
        self._waiting: deque[Member] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="database-writer", daemon=True)
        self._thread.start()

    def submit(self, members: Sequence[Member]) -> None:
        """Raises `DatabaseUnavailable` once closed; never waits for the database."""
        with self._changed:
            if self._closing:
                raise DatabaseUnavailable("the database was closed: the program is stopping")
            self._waiting.extend(members)
            self._changed.notify()

    def close(self) -> None:
        """Returns when everything that was submitted has been settled."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            self._run(batch)
        self._commits.close()

    def _take(self) -> list[Member]:
        """Waits for members; empty when closed and drained."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LIMIT))]

    def _run(self, batch: list[Member]) -> None:
        open_members = set(batch)

        def settled(members: Sequence[Member]) -> None:
            open_members.difference_update(members)
            self._deliver(members)

        try:
            self._commits.run(batch, settled)
        except BaseException as error:  # noqa: BLE001 - a fault of ours must not leave a caller waiting for ever
            for member in open_members:
                member.error = error
            self._deliver(list(open_members))
