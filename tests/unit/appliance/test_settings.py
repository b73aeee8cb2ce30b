from __future__ import annotations

from pathlib import Path

import pytest

from appliance.settings import Settings, SettingsError, load_settings


def faults_of(config: Path | None, env: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    with pytest.raises(SettingsError) as raised:
        load_settings(config, env)
    return {fault.key: (fault.place, fault.problem, fault.allowed) for fault in raised.value.faults}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "oma.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_stand_without_a_file():
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.database.url == "sqlite:////var/lib/oma/oma.db"
    assert (settings.http.host, settings.http.port, settings.http.sync_wait_s) == ("127.0.0.1", 8082, 3300)
    assert settings.recovery.revert_window_s == 5400


def test_the_file_is_read_and_variables_win(tmp_path: Path):
    config = write(tmp_path, '[http]\nport = 9000\nallowed_hosts = ["a"]\n[workflow]\nlease_s = 5\n')
    settings = load_settings(config, {"OMA_HTTP__PORT": "9001", "OMA_HTTP__ALLOWED_HOSTS": "b, c"})
    assert settings.http.port == 9001
    assert settings.http.allowed_hosts == ("b", "c")
    assert settings.workflow.lease_s == 5


def test_the_file_may_be_named_by_a_variable(tmp_path: Path):
    config = write(tmp_path, "[http]\nport = 9000\n")
    assert load_settings(None, {"OMA_CONFIG": str(config)}).http.port == 9000


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        ("[http]\nhost = '0.0.0.0'", "http.host", 2, ("until access control exists", "127.0.0.1")),
        ("[http]\nhost = 'oma.example.org'", "http.host", 2, ("not a loopback", "localhost")),
        ("[volume_daemon]\n\nhost = '::'", "volume_daemon.host", 3, ("not a loopback", "::1")),
        ("[http]\nport = 70000", "http.port", 2, ("65535", "at least 0, at most 65535")),
        ("[http]\nport = 'many'", "http.port", 2, ("integer", "a whole number")),
        ("[http]\nprot = 1", "http.prot", 2, ("no such setting", "port (nearest)")),
        ("[htpp]\nport = 1", "htpp", 1, ("no such setting", "http (nearest)")),
        ("http = 7", "http", 1, ("", "a table")),
        ("[oma]\nidentity = 'bios'", "oma.identity", 2, ("dmi", "dmi or volumes or trust")),
        ("[oma]\ninstallation = 'a b'", "oma.installation", 2, ("match", "matches")),
        ("[guards]\nalive_s = 0", "guards.alive_s", 2, ("greater than 0", "greater than 0")),
        ("[guards]\nalive_s = nan", "guards.alive_s", 2, ("finite", "a number")),
        ("[workflow]\nmax_jobs = 1.5", "workflow.max_jobs", 2, ("integer", "a whole number")),
        ("[database]\nurl = 'postgres://u:hunter2@h/d'", "database.url", 2, ("no database address", "sqlite:")),
        ("[database]\naccept_weak_durability = 'maybe'", "database.accept_weak_durability", 2, ("", "true or false")),
        ("[volume_daemon]\nurl = 'ftp://x'", "volume_daemon.url", 2, ("no http address", "http://")),
        ("[volume_daemon]\nnbd_reload_command = 'sh'", "volume_daemon.nbd_reload_command", 2, ("", "a list of texts")),
        ("[cloudstack]\nmethod = 'put'", "cloudstack.method", 2, ("get", "get or post")),
    ],
)
def test_every_fault_has_place_key_problem_and_what_is_allowed(
    tmp_path: Path, text: str, key: str, line: int, words: tuple[str, str]
):
    config = write(tmp_path, text)
    found = faults_of(config, {})
    assert list(found) == [key]
    assert found[key][0] == f"{config}:{line}"
    assert words[0] in found[key][1]
    assert words[1] in found[key][2]
    assert "hunter2" not in str(found)


