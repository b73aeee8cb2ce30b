"""What a handler of one change works with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, update
from sqlalchemy.engine import Connection

from database.tables import oma_jobs

_CHANGE_JOB: Final = update(oma_jobs).where(oma_jobs.c.id == bindparam("job"))


@dataclass(frozen=True, slots=True)
class Writing:
    """One transaction of a lease's holder; the job's row is locked."""

    connection: Connection
    job_id: str
    context_id: str
    vm_name: str
    at: datetime
    requested_by: str

    def change_job(self, **values: Any) -> None:
        self.connection.execute(_CHANGE_JOB, {"job": self.job_id, "updated_at": self.at, **values})
