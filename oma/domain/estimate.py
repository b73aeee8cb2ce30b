"""How long something is likely to take, as a value and in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, and what they rest on, in words."""

    seconds: float
    low: float
    high: float
    basis: str

    @property
    def words(self) -> str:
        """`about 35 s; 20 s to 2 min`."""
        return f"about {rough_words(self.seconds)}; {rough_words(self.low)} to {rough_words(self.high)}"

    def as_json(self) -> dict[str, float | str]:
        return {
            "seconds": round(self.seconds, 1),
            "low": round(self.low, 1),
            "high": round(self.high, 1),
            "basis": self.basis,
            "words": self.words,
        }


def rough_words(seconds: float) -> str:
    """As somebody would say it: `8 s`, `35 s`, `2 min`, `1 h 10 min`."""
    if seconds < 10:  # noqa: PLR2004  below, single seconds are told
        return f"{max(1, round(seconds))} s"
    if seconds < 90:  # noqa: PLR2004  a minute and a half is still told in seconds
        return f"{round(seconds / 5) * 5} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min"
