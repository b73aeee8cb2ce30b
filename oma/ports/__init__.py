"""The doors to the outside, in domain words; adapters and the store implement them.

Workflow and service know only these. A method of `Cloud` or `Volumes` raises `UpstreamError` when the other side
refused, broke or did not answer; it never returns a guess. Store protocols raise `OmaError` with
`database_unavailable` when the database is away.
"""

from __future__ import annotations

from oma.domain.asking import ContextFilter, IssueFilter, JobFilter, Page
from oma.domain.remote import Burn, Fault, RemoteOutcome, RemoteStatus, UpstreamError, VolumeOperation
from oma.ports.here import Clock, EpochNote, Ids
from oma.ports.remote import Cloud, Volumes
from oma.ports.store import Controls, Epochs, Inventory, JobReader, JournalStore, Peers, Watch

__all__ = [
    "Burn",
    "Clock",
    "Cloud",
    "ContextFilter",
    "Controls",
    "EpochNote",
    "Epochs",
    "Fault",
    "Ids",
    "Inventory",
    "IssueFilter",
    "JobFilter",
    "JobReader",
    "JournalStore",
    "Page",
    "Peers",
    "RemoteOutcome",
    "RemoteStatus",
    "UpstreamError",
    "VolumeOperation",
    "Volumes",
    "Watch",
]
"""Values of the domain stand beside the protocols, for whoever speaks through these doors."""
