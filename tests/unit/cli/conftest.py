from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import structlog.testing

from oma.cli.main import run
from tests.unit.cli.server import Server, serve_daemon
from tests.unit.gui.stubs import StubDaemon


@dataclass(frozen=True)
class Printed:
    code: int
    out: str
    err: str


Oma = Callable[..., Printed]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMA_SERVER", "OMA_CONFIG", "OMA_DEBUG", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _silent_server() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def daemon() -> StubDaemon:
    return StubDaemon()


@pytest.fixture
def server(daemon: StubDaemon) -> Iterator[Server]:
    with serve_daemon(daemon) as served:
        yield served


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def oma_at(capsys: pytest.CaptureFixture[str]) -> Oma:
    """Runs `oma --server URL …` in this process."""

    def call(server: str, *arguments: str) -> Printed:
        capsys.readouterr()
        code = run(["--server", server, *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Printed(code, captured.out, captured.err)

    return call


@pytest.fixture
def oma(oma_at: Oma, url: str) -> Oma:
    """The same against the stubbed daemon."""
    return lambda *arguments: oma_at(url, *arguments)
