"""Group commit: what is waiting is committed together, and nobody is told before COMMIT has returned.

Plain synchronous code over one connection, used by one thread. Each member of a batch stands in a savepoint, so that
its own exception undoes only its own work. Any *database* error inside a batch, even one that a member swallowed, rolls
the whole batch back and runs its members one by one: InnoDB's 1213 and 1205 undo everything, savepoints included, and
the next statement silently opens a new transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, RootTransaction
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from database.errors import DatabaseUnavailable
from database.faults import Fault, FaultKind, commit_is_definite, judge_fault, to_error
from database.session import WriterSession

ATTEMPTS_ALONE = 3
"""How often one member is tried where the database gave way to another program or lost the connection."""

_STATEMENT_ONLY = frozenset({FaultKind.CONSTRAINT, FaultKind.STATEMENT, FaultKind.SCHEMA})
"""What undoes the statement that met it and nothing before it, on both servers."""

ENDING_REFUSED = "a function given to the door must neither commit nor roll back; the door does"

Settled = Callable[[Sequence["Member"]], None]


class Member:
    """One caller's write, and what came of it: exactly one of `result` and `error` counts once it is settled."""

    __slots__ = ("confirm", "error", "fn", "receiver", "result")

    def __init__(
        self,
        fn: Callable[[Connection], Any],
        confirm: Callable[[Connection], bool] | None = None,
        receiver: Any = None,
    ) -> None:
        self.fn = fn
        self.confirm = confirm
        self.receiver = receiver
        self.result: Any = None
        self.error: BaseException | None = None


class Ending(Enum):
    COMMITTED = auto()
    UNDONE = auto()
    """Certainly nothing of it is in the database."""
    UNKNOWN = auto()
    """COMMIT was sent and its answer was lost."""


@dataclass(frozen=True, slots=True)
class Attempt:
    ending: Ending
    fault: Fault | None = None
    error: BaseException | None = None
    connected: bool = True


_COMMITTED = Attempt(Ending.COMMITTED)


