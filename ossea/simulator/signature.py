"""The request signature as CloudStack checks it (`ApiServer.verifyRequest`)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

_EXPIRES = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}[+-]\d{4}")


def java_encode(value: str) -> str:
    """`URLEncoder.encode(value, "UTF-8")` with `+` as `%20`.

    Java leaves `A-Za-z0-9.-*_` as they are and, unlike Python, encodes `~`.
    """
    return quote(value, safe="*").replace("~", "%7E")


def sign(params: Mapping[str, str], secret: str) -> str:
    """Base64 of the HMAC-SHA1 over all parameters but `signature`, sorted by name, values encoded, lower-cased."""
    pairs = (f"{name}={java_encode(params[name])}" for name in sorted(params) if name.lower() != "signature")
    digest = hmac.new(secret.encode(), "&".join(pairs).lower().encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def is_signed(params: Mapping[str, str], api_key: str, secret: str, now: float) -> bool:
    """Whether the key is ours, the signature fits and, with `signatureVersion` 3, `expires` is not past at `now`."""
    given = {name.lower(): value for name, value in params.items()}
    signature = given.get("signature")
    if signature is None or given.get("apikey") != api_key:
        return False
    if given.get("signatureversion") == "3" and not _is_in_time(given.get("expires"), now):
        return False
    return hmac.compare_digest(signature.encode(), sign(params, secret).encode())


def _is_in_time(expires: str | None, now: float) -> bool:
    if expires is None or not _EXPIRES.fullmatch(expires):
        return False
    try:
        return datetime.strptime(expires, "%Y-%m-%dT%H:%M:%S%z").timestamp() >= now
    except ValueError:
        return False
