"""The endpoint that `cs` would use is the one that we use: the same variables, files and precedence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cs
import pytest

from ossea.credentials import CredentialsError, Endpoint, Given, read_cs_endpoint, resolve_endpoint

INI = """
[cloudstack]
endpoint = https://ini.example/client/api
key = ini-key
secret = ini-secret

[drill]
endpoint = https://drill.example/client/api
key = drill-key
secret = drill-secret
method = post
verify = /etc/ssl/ca.pem
timeout = 30
header_x_tenant = blue
theme = monokai
"""

ENV = {
    "CLOUDSTACK_ENDPOINT": "https://env.example/client/api",
    "CLOUDSTACK_KEY": "env-key",
    "CLOUDSTACK_SECRET": "env-secret",
}

CASES: list[tuple[str, str | None, dict[str, str], bool]] = [
    ("variables alone", None, ENV, False),
    ("variables before a file", None, ENV, True),
    ("the file alone", None, {}, True),
    ("a profile", "drill", {}, True),
    ("the region", None, {"CLOUDSTACK_REGION": "drill"}, True),
    ("the profile before the region", "cloudstack", {"CLOUDSTACK_REGION": "drill"}, True),
    ("some variables, the rest from the file", None, {"CLOUDSTACK_KEY": "env-key"}, True),
    ("overrides", "drill", {**ENV, "CLOUDSTACK_OVERRIDES": "endpoint, secret"}, True),
    ("a method by variable", None, {**ENV, "CLOUDSTACK_METHOD": "POST"}, False),
    ("unchecked TLS", None, {**ENV, "CLOUDSTACK_DANGEROUS_NO_TLS_VERIFY": "1"}, False),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def set_variables(monkeypatch: pytest.MonkeyPatch, home: Path, variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return {"HOME": str(home / "home"), **variables}


def as_cs_sees(config: dict[str, Any]) -> tuple[object, ...]:
    client = cs.CloudStack(**{key: value for key, value in config.items() if key not in ("theme", "name")})
    return (client.endpoint, client.key, client.secret, client.method, client.verify, client.cert, client.headers)


@pytest.mark.parametrize(("profile", "variables", "has_file"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_we_read_what_cs_reads(home: Path, monkeypatch, profile, variables, has_file):
    if has_file:
        (home / "cwd" / "cloudstack.ini").write_text(INI)
    env = set_variables(monkeypatch, home, variables)
    ours = read_cs_endpoint(profile, env)
    seen = (ours.url, ours.key, ours.secret, ours.method, ours.verify, ours.cert, dict(ours.headers))
    assert seen == as_cs_sees(cs.read_config(profile))


def test_the_last_file_wins(home: Path, monkeypatch):
    (home / "home" / ".cloudstack.ini").write_text(INI)
    (home / "cwd" / "cloudstack.ini").write_text("[cloudstack]\nkey = from-cwd\n")
    (home / "home" / "more.ini").write_text("[cloudstack]\nsecret = from-config\n")
    env = set_variables(monkeypatch, home, {"CLOUDSTACK_CONFIG": "~/more.ini"})
    ours = read_cs_endpoint(None, env)
    theirs = cs.read_config()
    assert (ours.url, ours.key, ours.secret) == (theirs["endpoint"], theirs["key"], theirs["secret"])
    assert (ours.key, ours.secret) == ("from-cwd", "from-config")


@pytest.mark.parametrize(
    ("content", "profile", "says"),
    [
        (None, None, "tried"),
        (INI, "nowhere", "nowhere"),
        ("[cloudstack]\nendpoint = https://x.example\nkey = k\n", None, "secret"),
        ("[cloudstack]\nendpoint = x.example\nkey = k\nsecret = s\n", None, "http"),
        ("[cloudstack]\nendpoint = https://x.example\nkey = k\nsecret = hush\nmethod = put\n", None, "method"),
        ("[cloudstack\nsecret = hush", None, "parsed"),
        ("[cloudstack]\nsecret = hush%\nkey = k\n", None, "parsed"),
    ],
)
def test_what_is_missing_or_wrong_is_said_without_the_secret(home: Path, content, profile, says):
    if content is not None:
        (home / "cwd" / "cloudstack.ini").write_text(content)
    with pytest.raises(CredentialsError, match=says) as caught:
        read_cs_endpoint(profile, {"HOME": str(home / "home")}, home / "cwd")
    assert "hush" not in str(caught.value)


def test_an_endpoint_hides_who_we_are():
    shown = repr(Endpoint("https://x.example/client/api", "the-key", "the-secret"))
    assert "the-" not in shown
    assert "x.example" in shown


SETTINGS = Given("https://set.example/client/api", "set-key", "set-secret")
ROW = Given("https://row.example/client/api", "row-key", "row-secret")
CS = Endpoint("https://cs.example/client/api", "cs-key", "cs-secret", verify="/ca.pem", headers={"x-tenant": "blue"})


@pytest.mark.parametrize(
    ("settings", "rows", "expected"),
    [
        (SETTINGS, None, ("set", "set", "set", "get")),
        (SETTINGS, (ROW,), ("set", "set", "set", "get")),
        (Given(), (ROW,), ("row", "row", "row", "get")),
        (Given(), (ROW, ROW), ("row", "row", "row", "get")),
        (Given(url="https://set.example/client/api", method="post"), (ROW,), ("set", "row", "row", "post")),
        (Given(secret="set-secret"), (Given(ROW.url, ROW.key, ""),), ("row", "row", "set", "get")),
        (Given(), (Given(ROW.url, ROW.key, None),), ("cs", "cs", "cs", "get")),
        (Given(), (), ("cs", "cs", "cs", "get")),
        (Given(key="set-key", secret="set-secret"), (), ("cs", "set", "set", "get")),
    ],
)
def test_settings_win_over_the_row_and_the_row_over_cs(settings, rows, expected):
    found = resolve_endpoint(settings, rows, lambda: CS)
    url, key, secret, method = expected
    assert (found.url, found.key, found.secret, found.method) == (
        f"https://{url}.example/client/api",
        f"{key}-key",
        f"{secret}-secret",
        method,
    )
    assert (found.verify == "/ca.pem") is (url == "cs")


@pytest.mark.parametrize(
    ("settings", "rows", "says"),
    [
        (Given(), None, "can't be asked"),
        (Given(url="https://set.example/client/api"), None, "can't be asked"),
        (Given(), (ROW, Given("https://other.example", "k", "s")), "several"),
        (Given(), (Given(None, "k", "s"),), "lacks: url"),
    ],
)
def test_an_endpoint_that_cannot_be_told_is_not_guessed(settings, rows, says):
    with pytest.raises(CredentialsError, match=says):
        resolve_endpoint(settings, rows, lambda: CS)


def test_what_is_given_hides_who_we_are():
    assert "set-key" not in repr(SETTINGS)
    assert "set-secret" not in repr(SETTINGS)
