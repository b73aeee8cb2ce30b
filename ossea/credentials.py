"""Where CloudStack is and who we are there: an `Endpoint`, from settings, a configuration row, or what `cs` reads.

`resolve_endpoint` is the one rule for all programs, so that one settings file means one endpoint.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

Method = Literal["get", "post"]

_SETTINGS: Final = ("endpoint", "key", "secret", "method", "verify", "cert", "cert_key", "dangerous_no_tls_verify")
_HEADER_PREFIX: Final = "header_"
_TRUE: Final = frozenset({"y", "yes", "t", "true", "on", "1"})


class CredentialsError(ValueError):
    """No usable credentials; the text names the place and never a value."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One CloudStack API and one account on it."""

    url: str
    key: str = field(repr=False)
    secret: str = field(repr=False)
    method: Method = "get"
    """`post` for servers that enforce it for changes (4.21 and later)."""
    verify: bool | str = True
    """TLS: check the certificate, or the path of the CA bundle to check it against."""
    cert: str | None = None
    """TLS: path of a client certificate (PEM)."""
    cert_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        missing = [name for name, value in (("url", self.url), ("key", self.key), ("secret", self.secret)) if not value]
        if missing:
            raise CredentialsError(f"the CloudStack endpoint lacks: {', '.join(missing)}")
        if not self.url.startswith(("http://", "https://")):
            raise CredentialsError(f"the CloudStack endpoint must be an http:// or https:// address, not {self.url!r}")
        if self.method not in ("get", "post"):
            raise CredentialsError(f"method must be get or post, not {self.method!r}")

    def redact(self, text: str) -> str:
        """The text without the key or the secret, should a foreign answer echo one."""
        return text.replace(self.secret, "[secret]").replace(self.key, "[key]")


@dataclass(frozen=True, slots=True)
class Given:
    """What one place says about the endpoint: the settings, or a row of `ossea_configs`. Empty is as good as None."""

    url: str | None = None
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    method: Method = "get"

    @property
    def is_complete(self) -> bool:
        return bool(self.url and self.key and self.secret)

    def over(self, other: Given) -> Given:
        """What is given here wins, value by value; `post` of either place holds, as it is a server's demand."""
        return Given(
            url=self.url or other.url,
            key=self.key or other.key,
            secret=self.secret or other.secret,
            method="post" if "post" in (self.method, other.method) else "get",
        )


def resolve_endpoint(settings: Given, rows: Iterable[Given] | None, read_cs: Callable[[], Endpoint]) -> Endpoint:
    """The settings win, value by value, over the active rows of `ossea_configs`, which win over what `cs` reads.

    A row that lacks credentials even with the settings is no row; rows of one endpoint are one. `rows` None: the
    database can't be asked. Then settings that say everything are enough, and nothing else is: what `cs` reads may be
    another CloudStack than the row's. `read_cs` is called only where it decides. Raises `CredentialsError`.
    """
    if settings.is_complete:
        found = {settings}
    elif rows is None:
        raise CredentialsError("the database, which may name the CloudStack endpoint, can't be asked")
    else:
        found = {merged for row in rows if (merged := settings.over(row)).key and merged.secret}
    if len(found) > 1:
        raise CredentialsError("several rows of ossea_configs are active and differ; leave one active")
    for one in found:
        return Endpoint(url=one.url or "", key=one.key or "", secret=one.secret or "", method=one.method)
    read = read_cs()
    merged = settings.over(Given(read.url, read.key, read.secret, read.method))
    return replace(
        read,
        url=merged.url or "",
        key=merged.key or "",
        secret=merged.secret or "",
        method=merged.method,
    )


def read_cs_endpoint(profile: str | None, env: Mapping[str, str], cwd: Path | None = None) -> Endpoint:
    """The endpoint that the `cs` command would use, by the same variables, files and precedence.

    `CLOUDSTACK_*` variables alone when they name an endpoint and `CLOUDSTACK_OVERRIDES` is not set; else
    `~/.cloudstack.ini`, `./cloudstack.ini` and `$CLOUDSTACK_CONFIG` (the last wins) over the variables, except for
    the variables that `CLOUDSTACK_OVERRIDES` names. `profile` is the section; None: `CLOUDSTACK_REGION`, then
    `cloudstack`. Reads files: call it in a thread. Raises `CredentialsError`. Source: `cs.client.read_config`.
    """
    named = {key: env.get(f"CLOUDSTACK_{key.upper()}", "") for key in _SETTINGS}
    variables = {key: value for key, value in named.items() if value}
    overrides = env.get("CLOUDSTACK_OVERRIDES", "").strip()
    if overrides or "endpoint" not in variables:
        overriding = {name.lower() for name in re.split(r"\W+", overrides)}
        kept = {key: value for key, value in variables.items() if key in overriding}
        variables = variables | _read_files(profile, env, cwd or Path.cwd()) | kept
    return _build_endpoint(variables)


def _read_files(profile: str | None, env: Mapping[str, str], cwd: Path) -> dict[str, str]:
    home = env.get("HOME", "")
    paths = [Path(home) / ".cloudstack.ini"] if home else []
    paths.append(cwd / "cloudstack.ini")
    if "CLOUDSTACK_CONFIG" in env:
        paths.append(_expand(env["CLOUDSTACK_CONFIG"], home))
    if not any(path.exists() for path in paths):
        tried = ", ".join(str(path) for path in paths)
        raise CredentialsError(f"no CLOUDSTACK_ENDPOINT variable and no cloudstack.ini; tried {tried}")
    section = profile or env.get("CLOUDSTACK_REGION") or "cloudstack"
    parser = configparser.ConfigParser()
    try:
        parser.read(paths)
        if not parser.has_section(section):
            raise CredentialsError(f"no section [{section}] in any of {', '.join(map(str, paths))}")
        items = dict(parser.items(section))
    except (configparser.Error, UnicodeDecodeError) as error:
        # The parser's own text may quote a line, and with it a secret.
        raise CredentialsError(f"cloudstack.ini cannot be parsed: {type(error).__name__}") from None
    except OSError as error:
        raise CredentialsError(f"cannot read {error.filename}: {error.strerror}") from None
    return {
        key: value for key, value in items.items() if value and (key in _SETTINGS or key.startswith(_HEADER_PREFIX))
    }


def _expand(path: str, home: str) -> Path:
    return Path(home) / path[2:] if home and path.startswith("~/") else Path(path)


def _build_endpoint(values: Mapping[str, str]) -> Endpoint:
    method = values.get("method", "get").lower()
    if method not in ("get", "post"):
        raise CredentialsError(f"method must be get or post, not {method!r}")
    unverified = values.get("dangerous_no_tls_verify", "").lower() in _TRUE
    return Endpoint(
        url=values.get("endpoint", ""),
        key=values.get("key", ""),
        secret=values.get("secret", ""),
        method="post" if method == "post" else "get",
        verify=values.get("verify") or not unverified,
        cert=values.get("cert"),
        cert_key=values.get("cert_key"),
        headers={
            key.removeprefix(_HEADER_PREFIX): value for key, value in values.items() if key.startswith(_HEADER_PREFIX)
        },
    )
