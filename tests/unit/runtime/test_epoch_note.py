"""What the state directory remembers: read whatever stands there, and written by several daemons at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oma.domain.epochs import Epoch, EpochState, find_older, highest_number
from oma.runtime.epoch_note import FILE_NAME, FileEpochNote

pytestmark = pytest.mark.rule("6-epochs")


async def test_what_was_noted_is_read_again_also_in_a_directory_that_was_not_there(tmp_path: Path) -> None:
    directory = tmp_path / "var" / "oma"
    assert await FileEpochNote(directory).read() is None
    await FileEpochNote(directory).write("oma:5", 40)
    noted = await FileEpochNote(directory).read()
    assert noted is not None
    assert (noted.text, noted.written) == ("oma:5", 40)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x80garbage",
        b"[" * 5000,
        b'{"epoch": "oma:5"}',
        b'{"epoch": "oma:5", "written": Infinity}',
        b'{"epoch": "oma:5", "written": 1%s}' % (b"0" * 30),
        b'{"epoch": "oma:%s", "written": 1}' % (b"9" * 30),
    ],
)
async def test_a_note_that_makes_no_sense_is_a_witness_that_a_person_can_accept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    noted = await FileEpochNote(tmp_path).read()
    assert noted is not None
    assert find_older(EpochState(5, 100), "oma", [noted]) is not None
    assert highest_number(5, [noted]) == 5
    assert find_older(EpochState(5, 100, accepted=(noted.text,)), "oma", [noted]) is None
    await FileEpochNote(tmp_path).write("oma:6", 101)
    noted = await FileEpochNote(tmp_path).read()
    assert noted is not None
    assert (noted.text, noted.written) == ("oma:6", 101)


async def test_two_daemons_in_one_directory_leave_a_whole_note_of_the_newer(tmp_path: Path) -> None:
    one, two = FileEpochNote(tmp_path), FileEpochNote(tmp_path)
    for turn in range(50):
        await asyncio.gather(one.write("oma:5", 100 + turn * 7), two.write("oma:1234567", 10**9 + turn))
        noted = await one.read()
        assert noted is not None
        assert Epoch.parse(noted.text) == Epoch("oma", 1234567)
        assert noted.written == 10**9 + turn


async def test_another_installations_note_is_written_over(tmp_path: Path) -> None:
    """A person has accepted it by then."""
    await FileEpochNote(tmp_path).write("hamburg:90", 900)
    await FileEpochNote(tmp_path).write("oma:2", 4)
    noted = await FileEpochNote(tmp_path).read()
    assert noted is not None
    assert (noted.text, noted.written) == ("oma:2", 4)
