"""Writes the pages of docs/reference that follow from the code: `python -m docs.generate`.

With `--check` nothing is written; the stale pages are named, and the exit code is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, Table, UniqueConstraint
from sqlalchemy.dialects import mysql

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `make docs` from the code; change it there. -->"
HELP_WIDTH = 100


def as_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table; bars inside cells are escaped."""
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in rows:
        cells = [" ".join(str(cell).split()).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def code(value: object) -> str:
    return f"`{value}`" if str(value) else ""


def write_settings() -> Iterator[str]:
    from appliance.settings import FROM_FILES, Settings  # noqa: PLC0415  each page imports only what it shows
    from appliance.settings_faults import allowed_values, field_at  # noqa: PLC0415

    yield "# Settings"
    yield ""
    yield (
        "One TOML file for all programs: `--config FILE`, else `OMA_CONFIG`, else `/etc/oma/oma.toml`. Each key may be "
        "set by its variable instead, which wins over the file. `oma config verify` names every bad or unknown key and "
        "tests each connection. `systemd/oma.toml.example` holds all of them with their defaults."
    )
    defaults = Settings()
    for section in Settings.model_fields:
        values = getattr(defaults, section)
        rows = []
        for key, info in type(values).model_fields.items():
            value = getattr(values, key)
            sources = [f"`OMA_{section.upper()}__{key.upper()}`"]
            if (section, key) in FROM_FILES:
                sources.append(f"the file that `{key}_file` names, or the systemd credential `{section}.{key}`")
            allowed = allowed_values(field_at(Settings, (section, key)))
            rows.append((code(key), code(as_toml(value)), allowed, info.description or "", "; ".join(sources)))
        yield from ("", f"## {section}", "")
        yield from as_table(("key", "default", "allowed", "meaning", "also from"), rows)


def as_toml(value: Any) -> str:
    """A default as it stands in the file; nothing for one that is not set."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:g}" if float(value).is_integer() else str(value)
        case tuple():
            return f"[{', '.join(map(as_toml, value))}]"
    return f'"{value}"'


def write_errors() -> Iterator[str]:
    from oma.domain.errors import TITLES, Code, retry_class  # noqa: PLC0415
    from oma.http.problems import status_of  # noqa: PLC0415

    yield "# Error codes"
    yield ""
    yield (
        "Every error is an `application/problem+json` document (RFC 9457) with a stable `code`, a sentence in `detail` "
        "and a `correlation_id`. Asking again, unchanged: `later` can help, `never` does not, `after_change` helps "
        "once the cause is put right."
    )
    yield ""
    rows = [(code(each.value), int(status_of(each)), TITLES[each], code(retry_class(each).value)) for each in Code]
    yield from as_table(("code", "HTTP status", "title", "asking again"), rows)


def write_api() -> Iterator[str]:
    from oma.http.app import ROUTES  # noqa: PLC0415
    from oma.http.openapi import build_openapi  # noqa: PLC0415

    document = build_openapi(ROUTES)
    yield "# The API of the OMA daemon"
    yield ""
    yield (
        "The daemon serves this as OpenAPI 3.1 at `/openapi.json` and as a page at `/docs`. "
        "Errors are in [errors](errors.md)."
    )
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield from ("", f"## {method.upper()} {path}", "", f"{operation['summary']}.")
            parameters = [
                (code(one["name"]), one["in"], "yes" if one.get("required") else "", one.get("description", ""))
                for one in operation["parameters"]
            ]
            if parameters:
                yield ""
                yield from as_table(("parameter", "in", "required", "meaning"), parameters)
            yield from write_body(document, operation)
            yield ""
            answers = [(status, one["description"]) for status, one in operation["responses"].items()]
            yield from as_table(("status", "answer"), answers)


def write_body(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """The members of the JSON body, where the operation takes one."""
    if "requestBody" not in operation:
        return
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    members = document["components"]["schemas"][name]["properties"]
    yield ""
    yield from as_table(
        ("body member", "type", "meaning"),
        [(code(key), type_words(one), one.get("description", "")) for key, one in members.items()],
    )


def type_words(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "object")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def write_cli() -> Iterator[str]:
    from oma.cli.main import cli  # noqa: PLC0415
    from ossea.simulator.main import main as simulator  # noqa: PLC0415
    from volume_daemon.main import main as volume_daemon  # noqa: PLC0415

    yield "# Commands"
    yield ""
    yield (
        "`oma` talks to the daemon's API, but for `serve`, `db`, `config`, `doctor` and `demo`, which read the "
        "settings themselves. Data goes to stdout, everything else to stderr. `oma --help` says "
        "what the exit codes mean."
    )
    for name, command in (("oma", cli), ("volume-daemon", volume_daemon), ("ossea-sim", simulator)):
        yield from write_command(name, command, None)


def write_command(name: str, command: click.Command, parent: click.Context | None) -> Iterator[str]:
    """The help of a command and of all below it, as it stands on a terminal."""
    look = {"terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH, "color": False}
    context = click.Context(command, info_name=name, parent=parent, **{**command.context_settings, **look})
    yield from ("", f"## {context.command_path}", "", "```text", *command.get_help(context).splitlines(), "```")
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from write_command(child, found, context)


def write_database() -> Iterator[str]:
    from database.tables import metadata  # noqa: PLC0415

    yield "# Tables"
    yield ""
    yield (
        "As `oma db upgrade` creates them in an empty SQLite or MariaDB database (types as in MariaDB). In an existing "
        "installation it creates what is missing, alters no column and drops nothing; the columns there may be of "
        "other types. `oma_…` and `volume_daemon_…` are ours, the others are shared with the existing programs."
    )
    for table in sorted(metadata.tables.values(), key=lambda table: table.name):
        yield from ("", f"## {table.name}", "")
        yield from as_table(("column", "type", "null", "refers to"), map(describe_column, table.columns))
        yield from (f"- {line}" if line else "" for line in ["", *describe_keys(table)])


def describe_column(column: Column[Any]) -> tuple[str, str, str, str]:
    kind = column.type.compile(dialect=mysql.dialect())
    name = f"**`{column.name}`**" if column.primary_key else code(column.name)
    targets = ", ".join(code(key.target_fullname) for key in column.foreign_keys)
    return name, kind.lower(), "yes" if column.nullable else "", targets


def describe_keys(table: Table) -> list[str]:
    """Unique keys and indexes in words, in a stable order."""
    lines = {f"unique: `{column.name}`" for column in table.columns if column.unique}
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            lines.add(f"unique: {', '.join(code(column.name) for column in constraint.columns)}")
    for index in table.indexes:
        columns = ", ".join(code(column.name) for column in index.columns)
        lines.add(f"{'unique' if index.unique else 'index'}: {columns}")
    return sorted(lines)


def write_metrics() -> Iterator[str]:
    from oma.runtime.metrics import Metrics as OmaMetrics  # noqa: PLC0415
    from volume_daemon.server.metrics import Metrics as VolumeDaemonMetrics  # noqa: PLC0415

    yield "# Metrics"
    yield ""
    yield "Both daemons serve them at `/metrics`; the rules over them are in `deploy/alerts/oma.rules.yml`."
    for program, registry in (("oma", OmaMetrics().registry), ("volume-daemon", VolumeDaemonMetrics().registry)):
        yield from ("", f"## {program}", "")
        yield from as_table(
            ("metric", "kind", "labels", "meaning"), sorted(map(describe_metric, list_metrics(registry)))
        )


def list_metrics(registry: CollectorRegistry) -> set[Any]:
    """What was registered: labels are known before the first sample is."""
    return set(registry._collector_to_names)  # noqa: SLF001  there is no public way to a metric without samples


def describe_metric(metric: Any) -> tuple[str, str, str, str]:
    family = next(iter(metric.describe()))
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return code(name), family.type, ", ".join(map(code, metric._labelnames)), family.documentation  # noqa: SLF001


def write_rules() -> Iterator[str]:
    from docs.rules import list_keepers, list_scenarios, list_tests  # noqa: PLC0415  each page imports only what it shows
    from oma.workflow.rules import RULES, SECTIONS  # noqa: PLC0415  likewise

    yield "# Rules"
    yield ""
    yield (
        "What decides between safe and dangerous, rule by rule: who keeps it, which scenarios of `make demo ONCE=1` "
        "show it, and which tests hold it. [Safety rules, in short](../explanation/safety-rules.md) says why."
    )
    for section, title in SECTIONS.items():
        yield from ("", f"## {section} {title}", "")
        rows = [
            (
                code(rule.id),
                rule.sentence if not rule.yet else f"{rule.sentence} *({rule.yet})*",
                ", ".join(map(code, list_keepers(rule))),
                ", ".join(list_scenarios(rule)),
                ", ".join(map(code, list_tests(rule))),
            )
            for rule in RULES
            if rule.section == section
        ]
        yield from as_table(("rule", "what it says", "kept by", "scenarios", "tests"), rows)


def write_proof() -> Iterator[str]:
    from oma.demo.invariants import INVARIANTS  # noqa: PLC0415  each page imports only what it shows
    from oma.demo.invariants.table import PLACES  # noqa: PLC0415  likewise
    from tests.simulation.planted.table import PLANTED  # noqa: PLC0415  likewise
    from tests.simulation.simulate import OWN  # noqa: PLC0415  likewise

    yield "# Proof"
    yield ""
    yield (
        "What must never happen, whatever dies, gets lost or restarts, and the bugs that were planted to see that the "
        "simulation would notice. [How it is proven](../explanation/proof.md) says how both are used."
    )
    yield from ("", "## Invariants", "")
    yield "One checker, `oma.demo.invariants`, is asked for all of them after every run of:"
    yield ""
    yield from (f"- **{place}**: {what}" for place, what in PLACES.items())
    yield ""
    rows = [(code(one.name), one.sentence, ", ".join(one.asked_in)) for one in INVARIANTS]
    yield from as_table(("invariant", "what it says", "asked in"), rows)
    yield from ("", "The simulation asks besides:", "")
    yield from as_table(("name", "what it says"), [(code(name), sentence) for name, sentence in OWN.items()])
    yield from ("", "## Planted bugs", "")
    yield "Each is caught in its seed by the invariant that it breaks; without it the same seed is clean."
    yield ""
    bugs = [(one.name, one.sentence, code(one.invariant), one.world) for one in PLANTED]
    yield from as_table(("bug", "what was broken", "caught by", "seed"), bugs)


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "settings.md": write_settings,
    "errors.md": write_errors,
    "api.md": write_api,
    "cli.md": write_cli,
    "database.md": write_database,
    "metrics.md": write_metrics,
    "rules.md": write_rules,
    "proof.md": write_proof,
}


def build(name: str) -> str:
    """The whole page."""
    title, *rest = PAGES[name]()
    return "\n".join([title, "", NOTE, *rest]) + "\n"


def main(arguments: list[str]) -> int:
    stale = []
    for name in PAGES:
        path, text = FOLDER / name, build(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{'stale' if '--check' in arguments else 'written'}: {path.relative_to(FOLDER.parents[1])}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