class GroupCommit:
    """Runs batches over the writer's connection, which it opens when needed and again when it was lost."""

    def __init__(self, engine: Engine, *, keep_connection: bool = False) -> None:
        self._engine = engine
        self._session = WriterSession(engine, keep=keep_connection)
        self._in_member = False
        self._noted: DBAPIError | None = None
        event.listen(engine, "handle_error", self._note_error)
        event.listen(engine, "commit", self._refuse_ending)
        event.listen(engine, "rollback", self._refuse_ending)

    def run(self, members: Sequence[Member], settled: Settled) -> None:
        """Every member is settled when this returns; `settled` is told in groups, as soon as they are."""
        rest = list(members)
        if len(members) > 1:
            attempt = self._attempt(members)
            if attempt.ending is Ending.UNKNOWN:
                verdicts = self._read_outcomes(members, attempt)
                rest = [member for member, verdict in zip(members, verdicts, strict=True) if verdict is False]
            elif attempt.ending is Ending.COMMITTED:
                rest = []
            elif not attempt.connected:
                _fail(members, attempt)
                rest = []
            settled([member for member in members if member not in rest])
        while rest:
            member = rest.pop(0)
            attempt = self._run_alone(member)
            settled([member])
            if not attempt.connected:
                _fail(rest, attempt)
                settled(rest)
                return

    def close(self) -> None:
        event.remove(self._engine, "handle_error", self._note_error)
        event.remove(self._engine, "commit", self._refuse_ending)
        event.remove(self._engine, "rollback", self._refuse_ending)
        self._session.close()

    def _run_alone(self, member: Member) -> Attempt:
        """The last attempt; the member is settled by it."""
        attempt = _COMMITTED
        for _ in range(ATTEMPTS_ALONE):
            attempt = self._attempt([member])
            if attempt.ending is Ending.COMMITTED:
                return attempt
            if attempt.ending is Ending.UNKNOWN:
                if self._read_outcomes([member], attempt)[0] is not False:
                    return attempt
                continue
            _fail([member], attempt)
            again = attempt.fault is not None and attempt.fault.kind in {FaultKind.LOST, FaultKind.DEADLOCK}
            if not again or not attempt.connected:
                return attempt
        if attempt.ending is Ending.UNKNOWN:
            # Each time it was read back as not committed.
            member.error = DatabaseUnavailable("the database breaks the connection whenever it is to commit")
        return attempt

    def _attempt(self, members: Sequence[Member]) -> Attempt:
        """One transaction with all of them; the members' results and errors are those of this attempt."""
        self._noted = None
        try:
            connection = self._session.connect()
        except DBAPIError as error:
            return Attempt(Ending.UNDONE, judge_fault(error), error, connected=False)
        except DatabaseUnavailable as error:
            return Attempt(Ending.UNDONE, None, error, connected=False)
        try:
            transaction = connection.begin()
            failure = self._run_members(connection, transaction, members)
        except DBAPIError as error:
            return self._undone(judge_fault(error), error)
        if failure is not None:
            # One that the engine has told nobody of is judged by itself.
            noted = self._noted or _database_error(failure)
            return self._undone(None if noted is None else judge_fault(noted), failure)
        return self._commit(transaction)

    def _run_members(
        self, connection: Connection, transaction: RootTransaction, members: Sequence[Member]
    ) -> BaseException | None:
        """What makes it impossible to commit: a database error in a batch; alone, the member's own exception too."""
        if len(members) == 1:
            return self._call(members[0], connection, transaction) or members[0].error or self._swallowed()
        for member in members:
            self._session.set_savepoint()
            broken = self._call(member, connection, transaction) or self._noted or _database_error(member.error)
            if broken is not None:
                return broken
            if member.error is not None:
                self._session.undo_to_savepoint()
            self._session.release_savepoint()
        return None

    def _call(self, member: Member, connection: Connection, transaction: RootTransaction) -> BaseException | None:
        """Sets the member's result or error; returns the error of one that ended the transaction."""
        member.result = member.error = None
        self._in_member = True
        try:
            member.result = member.fn(connection)
        except BaseException as error:  # noqa: BLE001 - the caller's own; it goes to the caller, and the thread goes on
            member.error = error
        finally:
            self._in_member = False
        if transaction.is_active and connection.get_transaction() is transaction:
            return None
        member.error = member.error or RuntimeError(ENDING_REFUSED)
        return self._noted or member.error

    def _swallowed(self) -> BaseException | None:
        """A database error that the member caught itself and that may have undone more than its statement."""
        noted = self._noted
        return None if noted is None or judge_fault(noted).kind in _STATEMENT_ONLY else noted

    def _commit(self, transaction: RootTransaction) -> Attempt:
        try:
            transaction.commit()
        except DBAPIError as error:
            fault = judge_fault(error)
            if commit_is_definite(fault):
                return self._undone(fault, error)
            self._session.lose()
            return Attempt(Ending.UNKNOWN, fault, error)
        return _COMMITTED

    def _undone(self, fault: Fault | None, error: BaseException) -> Attempt:
        self._session.undo(lost=fault is not None and fault.kind in {FaultKind.LOST, FaultKind.OTHER})
        return Attempt(Ending.UNDONE, fault, error)

    def _read_outcomes(self, members: Sequence[Member], attempt: Attempt) -> list[bool | None]:
        """For each: True, it was committed; False, it was not; None, nobody knows, and it is told so."""
        try:
            connection: Connection | None = self._session.connect()
        except (DBAPIError, DatabaseUnavailable):
            connection = None
        verdicts = [self._ask(connection, member.confirm) for member in members]
        words = attempt.fault.text if attempt.fault is not None else "no answer"
        for member, verdict in zip(members, verdicts, strict=True):
            if verdict is None:
                member.error = DatabaseUnavailable(
                    f"the connection broke while the database was committing ({words}); "
                    "whether the write was done is unknown: read it back before doing it again",
                    outcome_unknown=True,
                )
        return verdicts

    def _ask(self, connection: Connection | None, confirm: Callable[[Connection], bool] | None) -> bool | None:
        if connection is None or confirm is None:
            return None
        probe = Member(confirm)
        try:
            with connection.begin() as transaction:
                self._call(probe, connection, transaction)
        except SQLAlchemyError:
            self._session.undo(lost=False)
            return None
        return None if probe.error is not None else bool(probe.result)

    def _note_error(self, context: ExceptionContext) -> None:
        if isinstance(context.sqlalchemy_exception, DBAPIError):
            self._noted = context.sqlalchemy_exception

    def _refuse_ending(self, _connection: Connection) -> None:
        if self._in_member:
            raise RuntimeError(ENDING_REFUSED)


def _database_error(error: BaseException | None) -> DBAPIError | None:
    return error if isinstance(error, DBAPIError) else None


def _fail(members: Sequence[Member], attempt: Attempt) -> None:
    """Each gets an exception of its own: several callers may raise theirs at once."""
    for member in members:
        member.error = _explain(attempt)


def _explain(attempt: Attempt) -> BaseException:
    if attempt.fault is not None and isinstance(attempt.error, DBAPIError):
        return to_error(attempt.fault, attempt.error)
    if isinstance(attempt.error, DatabaseUnavailable):
        return DatabaseUnavailable(attempt.error.reason)
    return attempt.error or DatabaseUnavailable("the database failed")
