from __future__ import annotations

import json

import pytest

from tests.unit.gui import samples


def test_pause_and_resume_say_what_they_did(oma, daemon):
    paused = oma("pause", "--reason", "the array reboots")
    assert paused.code == 0
    assert paused.out == (
        "Everything is paused by api: the array reboots. Runs end at their next safe point. "
        "Let go on with: oma resume\n"
    )
    listed = oma("pause", "--list")
    assert listed.out.startswith("Everything is paused by api: the array reboots (since ")
    assert "lift: oma resume" in listed.out
    assert oma("resume").out == "The pause of everything is lifted.\n"
    nothing = oma("pause", "--list")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "Nothing is paused.\n")


def test_a_hold_refuses_the_clean_up_of_its_vm(oma, daemon):
    daemon.estate.add(samples.vm_records("db/prod #7"))
    assert oma("pause", "--vm", "db/prod #7", "--reason", "the auditor looks").code == 0
    refused = oma("cleanup", "db/prod #7")
    assert refused.code == 4
    assert "the auditor looks" in refused.err
    assert "(paused)" in refused.err
    assert "oma resume --vm 'db/prod #7' --context-id" in refused.err
    lifted = json.loads(oma("resume", "--json", "--vm", "db/prod #7", "--reason", "seen").out)
    assert (lifted["changed"], lifted["pauses"]) == (True, [])


def test_a_hostile_reason_is_harmless_on_a_terminal(oma, daemon):
    assert oma("pause", "--reason", "a\x1b[31mred").code == 2
    assert daemon.controls.changes == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause",),
        ("pause", "--list", "--reason", "x"),
        ("pause", "--vm", "a", "--operation", "failed-execution-cleanup", "--reason", "x"),
        ("pause", "--context-id", "c", "--reason", "x"),
        ("resume", "--context-id", "c"),
        ("pause", "--operation", "everything", "--reason", "x"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(oma, daemon, arguments):
    assert oma(*arguments).code == 2
    assert daemon.controls.changes == []


def test_an_unknown_vm_is_not_found(oma):
    assert oma("pause", "--vm", "nobody", "--reason", "x").code == 3
