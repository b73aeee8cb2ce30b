"""Where CloudStack is and who we are there: an `Endpoint`, from a configuration row, settings, or what `cs` reads.

From an `ossea_configs` row: `Endpoint(url=row.api_url, key=row.api_key, secret=row.secret_key)`.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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
