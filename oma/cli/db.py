"""`oma db`: the schema of the database that the settings name. It works without the daemon."""

from __future__ import annotations

from collections.abc import Callable
from getpass import getuser
from typing import TypeVar

import click
from sqlalchemy.exc import SQLAlchemyError

from appliance.logs import without_secrets
from database import schema
from database.errors import DatabaseUnavailable, SchemaOutdated
from oma.cli.exits import CommandFailed, Exit
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import visible
from oma.cli.problems import complain_about
from oma.domain.errors import OmaError
from oma.runtime.restored import accept

T = TypeVar("T")


@click.group()
def db() -> None:
    """The database: create or complete it, see its version, check it, accept a restored one."""


@db.command()
@takes_invocation
def upgrade(invocation: Invocation) -> int:
    """Create what is missing, adopt what is there; alters and drops nothing, and may be run twice."""
    url = invocation.settings().database.url
    sentence = _asked(lambda: schema.upgrade(url))
    return _tell(invocation, {"done": sentence, "version": _asked(lambda: schema.current(url))}, sentence)


@db.command()
@takes_invocation
def current(invocation: Invocation) -> int:
    """Print the version of the schema."""
    url = invocation.settings().database.url
    version = _asked(lambda: schema.current(url))
    return _tell(invocation, {"version": version}, version)


@db.command()
@takes_invocation
def check(invocation: Invocation) -> int:
    """Compare the database with what the daemon needs; exits 1 on any difference."""
    settings = invocation.settings().database
    weak = settings.accept_weak_durability
    problems = _asked(lambda: schema.check(settings.url, accept_weak_durability=weak))
    output = invocation.output()
    if not problems:
        for note in _asked(lambda: schema.notes(settings.url)):
            output.note(visible(note))
        return _tell(invocation, {"problems": []}, "The database is complete.")
    if output.as_json:
        output.print_json({"problems": problems})
    for problem in problems:
        complain_about(output, {"detail": problem})
    complain_about(output, {"detail": f"{len(problems)} difference(s).", "next": "oma db upgrade"})
    return Exit.FAILED


@db.command("accept-restore")
@click.option("--reason", required=True, help="Which copy was restored, and what you have looked at.")
@takes_invocation
def accept_restore(invocation: Invocation, reason: str) -> int:
    """Say that you have looked: an older copy of the database was restored, and runs may begin again."""
    settings = invocation.settings()
    if not reason.strip():
        raise click.UsageError("--reason says which copy was restored, and what you have looked at.")
    number, parked = _asked(lambda: accept(settings, reason.strip(), f"cli:{getuser()}"))
    then = f"; {parked} run(s) stay parked, each with an issue of its own: oma issue list" if parked else ""
    sentence = f"The restored database is accepted at epoch {number}{then}."
    return _tell(invocation, {"epoch": number, "parked": parked, "done": sentence}, sentence)


def _asked(question: Callable[[], T]) -> T:
    """Raises `CommandFailed` with the database's own first line, without secrets."""
    try:
        return question()
    except SchemaOutdated as error:
        raise CommandFailed(str(error), "oma db upgrade") from error
    except OmaError as error:
        raise CommandFailed(str(error), str(error.fields.get("next") or "oma db check")) from error
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        next_step = "Look at database.url (oma config show) and whether the server runs."
        raise CommandFailed(f"The database can't be used: {without_secrets(line)}", next_step) from error


def _tell(invocation: Invocation, document: dict[str, object], sentence: str) -> int:
    output = invocation.output()
    if output.as_json:
        output.print_json(document)
    else:
        output.print(sentence)
    return Exit.DONE
