"""How far an attempt has come, in numbers and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """What an attempt has done so far; ``resumed`` images were settled before it began.

    ``share_per_second`` is what it may use of the account's quota, ``started_at`` on the event loop's clock.
    """

    image_count: int
    share_per_second: float
    started_at: float
    resumed: int = 0
    judged: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    throttled: int = 0

    @property
    def answered(self) -> int:
        return self.judged + self.failures.total()

    def images_per_second(self, now: float) -> float:
        return self.answered / max(now - self.started_at, 0.001)

    def progress(self, now: float) -> str:
        """Return a line for a person who follows the log."""
        left = self.image_count - self.resumed - self.answered
        minutes_left = left / max(self.images_per_second(now), 0.001) / 60
        return (
            f"{self.resumed + self.answered:,} of {self.image_count:,} images, {self._speed(now)}, "
            f"{self.throttled / max(self.calls, 1):.1%} of calls throttled, {minutes_left:.1f} min left"
        )

    def summary(self, now: float) -> str:
        """Return the line that ends the log."""
        failed = ", ".join(f"{code} {count:,}" for code, count in sorted(self.failures.items())) or "none"
        return (
            f"{self.judged:,} images judged, {self.failures.total():,} failed ({failed}), {self.resumed:,} "
            f"settled before; {self._speed(now)}, {self.throttled:,} of {self.calls:,} calls throttled"
        )

    def _speed(self, now: float) -> str:
        per_second = self.images_per_second(now)
        used = per_second / self.share_per_second
        return f"{per_second:,.1f} images/s ({used:.0%} of this task's {self.share_per_second:g} calls/s)"
