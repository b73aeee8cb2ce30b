"""The signature, as Java computes it."""

from __future__ import annotations

import pytest

from ossea.simulator.signature import is_signed, java_encode, sign

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("~", "%7E"),
        ("*-._", "*-._"),
        ("(x)!'", "%28x%29%21%27"),
        ("сервер", "%D1%81%D0%B5%D1%80%D0%B2%D0%B5%D1%80"),
        ("a/b#7", "a%2Fb%237"),
    ],
)
def test_values_are_encoded_as_java_does(value: str, encoded: str) -> None:
    assert java_encode(value) == encoded


def test_signature_of_known_parameters() -> None:
    # HMAC-SHA1 with key "S" of: apikey=k&command=listvolumes&name=a%20b&response=json
    params = {"response": "json", "command": "listVolumes", "apiKey": "K", "name": "a b", "signature": "ignored"}
    assert sign(params, "S") == "3ezXz/4JJ7wj+wTv26MlktJNyMU="


def signed(secret: str = "S", **params: str) -> dict[str, str]:
    full = {"apiKey": "K", "command": "listZones", **params}
    return {**full, "signature": sign(full, secret)}


@pytest.mark.parametrize(
    ("params", "accepted"),
    [
        (signed(), True),
        (signed(signatureVersion="3", expires="2026-01-01T00:00:01+0000"), True),
        (signed(signatureVersion="3", expires="2026-01-01T01:00:01+0100"), True),
        (signed(signatureVersion="3", expires="2025-12-31T23:59:59+0000"), False),
        (signed(signatureVersion="3"), False),
        (signed(signatureVersion="3", expires="2026-01-01T00:00:01Z"), False),
        (signed(signatureVersion="3", expires="2026-13-01T00:00:01+0000"), False),
        (signed(expires="2025-12-31T23:59:59+0000"), True),
        (signed("wrong"), False),
        ({"apiKey": "K", "command": "listZones"}, False),
        ({**signed(), "apiKey": "other"}, False),
        ({**signed(), "name": "added later"}, False),
    ],
)
def test_who_is_let_in(params: dict[str, str], accepted: bool) -> None:
    assert is_signed(params, "K", "S", NOW) is accepted