def test_all_faults_are_told_at_once(tmp_path: Path):
    config = write(tmp_path, "[http]\nport = -1\n[guards]\nalive_s = 'x'\n")
    env = {"OMA_LOG__LEVEL": "loud", "OMA_NO__SUCH": "1", "OMA_A__B__C": "1", "OMA_HTTP__PROT": "1"}
    found = faults_of(config, env)
    assert set(found) == {"http.port", "guards.alive_s", "log.level", "no", "a.b.c", "http.prot"}
    assert found["log.level"][0] == "OMA_LOG__LEVEL"
    assert found["no"][0] == "OMA_NO__SUCH"
    assert found["http.prot"][0] == "OMA_HTTP__PROT"


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"[http\nport = 1", ":1"), (b"a = 1\nb = \n", ":2"), (b"\xff\xfe", "oma.toml")],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes, place: str):
    config = tmp_path / "oma.toml"
    config.write_bytes(content)
    assert faults_of(config, {})["(file)"][0].endswith(place)


def test_a_named_file_has_to_be_there(tmp_path: Path):
    assert "no such file" in faults_of(tmp_path / "gone.toml", {})["(file)"][1]
    assert "no such file" in faults_of(None, {"OMA_CONFIG": str(tmp_path / "gone.toml")})["(file)"][1]


def test_a_bad_variable_does_not_hide_a_bad_file(tmp_path: Path):
    found = faults_of(tmp_path / "gone.toml", {"OMA_HTTP__PORT": "x"})
    assert set(found) == {"(file)", "http.port"}


def secret_of(settings: Settings) -> str | None:
    return settings.cloudstack.secret_key.get_secret_value() if settings.cloudstack.secret_key else None


def test_secrets_come_from_files_and_credentials(tmp_path: Path):
    (tmp_path / "secret").write_text("from-file\n")
    (tmp_path / "cloudstack.secret_key").write_text("from-credential\n")
    (tmp_path / "database.url").write_text("mysql+pymysql://u:pw@h/d\n")
    config = write(tmp_path, f"[cloudstack]\nsecret_key_file = '{tmp_path / 'secret'}'\n")
    assert secret_of(load_settings(config, {})) == "from-file"
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert secret_of(load_settings(config, env)) == "from-credential"
    assert load_settings(None, env).database.url == "mysql+pymysql://u:pw@h/d"
    env["OMA_CLOUDSTACK__SECRET_KEY"] = "from-variable"
    assert secret_of(load_settings(config, env)) == "from-variable"
    variable = {"OMA_CLOUDSTACK__SECRET_KEY_FILE": str(tmp_path / "secret")}
    assert secret_of(load_settings(None, variable)) == "from-file"


def test_a_secret_file_that_is_not_there(tmp_path: Path):
    config = write(tmp_path, f"[cloudstack]\nsecret_key_file = '{tmp_path / 'gone'}'\n")
    place, problem, _ = faults_of(config, {})["cloudstack.secret_key_file"]
    assert place == f"{config}:2"
    assert "can't be read" in problem


def test_nothing_secret_is_shown():
    env = {
        "OMA_CLOUDSTACK__API_KEY": "hunter2-key",
        "OMA_CLOUDSTACK__SECRET_KEY": "hunter2-secret",
        "OMA_DATABASE__URL": "mysql+pymysql://oma:hunter2@db:3306/migratekit?charset=utf8mb4",
    }
    settings = load_settings(None, env)
    assert "hunter2" not in repr(settings) + str(settings.as_shown()) + settings.model_dump_json(exclude={"database"})
    assert settings.as_shown()["database"]["url"] == "mysql+pymysql://oma:***@db:3306/migratekit?charset=utf8mb4"


def test_an_empty_variable_takes_an_optional_value_back(tmp_path: Path):
    config = write(tmp_path, "[cloudstack]\nurl = 'http://h/client/api'\n")
    assert load_settings(config, {"OMA_CLOUDSTACK__URL": ""}).cloudstack.url is None
