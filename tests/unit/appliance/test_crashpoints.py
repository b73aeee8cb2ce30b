"""A crash point does nothing unless code of the same process listens."""

from __future__ import annotations

import pytest

from appliance import crashpoints
from appliance.crashpoints import Change, CrashPoint, list_points, listening


@pytest.fixture(autouse=True)
def _own_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashpoints, "_points", set())


def test_a_point_that_nobody_listens_to_does_nothing() -> None:
    CrashPoint("test.alone").reach()


def test_a_listener_hears_the_points_around_a_change_in_order() -> None:
    change = Change("test.write")
    heard: list[str] = []
    with listening(heard.append), change:
        heard.append("written")
    change._before.reach()
    assert heard == ["test.write.before", "written", "test.write.after"]
    assert list_points("test.") == ["test.write.after", "test.write.before"]


def test_what_a_listener_raises_is_raised_at_the_point_and_the_change_is_not_made() -> None:
    def die(name: str) -> None:
        raise KeyError(name)

    done: list[str] = []
    with pytest.raises(KeyError, match=r"test\.write\.before"), listening(die), Change("test.write"):
        done.append("written")
    assert not done


def test_after_a_change_that_failed_the_second_point_is_not_reached() -> None:
    heard: list[str] = []
    with pytest.raises(OSError, match="full"), listening(heard.append), Change("test.write"):
        raise OSError("full")
    assert heard == ["test.write.before"]


def test_a_name_is_declared_once_and_one_listener_is_enough() -> None:
    CrashPoint("test.once")
    with pytest.raises(ValueError, match="twice"):
        CrashPoint("test.once")
    with listening(print), pytest.raises(RuntimeError, match="listens to the crash points already"), listening(print):
        pass


def test_nobody_listens_after_the_block() -> None:
    heard: list[str] = []
    point = CrashPoint("test.later")
    with listening(heard.append):
        pass
    point.reach()
    assert not heard
