"""`oma issue` and `oma audit fix`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from tests.unit.cli.server import serve_script
from tests.unit.gui import samples
from tests.unit.gui.stubs import StubDaemon


@pytest.fixture
def daemon() -> StubDaemon:
    daemon = StubDaemon()
    daemon.estate.issues.append(samples.issue("job-2", "сервер-1"))
    return daemon


def test_issues_are_listed_in_every_form(oma, daemon):
    issue_id = daemon.estate.issues[0].id
    assert "сервер-1" in oma("issue", "list").out
    assert oma("issue", "list", "--format", "count").out == "1\n"
    assert oma("issue", "list", "--format", "id").out == f"{issue_id}\n"
    assert json.loads(oma("issue", "list", "--format", "json").out)["items"][0]["id"] == issue_id
    nothing = oma("issue", "list", "--filter", "vm:nobody")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "No issue fits.\n")


@pytest.mark.parametrize("filters", [["colour:red"], ["error"], ["vm:a", "vm:b"], ["vm:"]])
def test_a_filter_that_is_none_is_a_usage_error(oma, filters):
    assert oma("issue", "list", *(part for one in filters for part in ("--filter", one))).code == 2


def test_one_is_shown_with_what_to_do_and_without_an_id_the_next(oma, daemon):
    issue = daemon.estate.issues[0]
    shown = oma("issue", "get")
    assert issue.title in shown.out
    assert "1. " in shown.out
    assert oma("issue", "get", "-c", issue.id, "--format", "id").out == f"{issue.id}\n"
    assert oma("issue", "get", "--guidance").out.startswith("  1. ")
    assert (oma("issue", "get", "--exists").code, oma("issue", "get", "-c", "nobody", "--exists").code) == (0, 3)
    assert oma("issue", "get", "-c", "nobody").code == 3


def _script(status: int, answer: dict[str, Any], bodies: list[Any]) -> tuple[str, str, Any]:
    async def resolve(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response(answer, status=status)

    return ("POST", "/api/v1/issues/i-1/resolve", resolve)


ANSWER = {
    "issue": {"id": "i-1", "vm_name": "pgtest1", "state": "resolved"},
    "message": "It runs again.",
    "next": "The run goes on by itself; follow it: oma jobs follow j",
}


def test_fix_says_it_and_tells_what_comes_next(oma_at):
    bodies: list[Any] = []
    words = ("audit", "fix", "-c", "i-1", "--resolution", "ROLLED_BACK", "--notes", "it was not done")
    with serve_script(_script(200, ANSWER, bodies)) as url:
        printed = oma_at(url, *words)
        assert json.loads(oma_at(url, *words, "--json").out) == ANSWER
    assert printed.code == 0
    assert "Issue i-1 of pgtest1 is resolved." in printed.out
    assert "next: The run goes on by itself; follow it: oma jobs follow j" in printed.out
    assert bodies[0] == {"resolution": "ROLLED_BACK", "notes": "it was not done"}


def test_a_contradicted_claim_is_refused_with_the_evidence(oma_at):
    problem = {
        "status": 409,
        "code": "resolution_contradicted",
        "detail": "CloudStack shows it.",
        "next": "If it was done, say APPLIED.",
    }
    with serve_script(_script(409, problem, [])) as url:
        printed = oma_at(url, "audit", "fix", "-c", "i-1", "--resolution", "RESYNC", "--notes", "x")
    assert printed.code == 4
    assert "CloudStack shows it." in printed.err
    assert "say APPLIED" in printed.err


@pytest.mark.parametrize("more", [("--insist",), ("--reason", "because")])
def test_insist_and_reason_belong_together(oma, more):
    assert oma("audit", "fix", "-c", "i", "--resolution", "APPLIED", "--notes", "x", *more).code == 2
