"""What a restart may ask and send: the figure counts only where recovery asked no more than it requires."""

from __future__ import annotations

import pytest

from benchmarks.restart import find_excess

EPOCH = {"createTags": 1, "deleteTags": 1}


def test_a_look_at_each_job_and_the_epoch_are_not_too_much() -> None:
    assert find_excess({**EPOCH, "queryAsyncJobResult": 700, "listTags": 288, "questions to the V": 12}, 1000) is None


@pytest.mark.parametrize(
    ("calls", "word"),
    [
        ({"queryAsyncJobResult": 990, "listTags": 11}, "1001 times about 1000 jobs"),
        ({"revertSnapshot": 1}, "sent changes"),
        ({"createTags": 2}, "sent changes"),
    ],
)
def test_more_than_that_is_told(calls: dict[str, int], word: str) -> None:
    assert word in (find_excess(calls, 1000) or "")
