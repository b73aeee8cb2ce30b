"""The program as a person starts it: quick help, a real terminal, Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from oma.domain.actions import ActionKind
from oma.domain.states import ActionState, Phase
from tests.unit.gui import samples
from tests.unit.gui.runs import Run

PROGRAM = (sys.executable, "-c", "from oma.cli.main import main; main()")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMA_", "NO_COLOR"))}
    return {**kept, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", **more}


def test_help_is_quick_because_it_imports_next_to_nothing():
    script = (
        "import sys; from oma.cli.main import run; code = run(['--help']);"
        "heavy = {'rich', 'aiohttp', 'sqlalchemy', 'pydantic', 'jinja2', 'http.client', 'asyncio'} & set(sys.modules);"
        "sys.stderr.write(repr((code, sorted(heavy))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "(0, [])"
    for command in ("serve", "vms", "cleanup", "jobs", "db", "config", "doctor", "demo"):
        assert f"  {command} " in done.stdout
    assert "5 needs resolution" in " ".join(done.stdout.split())


def _heed_ctrl_c() -> None:
    """As in a terminal; a shell's background job, which the tests may be part of, ignores the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A terminal as stderr of the program; `screen` is what was written to it so far."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.screen = ""
        self._written = threading.Condition()
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
            env=environment(**variables),
            preexec_fn=_heed_ctrl_c,  # noqa: PLW1509  it only resets a signal
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 4096)
            except OSError:
                data = b""
            with self._written:
                self.screen += data.decode("utf-8", "replace")
                self._written.notify_all()
            if not data:
                return

    def wait_for(self, text: str) -> None:
        with self._written:
            assert self._written.wait_for(lambda: text in self.screen, 20), f"{text!r} never came: {self.screen!r}"

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=20)
        self._reader.join(20)
        os.close(self._master)
        return self.process.returncode, out


@pytest.fixture
def run_begins(daemon):
    """The run of pgtest1 stands in phase 3 when somebody follows it; `daemon.finish` is for the test."""
    daemon.estate.add(samples.vm_records("pgtest1"))

    def begin(job):
        if job.phase is None:
            run = Run(daemon, job)
            run.begin(Phase.SNAPSHOTS)
            run.act(2, ActionKind.REVERT_SNAPSHOT, ActionState.STARTED, "Reverting vol-2 to its snapshot.", volume=2)

    daemon.estate.on_followed = begin
    return daemon


def test_a_terminal_gets_the_live_view_and_stdout_only_the_result(run_begins, server):
    terminal = Terminal("--server", server.url, "cleanup", "pgtest1")
    terminal.wait_for("vol-2")
    terminal.wait_for("> Reverting vol-2 to its snapshot.")
    [job] = run_begins.estate.job_rows.values()
    server.call(Run(run_begins, job).complete)
    code, out = terminal.end()
    assert code == 0
    assert out.splitlines()[1].startswith("replica: ready")
    assert "analyze" in terminal.screen
    assert "\x1b[" in terminal.screen


def test_ctrl_c_stops_the_watching_and_says_how_to_go_on(run_begins, url):
    terminal = Terminal("--server", url, "cleanup", "pgtest1")
    terminal.wait_for("Reverting vol-2")
    terminal.process.send_signal(signal.SIGINT)
    code, out = terminal.end()
    [job] = run_begins.estate.job_rows.values()
    assert code == 130
    assert out == ""
    assert f"next: oma jobs follow {job.id}" in terminal.screen
    assert "Traceback" not in terminal.screen
    assert not job.error


@pytest.mark.parametrize(("arguments", "variables"), [(["--no-color"], {}), ([], {"NO_COLOR": "1"})])
def test_colours_can_be_switched_off(arguments, variables, unused_tcp_port):
    terminal = Terminal("vms", "--server", f"http://127.0.0.1:{unused_tcp_port}", *arguments, **variables)
    code, _ = terminal.end()
    assert code == 6
    assert "\x1b[" not in terminal.screen
    assert "error: " in terminal.screen


def test_a_closed_pipe_is_no_traceback(daemon, url):
    for number in range(400):
        daemon.estate.add(samples.vm_records(f"vm-{number}-{'x' * 200}", broken=False, first=1 + 2 * number))
    script = f"{sys.executable} -c 'from oma.cli.main import main; main()' --server {url} vms | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert done.stdout.startswith("VM ")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
