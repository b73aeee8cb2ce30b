from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from appliance.logs import configure_logs, flush_logs, without_secrets


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    flush_logs()
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    flush_logs()
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_one_json_line_per_event_on_stderr(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "json")
    structlog.get_logger("oma.test").info("Läuft.", vm_name="сервер-1", count=3)
    logging.getLogger("foreign").warning("from %s", "a library")
    structlog.get_logger("oma.test").debug("not at this level")
    first, second = lines(capsys)
    assert (first["event"], first["vm_name"], first["count"], first["level"]) == ("Läuft.", "сервер-1", 3, "info")
    assert str(first["timestamp"]).endswith("Z")
    assert second["event"] == "from a library"


def test_secrets_never_get_there(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "json")
    log = structlog.get_logger()
    try:
        int("GET http://h/client/api?apikey=hunter2&signature=hunter2")
    except ValueError:
        log.exception(
            "mysql+pymysql://oma:hunter2@db/x is away",
            secret_key="hunter2",
            settings={"api_key": "hunter2", "inner": [{"password": "hunter2"}]},
        )
    flush_logs()
    text = capsys.readouterr().err
    assert "is away" in text
    assert "ValueError" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql://u:***@h/d"),
        (
            "http://127.0.0.1:8080/client/api?command=x&apiKey=k&signature=s",
            "http://127.0.0.1:8080/client/api?command=x&apiKey=***&signature=***",
        ),
        ("nothing here", "nothing here"),
    ],
)
def test_texts_lose_their_secrets(text: str, shown: str):
    assert without_secrets(text) == shown


def test_the_console_is_readable(capsys: pytest.CaptureFixture[str]):
    configure_logs("debug", "console")
    structlog.get_logger().debug("Looked.", vm_name="pgtest1")
    flush_logs()
    text = capsys.readouterr().err
    assert "Looked." in text
    assert "pgtest1" in text
