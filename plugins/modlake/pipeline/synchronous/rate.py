"""How fast to call: the rate that an account answers, and a token bucket that follows it."""

from __future__ import annotations

import asyncio
from collections import deque

# Calls arrive less evenly than they are sent, and a quota counts them where they arrive.
HEADROOM = 0.985
START_SHARE = 0.5
FLOOR_SHARE = 0.05
RAMP_SHARE_PER_SECOND = 0.15
GROWTH_SHARE_PER_SECOND = 0.075
LARGEST_CUT = 0.5

# Some refusals are noise that no lower rate would mend; a rate that is too high shows as more of them.
TOLERATED_SHARE = 0.2
SHORTEST_LOOK_SECONDS = 1.0
LONGEST_LOOK_SECONDS = 5.0
ENOUGH_ANSWERS = 40
REMEMBERED_ANSWERS = 200  # a bunch of calls that arrive together is no sign of a rate that is too high

CATCH_UP_SECONDS = 1.0
ARRIVAL_SECONDS = 0.01  # that much closer than they were sent may calls arrive


class AdaptiveRate:
    """Additive increase, multiplicative decrease of a rate in calls per second, never above the quota.

    It begins at half of the quota and grows by 15 % of it a second, by 7.5 % once it has been too high: then
    others use the quota as well, and are not to be pressed. When more than 20 % of the calls were
    throttled in two looks on end, the rate falls to what was admitted, by half at most; one bad look may come
    of a hiccup, after which calls arrive in a bunch.
    """

    def __init__(self, quota_per_second: float, now: float) -> None:
        self.quota_per_second = quota_per_second
        self._highest = quota_per_second * HEADROOM
        self.per_second = self._highest * START_SHARE
        self._looked_at = now
        self._answered = 0
        self._throttled = 0
        self._recent_share = 0.0
        self._last_was_bad = False
        self._growth = self._highest * RAMP_SHARE_PER_SECOND

    @property
    def is_too_high(self) -> bool:
        """Tell whether more of the latest calls were throttled than noise explains."""
        return self._recent_share > TOLERATED_SHARE

    def observe(self, *, throttled: bool, now: float) -> None:
        """Take note of a call's answer at ``now``, in seconds of any monotonic clock."""
        self._answered += 1
        self._throttled += throttled
        self._recent_share += (throttled - self._recent_share) / REMEMBERED_ANSWERS
        elapsed = now - self._looked_at
        if elapsed >= LONGEST_LOOK_SECONDS or (
            elapsed >= SHORTEST_LOOK_SECONDS and self._answered >= ENOUGH_ANSWERS
        ):
            self._adapt(elapsed)
            self._looked_at, self._answered, self._throttled = now, 0, 0

    def _adapt(self, elapsed: float) -> None:
        share = self._throttled / self._answered
        was_bad, self._last_was_bad = self._last_was_bad, share > TOLERATED_SHARE
        if not self._last_was_bad:
            growth = self._growth * min(elapsed, LONGEST_LOOK_SECONDS)
            self.per_second = min(self._highest, self.per_second + growth)
        elif was_bad:
            self._growth = self._highest * GROWTH_SHARE_PER_SECOND
            cut = self.per_second * max(LARGEST_CUT, 1 - share)
            self.per_second = max(cut, self._highest * FLOOR_SHARE)


class TokenBucket:
    """Lets calls through one by one at the present rate, and never more in a second than the quota.

    What a busy machine has missed, up to a second's worth, is caught up as far as that allows.
    """

    def __init__(self, rate: AdaptiveRate) -> None:
        self._rate = rate
        self._next_at = 0.0
        self._queue = asyncio.Lock()
        calls = max(1, int(rate.quota_per_second))
        self._latest: deque[float] = deque(maxlen=calls)
        self._shortest_seconds = calls / rate.quota_per_second + ARRIVAL_SECONDS

    async def take(self) -> None:
        """Wait for a call's turn, first come, first served."""
        loop = asyncio.get_running_loop()
        async with self._queue:
            self._next_at = max(self._next_at, loop.time() - CATCH_UP_SECONDS)
            turn = self._next_at
            if len(self._latest) == self._latest.maxlen:
                turn = max(turn, self._latest[0] + self._shortest_seconds)
            if turn > loop.time():
                await asyncio.sleep(turn - loop.time())
            self._latest.append(loop.time())
            self._next_at += 1 / self._rate.per_second
