from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oma.domain.errors import Code, OmaError
from oma.store.cursors import build_page, decode_cursor, decode_time, encode_cursor


@given(st.text(), st.integers(min_value=0, max_value=2**63 - 1))
def test_what_goes_in_comes_out_and_is_safe_in_a_url(text: str, number: int) -> None:
    cursor = encode_cursor("list", text, number)

    assert decode_cursor("list", cursor, (str, int)) == [text, number]
    assert all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in cursor)


@given(st.text())
def test_any_other_text_is_a_named_error(text: str) -> None:
    with pytest.raises(OmaError) as refused:
        decode_cursor("list", text, (str,))

    assert refused.value.code is Code.INVALID_REQUEST
    assert refused.value.fields["field"] == "cursor"


@pytest.mark.parametrize("value", [None, 1, "x", {}, ["list"], ["list", True], ["list", -1], ["list", 2**70], ["l", 1]])
def test_json_of_another_form_is_refused(value: object) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
    with pytest.raises(OmaError):
        decode_cursor("list", cursor, (int,))


@pytest.mark.parametrize("text", ["", "yesterday", "2026-03-01T00:00:00"])
def test_a_time_in_a_cursor_is_whole_and_has_a_zone(text: str) -> None:
    with pytest.raises(OmaError):
        decode_time(text)


def test_a_page_has_a_cursor_only_where_more_follows() -> None:
    assert build_page([1, 2, 3], 2, str).items == (1, 2)
    assert build_page([1, 2, 3], 2, str).next_cursor == "2"
    assert build_page([1, 2], 2, str).next_cursor is None
    assert build_page([], 2, str).items == ()
