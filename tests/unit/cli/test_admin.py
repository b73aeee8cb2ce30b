"""Commands that work on this machine: db, config, doctor, serve, demo."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from database import schema
from database.errors import DatabaseUnavailable
from oma.cli.main import run
from tests.unit.cli.golden import assert_golden

SECRET = "do-not-print-me"


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "oma.toml"
    path.write_text(
        f"""
[database]
url = "sqlite:///{tmp_path}/oma.db"
[cloudstack]
url = "http://127.0.0.1:9/client/api"
api_key = "{SECRET}"
secret_key = "{SECRET}"
[volume_daemon]
url = "http://127.0.0.1:9"
device_root = "{tmp_path}"
"""
    )
    return path


def test_config_show_hides_secrets(oma_at, settings):
    printed = oma_at("http://127.0.0.1:1", "config", "show", "--config", str(settings))
    assert printed.code == 0
    assert "[cloudstack]" in printed.out
    assert 'url = "http://127.0.0.1:9/client/api"' in printed.out
    assert SECRET not in printed.out + printed.err
    shown = json.loads(oma_at("http://127.0.0.1:1", "config", "show", "--config", str(settings), "--json").out)
    assert shown["http"]["port"] == 8082
    assert SECRET not in json.dumps(shown)


def test_config_show_hides_the_databases_password(oma_at, monkeypatch):
    monkeypatch.setenv("OMA_DATABASE__URL", f"mysql+pymysql://oma:{SECRET}@db.example/oma")
    printed = oma_at("http://127.0.0.1:1", "config", "show")
    assert "db.example" in printed.out
    assert SECRET not in printed.out


def test_config_verify_names_every_bad_and_unknown_key(oma_at, settings, monkeypatch):
    settings.write_text('[http]\nport = "many"\n[workflow]\nmax_jobz = 3\n[colour]\nred = true\n')
    monkeypatch.setenv("OMA_LOG__LEVEL", "shouting")
    printed = oma_at("http://127.0.0.1:1", "config", "verify", "--config", str(settings))
    assert printed.code == 1
    for key in ("http.port", "workflow.max_jobz", "colour", "log.level", "max_jobs"):
        assert key in printed.err
    faults = json.loads(oma_at("http://127.0.0.1:1", "config", "verify", "--config", str(settings), "--json").out)
    assert len(faults["faults"]) == 4


def test_config_verify_tests_each_connection(oma_at, settings):
    printed = oma_at("http://127.0.0.1:1", "config", "verify", "--config", str(settings))
    assert printed.code == 1
    assert "oma.db is not there yet; the daemon makes it" in printed.out
    assert "error: cloudstack: " in printed.err
    assert "error: volume_daemon: " in printed.err
    assert "next: See whether it runs (systemctl status volume-daemon)" in printed.err
    assert SECRET not in printed.out + printed.err
    assert not settings.with_name("oma.db").exists()


def test_config_verify_says_where_a_database_cannot_be_made(oma_at, settings):
    settings.write_text(settings.read_text().replace("/oma.db", "/nowhere/oma.db"))
    printed = oma_at("http://127.0.0.1:1", "config", "verify", "--config", str(settings))
    assert "error: database: " in printed.err
    assert "Make the directory" in printed.err


def test_missing_settings_file_is_told(oma_at, tmp_path):
    printed = oma_at("http://127.0.0.1:1", "db", "current", "--config", str(tmp_path / "none.toml"))
    assert printed.code == 1
    assert "none.toml" in printed.err
    assert "next: Correct them: oma config verify" in printed.err


def test_doctor_has_a_line_for_everything_with_what_to_do(oma, settings):
    printed = oma("doctor", "--config", str(settings))
    assert printed.code == 1
    lines = {line[7:22].strip(): line for line in printed.out.splitlines()}
    assert list(lines) == [
        "settings", "database", "cloudstack", "volume_daemon", "device_root", "daemon", "versions"
    ]  # fmt: skip
    assert lines["settings"].startswith("ok")
    assert lines["volume_daemon"].startswith("fault")
    assert "next: " in lines["volume_daemon"]
    assert lines["daemon"].startswith("ok")
    assert lines["versions"].startswith("ok")
    assert "0 virtio device(s)" in lines["device_root"]


def test_doctor_without_settings_or_daemon_still_says_what_it_can(oma_at, tmp_path, unused_tcp_port):
    printed = oma_at(f"http://127.0.0.1:{unused_tcp_port}", "doctor", "--json", "--config", str(tmp_path / "none.toml"))
    found = {one["name"]: one for one in json.loads(printed.out)["findings"]}
    assert printed.code == 1
    assert not found["settings"]["ok"]
    assert not found["daemon"]["ok"]
    assert found["daemon"]["advice"].startswith("Start it")
    assert found["versions"]["ok"]


@pytest.fixture
def no_database(monkeypatch):
    """What the commands do with the schema's answers, not the schema itself."""
    monkeypatch.setattr(schema, "upgrade", lambda url: "The schema is at 0001.")
    monkeypatch.setattr(schema, "current", lambda url: "0001")
    monkeypatch.setattr(schema, "check", lambda url, **_: [])
    monkeypatch.setattr(schema, "notes", lambda url: ["A column is wider than ours."])
    monkeypatch.setenv("OMA_DATABASE__URL", f"mysql+pymysql://oma:{SECRET}@db.example/oma")


