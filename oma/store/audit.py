"""`oma_audit`: one chain of entries, however many daemons append to it. Nothing here changes or deletes one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import and_, bindparam, insert, select
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_audit
from oma.domain.audit import BEGINNING, AuditAction, AuditDraft, AuditEntry, chain_hash
from oma.domain.jobs import CleanupRequest
from oma.domain.words import Words
from oma.ports import Page
from oma.store.cursors import build_page, decode_cursor, encode_cursor
from oma.store.sequences import AUDIT, take_numbers

LIST_NAME = "audit"
_LAST_HASH: Final = select(oma_audit.c.hash).where(oma_audit.c.seq == bindparam("last")).with_for_update()
_INSERT: Final = insert(oma_audit)


def append_audit(connection: Connection, drafts: Sequence[AuditDraft]) -> list[AuditEntry]:
    """The entries with their places in the chain.

    The sequence's row stays locked to the commit, so that the next one to append sees the last hash of this one.
    """
    if not drafts:
        return []
    first = take_numbers(connection, AUDIT, len(drafts))
    # A locking read: a plain one may answer from a snapshot that is older than the lock.
    prev_hash = BEGINNING if first == 1 else str(connection.execute(_LAST_HASH, {"last": first - 1}).scalar_one())
    entries: list[AuditEntry] = []
    for seq, draft in enumerate(map(_as_stored, drafts), first):
        entry = AuditEntry(seq, draft, prev_hash, chain_hash(prev_hash, seq, draft))
        prev_hash = entry.hash
        entries.append(entry)
    connection.execute(_INSERT, [_values(entry) for entry in entries])
    return entries


def stands(connection: Connection, entries: Sequence[AuditEntry]) -> bool:
    """Whether these entries are in the database; asked where the answer to the COMMIT was lost."""
    if not entries:
        return True
    last = entries[-1]
    query = select(oma_audit.c.seq).where(and_(oma_audit.c.seq == last.seq, oma_audit.c.hash == last.hash))
    return connection.execute(query).first() is not None


def list_audit(connection: Connection, limit: int, cursor: str | None) -> Page[AuditEntry]:
    """Newest first."""
    query = select(oma_audit).order_by(oma_audit.c.seq.desc()).limit(limit + 1)
    if cursor is not None:
        (seq,) = decode_cursor(LIST_NAME, cursor, (int,))
        query = query.where(oma_audit.c.seq < seq)
    rows = [build_entry(row) for row in connection.execute(query).mappings()]
    return build_page(rows, limit, lambda entry: encode_cursor(LIST_NAME, entry.seq))


def spoken_drafts(base: AuditDraft, words: Words) -> list[AuditDraft]:
    """One entry for each word that a person said, with the reason; about the same VM and job as `base`."""
    values = words.as_json()
    return [
        replace(
            base,
            action=AuditAction.WORD_SPOKEN,
            decision=name,
            words={name: values[name]},
            reason=words.reason,
            detail={},
        )
        for name in words.spoken
    ]


def words_of(request: dict[str, Any]) -> Words:
    """The words in a stored request; one of an older version said none."""
    return Words.from_json(request["words"]) if "words" in request else CleanupRequest("").words


def build_entry(row: RowMapping) -> AuditEntry:
    draft = AuditDraft(
        at=row["at"],
        actor=row["actor"],
        action=AuditAction(row["action"]),
        decision=row["decision"],
        vm_name=row["vm_name"],
        context_id=row["context_id"],
        job_id=row["job_id"],
        words=row["words"] or {},
        reason=row["reason"],
        detail=row["detail"] or {},
    )
    return AuditEntry(row["seq"], draft, row["prev_hash"], row["hash"])


def _as_stored(draft: AuditDraft) -> AuditDraft:
    """With its JSON values as they will be read back: tuples become lists, numbers as keys become texts."""
    return replace(draft, words=json.loads(json.dumps(draft.words)), detail=json.loads(json.dumps(draft.detail)))


def _values(entry: AuditEntry) -> dict[str, Any]:
    return {**entry.draft.as_json(), "at": entry.draft.at, "seq": entry.seq, "prev_hash": entry.prev_hash} | {
        "hash": entry.hash
    }
