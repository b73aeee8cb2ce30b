"""The words that only a person may say, as options of `oma cleanup`."""

from __future__ import annotations

from typing import Any

import pytest

from oma.cli.runs import Order
from oma.domain.spoken import read_words
from tests.unit.cli.conftest import Oma
from tests.unit.gui.stubs import StubDaemon

VOLUME = "11111111-1111-4111-8111-111111111111"
SNAPSHOT = "22222222-2222-4222-8222-222222222222"
UNREACHABLE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--force"], "needs a reason"),
        (["--end-test", "--reason", " "], "blank"),
        (["--force", "--end-holders", "--reason", "why"], "can't be said together"),
        (["--end-test", "--force", "--reason", "why"], "can't be said together"),
        (["--reason", "why"], "needs a word"),
        (["--destination-vm-id", VOLUME, "--reason", "why"], "only with force"),
        (["--force", "--reason", "why", "--destination-vm-id", "i-2-7-VM"], "an id of CloudStack"),
        (["--snapshot", VOLUME, "--reason", "why"], "VOLUME=SNAPSHOT"),
        (["--snapshot", f"{VOLUME}=newest", "--reason", "why"], "an id of CloudStack"),
        (["--snapshot", f"{VOLUME}={SNAPSHOT}"], "needs a reason"),
        (
            ["--snapshot", f"{VOLUME}={SNAPSHOT}", "--snapshot", f"{VOLUME}={VOLUME}", "--reason", "why"],
            "names a volume twice",
        ),
        (["--resume", "--dry-run"], "goes on with the plan"),
        (["--resume", "--phases", "reset-vm-state"], "goes on with the plan"),
        (["second", "--force", "--reason", "why"], "one VM"),
        (["second", "--resume"], "one VM"),
    ],
)
def test_what_does_not_fit_is_a_usage_error_before_any_call(oma_at: Oma, arguments: list[str], words: str) -> None:
    printed = oma_at(UNREACHABLE, "cleanup", "pgtest1", *arguments)
    assert printed.code == 2
    assert words in " ".join(printed.err.split())
    assert printed.out == ""


def test_the_words_reach_the_daemon(oma: Oma, daemon: StubDaemon) -> None:
    printed = oma("cleanup", "nobody", "--end-holders", "--reason", "hung since midnight")
    assert printed.code == 3
    assert daemon is not None


def test_the_body_holds_what_was_said_and_no_more() -> None:
    said: dict[str, Any] = {"end_test": True, "snapshots": {VOLUME: SNAPSHOT}, "reason": "why"}
    assert Order(words=read_words(said)).body() == said
    assert Order().body() == {}