def test_db_commands(oma_at, no_database, monkeypatch):
    def db(*arguments):
        return oma_at("http://127.0.0.1:1", "db", *arguments)

    assert db("upgrade").out == "The schema is at 0001.\n"
    assert db("check").err == "A column is wider than ours.\n"
    assert db("current").out == "0001\n"
    assert json.loads(db("current", "--json").out) == {"version": "0001"}
    assert (db("check").code, db("check").out) == (0, "The database is complete.\n")
    monkeypatch.setattr(schema, "check", lambda url, **_: ["oma_jobs is missing."])
    printed = db("check")
    assert printed.code == 1
    assert printed.err == "error: oma_jobs is missing.\nerror: 1 difference(s).\nnext: oma db upgrade\n"


def test_a_new_sqlite_database_is_made_and_complete(oma_at, settings):
    def db(command):
        return oma_at("http://127.0.0.1:1", "db", command, "--config", str(settings))

    before = db("check")
    assert before.code == 1
    assert "next: oma db upgrade" in before.err
    assert (db("upgrade").code, db("upgrade").code, db("check").code) == (0, 0, 0)
    assert settings.with_name("oma.db").exists()


def test_a_database_that_is_away_is_told_without_its_password(oma_at, no_database, monkeypatch):
    def away(url):
        raise DatabaseUnavailable(f"cannot connect to {url}")

    monkeypatch.setattr(schema, "upgrade", away)
    printed = oma_at("http://127.0.0.1:1", "db", "upgrade")
    assert printed.code == 1
    assert "error: The database can't be used: cannot connect" in printed.err
    assert SECRET not in printed.err


def test_serve_with_bad_settings_does_not_start(oma_at, settings):
    settings.write_text('[http]\nhost = "0.0.0.0"\n')
    printed = oma_at("http://127.0.0.1:1", "serve", "--config", str(settings))
    assert printed.code == 1
    assert "http.host" in printed.err
    assert "until access control exists" in printed.err


def test_demo_hands_its_options_over(oma_at, monkeypatch, tmp_path):
    program = ModuleType("oma.demo.main")
    asked: dict[str, object] = {}
    program.run = lambda **options: asked.update(options) or 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "oma.demo.main", program)
    printed = oma_at("http://127.0.0.1:1", "-q", "demo", "--once", "--port", "0", "--directory", str(tmp_path))
    assert printed.code == 3
    assert asked == {
        "once": True,
        "port": 0,
        "database_url": None,
        "directory": tmp_path,
        "no_color": False,
        "quiet": True,
    }


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("vms", "cleanup", "jobs", "db", "config", "doctor", "demo", "serve"))],
)
def test_every_command_explains_itself(capsys, arguments):
    assert run(arguments) == 0
    assert "Usage: oma" in capsys.readouterr().out


def test_help_of_the_main_job(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["cleanup", "--help"]) == 0
    assert_golden("cleanup-help.txt", capsys.readouterr().out)


def test_options_are_taken_before_and_after_the_command(oma, daemon, url, capsys, monkeypatch):
    monkeypatch.setenv("OMA_SERVER", "http://127.0.0.1:1")
    for arguments in (["--server", url, "--json", "vms"], ["vms", "--server", url, "--json"]):
        assert run(arguments) == 0
        assert json.loads(capsys.readouterr().out) == {"items": []}
    monkeypatch.setenv("OMA_SERVER", url)
    assert run(["vms", "--json"]) == 0
    assert run(["-q", "vms"]) == 0


def test_what_nobody_foresaw_is_a_sentence_and_a_traceback_only_on_request(capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("oma.cli.options.Invocation.client", broken)
    assert run(["vms"]) == 1
    plain = capsys.readouterr().err
    assert "RuntimeError: the sky fell" in plain
    assert "OMA_DEBUG=1" in plain
    assert "Traceback" not in plain
    monkeypatch.setenv("OMA_DEBUG", "1")
    assert run(["vms"]) == 1
    assert "Traceback" in capsys.readouterr().err
