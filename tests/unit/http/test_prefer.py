from __future__ import annotations

import pytest

from oma.domain.errors import OmaError
from oma.http.prefer import Waiting, read_prefer


@pytest.mark.parametrize(
    ("headers", "waiting"),
    [
        ([], Waiting(3300, None)),
        ([""], Waiting(3300, None)),
        (["respond-async"], Waiting(0, "respond-async")),
        (["Respond-Async"], Waiting(0, "respond-async")),
        (["wait=30"], Waiting(30, "wait=30")),
        (["wait = 30"], Waiting(30, "wait=30")),
        (['wait="30"; x=y'], Waiting(30, "wait=30")),
        (["wait=9000"], Waiting(3300, "wait=3300")),
        (["respond-async, wait=10"], Waiting(10, "wait=10")),
        (["respond-async", "wait=10"], Waiting(10, "wait=10")),
        (["wait=10, wait=20"], Waiting(10, "wait=10")),
        (["return=minimal, handling=lenient"], Waiting(3300, None)),
    ],
)
def test_what_is_preferred(headers: list[str], waiting: Waiting):
    assert read_prefer(headers, 3300) == waiting


@pytest.mark.parametrize(
    "header", ["wait", "wait=", "wait=x", "wait=-1", "wait=1e3", "wait=²", "respond-async=1", "nonsense", "=1", "a b"]
)
def test_what_can_not_be_meant(header: str):
    with pytest.raises(OmaError) as raised:
        read_prefer([header], 3300)
    assert raised.value.fields["field"] == "Prefer"
    assert "respond-async" in str(raised.value) or "wait=30" in str(raised.value)
