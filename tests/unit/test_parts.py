"""What happens where a part is missing: one line here, a failure in CI."""

from __future__ import annotations

import pytest

from tests.parts import require_part


def test_a_missing_part_skips_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(BaseException, match="MariaDB is missing") as caught:
        require_part("MariaDB", present=False)
    assert type(caught.value).__name__ == "Skipped"
    assert "\n" not in str(caught.value)


def test_a_missing_part_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(BaseException, match="nothing may be skipped") as caught:
        require_part("MariaDB", present=False)
    assert type(caught.value).__name__ == "Failed"


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_part_that_is_there_lets_the_test_run(ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    require_part("MariaDB", present=True)
